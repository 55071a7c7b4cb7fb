//! `cargo xtask bench sample`: our images and the peer's in turns.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::{Deserialize, Serialize};

use super::inputs;
use super::lines::{self, Side};
use super::options::{Common, Ready};
use super::ours::of_kind;
use super::table::median;
use super::watch::{Ended, watch};
use crate::setup;

const PROMPT: &str = "a red fox asleep under a birch, watercolor";

/// What is measured, and how.
#[derive(Args)]
pub struct Options {
    #[command(flatten)]
    common: Common,
    /// Samplers by our names, with commas between
    #[arg(long, value_delimiter = ',', default_value = "ddim,euler-ancestral,dpmpp-2m")]
    samplers: Vec<String>,
    /// Precisions of both sides, with commas between: no, bf16
    #[arg(long, value_delimiter = ',', default_value = "no")]
    precision: Vec<String>,
    /// Steps of the sampler
    #[arg(long, default_value_t = 4)]
    steps: u32,
    /// Guidance, counted as diffusers does
    #[arg(long, default_value_t = 7.5)]
    guidance: f64,
    /// Timed images of a process, after one that warms up
    #[arg(long, default_value_t = 2)]
    images: u32,
    /// Turns of all rows
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Minutes after which a process is stopped
    #[arg(long, default_value_t = 60)]
    limit: u64,
}

/// One process that was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    sampler: String,
    side: Side,
    precision: String,
    round: u32,
    steps: u32,
    guidance: f64,
    #[serde(flatten)]
    setting: lines::Setting,
    /// Of each image, from prompt to PNG file, the first one skipped.
    seconds: Vec<f64>,
    versions: BTreeMap<String, String>,
    process_seconds: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    failed: Option<String>,
}

struct Bench<'a> {
    root: &'a Path,
    options: &'a Options,
    ready: Ready,
    work: PathBuf,
}

/// Measures every row in turns, appends a line for each and prints the table.
///
/// # Errors
/// Something needed cannot be made, or at the end, a process had failed.
pub fn run(root: &Path, options: &Options) -> Result<()> {
    let work = std::env::temp_dir().join(format!("tastemaker-bench-{}", std::process::id()));
    fs::create_dir_all(&work).with_context(|| format!("cannot create {}", work.display()))?;
    let measured = prepare(root, options, &work).and_then(|bench| in_turns(&bench));
    let _ = fs::remove_dir_all(&work);
    let measured = measured?;
    println!("{}", markdown(&measured));
    match measured.iter().filter(|row| row.failed.is_some()).count() {
        0 => Ok(()),
        n => bail!("{n} of {} processes did not end well: see `failed`", measured.len()),
    }
}

fn prepare<'a>(root: &'a Path, options: &'a Options, work: &Path) -> Result<Bench<'a>> {
    Ok(Bench { root, options, ready: options.common.ready(root)?, work: work.to_owned() })
}

fn in_turns(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let Options { common, samplers, precision, rounds, .. } = bench.options;
    let mut measured = Vec::new();
    for round in 1..=(*rounds).max(1) {
        let mut turn: Vec<(&String, &String, Side)> = Vec::new();
        for (sampler, precision) in samplers.iter().flat_map(|s| precision.iter().map(move |p| (s, p))) {
            let sides = [Side::Ours, Side::Peer].into_iter().filter(|&side| common.asks(side));
            turn.extend(sides.map(|side| (sampler, precision, side)));
        }
        // Back and forth, so that a drift of the machine's speed favors no side.
        if round % 2 == 0 {
            turn.reverse();
        }
        for (sampler, precision, side) in turn {
            println!("bench: round {round}, {side:?} {sampler} {precision}");
            let row = measure(bench, sampler, precision, side, round)?;
            if let Some(failed) = &row.failed {
                println!("bench: {failed}");
            }
            lines::append(&common.out, &row)?;
            measured.push(row);
        }
    }
    Ok(measured)
}

fn measure(bench: &Bench<'_>, sampler: &str, precision: &str, side: Side, round: u32) -> Result<Row> {
    let options = bench.options;
    let folder = bench.work.join("images");
    let _ = fs::remove_dir_all(&folder);
    let n_images = options.images.max(1) + 1;
    let mut command = match side {
        Side::Ours => options.common.ours(bench.root)?,
        Side::Peer => setup::python_command(&bench.ready.python),
    };
    if side == Side::Ours {
        command.args(["sample", "--batch_size", "1", "--num_images_per_prompt", &n_images.to_string()]);
        command.args(["--mixed_precision", precision]);
    } else {
        command.arg(inputs::script(bench.root, "sample.py")).args(["--images", &n_images.to_string()]);
        command.args(["--precision", precision]);
    }
    let side_of_images = bench.ready.setting.resolution.to_string();
    command.args(["--prompt", PROMPT, "--sampler", sampler, "--height", &side_of_images]);
    command.args(["--width", &side_of_images, "--num_inference_steps", &options.steps.to_string()]);
    command.args(["--guidance_scale", &options.guidance.to_string()]);
    command.arg("--model").arg(&bench.ready.model).arg("--out").arg(&folder);
    bench.ready.setting.suit(&mut command);

    let (said, complaints) = (bench.work.join("out"), bench.work.join("err"));
    let limit = Duration::from_secs(60 * options.limit);
    let Ended { seconds: process_seconds, failed, .. } =
        watch(&mut command, &said, &complaints, limit, || 0)?;
    let seconds = between_images(&folder);
    let silent = failed.is_none() && seconds.len() + 1 < n_images as usize;
    let end = of_kind(&fs::read_to_string(&said).unwrap_or_default(), "end");
    let versions = end.first().and_then(|end| serde_json::from_value(end["versions"].clone()).ok());
    Ok(Row {
        sampler: sampler.to_owned(),
        side,
        precision: precision.to_owned(),
        round,
        steps: options.steps,
        guidance: options.guidance,
        setting: bench.ready.setting.clone(),
        seconds,
        versions: versions.unwrap_or_default(),
        process_seconds,
        failed: failed.or_else(|| silent.then(|| "it did not generate all its images".to_owned())),
    })
}

/// Seconds from the end of one image to the end of the next, by the times of their files.
fn between_images(folder: &Path) -> Vec<f64> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let images = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("0000-"));
    let written = |entry: fs::DirEntry| {
        let time = entry.metadata().ok()?.modified().ok()?;
        Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs_f64())
    };
    let mut times: Vec<f64> = images.filter_map(written).collect();
    times.sort_by(f64::total_cmp);
    times.windows(2).map(|two| two[1] - two[0]).collect()
}

/// Medians over all rounds, ours beside the peer's.
fn markdown(rows: &[Row]) -> String {
    let mut cases: Vec<(&str, &str)> = Vec::new();
    for row in rows {
        let case = (row.sampler.as_str(), row.precision.as_str());
        if !cases.contains(&case) {
            cases.push(case);
        }
    }
    let mut text =
        "\n| sampler | precision | ours, seconds an image | peer | peer / ours | in single rounds |\n\
                    |---|---|---|---|---|---|\n"
            .to_owned();
    for (sampler, precision) in cases {
        let of = |side: Side, round: Option<u32>| {
            let fits = |row: &&Row| {
                (row.sampler.as_str(), row.precision.as_str(), row.side) == (sampler, precision, side)
                    && round.is_none_or(|round| row.round == round)
            };
            median(rows.iter().filter(fits).flat_map(|row| row.seconds.iter().copied()))
        };
        let ratio = |round: Option<u32>| Some(of(Side::Peer, round)? / of(Side::Ours, round)?);
        let shown = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let last = rows.iter().map(|row| row.round).max().unwrap_or(0);
        let single: Vec<String> =
            (1..=last).filter_map(|round| Some(format!("{:.2}", ratio(Some(round))?))).collect();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {sampler} | {precision} | {} | {} | {} | {} |",
            shown(of(Side::Ours, None)),
            shown(of(Side::Peer, None)),
            shown(ratio(None)),
            single.join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(side: Side, round: u32, seconds: &[f64]) -> Row {
        Row {
            sampler: "ddim".to_owned(),
            side,
            precision: "no".to_owned(),
            round,
            steps: 4,
            guidance: 7.5,
            setting: lines::Setting { model: "m".to_owned(), resolution: 64, threads: 2, processor: None },
            seconds: seconds.to_vec(),
            versions: BTreeMap::new(),
            process_seconds: 1.0,
            failed: None,
        }
    }

    #[test]
    fn the_ratio_is_that_of_medians_and_each_round_has_its_own() {
        let rows = [
            row(Side::Ours, 1, &[2.0, 4.0]),
            row(Side::Peer, 1, &[6.0]),
            row(Side::Ours, 2, &[2.0]),
            row(Side::Peer, 2, &[3.0]),
        ];
        let text = markdown(&rows);
        assert!(text.contains("| ddim | no | 2.00 | 4.50 | 2.25 | 2.00, 1.50 |"), "{text}");
    }

    #[test]
    fn images_are_timed_by_their_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for name in ["0000-0.png", "0000-1.png", "image-grid.png"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        assert_eq!(between_images(folder.path()).len(), 1);
        assert!(between_images(&folder.path().join("none")).is_empty());
    }
}
