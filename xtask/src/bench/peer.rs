//! The peer's side: `benchmarks/peer/step.py`, the published PyTorch recipes step by step.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde_json::Value;

use super::lines::{Case, Measurements};
use super::ours::of_kind;
use super::train::Bench;
use super::watch::{Ended, watch};
use crate::{child, setup};

/// A script of `benchmarks/peer/`.
pub fn script(root: &Path, name: &str) -> PathBuf {
    root.join("benchmarks").join("peer").join(name)
}

/// Takes `n_steps` and one to warm up.
///
/// # Errors
/// The interpreter cannot be started.
pub fn measure(bench: &Bench<'_>, case: &Case, n_steps: u32) -> Result<(Measurements, Ended)> {
    let mut command = setup::python_command(&bench.ready.python);
    command
        .arg(script(bench.root, "step.py"))
        .arg("--model")
        .arg(&bench.ready.model)
        .arg("--pairs")
        .arg(bench.pairs);
    command.args(["--mode", &case.mode, "--method", &case.method, "--precision", &case.precision]);
    command.args([
        "--resolution",
        &bench.ready.setting.resolution.to_string(),
        "--steps",
        &(n_steps + 1).to_string(),
    ]);
    if case.gradient_checkpointing {
        command.arg("--gradient_checkpointing");
    }
    bench.ready.setting.suit(&mut command);

    let (said, complaints) = (bench.work.join("peer.out"), bench.work.join("peer.err"));
    let text = || fs::read_to_string(&said).unwrap_or_default();
    let marks = || of_kind(&text(), "begin").len() + of_kind(&text(), "step").len();
    let ended = watch(&mut command, &said, &complaints, bench.limit, marks)?;
    Ok((parse(&text()), ended))
}

fn parse(log: &str) -> Measurements {
    let (steps, end) = (of_kind(log, "step"), of_kind(log, "end"));
    let end = end.first().cloned().unwrap_or_default();
    let numbers = |key: &str| steps.iter().filter_map(|step| step[key].as_f64()).collect::<Vec<_>>();
    let versions = end["versions"].as_object().into_iter().flatten();
    let version = |(name, version): (&String, &Value)| Some((name.clone(), version.as_str()?.to_owned()));
    Measurements {
        seconds: numbers("seconds").into_iter().skip(1).collect(),
        losses: numbers("loss"),
        peak_bytes_before_training: end["peak_bytes_before_training"].as_u64(),
        peak_bytes_in_training: end["peak_bytes_in_training"].as_u64(),
        versions: versions.filter_map(version).collect(),
        ..Measurements::default()
    }
}

/// Two pairs of square JPEG files in `folder`, made where they are not there.
///
/// # Errors
/// The script fails.
pub fn make_pairs(root: &Path, python: &Path, folder: &Path, resolution: u32) -> Result<()> {
    if folder.join("metadata.jsonl").is_file() {
        return Ok(());
    }
    let mut command = setup::python_command(python);
    command.arg(script(root, "make.py")).arg("pairs").arg(folder);
    child::run(command.args(["--resolution", &resolution.to_string()]))
}

/// A model with random weights in `folder`, made where it is not there: SD1.5's sizes in f32, or as small as can be.
///
/// # Errors
/// The script fails, or what it made cannot be moved into place.
pub fn make_model(root: &Path, python: &Path, folder: &Path, tiny: bool) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let partial = folder.with_extension("partial");
    let mut command = setup::python_command(python);
    if tiny {
        command.arg(script(root, "make.py")).arg("tiny").arg(&partial);
    } else {
        let fresh = root.join("golden").join("verify").join("fresh.py");
        command.arg(fresh).arg("sd1").arg(&partial).args(["--dtype", "float32"]);
    }
    println!("bench: making {}", folder.display());
    child::run(&mut command)?;
    Ok(fs::rename(&partial, folder)?)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_peer_tells_steps_memory_and_versions() {
        let log = r#"{"event": "begin"}
{"event": "step", "seconds": 9.0, "loss": 0.7}
{"event": "step", "seconds": 4.0, "loss": 0.6}
{"event": "end", "peak_bytes_before_training": 5, "peak_bytes_in_training": 6, "versions": {"torch": "2.11.0"}}"#;
        let measurements = parse(log);
        assert_eq!((measurements.seconds, measurements.losses), (vec![4.0], vec![0.7, 0.6]));
        assert_eq!(
            (measurements.peak_bytes_before_training, measurements.peak_bytes_in_training),
            (Some(5), Some(6))
        );
        assert_eq!(measurements.versions["torch"], "2.11.0");
    }
}
