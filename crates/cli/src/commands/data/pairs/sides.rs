//! Which models and prompts the images come from: one side whose images are ranked, or two of which the first wins.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_eval::pairing::PRESETS;
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::pipeline::Model;

use crate::commands::parts::PartFlags;
use crate::exit::UsageError;
use crate::models::{Chosen, chosen_lora, on_noise_of, read_lora, token_length};

/// What sets winners apart from losers when they are generated.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Two sides", rename_all = "snake_case")]
pub struct SideFlags {
    /// Prefix of the winners' prompts, not part of the captions [default: none]
    #[arg(long, value_name = "TEXT")]
    winner_prefix: Option<String>,
    /// Prefix of the losers' prompts, not part of the captions [default: none]
    #[arg(long, value_name = "TEXT")]
    loser_prefix: Option<String>,
    /// Both prefixes as published with MaPO: pick-style-cartoon, pick-style-pixel-art, pick-culture, pick-safety [default:
    /// none]
    #[arg(long, value_name = "NAME", conflicts_with_all = ["winner_prefix", "loser_prefix"])]
    preset: Option<String>,
    /// Model that generates winners [default: --model]
    #[arg(long, value_name = "DIR|FILE|ORG/NAME")]
    winner_model: Option<String>,
    /// LoRA of the model that generates winners [default: --lora]
    #[arg(long, value_name = "FILE|DIR|ORG/NAME")]
    winner_lora: Option<String>,
    /// Start the two images of a pair from different seeds, not from the same
    #[arg(long)]
    separate_seeds: bool,
}

/// Where images come from.
pub struct Side {
    /// The model as it was typed.
    pub model: String,
    /// Its LoRA as it was typed; `None` for that of a run, which stands for both.
    pub lora: Option<String>,
    /// Prefix of its prompts.
    pub prefix: String,
    /// The model, opened.
    pub folder: Model,
    /// The file of its LoRA.
    pub adapter: Option<PathBuf>,
}

/// One side, or winners' and losers'.
pub struct Sides {
    /// In this order.
    pub all: Vec<Side>,
    /// Whether both start from the same noise.
    pub same_noise: bool,
}

impl Sides {
    /// Whether winners and losers are generated differently.
    pub fn is_two(&self) -> bool {
        self.all.len() == 2
    }
}

impl Side {
    /// Reads its LoRA, if it has one.
    ///
    /// # Errors
    /// Whatever keeps it from being read or from fitting.
    pub fn adapter(&self) -> Result<Option<LoraFile>> {
        Ok(self.adapter.as_ref().map(|path| read_lora(path, &self.folder)).transpose()?)
    }
}

impl SideFlags {
    /// The sides, their models opened.
    ///
    /// # Errors
    /// [`UsageError`] for sides that do not differ and a preset that is none; those of [`PartFlags::open`].
    pub fn resolve(
        &self,
        model: &str,
        lora: Option<&str>,
        parts: &PartFlags,
        max_token_length: Option<u32>,
    ) -> Result<Sides> {
        let preset = self.preset.as_deref().map(preset).transpose()?;
        let (winner_prefix, loser_prefix) = preset.unwrap_or((
            self.winner_prefix.clone().unwrap_or_default(),
            self.loser_prefix.clone().unwrap_or_default(),
        ));
        let side = |model: &str, lora: Option<&str>, prefix: &str| -> Result<Side> {
            let Chosen { model: folder, lora: own, .. } = parts.choose(model)?;
            let adapter = chosen_lora(model, own, lora)?;
            let trained_with = adapter.as_deref().and_then(token_length);
            let folder = on_noise_of(folder, adapter.as_deref())?;
            let folder = folder.with_max_token_length(max_token_length.or(trained_with));
            Ok(Side {
                adapter,
                model: model.to_owned(),
                lora: lora.map(str::to_owned),
                prefix: prefix.to_owned(),
                folder,
            })
        };
        let is_typed =
            [&self.winner_prefix, &self.loser_prefix, &self.preset, &self.winner_model, &self.winner_lora];
        if is_typed.iter().all(|typed| typed.is_none()) {
            if self.separate_seeds {
                return Err(UsageError(
                    "--separate_seeds is about two sides; give a prefix, a preset or a winner_model".into(),
                )
                .into());
            }
            return Ok(Sides { all: vec![side(model, lora, "")?], same_noise: false });
        }
        let winner_model = self.winner_model.as_deref().unwrap_or(model);
        let winner_lora = match (&self.winner_lora, &self.winner_model) {
            (Some(own), _) => Some(own.as_str()),
            // A LoRA of one model says nothing about another.
            (None, Some(_)) => None,
            (None, None) => lora,
        };
        if winner_prefix == loser_prefix && winner_model == model && winner_lora == lora {
            return Err(UsageError(
                "winners and losers are generated alike: their prefixes and models are the same".into(),
            )
            .into());
        }
        let all = vec![side(winner_model, winner_lora, &winner_prefix)?, side(model, lora, &loser_prefix)?];
        Ok(Sides { all, same_noise: !self.separate_seeds })
    }
}

fn preset(name: &str) -> Result<(String, String), UsageError> {
    let names = || PRESETS.iter().map(|preset| preset.name);
    let found = PRESETS.iter().find(|preset| preset.name == name).ok_or_else(|| {
        let known = names().collect::<Vec<_>>().join(", ");
        UsageError(format!(
            "no preset is called {name}{}; there are {known}",
            did_you_mean(nearest(name, names()))
        ))
    })?;
    Ok((found.winner.to_owned(), found.loser.to_owned()))
}
