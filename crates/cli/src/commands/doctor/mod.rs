//! `tastemaker doctor`: what this machine offers, and what is wrong with it.

mod findings;
mod machine;
mod nvidia;
mod text;

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use tastemaker_store::version;

use findings::Finding;
use machine::{Disk, Libtorch, Machine};
use nvidia::Nvidia;

/// What is printed.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Everything there is to know of a machine.
#[derive(Debug, Serialize)]
struct Report {
    tastemaker: &'static str,
    machine: Machine,
    libtorch: Libtorch,
    nvidia: Nvidia,
    disks: Vec<Disk>,
    /// Variables that change what programs do, as they are set.
    environment: Vec<(String, String)>,
    findings: Vec<Finding>,
}

/// Looks at the machine and prints what it found. What is wrong does not make it fail: that is what it is asked for.
///
/// # Errors
/// None of the machine's faults is one.
pub fn doctor(args: &DoctorArgs) -> Result<()> {
    let mut report = Report {
        tastemaker: version(),
        machine: Machine::read(),
        nvidia: Nvidia::read(),
        libtorch: Libtorch::read(),
        disks: machine::disks(),
        environment: machine::environment(),
        findings: Vec::new(),
    };
    report.findings = findings::of(&report);
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => println!("{}", text::of(&report)),
    }
    Ok(())
}
