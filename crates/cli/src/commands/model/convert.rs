//! `tastemaker model convert`: the same weights in another layout.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use tastemaker_math::schedule::Prediction;
use tastemaker_models::ModelError;
use tastemaker_models::adapters::{KohyaFacts, LoraFile, LoraNames};
use tastemaker_models::pipeline::{Model, ModelSources, pack, save};
use tastemaker_store::StoreError;

use super::opened::Opened;
use super::{claim, done};
use crate::commands::word;
use crate::exit::UsageError;
use crate::hub::locate;
use crate::models;
use crate::next;
use crate::place::OverwriteFlag;

/// Writes the same weights in another layout, bit for bit: a diffusers folder as a single-file checkpoint and back, a
/// diffusers LoRA as a kohya LoRA and back.
#[derive(Debug, Args)]
pub struct ConvertArgs {
    /// A diffusers folder, a single-file checkpoint, a LoRA file, or the name of a fetched model.
    from: String,
    /// Output: a folder for a single-file checkpoint, else a .safetensors file.
    to: PathBuf,
    /// Prediction type of a single-file checkpoint, `epsilon` or `v_prediction`; SD2.x has both [default: epsilon for SD1.x
    /// and SDXL].
    #[arg(long = "prediction_type", visible_alias = "prediction-type", value_name = "TYPE", value_parser = word::<Prediction>)]
    prediction_type: Option<Prediction>,
    /// Folder with configs, tokenizers and scheduler for a single-file checkpoint [default: the published ones].
    #[arg(long = "model_config", visible_alias = "model-config", value_name = "DIR|ORG/NAME")]
    model_config: Option<String>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
}

/// Runs the command.
pub fn convert(args: &ConvertArgs) -> Result<()> {
    let ConvertArgs { from, to, prediction_type, model_config, overwrite } = args;
    let _claim = claim(to, *overwrite)?;
    let is_file = to.extension().is_some_and(|extension| extension == "safetensors");
    let opened = Opened::open(from)?;
    let wants_file = !matches!(opened, Opened::SingleFile(_));
    if is_file != wants_file {
        let wanted = if wants_file { "a file named .safetensors" } else { "a folder" };
        bail!(UsageError(format!("{} becomes {wanted}, found {}", opened.kind(), to.display())));
    }
    match opened {
        Opened::Folder(folder) => {
            let layout = pack(&folder, &[], to, &[("format".to_owned(), "pt".to_owned())].into())?;
            println!("wrote {}, a single-file checkpoint of {}", to.display(), layout.title());
        }
        Opened::SingleFile(file) => {
            let config = model_config.as_deref().map(|name| locate(name, None)).transpose()?;
            let of = models::sources(file.path().to_owned())?;
            let config = config.or(of.config.clone());
            let model = Model::from_sources(&ModelSources { config, prediction: *prediction_type, ..of })?;
            save(&model, &[], to)?;
            done(to)?;
            Model::open(to)?;
            println!("wrote {}, a diffusers folder of {}", to.display(), file.layout.title());
        }
        Opened::Lora { file, names: LoraNames::Kohya, path, .. } => {
            file.write_of(to, LoraFile::stated_prediction(&path))?;
            println!("wrote {}, a LoRA in diffusers format", to.display());
        }
        Opened::Lora { file, names: LoraNames::Diffusers, layout, path } => {
            let Some(layout) = layout else {
                let found = "layers of no published network";
                let wanted = "an adapter of SD1.x, SD2.x, SDXL, SD3 or Z-Image, whose layers kohya names";
                bail!(ModelError::from(StoreError::malformed(&path, found, wanted)));
            };
            let title = to.file_stem().map_or("LoRA".into(), |stem| stem.to_string_lossy().into_owned());
            let facts = KohyaFacts {
                layout,
                prediction: layout.prediction(prediction_type.or(LoraFile::stated_prediction(&path)))?,
                resolution: layout.resolution(),
                title,
                training: Default::default(),
            };
            file.write_kohya(to, &layout.published_backbone(), &facts)?;
            println!("wrote {}, a LoRA in kohya format", to.display());
        }
    }
    next::say(&["tastemaker", "model", "inspect", &next::word(to)]);
    Ok(())
}
