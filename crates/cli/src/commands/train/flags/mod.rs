//! The flags of `tastemaker train`, and the recipe they make.
//!
//! Names are those of the diffusers training scripts, so that published commands paste in.

mod training;

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;
use tastemaker_math::objectives::{Entry, OBJECTIVES};
use tastemaker_run::{
    AdapterKind, AdapterSection, Augment, DataSection, MethodSection, ModelSection, OutputType, Overrides,
    TimeIds,
};

use crate::commands::data::ReadingFlags;
use crate::commands::parts::PartFlags;
use crate::commands::word;
use crate::exit::UsageError;
use training::{CheckpointFlags, LoggingFlags, OptimizerFlags, OutputFlags, TrainFlags, ValidationFlags};

/// The layers of text encoders that `--train_text_encoder` adapts.
///
/// Source: `text_lora_config` of diffusers' train_dreambooth_lora_sdxl.py.
const TEXT_TARGETS: [&str; 4] = ["q_proj", "k_proj", "v_proj", "out_proj"];

/// Everything a recipe can say.
#[derive(Debug, Default, Args)]
pub struct Flags {
    /// Where results go
    #[arg(long = "output_dir", value_name = "DIR")]
    output_dir: Option<PathBuf>,
    #[command(flatten)]
    model: ModelFlags,
    #[command(flatten)]
    data: DataFlags,
    #[command(flatten)]
    method: MethodFlags,
    #[command(flatten)]
    adapter: AdapterFlags,
    #[command(flatten)]
    optimizer: OptimizerFlags,
    #[command(flatten)]
    train: TrainFlags,
    #[command(flatten)]
    validation: ValidationFlags,
    #[command(flatten)]
    checkpoint: CheckpointFlags,
    #[command(flatten)]
    logging: LoggingFlags,
    #[command(flatten)]
    output: OutputFlags,
}

impl Flags {
    /// The flags as a recipe that lies over the recipe, whose method is `recipe_method`.
    ///
    /// # Errors
    /// [`UsageError`] for a setting typed under the name of another method.
    pub fn overrides(self, recipe_method: Option<&str>) -> Result<Overrides, UsageError> {
        let is_turbo = self.model.is_turbo;
        Ok(Overrides {
            output_dir: self.output_dir,
            model: self.model.section(),
            data: self.data.section(),
            method: self.method.section(recipe_method)?,
            adapter: self.adapter.section(),
            optimizer: self.optimizer.section(),
            train: self.train.section(is_turbo),
            validation: self.validation.section(),
            checkpoint: self.checkpoint.section(),
            logging: self.logging.section(),
            output: self.output.section(),
        })
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Model", rename_all = "snake_case")]
struct ModelFlags {
    /// The model to align: a folder in diffusers layout, a single-file checkpoint, or the name of a fetched one
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    pretrained_model_name_or_path: Option<String>,
    #[command(flatten)]
    parts: PartFlags,
    /// Train on a schedule whose last timestep is pure noise
    #[arg(long, alias = "zero_terminal_snr")]
    rescale_betas_zero_snr: bool,
    /// As SDXL-Turbo is trained: --rescale_betas_zero_snr --timesteps 249,499,749,999
    #[arg(long, conflicts_with = "timesteps")]
    is_turbo: bool,
}

impl ModelFlags {
    fn section(self) -> ModelSection {
        ModelSection {
            rescale_betas_zero_snr: (self.rescale_betas_zero_snr || self.is_turbo).then_some(true),
            ..self.parts.section(self.pretrained_model_name_or_path)
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Data", rename_all = "snake_case")]
struct DataFlags {
    /// The pairs: a folder or file in any layout of docs/guide/data.md, the address of one, such as s3://bucket/folder/, or
    /// the name of a fetched dataset
    #[arg(long, alias = "dataset_name", value_name = "DIR|FILE|ADDRESS|ORG/NAME")]
    train_data_dir: Option<String>,
    /// Which configuration of a dataset that has several: a folder in it
    #[arg(long, value_name = "NAME")]
    dataset_config_name: Option<String>,
    /// Which split of a dataset that has several, such as train or validation
    #[arg(long, value_name = "NAME")]
    dataset_split_name: Option<String>,
    #[command(flatten)]
    reading: ReadingFlags,
    /// The column of captions, as --columns caption=NAME
    #[arg(long, value_name = "NAME", hide = true)]
    caption_column: Option<String>,
    /// Rows to skip, as `tastemaker data check --fix` lists them
    #[arg(long, value_name = "FILE")]
    exclude: Option<PathBuf>,
    /// Side of the square images, in pixels, a multiple of 8 [default: 512]
    #[arg(long, value_name = "PIXELS")]
    resolution: Option<u32>,
    /// Share of captions never trained on [default: 0.05]
    #[arg(long, value_name = "SHARE")]
    held_out_fraction: Option<f64>,
    /// Put images into frames of several aspect ratios, all of about as many pixels
    #[arg(long)]
    enable_bucket: bool,
    /// Sides of those frames are multiples of this [default: 64]
    #[arg(long, value_name = "PIXELS")]
    bucket_reso_steps: Option<u32>,
    /// Their shortest side [default: half the resolution]
    #[arg(long, value_name = "PIXELS")]
    min_bucket_reso: Option<u32>,
    /// Their longest side [default: twice the resolution]
    #[arg(long, value_name = "PIXELS")]
    max_bucket_reso: Option<u32>,
    /// Do not flip images horizontally at random
    #[arg(long)]
    no_hflip: bool,
    /// Keep a random part of each image, not its middle; needs --no_cache
    #[arg(long)]
    random_crop: bool,
    /// Draw flips and crops for winner and loser: independent, or joint [default: independent, with buckets joint]
    #[arg(long, value_name = "KIND", value_parser = word::<Augment>)]
    augment: Option<Augment>,
    /// Share of pairs trained with the empty caption [default: 0]
    #[arg(long, value_name = "SHARE")]
    proportion_empty_prompts: Option<f64>,
    /// What SDXL is told about sizes: constant, or real for the winner's own [default: constant]
    #[arg(long, value_name = "KIND", value_parser = word::<TimeIds>)]
    time_ids: Option<TimeIds>,
    /// Folder for encoded pairs [default: one of its own in the user's cache]
    #[arg(long, value_name = "DIR")]
    cache_to: Option<PathBuf>,
    /// Element type of cached latents: float32, float16, bfloat16 [default: float32]
    #[arg(long, value_name = "TYPE", value_parser = word::<OutputType>)]
    cache_dtype: Option<OutputType>,
    /// Encode pairs whenever they are used, and keep nothing
    #[arg(long)]
    no_cache: bool,
    /// Threads that decode images; 0 is one for each processor [default: 0]
    #[arg(long, value_name = "N")]
    dataloader_num_workers: Option<u32>,
}

impl DataFlags {
    fn section(self) -> DataSection {
        let caption = self.caption_column.map(|name| ("caption".to_owned(), name));
        let columns: BTreeMap<String, String> = caption.into_iter().chain(self.reading.columns).collect();
        DataSection {
            train_data_dir: self.train_data_dir,
            dataset_config_name: self.dataset_config_name,
            dataset_split_name: self.dataset_split_name,
            format: self.reading.format,
            columns: (!columns.is_empty()).then_some(columns),
            exclude: self.exclude,
            resolution: self.resolution,
            held_out_fraction: self.held_out_fraction,
            enable_bucket: self.enable_bucket.then_some(true),
            bucket_reso_steps: self.bucket_reso_steps,
            min_bucket_reso: self.min_bucket_reso,
            max_bucket_reso: self.max_bucket_reso,
            no_hflip: self.no_hflip.then_some(true),
            random_crop: self.random_crop.then_some(true),
            augment: self.augment,
            proportion_empty_prompts: self.proportion_empty_prompts,
            time_ids: self.time_ids,
            cache_to: self.cache_to,
            cache_dtype: self.cache_dtype,
            no_cache: self.no_cache.then_some(true),
            dataloader_num_workers: self.dataloader_num_workers,
        }
    }
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Method", rename_all = "snake_case")]
struct MethodFlags {
    #[arg(long, value_name = "NAME", help = format!("The preference method: {}", methods(|_| true)))]
    method: Option<String>,
    /// The same as --method sft
    #[arg(long, conflicts_with = "method")]
    sft: bool,
    /// A setting of the method; repeat for several
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    set: Vec<(String, Value)>,
    /// Strength of diffusion-dpo and its relatives, for mean squared errors [default: the method's own]
    #[arg(long, value_name = "BETA")]
    beta_dpo: Option<f64>,
    /// Weight of mapo's margin [default: 0.1]
    #[arg(long, value_name = "BETA", alias = "mapo_beta")]
    beta_mapo: Option<f64>,
    /// Scale of the errors in mapo's form release [default: 0.5]
    #[arg(long, value_name = "VALUE")]
    snr_value: Option<f64>,
}

impl MethodFlags {
    fn section(self, recipe_method: Option<&str>) -> Result<MethodSection, UsageError> {
        let name = if self.sft { Some("sft".to_owned()) } else { self.method };
        let method = name.as_deref().or(recipe_method).unwrap_or("not chosen");
        let mut section = MethodSection { name: name.clone(), ..MethodSection::default() };
        for (flag, value) in
            [("beta_dpo", self.beta_dpo), ("beta_mapo", self.beta_mapo), ("snr_value", self.snr_value)]
        {
            let Some(value) = value else { continue };
            let entry = OBJECTIVES.iter().find(|entry| entry.name == method);
            let Some(key) = entry.and_then(|entry| entry.short_for(flag)) else {
                let owners = methods(|entry| entry.short_for(flag).is_some());
                let message = format!("--{flag} is a setting of {owners}, and the method is {method}");
                return Err(UsageError(message));
            };
            section.settings.insert(key.to_owned(), Value::from(value));
        }
        section.settings.extend(self.set);
        Ok(section)
    }
}

/// The names of the methods that are such, with commas between.
fn methods(is_such: impl Fn(&Entry) -> bool) -> String {
    let names: Vec<&str> = OBJECTIVES.iter().filter(|entry| is_such(entry)).map(|entry| entry.name).collect();
    names.join(", ")
}

#[derive(Debug, Default, Args)]
#[command(next_help_heading = "What learns", rename_all = "snake_case")]
struct AdapterFlags {
    /// lora or full [default: lora]
    #[arg(long, value_name = "KIND", value_parser = word::<AdapterKind>)]
    adapter: Option<AdapterKind>,
    /// Rank of the LoRA matrices [default: 8]
    #[arg(long, value_name = "RANK", aliases = ["lora_rank", "network_dim"])]
    rank: Option<u32>,
    /// LoRA's scale is alpha / rank [default: the rank]
    #[arg(long, value_name = "ALPHA", alias = "network_alpha")]
    alpha: Option<f64>,
    /// Name endings of the layers that get a LoRA, with commas between [default: to_k,to_q,to_v,to_out.0]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    target_modules: Option<Vec<String>>,
    /// Learn the lengths of the rows of weights apart from their directions (DoRA)
    #[arg(long)]
    use_dora: bool,
    /// Name endings of the text encoders' layers that get a LoRA too, with commas between [default: none]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    text_encoder_target_modules: Option<Vec<String>>,
    /// The same as --text_encoder_target_modules q_proj,k_proj,v_proj,out_proj
    #[arg(long, conflicts_with = "text_encoder_target_modules")]
    train_text_encoder: bool,
    /// A LoRA to start from and compare with, of any tool; its rank, alpha and layers are kept
    #[arg(long, value_name = "FILE")]
    network_weights: Option<PathBuf>,
}

impl AdapterFlags {
    fn section(self) -> AdapterSection {
        let of_text = self.train_text_encoder.then(|| TEXT_TARGETS.map(str::to_owned).to_vec());
        AdapterSection {
            kind: self.adapter,
            rank: self.rank,
            alpha: self.alpha,
            target_modules: self.target_modules,
            rank_pattern: None,
            alpha_pattern: None,
            use_dora: self.use_dora.then_some(true),
            text_encoder_target_modules: of_text.or(self.text_encoder_target_modules),
            network_weights: self.network_weights,
        }
    }
}

/// `key=value`, the value as TOML would read it and else as a word.
fn setting(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("wanted KEY=VALUE")?;
    let parsed: Option<Value> = toml::from_str::<toml::Table>(&format!("value = {value}"))
        .ok()
        .and_then(|table| serde_json::to_value(&table["value"]).ok());
    Ok((key.trim().to_owned(), parsed.unwrap_or_else(|| Value::from(value.trim()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_is_a_number_where_it_reads_as_one() {
        assert_eq!(setting("beta=2000"), Ok(("beta".into(), Value::from(2000))));
        assert_eq!(setting("eta = 0.1"), Ok(("eta".into(), Value::from(0.1))));
        assert_eq!(setting("form=paper"), Ok(("form".into(), Value::from("paper"))));
        assert_eq!(setting("form=\"paper\""), Ok(("form".into(), Value::from("paper"))));
        assert!(setting("beta").is_err());
    }

    #[test]
    fn a_setting_under_another_methods_name_is_refused() {
        let section = |method: &str, flags: MethodFlags| {
            MethodFlags { method: Some(method.into()), ..flags }
                .section(None)
                .map(|section| section.settings.get("beta").cloned())
        };
        let dpo = || MethodFlags { beta_dpo: Some(9.0), ..MethodFlags::default() };
        let mapo = || MethodFlags { beta_mapo: Some(9.0), ..MethodFlags::default() };
        assert_eq!(section("diffusion-dpo", dpo()).unwrap(), Some(Value::from(9.0)));
        assert_eq!(section("mapo", mapo()).unwrap(), Some(Value::from(9.0)));
        assert!(section("mapo", dpo()).is_err());
        assert!(section("diffusion-dpo", mapo()).is_err());
    }

    #[test]
    fn a_switch_that_was_not_typed_says_nothing() {
        let overrides = Flags::default().overrides(None).unwrap();
        assert_eq!(overrides, Overrides::default());
    }
}
