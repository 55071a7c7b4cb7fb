//! The judge of the demo as a scorer of its own, for prompts that are captions of the embedded art.

use std::collections::HashMap;

use anyhow::Result;
use clap::ValueEnum;
use tastemaker_eval::EvalError;
use tastemaker_eval::scorers::{Item, Judge, Scorer, caption_of, nearest_art};

use super::art::{Art, STYLES};
use super::stage::gallery;
use super::task::{Task, TaskName};
use crate::exit::UsageError;

/// Scores images as the demo does for one of its tasks.
pub struct ArtJudge {
    name: String,
    task: TaskName,
    /// Whether it only says if an image is what the task wants, 1 or 0.
    counts: bool,
    art: Art,
    judge: Judge,
    captions: HashMap<String, usize>,
}

impl ArtJudge {
    /// The judge of a task of the demo, by its name; `quality`, which counts any style, if none is given. Behind a task with a target,
    /// `-share` makes the score 1 for an image that meets it, in the style wanted or of the motif forbidden, and 0 for others.
    ///
    /// # Errors
    /// [`UsageError`] for a task the demo does not have.
    pub fn open(task: Option<&str>) -> Result<Self> {
        let (asked, counts) = match task.and_then(|task| task.strip_suffix("-share")) {
            Some(asked) => (Some(asked), true),
            None => (task, false),
        };
        let name = match asked {
            Some(asked) => TaskName::from_str(asked, false).map_err(|_| {
                let known: Vec<&str> = TaskName::value_variants().iter().map(|task| task.name()).collect();
                UsageError(format!("the demo has no task `{asked}`; it has {}", known.join(", ")))
            })?,
            None => TaskName::Quality,
        };
        if counts && name.target_share().is_none() {
            return Err(UsageError(format!("the task {} has no target to count", name.name())).into());
        }
        let art = Art::open()?;
        let judge = Judge::new(&gallery(&art), art.captions.len(), STYLES.len())?;
        let captions = art.captions.iter().map(|caption| caption.label.clone()).zip(0..).collect();
        let label = task.map_or_else(String::new, |task| format!(":{task}"));
        Ok(Self {
            name: format!("{}{label}", nearest_art::ENTRY.name),
            task: name,
            counts,
            art,
            judge,
            captions,
        })
    }
}

impl Scorer for ArtJudge {
    fn name(&self) -> &str {
        &self.name
    }

    fn score(&self, items: &[Item<'_>]) -> Result<Vec<f64>, EvalError> {
        let task = Task::new(self.task, &self.art)
            .map_err(|error| EvalError::Scorer { scorer: self.name.clone(), what: format!("{error:#}") })?;
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
