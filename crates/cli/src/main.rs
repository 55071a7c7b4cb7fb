//! The `tastemaker` program: parse, resolve, dispatch, exit codes.

// Before the others, for its macros stand in the place of the standard ones.
#[macro_use]
mod output;

mod allocator;
mod args;
mod commands;
mod exit;
mod home;
mod hub;
mod models;
mod next;
mod pairs;
mod place;
mod progress;
mod prompts;
mod ranks;
mod scorers;
mod scoring;
mod signals;

use std::process::ExitCode;

use args::Command;
use exit::{Blame, Exit, code_of};
use tastemaker_store::in_full;
use tastemaker_torch::faults;

fn main() -> ExitCode {
    // A defect must not look like any of the errors a user can cause.
    std::panic::catch_unwind(run).unwrap_or(Exit::Internal.into())
}

fn run() -> ExitCode {
    if let Err(error) = signals::outlive_file_limits() {
        eprintln!("warning: a limit on the size of files will end the program: {error}");
    }
    if let Err(error) = faults::end_with(Exit::Model as u8) {
        eprintln!(
            "warning: a weight file that is cut short while it is read will end the program without words: {error}"
        );
    }
    let done = dispatch(args::parse(std::env::args_os()));
    match done.and_then(|()| Ok(output::end()?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", in_full(error.as_ref()));
            code_of(&error).into()
        }
    }
}

fn dispatch(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Demo(args) => commands::demo::demo(args),
        Command::Train(args) => commands::train::train(*args),
        Command::Sample(args) => commands::sample::sample(&args),
        Command::Accuracy(args) => commands::accuracy::accuracy(&args),
        Command::Compare(args) => commands::compare::compare(&args),
        Command::Score(args) => commands::score::score(&args),
        Command::Data(command) => commands::data::data(command),
        Command::Model(command) => commands::model::model(&command).of_model(),
        Command::Watch(args) => commands::watch::watch(&args),
        Command::Curate(args) => commands::curate::curate(&args),
        Command::Vote(args) => commands::vote::vote(*args),
        Command::Doctor(args) => commands::doctor::doctor(&args),
        Command::Completions(args) => commands::completions::completions(&args, args::command()),
        Command::Pretrain(args) => commands::demo::pretrain(args),
    }
}
