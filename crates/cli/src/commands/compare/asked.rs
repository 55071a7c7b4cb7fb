//! What everybody is asked: prompts, seeds, noise.

use anyhow::Result;
use tastemaker_eval::compare::Question;
use tastemaker_eval::generate::Job;
use tastemaker_eval::prompts::{self, PromptSet};

use super::CompareArgs;
use crate::demo::prompts as demo;
use crate::exit::UsageError;
use crate::hub::locate_dataset;

/// A set of prompts and the images wanted of them.
pub struct Asked {
    /// The whole set, also where only some are asked.
    pub set: PromptSet,
    /// The images, by number of the prompt and seed.
    pub questions: Vec<Question>,
    /// The noise of each image, beside its seed.
    pub noise: Vec<u64>,
    /// How prompts come by their noise, in words.
    pub rule: &'static str,
}

impl Asked {
    /// The text of a question.
    pub fn prompt(&self, question: usize) -> &str {
        &self.set.prompts[self.questions[question].prompt].text
    }

    /// A question as something to generate.
    pub fn job(&self, question: usize) -> Job {
        Job {
            prompt: self.prompt(question).to_owned(),
            seed: self.questions[question].seed,
            number: self.noise[question],
            ..Job::default()
        }
    }

    /// Keeps these questions alone.
    pub fn keep(&mut self, keep: &[bool]) {
        let mut kept = keep.iter();
        self.questions.retain(|_| kept.next().copied().unwrap_or(false));
        let mut kept = keep.iter();
        self.noise.retain(|_| kept.next().copied().unwrap_or(false));
    }
}

/// The questions that the flags ask for.
///
/// The noise of an image depends on its seed alone, as in `tastemaker sample` and in the scripts of the papers; the demo has a
/// rule of its own.
pub fn open(args: &CompareArgs) -> Result<Asked> {
    let wanted = |set: &PromptSet| prompts::select(set, &args.category, args.n_prompts).map_err(UsageError);
    if let Some(task) = args.prompts.strip_prefix("demo:") {
        if args.num_images_per_prompt.is_some() {
            let said =
                "--num_images_per_prompt: the demo decides that; give --prompts demo for its captions alone";
            return Err(UsageError(said.into()).into());
        }
        let demo::Questions { set, questions } = demo::questions(task, args.seed)?;
        let wanted = wanted(&set)?;
        let questions = questions.into_iter().filter(|(question, _)| wanted.contains(&question.prompt));
        let (questions, noise) = questions.unzip();
        return Ok(Asked { set, questions, noise, rule: "as the demo has it" });
    }
    let set = match args.prompts.as_str() {
        "small" => PromptSet::small()?,
        "demo" => demo::captions()?,
        place => prompts::read(locate_dataset(place)?.unwrap_or_else(|| place.into()))?,
    };
    let seeds = args.seed..args.seed.saturating_add(args.num_images_per_prompt.unwrap_or(1));
    let questions: Vec<Question> = wanted(&set)?
        .into_iter()
        .flat_map(|prompt| seeds.clone().map(move |seed| Question { prompt, seed }))
        .collect();
    let noise = vec![0; questions.len()];
    Ok(Asked { set, questions, noise, rule: "by seed alone" })
}
