//! The demo's captions and questions, for other commands.

use anyhow::Result;
use clap::ValueEnum;
use tastemaker_eval::compare::Sample;
use tastemaker_eval::winrate::Group;
use tastemaker_generate::prompts::PromptSet;

use super::art::{Art, Split};
use super::stage;
use super::task::{Task, TaskName};
use crate::exit::UsageError;

/// What the demo asks in one of its tasks.
pub struct Questions {
    /// The captions asked for, the category being `held out` or `seen`.
    pub set: PromptSet,
    /// Each image, with the number of its noise, in the demo's order.
    pub questions: Vec<(Sample, u64)>,
}

/// The held-out captions of the embedded art.
pub fn captions() -> Result<PromptSet> {
    let art = Art::open()?;
    let held_out =
        art.on(Split::HeldOut).into_iter().map(|caption| (art.captions[caption].label.clone(), None));
    Ok(PromptSet::new("demo", held_out.collect::<Vec<_>>()))
}

/// Exactly what `tastemaker demo --task TASK --seed SEED` asks.
///
/// # Errors
/// [`UsageError`] for a task the demo does not have.
pub fn questions(task: &str, seed: u64) -> Result<Questions> {
    let name = TaskName::from_str(task, false).map_err(|_| {
        let known: Vec<&str> = TaskName::value_variants().iter().map(|task| task.name()).collect();
        UsageError(format!("the demo has no task `{task}`; it has {}", known.join(", ")))
    })?;
    let art = Art::open()?;
    let task = Task::new(name, &art)?;
    let asked = stage::questions(&task, seed, false);
    let mut captions: Vec<(Group, usize)> =
        asked.iter().map(|question| (question.group, question.caption)).collect();
    captions.sort_unstable();
    captions.dedup();
    let rows = captions
        .iter()
        .map(|(group, caption)| (art.captions[*caption].label.clone(), Some(group.label().to_owned())));
    let set = PromptSet::new(&format!("demo:{}", name.name()), rows);
    let mut questions = Vec::with_capacity(asked.len());
    for (number, question) in asked.iter().enumerate() {
        if let Ok(prompt) = captions.binary_search(&(question.group, question.caption)) {
            questions.push((Sample { prompt, seed: question.seed }, number as u64));
        }
    }
    Ok(Questions { set, questions })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_of_the_demo_is_there_with_its_noise() {
        let Questions { set, questions } = questions("style", 3).unwrap();
        let art = Art::open().unwrap();
        let task = Task::new(TaskName::Style, &art).unwrap();
        let asked = stage::questions(&task, 3, false);
        assert_eq!(asked.len(), questions.len());
        for (number, (asked, (question, noise))) in asked.iter().zip(&questions).enumerate() {
            let prompt = &set.prompts[question.prompt];
            assert_eq!(prompt.text, art.captions[asked.caption].label);
            assert_eq!(prompt.category.as_deref(), Some(asked.group.label()));
            assert_eq!((question.seed, *noise), (asked.seed, number as u64));
        }
    }
}
