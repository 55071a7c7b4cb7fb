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

/// Scores pictures as the demo does for one of its tasks.
pub struct ArtJudge {
    name: String,
    task: TaskName,
    art: Art,
    judge: Judge,
    captions: HashMap<String, usize>,
}

impl ArtJudge {
    /// The judge of a task of the demo, by its name; `quality`, which counts any style, if none is given.
    ///
    /// # Errors
    /// [`UsageError`] for a task the demo does not have.
    pub fn open(task: Option<&str>) -> Result<Self> {
        let name = match task {
            Some(task) => TaskName::from_str(task, false).map_err(|_| {
                let known: Vec<&str> = TaskName::value_variants().iter().map(|task| task.name()).collect();
                UsageError(format!("the demo has no task `{task}`; it has {}", known.join(", ")))
            })?,
            None => TaskName::Quality,
        };
        let art = Art::open()?;
        let judge = Judge::new(&gallery(&art), art.captions.len(), STYLES.len())?;
        let captions = art.captions.iter().map(|caption| caption.label.clone()).zip(0..).collect();
        let label = task.map_or_else(String::new, |task| format!(":{task}"));
        Ok(Self { name: format!("{}{label}", nearest_art::ENTRY.name), task: name, art, judge, captions })
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
            Ok(task.score(&self.judge.read(item.image), caption))
        };
        items.iter().map(score).collect()
    }
}
