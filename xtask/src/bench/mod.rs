//! `cargo xtask bench`: time and memory of training steps and of generating at real size, as JSON lines.

mod gpu;
mod inputs;
mod lines;
mod options;
mod ours;
mod peer;
mod sample;
mod steps;
mod table;
mod train;
mod watch;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Subcommand};

/// What is measured.
#[derive(Args)]
pub struct Options {
    #[command(subcommand)]
    command: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Steps beside those of the published PyTorch recipes, in turns, with ratios.
    Train(Box<train::Options>),
    /// Images beside those of diffusers, in turns, with ratios.
    Sample(Box<sample::Options>),
    /// The tables of a file that `bench train` wrote.
    Table {
        /// Raw measurements.
        file: PathBuf,
    },
    /// Steps of each method, ours alone.
    Steps(steps::Options),
    /// Checks and measurements of an NVIDIA device, beside PyTorch.
    Gpu(gpu::Options),
}

/// Measures, or shows what was measured.
///
/// # Errors
/// Something cannot be measured, read or written.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    match &options.command {
        Measure::Train(options) => train::run(root, options),
        Measure::Sample(options) => sample::run(root, options),
        Measure::Table { file } => {
            println!("{}", table::markdown(&lines::read(file)?));
            Ok(())
        }
        Measure::Steps(options) => steps::run(root, options),
        Measure::Gpu(options) => gpu::run(root, options),
    }
}
