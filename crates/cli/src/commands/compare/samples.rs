//! The samples that every model generates: prompts, seeds, noise.

use anyhow::Result;
use tastemaker_demo::prompts as demo;
use tastemaker_eval::compare::Sample;
use tastemaker_generate::SampleRequest;
use tastemaker_generate::prompts::{self, PromptSet};

use super::CompareArgs;
use crate::commands::seeds;
use crate::exit::UsageError;
use crate::prompts::find;

/// A set of prompts and the images wanted of them.
pub struct SampleSet {
    /// The whole set of prompts, also where only some are used.
    pub prompts: PromptSet,
    /// The images, by number of the prompt and seed.
    pub samples: Vec<Sample>,
    /// The noise of each image, beside its seed.
    pub noise: Vec<u64>,
    /// How samples come by their noise, in words.
    pub rule: &'static str,
}

impl SampleSet {
    /// The text of a sample's prompt.
    pub fn prompt(&self, sample: usize) -> &str {
        &self.prompts.prompts[self.samples[sample].prompt].text
    }

    /// A sample as something to generate.
    pub fn request(&self, sample: usize) -> SampleRequest {
        SampleRequest {
            prompt: self.prompt(sample).to_owned(),
            seed: self.samples[sample].seed,
            number: self.noise[sample],
            ..SampleRequest::default()
        }
    }

    /// Keeps these samples alone.
    pub fn keep(&mut self, keep: &[bool]) {
        let mut kept = keep.iter();
        self.samples.retain(|_| kept.next().copied().unwrap_or(false));
        let mut kept = keep.iter();
        self.noise.retain(|_| kept.next().copied().unwrap_or(false));
    }
}

/// The samples that the flags ask for.
///
/// The noise of an image depends on its seed alone, as in `tastemaker sample` and in the scripts of the papers; the demo has a
/// rule of its own.
pub fn open(args: &CompareArgs) -> Result<SampleSet> {
    let wanted = |set: &PromptSet| prompts::select(set, &args.category, args.n_prompts).map_err(UsageError);
    let is_task = demo::captions(&args.prompts)?.is_none();
    if let Some(task) = args.prompts.strip_prefix("demo:").filter(|_| is_task) {
        if args.num_images_per_prompt.is_some() {
            let said =
                "--num_images_per_prompt: the demo decides that; give --prompts demo for its captions alone";
            return Err(UsageError(said.into()).into());
        }
        let demo::Samples { set: prompts, samples, .. } = demo::samples(task, args.seed)?;
        let wanted = wanted(&prompts)?;
        let samples = samples.into_iter().zip(0..).filter(|(sample, _)| wanted.contains(&sample.prompt));
        let (samples, noise) = samples.unzip();
        return Ok(SampleSet { prompts, samples, noise, rule: "as the demo has it" });
    }
    let prompts = find(&args.prompts)?;
    let seeds = seeds(args.seed, args.num_images_per_prompt.unwrap_or(1))?;
    let samples: Vec<Sample> = wanted(&prompts)?
        .into_iter()
        .flat_map(|prompt| seeds.clone().map(move |seed| Sample { prompt, seed }))
        .collect();
    let noise = vec![0; samples.len()];
    Ok(SampleSet { prompts, samples, noise, rule: "by seed alone" })
}
