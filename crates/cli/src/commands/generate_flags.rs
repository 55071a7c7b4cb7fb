//! Flags that say what to generate and how, the same in every command.

use std::ops::RangeInclusive;

use anyhow::Result;
use clap::Args;
use clap::builder::RangedU64ValueParser;
use tastemaker_generate::GenerateSettings;
use tastemaker_math::{Sampler, number};
use tastemaker_store::dtype::DType;

use super::word;
use crate::exit::UsageError;
use crate::prompts::{Numbered, texts};

/// Prompts, typed or listed.
#[derive(Debug, Clone, Args)]
#[command(rename_all = "snake_case")]
pub struct PromptFlags {
    /// Prompt; repeat for several
    #[arg(long, value_name = "TEXT")]
    prompt: Vec<String>,
    /// List of prompts, added to --prompt: small (built in), demo, demo:train, demo:held-out, demo:TASK, or a file or
    /// folder of prompts
    #[arg(long, value_name = "NAME|FILE|DIR|ORG/NAME", alias = "from_file")]
    prompts: Option<String>,
}

impl PromptFlags {
    /// The prompts typed, then those of the file; blank lines are none.
    ///
    /// # Errors
    /// [`UsageError`] for no prompts; a file that cannot be read.
    pub fn read(&self) -> Result<Vec<Numbered>> {
        let typed = self.prompt.iter().enumerate();
        let mut prompts: Vec<Numbered> =
            typed.map(|(number, text)| Numbered { number, text: text.clone() }).collect();
        if let Some(file) = &self.prompts {
            prompts.extend(texts(file, prompts.len())?);
        }
        match prompts.is_empty() {
            true => {
                Err(UsageError("nothing to generate: give --prompt or a list with --prompts".into()).into())
            }
            false => Ok(prompts),
        }
    }
}

/// How images are generated; what is not given is as the command has it.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Generation", rename_all = "snake_case")]
pub struct GenerateFlags {
    /// Sampler (scheduler); names of diffusers, A1111 and ComfyUI are accepted [default: the model's own]
    #[arg(long, value_name = "NAME", alias = "scheduler", value_parser = |typed: &str| typed.parse::<Sampler>())]
    pub sampler: Option<Sampler>,
    /// Denoising steps [default: 50; SDXL-Turbo and similar models: 4]
    #[arg(long, value_name = "STEPS", alias = "steps")]
    pub num_inference_steps: Option<usize>,
    /// Scale of classifier-free guidance; 1 and below disables it [default: 7.5; SDXL: 5; SDXL-Turbo and similar models: 0]
    #[arg(long, value_name = "SCALE", alias = "cfg_scale")]
    pub guidance_scale: Option<f64>,
    /// Negative prompt for all images [default: empty]
    #[arg(long, value_name = "TEXT")]
    pub negative_prompt: Option<String>,
    /// Longest prompts in tokens: 75, or 150 or 225 encoded in chunks of 75 [default: 75, or that of the run]
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    pub max_token_length: Option<u32>,
    /// Images per forward pass [default: 4]
    #[arg(long, value_name = "COUNT")]
    pub batch_size: Option<usize>,
    /// Precision of weights and activations: no (fp32), bf16 or fp16; a VAE that overflows in fp16 stays in fp32
    #[arg(long, value_name = "TYPE", value_parser = word::<DType>, default_value = "no")]
    pub mixed_precision: DType,
}

/// How many images of a prompt there may be.
pub fn images_per_prompt() -> RangedU64ValueParser {
    RangedU64ValueParser::new().range(1..=1024)
}

/// The seeds of so many images of a prompt, which count up.
///
/// # Errors
/// [`UsageError`] for more than there are above the first.
pub fn seeds(first: u64, n_images: u64) -> Result<RangeInclusive<u64>, UsageError> {
    let last = first.checked_add(n_images.saturating_sub(1));
    last.map(|last| first..=last).ok_or_else(|| {
        UsageError(format!(
            "--seed is {first}; wanted at most {}, for {n_images} images",
            u64::MAX - (n_images - 1)
        ))
    })
}

/// How many tokens prompts may have.
///
/// # Errors
/// What is wanted.
pub fn tokens(typed: &str) -> Result<u32, String> {
    let known = [75, 150, 225].into_iter().find(|n: &u32| n.to_string() == typed);
    known.ok_or_else(|| "wanted 75, 150 or 225".to_owned())
}

impl GenerateFlags {
    /// Finds what nothing else would notice before hours of generating.
    ///
    /// # Errors
    /// [`UsageError`] for a scale that is no number, and for no steps or images.
    pub fn check(&self) -> Result<(), UsageError> {
        if let Some(scale) = self.guidance_scale.filter(|scale| !scale.is_finite()) {
            return Err(UsageError(format!("--guidance_scale is {}; wanted a number", number(scale))));
        }
        for (flag, value) in
            [("num_inference_steps", self.num_inference_steps), ("batch_size", self.batch_size)]
        {
            if value == Some(0) {
                return Err(UsageError(format!("--{flag} is 0; wanted at least 1")));
            }
        }
        Ok(())
    }

    /// What was typed, else these defaults.
    pub fn settings(&self, defaults: GenerateSettings) -> GenerateSettings {
        GenerateSettings {
            sampler: self.sampler.unwrap_or(defaults.sampler),
            n_steps: self.num_inference_steps.unwrap_or(defaults.n_steps),
            guidance_scale: self.guidance_scale.unwrap_or(defaults.guidance_scale),
            batch_size: self.batch_size.unwrap_or(defaults.batch_size),
            ..defaults
        }
    }
}
