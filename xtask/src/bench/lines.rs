//! Raw measurements: one JSON object a line, each a process that was measured.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// Whose program ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// `tastemaker`.
    Ours,
    /// A script of `benchmarks/peer/`.
    Peer,
}

/// What is measured for; steps are timed for speed and watched for memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum What {
    /// LoRA steps, timed.
    Speed,
    /// Steps of a full fine-tune, the most memory they hold.
    Memory,
}

/// One thing to measure.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    /// Speed or memory.
    pub what: What,
    /// Name of the method in our registry.
    pub method: String,
    /// Whose.
    pub side: Side,
    /// Ours: `lora` or `full`, with `-precomputed` after it when the errors of the reference are. The peer's: those of `step.py`.
    pub mode: String,
    /// `no` or `bf16`; the peer's, too, `bf16-via-f32`.
    pub precision: String,
    /// `adamw`, `adamw8bit` or `adafactor`.
    pub optimizer: String,
    /// Whether activations are computed again in the backward pass.
    pub gradient_checkpointing: bool,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = if self.side == Side::Ours { "ours" } else { "peer" };
        write!(f, "{side} {} {} {} {}", self.mode, self.method, self.precision, self.optimizer)?;
        if self.gradient_checkpointing { f.write_str(" checkpointing") } else { Ok(()) }
    }
}

/// What a process measured.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Measurements {
    /// Seconds of each step, the first one, which warms up, skipped.
    pub seconds: Vec<f64>,
    /// Loss of each step, the first one included.
    pub losses: Vec<f64>,
    /// Seconds that a timed step had been under way when the process was stopped at the limit: a lower bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unfinished_seconds: Option<f64>,
    /// Most bytes resident until the first step.
    pub peak_bytes_before_training: Option<u64>,
    /// Most bytes resident in the steps.
    pub peak_bytes_in_training: Option<u64>,
    /// Packages and their versions.
    pub versions: BTreeMap<String, String>,
    /// Why there are no measurements, or not all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<String>,
}

/// Where and how everything of a run is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// Name of the model's folder.
    pub model: String,
    /// Side of the images, in pixels.
    pub resolution: u32,
    /// Threads of either side.
    pub threads: usize,
    /// The processor's name, where the system tells.
    pub processor: Option<String>,
}

impl Setting {
    /// That of this machine; `None` takes one thread for each processor.
    pub fn here(model: &Path, resolution: u32, threads: Option<usize>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            model: model.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            resolution,
            threads: threads.unwrap_or(processors),
            processor: processor(),
        }
    }

    /// Gives either side the same threads, waiting in the same way, as `.cargo/config.toml` has ours wait.
    pub fn suit(&self, command: &mut Command) {
        command.env("OMP_NUM_THREADS", self.threads.to_string()).env("OMP_WAIT_POLICY", "passive");
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// What was measured.
    #[serde(flatten)]
    pub case: Case,
    /// From 1.
    pub round: u32,
    /// Where and how.
    #[serde(flatten)]
    pub setting: Setting,
    /// What came out.
    #[serde(flatten)]
    pub measurements: Measurements,
    /// Seconds of the whole process, from its start to its end.
    pub process_seconds: f64,
}

/// Appends a line to `path`.
///
/// # Errors
/// The file cannot be written.
pub fn append(path: &Path, line: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(line)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let write = || -> std::io::Result<()> {
        let mut file = File::options().create(true).append(true).open(path)?;
        writeln!(file, "{text}")
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// All lines of `path`.
///
/// # Errors
/// The file cannot be read, or a line is none of ours.
pub fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let numbered = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    numbered
        .map(|(index, line)| {
            let place = || format!("{}, line {}: not a line of `bench train`", path.display(), index + 1);
            serde_json::from_str(line).with_context(place)
        })
        .collect()
}

/// The processor's name, where the system tells.
pub fn processor() -> Option<String> {
    let text = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(test)]
pub mod tests {
    use std::fs;

    use super::{Case, Line, Measurements, Setting, Side, What, append, read};

    pub fn line(side: Side, mode: &str, round: u32, measurements: Measurements) -> Line {
        let case = Case {
            what: if mode.starts_with("full") { What::Memory } else { What::Speed },
            method: "mapo".to_owned(),
            side,
            mode: mode.to_owned(),
            precision: "no".to_owned(),
            optimizer: "adamw".to_owned(),
            gradient_checkpointing: false,
        };
        let setting = Setting { model: "m".to_owned(), resolution: 512, threads: 2, processor: None };
        Line { case, round, setting, measurements, process_seconds: 9.5 }
    }

    #[test]
    fn a_line_comes_back_as_it_was_written() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("new").join("figures.jsonl");
        let measurements =
            Measurements { seconds: vec![1.5], peak_bytes_in_training: Some(7), ..Measurements::default() };
        let lines = [
            line(Side::Ours, "lora", 1, measurements.clone()),
            line(Side::Peer, "full", 2, Measurements::default()),
        ];
        lines.iter().for_each(|line| append(&path, line).expect("written"));
        assert_eq!(read(&path).expect("read"), lines);

        fs::write(&path, "{\"side\":\"ours\"}\n").expect("written");
        let error = format!("{:#}", read(&path).expect_err("half a line"));
        assert!(error.contains("figures.jsonl, line 1: not a line of `bench train`"), "{error}");
    }
}
