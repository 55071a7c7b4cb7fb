//! The `tastemaker` program: parse, resolve, dispatch, exit codes.

use clap::{Parser, Subcommand};

mod demo;

/// Aligns text-to-image diffusion models with human taste.
#[derive(Debug, Parser)]
#[command(name = "tastemaker", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make one part of the embedded model from the embedded art.
    Pretrain(demo::pretrain::PretrainArgs),
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Pretrain(args) => demo::pretrain::pretrain(&args),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}
