//! Generating what is not there yet, one model in memory at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tastemaker_eval::compare::Question;
use tastemaker_eval::generate::{GenerateSettings, Generator, Job};
use tastemaker_math::Sampler;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_store::atomic;
use tastemaker_torch::Precision;
use tastemaker_torch::error::guard;
use tastemaker_train::precision_of;
use tch::Device;

use super::CompareArgs;
use super::asked::Asked;
use crate::allocator;
use crate::demo::stage;
use crate::images;
use crate::progress::Work;

/// How a model generates.
#[derive(Debug, Clone)]
pub struct Generating {
    /// How steps are taken.
    pub sampler: Sampler,
    /// What guidance leads away from.
    pub negative_prompt: Option<String>,
    /// Steps of the sampler.
    pub n_steps: usize,
    /// Guidance.
    pub guidance_scale: f64,
    /// Images per forward pass.
    pub batch_size: usize,
    /// Type of weights and activations.
    pub precision: Precision,
}

impl Generating {
    /// What was typed; else what the demo uses for its prompts; else what evaluations of the model's family use: 50 steps,
    /// guidance 7.5, and 5 for SDXL as in `SalesforceAIResearch/DiffusionDPO`.
    pub fn of(model: &Model, args: &CompareArgs) -> Self {
        let of_demo = args.prompts == "demo" || args.prompts.starts_with("demo:");
        let (n_steps, guidance_scale, batch_size) = match (of_demo, model.family()) {
            (true, _) => (stage::N_STEPS, stage::GUIDANCE_SCALE, stage::BATCH_SIZE),
            (false, Family::StableDiffusionXl) => (50, 5.0, 4),
            (false, Family::StableDiffusion) => (50, 7.5, 4),
        };
        let flags = &args.flags;
        Self {
            sampler: flags.sampler,
            negative_prompt: flags.negative_prompt.clone(),
            n_steps: flags.num_inference_steps.unwrap_or(n_steps),
            guidance_scale: flags.guidance_scale.unwrap_or(guidance_scale),
            batch_size: flags.batch_size.unwrap_or(batch_size),
            precision: precision_of(flags.mixed_precision),
        }
    }

    /// What decides about images, beyond the order in which floats are summed, by the names of the flags.
    pub fn facts(&self) -> BTreeMap<String, String> {
        let facts = [
            ("sampler", self.sampler.entry().label.to_owned()),
            ("num_inference_steps", self.n_steps.to_string()),
            ("guidance_scale", self.guidance_scale.to_string()),
            ("precision", format!("{:?}", self.precision).to_lowercase()),
        ];
        let negative = self.negative_prompt.iter().map(|text| ("negative_prompt", text.clone()));
        facts.into_iter().chain(negative).map(|(name, value)| (name.to_owned(), value)).collect()
    }

    fn settings(&self) -> GenerateSettings {
        GenerateSettings {
            sampler: self.sampler,
            n_steps: self.n_steps,
            guidance_scale: self.guidance_scale,
            batch_size: self.batch_size,
            ..GenerateSettings::default()
        }
    }
}

/// Where a generated image lies.
pub fn place(out: &Path, name: &str, question: &Question) -> PathBuf {
    out.join("images").join(name).join(format!("{:04}-{}.png", question.prompt, question.seed))
}

/// Generates the images of a model that are not there. What is there is left alone.
///
/// Images are generated in the same batches whatever is missing, so that one generated later is the same to the last bit.
pub fn generate(
    name: &str,
    model: &Model,
    lora: Option<&Path>,
    generating: &Generating,
    asked: &Asked,
    (out, device): (&Path, Device),
) -> Result<()> {
    let is_missing = |&question: &usize| !place(out, name, &asked.questions[question]).is_file();
    let all: Vec<usize> = (0..asked.questions.len()).collect();
    let missing = all.iter().filter(|question| is_missing(question)).count();
    if missing == 0 {
        println!("{name}: all {} images are there", all.len());
        return Ok(());
    }
    println!("{name}: generating {missing} images, {} are there", all.len() - missing);
    atomic::create_folder(out.join("images").join(name))?;
    allocator::suit(model)?;
    let lora = lora.map(|lora| LoraFile::read_for(lora, model)).transpose()?;
    let (lora, text_loras) = lora.map(LoraFile::into_specs).unwrap_or_default();
    let generator = Generator::adapted(model, text_loras, generating.precision, device)?;
    let unet = model.unet(Role::Frozen, generating.precision, device, lora)?.network;

    let mut work = Work::new("generating", "images");
    let mut done = 0;
    for batch in all.chunks(generating.batch_size) {
        let wanted: Vec<usize> = batch.iter().copied().filter(is_missing).collect();
        if wanted.is_empty() {
            continue;
        }
        let job = |&question: &usize| Job {
            negative_prompt: generating.negative_prompt.clone(),
            ..asked.job(question)
        };
        let jobs: Vec<Job> = batch.iter().map(job).collect();
        let doing =
            format!("generating {} images at once (a smaller --batch_size needs less memory)", jobs.len());
        let settings = generating.settings();
        let generated = guard(&doing, || tch::no_grad(|| generator.generate(&unet, &jobs, &settings)))??;
        for (question, image) in batch.iter().zip(generated).filter(|(question, _)| wanted.contains(question))
        {
            images::write(&place(out, name, &asked.questions[*question]), &image)?;
        }
        done += wanted.len();
        work.at(done as u64, missing as u64);
    }
    work.end();
    Ok(())
}
