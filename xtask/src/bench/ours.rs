//! Our side: `tastemaker train`, its measurements read from the log of the run.

use std::fs;

use anyhow::Result;
use serde_json::Value;

use super::lines::{Case, Measurements};
use super::options::Bench;
use super::watch::{Ended, watch};

/// Trains `n_steps` and one to warm up, and removes what the run wrote.
///
/// # Errors
/// The program cannot be started.
pub fn measure(bench: &Bench<'_>, case: &Case, n_steps: u32) -> Result<(Measurements, Ended)> {
    let folder = bench.work.join("run");
    let _ = fs::remove_dir_all(&folder);
    let mut command = bench.common.ours(bench.root)?;
    let adapter = if case.mode.starts_with("full") { "full" } else { "lora" };
    command.args([
        "train",
        "--train_batch_size",
        "1",
        "--held_out_fraction",
        "0",
        "--no_hflip",
        "--report_to",
        "none",
    ]);
    command.args(["--checkpointing_steps", "0", "--learning_rate", "1e-5", "--method", &case.method]);
    command.args(["--adapter_type", adapter, "--mixed_precision", &case.precision]);
    command.args(["--resolution", &bench.ready.setting.resolution.to_string()]);
    command.args(["--max_train_steps", &(n_steps + 1).to_string()]);
    command
        .arg("--pretrained_model_name_or_path")
        .arg(&bench.ready.model)
        .arg("--train_data_dir")
        .arg(bench.pairs);
    // Latents and errors are those of one precision.
    let cache = bench.work.join(format!("cache-{}", case.precision));
    command.arg("--cache_to").arg(cache).arg("--output_dir").arg(&folder);
    if adapter == "full" {
        command.args([
            "--optimizer_type",
            &case.optimizer,
            "--output_layout",
            "unet",
            "--save_precision",
            "bf16",
        ]);
    }
    if case.mode.ends_with("-precomputed") {
        let reference = bench.work.join(format!("reference-{adapter}-{}", case.precision));
        command.args(["--reference", "precomputed", "--reference_dir"]).arg(reference);
    }
    if case.gradient_checkpointing {
        command.arg("--gradient_checkpointing");
    }
    bench.ready.setting.suit(&mut command);

    let log = folder.join("events.jsonl");
    let (said, complaints) = (bench.work.join("ours.out"), bench.work.join("ours.err"));
    let text = || fs::read_to_string(&log).unwrap_or_default();
    let marks = || of_kind(&text(), "start").len() + of_kind(&text(), "step").len();
    let ended = watch(&mut command, &said, &complaints, bench.limit, marks)?;
    let measurements = parse(&text());
    let _ = fs::remove_dir_all(&folder);
    Ok((measurements, ended))
}

/// The measurements of a run's log: seconds of a step of one pair are the inverse of its rate.
fn parse(log: &str) -> Measurements {
    let steps = of_kind(log, "step");
    let number = |event: &Value, key: &str| event[key].as_f64();
    let (start, finish) = (of_kind(log, "start"), of_kind(log, "finish"));
    let version = start.first().and_then(|event| event["version"].as_str());
    Measurements {
        seconds: steps
            .iter()
            .skip(1)
            .filter_map(|step| Some(1.0 / number(step, "pairs_per_second")?))
            .collect(),
        losses: steps.iter().filter_map(|step| number(step, "loss")).collect(),
        peak_bytes_before_training: start.first().and_then(|event| event["peak_memory_bytes"].as_u64()),
        peak_bytes_in_training: finish.first().and_then(|event| event["peak_memory_bytes"].as_u64()),
        versions: version.map(|version| ("tastemaker".to_owned(), version.to_owned())).into_iter().collect(),
        ..Measurements::default()
    }
}

/// The events of one kind.
pub fn of_kind(log: &str, kind: &str) -> Vec<Value> {
    let events = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == kind).collect()
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_first_step_warms_up() {
        let log = r#"{"tastemaker_events":1}
{"event":"start","version":"0.1.0","peak_memory_bytes":30}
{"event":"step","step":0,"loss":0.7,"pairs_per_second":0.1}
{"event":"step","step":1,"loss":0.6,"pairs_per_second":0.5}
{"event":"step","step":2,"loss":0.5,"pairs_per_second":0.25}
{"event":"finish","step":3,"peak_memory_bytes":40}
{"event":"st"#;
        let measurements = parse(log);
        assert_eq!(measurements.seconds, [2.0, 4.0]);
        assert_eq!(measurements.losses, [0.7, 0.6, 0.5]);
        assert_eq!(
            (measurements.peak_bytes_before_training, measurements.peak_bytes_in_training),
            (Some(30), Some(40))
        );
    }
}
