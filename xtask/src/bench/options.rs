//! The options of every measurement beside a peer, and what it then finds or makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::inputs;
use super::lines::{Setting, Side};
use crate::{child, golden, setup};

/// The options of all of them.
#[derive(Args)]
pub struct Common {
    /// A folder in diffusers layout [default: SD1.5 with random weights, made once in the user's cache]
    #[arg(long)]
    model: Option<PathBuf>,
    /// A model as small as can be, images of 64 pixels: to see that every row runs
    #[arg(long, conflicts_with = "model")]
    smoke: bool,
    /// An interpreter with the packages of benchmarks/peer/requirements.txt [default: an environment made for it]
    #[arg(long)]
    python: Option<PathBuf>,
    /// The built program [default: built first]
    #[arg(long)]
    program: Option<PathBuf>,
    /// Sides, with commas between: a run can be completed by another with the same --out
    #[arg(long, value_delimiter = ',', default_value = "ours,peer")]
    sides: Vec<Side>,
    /// Side of the images, in pixels [default: 512]
    #[arg(long)]
    resolution: Option<u32>,
    /// Threads of either side [default: one for each processor]
    #[arg(long)]
    threads: Option<usize>,
    /// Measurements go to the end of this file
    #[arg(long)]
    pub out: PathBuf,
}

/// What is there once everything is made.
pub struct Ready {
    /// The interpreter of the peer.
    pub python: PathBuf,
    /// A folder in diffusers layout.
    pub model: PathBuf,
    /// Stands in every line.
    pub setting: Setting,
}

/// What every measured step needs.
pub struct Bench<'a> {
    /// The checkout.
    pub root: &'a Path,
    /// What was asked for.
    pub common: &'a Common,
    /// What is there for it.
    pub ready: Ready,
    /// A folder of pairs.
    pub pairs: &'a Path,
    /// Where anything may be written.
    pub work: &'a Path,
    /// After which a process is stopped.
    pub limit: Duration,
}

impl Common {
    /// Whether this side is measured.
    pub fn asks(&self, side: Side) -> bool {
        self.sides.contains(&side)
    }

    /// Our program, as named or as built.
    ///
    /// # Errors
    /// It is not there.
    pub fn ours(&self, root: &Path) -> Result<Command> {
        self.program.as_ref().map_or_else(|| child::program(root), |program| Ok(Command::new(program)))
    }

    /// Makes the peer's environment, the model and the program, as far as they are neither named nor there.
    ///
    /// # Errors
    /// One of them cannot be made.
    pub fn ready(&self, root: &Path) -> Result<Ready> {
        let python = match &self.python {
            Some(python) => python.clone(),
            None => {
                let packages = root.join("benchmarks").join("peer").join("requirements.txt");
                golden::environment("bench", &packages)?
            }
        };
        let model = match &self.model {
            Some(model) => model.clone(),
            None => {
                let name = if self.smoke { "tiny-random" } else { "sd15-random" };
                let folder = setup::user_cache()?.join("bench").join(name);
                inputs::make_model(root, &python, &folder, self.smoke)?;
                folder
            }
        };
        if self.program.is_none() && self.asks(Side::Ours) {
            child::output(child::program(root)?.arg("--version"))?;
        }
        let resolution = self.resolution.unwrap_or(if self.smoke { 64 } else { 512 });
        let setting = Setting::here(&model, resolution, self.threads);
        Ok(Ready { python, model, setting })
    }
}
