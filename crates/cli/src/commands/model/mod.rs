//! `tastemaker model`: one file per command.

mod convert;
mod fetch;
mod inspect;
mod merge;
mod opened;
mod verify;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use tastemaker_store::StoreError;
use tastemaker_store::lock::Claim;
use tastemaker_weights::safetensors::Header;

use crate::place::{OverwriteFlag, Place, PlaceError, Written};

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Print the family, precision and size of a model or adapter.
    Inspect(inspect::InspectArgs),
    /// Write the same weights in another layout.
    Convert(convert::ConvertArgs),
    /// Merge a LoRA into its model.
    Merge(merge::MergeArgs),
    /// Compare with results of another program.
    Verify(verify::VerifyArgs),
    /// Fetch a model from the Hugging Face Hub into its cache.
    Fetch(fetch::FetchArgs),
}

/// Runs the command.
pub fn model(command: &ModelCommand) -> Result<()> {
    match command {
        ModelCommand::Inspect(args) => inspect::inspect(args),
        ModelCommand::Convert(args) => convert::convert(args),
        ModelCommand::Merge(args) => merge::merge(args),
        ModelCommand::Verify(args) => verify::run(args),
        ModelCommand::Fetch(args) => fetch::fetch(args),
    }
}

/// Takes the place of a model or an adapter, if it may be written here: a file, or a folder in diffusers layout.
fn claim(path: &Path, overwrite: OverwriteFlag) -> Result<Claim, PlaceError> {
    let is_file = path.extension().is_some_and(|ending| ending == "safetensors");
    let place = if is_file { Place::file(path, "place", WEIGHTS) } else { folder(path) };
    place.claim(overwrite)
}

/// Says that a folder is of these commands now.
fn done(path: &Path) -> Result<(), StoreError> {
    if path.is_dir() { folder(path).done() } else { Ok(()) }
}

fn folder(path: &Path) -> Place<'_> {
    Place::folder(path, "place", MODEL_FILES)
}

/// A single file of weights.
const WEIGHTS: Written =
    Written { what: "a file of weights in safetensors", is: |path| Header::read(path).is_ok() };

/// The files of a folder in diffusers layout.
const MODEL_FILES: &[&str] = &[
    "model_index.json",
    "README.md",
    "unet/*",
    "vae/*",
    "text_encoder/*",
    "text_encoder_2/*",
    "tokenizer/*",
    "tokenizer_2/*",
    "scheduler/*",
    "safety_checker/*",
    "feature_extractor/*",
    "image_encoder/*",
];
