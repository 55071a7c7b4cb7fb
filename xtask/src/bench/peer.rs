//! The peer's side: `benchmarks/peer/step.py`, the published PyTorch recipes step by step.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::inputs::script;
use super::lines::{Case, Measurements};
use super::options::Bench;
use super::ours::of_kind;
use super::watch::{Ended, watch};
use crate::setup;

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
