//! The judge of the demo as a scorer of its own, for prompts that are captions of the embedded art.

use std::collections::HashMap;

use tastemaker_eval::EvalError;
use tastemaker_eval::scorers::{Item, Scorer, caption_of};

use super::{Judge, NEAREST_ART};
use crate::DemoError;
use crate::art::{Art, STYLES};
use crate::task::{Task, TaskName};

/// Scores images as the demo does for one of its tasks.
pub struct ArtScorer {
    name: String,
    task: TaskName,
    /// Whether it only says if an image is what the task wants, 1 or 0.
    counts: bool,
    art: Art,
    judge: Judge,
    captions: HashMap<String, usize>,
}

impl ArtScorer {
    /// The judge of a task of the demo, by its name; `quality`, which counts any style, if none is given. After a task with a target,
    /// `-fraction` makes the score 1 for an image that meets it, in the style wanted or of the motif forbidden, and 0 for others.
    ///
    /// # Errors
    /// [`DemoError::Usage`] for a task the demo does not have.
    pub fn open(task: Option<&str>) -> Result<Self, DemoError> {
        // `-share` is the name of earlier versions.
        let counted =
            task.and_then(|task| task.strip_suffix("-fraction").or_else(|| task.strip_suffix("-share")));
        let name: TaskName = counted.or(task).map_or(Ok(TaskName::Quality), str::parse)?;
        if counted.is_some() && name.target().is_none() {
            return Err(DemoError::Usage(format!("the task {} has no target to count", name.name())));
        }
        let art = Art::open()?;
        let judge = Judge::new(&art.gallery(), art.captions.len(), STYLES.len())?;
        let captions = art.labels().into_iter().zip(0..).collect();
        let label = task.map_or_else(String::new, |task| format!(":{task}"));
        let counts = counted.is_some();
        Ok(Self { name: format!("{}{label}", NEAREST_ART.name), task: name, counts, art, judge, captions })
    }
}

impl Scorer for ArtScorer {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        let task = Task::new(self.task, &self.art)
            .map_err(|error| EvalError::Scorer { scorer: self.name.clone(), what: error.to_string() })?;
        let score = |item: &Item<'_>| {
            let caption = caption_of(&self.captions, item.prompt)?;
            let reading = self.judge.read(item.image);
            Ok(match self.counts {
                true => f64::from(u8::from(task.meets_target(&reading, caption) == Some(true))),
                false => task.score(&reading, caption),
            })
        };
        items.iter().map(score).collect()
    }
}
