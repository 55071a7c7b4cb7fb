//! Generating what is not there yet, one model in memory at a time.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;
use tastemaker_demo as demo;
use tastemaker_eval::compare::Sample;
use tastemaker_generate::{GenerateSettings, LoadedModel, OutputFile, OutputFiles, SampleRequest};
use tastemaker_models::pipeline::Model;
use tastemaker_store::atomic;
use tch::Device;

use super::samples::SampleSet;
use super::{CompareArgs, Replaced};
use crate::allocator;
use crate::commands::GenerateFlags;
use crate::models::{blamed, read_lora};
use crate::progress::{Work, counted};

/// How this model generates: what was typed; else what the demo uses for its prompts; else what the model's family does.
///
/// # Errors
/// Those of [`GenerateSettings::of`].
pub fn settings_of(model: &Model, args: &CompareArgs) -> Result<GenerateSettings> {
    let of_demo = args.prompts == "demo" || args.prompts.starts_with("demo:");
    let own = GenerateSettings::of(model)?;
    Ok(args.flags.settings(match of_demo {
        true => GenerateSettings {
            n_steps: demo::N_STEPS,
            guidance_scale: demo::GUIDANCE_SCALE,
            batch_size: demo::BATCH_SIZE,
            ..own
        },
        false => own,
    }))
}

/// What decides about images, beyond the order in which floats are summed, by the names of the flags.
pub fn recorded(
    settings: &GenerateSettings,
    flags: &GenerateFlags,
    shift: Option<f64>,
) -> BTreeMap<String, String> {
    let recorded = [
        ("sampler", settings.sampler.entry().label.to_owned()),
        ("num_inference_steps", settings.n_steps.to_string()),
        ("guidance_scale", settings.guidance_scale.to_string()),
        ("precision", flags.mixed_precision.to_string()),
    ];
    let negative = flags.negative_prompt.iter().map(|text| ("negative_prompt", text.clone()));
    let shift = shift.map(|shift| ("shift", shift.to_string()));
    recorded.into_iter().chain(negative).chain(shift).map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Where a generated image lies.
pub fn place(out: &Path, name: &str, sample: &Sample) -> PathBuf {
    out.join("images").join(name).join(format!("{:04}-{}.png", sample.prompt, sample.seed))
}

/// Generates the images of a model that are not there. What is there is left alone, but for what the first result replaces.
pub fn generate(
    name: &str,
    (model, lora): (&Model, Option<&Path>),
    settings: &GenerateSettings,
    set: &SampleSet,
    args: &CompareArgs,
    device: Device,
    replaced: &Replaced<'_>,
) -> Result<()> {
    let file = |index: usize| OutputFile {
        request: SampleRequest { negative_prompt: args.flags.negative_prompt.clone(), ..set.request(index) },
        path: place(&args.out, name, &set.samples[index]),
        parameters: None,
    };
    let files = (0..set.samples.len()).map(file).collect();
    let files = if replaced.is_there() { OutputFiles::anew(files) } else { OutputFiles::keeping(files) };
    let n_missing = files.n_missing();
    if n_missing == 0 {
        println!("{name}: all {} already generated", counted(files.len() as u64, "image"));
        return Ok(());
    }
    let there = files.len() - n_missing;
    println!("{name}: generating {}, {there} already generated", counted(n_missing as u64, "image"));
    allocator::suit(model)?;
    let lora = lora.map(|lora| read_lora(lora, model)).transpose()?;
    let loaded = LoadedModel::open(model, lora, files.texts(), args.flags.mixed_precision, device)?;
    let (mut work, mut done) = (Work::new("generating", "images"), 0);
    let ready = || {
        replaced.make_way()?;
        Ok(atomic::create_folder(args.out.join("images").join(name))?)
    };
    let generated = files.write(&loaded.generator, loaded.networks(), settings, ready, |_, _| {
        done += 1;
        work.at(done, n_missing as u64);
        anyhow::Ok(())
    });
    generated.map_err(|error| blamed(error, name))?;
    work.end();
    Ok(())
}
