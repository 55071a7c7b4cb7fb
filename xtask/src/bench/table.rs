//! Tables of raw measurements: medians over all rounds, ours beside the peer's.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::lines::{Case, Line, Side, What};

const GIB: f64 = (1_u64 << 30) as f64;

/// Both tables in Markdown; a case of which nothing is known has no row.
pub fn markdown(lines: &[Line]) -> String {
    let mut by_case: BTreeMap<&Case, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        by_case.entry(&line.case).or_default().push(line);
    }
    let of = |what: What, side: Side| {
        let cases = by_case.iter().filter(move |(case, _)| case.what == what && case.side == side);
        cases.map(|(case, lines)| (*case, lines.as_slice())).collect::<Vec<_>>()
    };
    let mut text = String::new();
    speed(&mut text, &of(What::Speed, Side::Ours), &of(What::Speed, Side::Peer));
    memory(&mut text, &of(What::Memory, Side::Ours), &of(What::Memory, Side::Peer));
    text
}

type Measured<'a> = (&'a Case, &'a [&'a Line]);

fn speed(text: &mut String, ours: &[Measured<'_>], peers: &[Measured<'_>]) {
    if ours.is_empty() && peers.is_empty() {
        return;
    }
    text.push_str("\n| method | side | mode | precision | seconds a step | pairs a second |\n|---|---|---|---|---|---|\n");
    for (case, lines) in ours.iter().chain(peers) {
        let Some(Seconds { value, is_bound }) = seconds(lines) else { continue };
        let (more, less) = if is_bound { (">", "<") } else { ("", "") };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {more}{value:.2} | {less}{:.4} |",
            case.method,
            side_and_mode(case),
            case.precision,
            1.0 / value
        );
    }
    text.push_str("\n| method | ours | peer | ours / peer, pairs a second | in single rounds |\n|---|---|---|---|---|\n");
    for (our_case, our_lines) in ours {
        for (case, lines) in peers.iter().filter(|(case, _)| case.method == our_case.method) {
            let (Some(we), Some(they)) = (seconds(our_lines), seconds(lines)) else { continue };
            if we.is_bound {
                continue;
            }
            let _ = writeln!(
                text,
                "| {} | {} {} | {} {} | {}{:.2} | {} |",
                case.method,
                our_case.mode,
                our_case.precision,
                case.mode,
                case.precision,
                if they.is_bound { ">" } else { "" },
                they.value / we.value,
                by_round(our_lines, lines),
            );
        }
    }
}

fn memory(text: &mut String, ours: &[Measured<'_>], peers: &[Measured<'_>]) {
    if ours.is_empty() && peers.is_empty() {
        return;
    }
    text.push_str("\n| method | side | mode | precision | optimizer | GiB in the steps | GiB before them | seconds a step |\n");
    text.push_str("|---|---|---|---|---|---|---|---|\n");
    let gib = |bytes: Option<f64>| bytes.map_or("-".to_owned(), |bytes| format!("{:.2}", bytes / GIB));
    for (case, lines) in ours.iter().chain(peers) {
        let before = median(
            lines.iter().filter_map(|line| Some(line.measurements.peak_bytes_before_training? as f64)),
        );
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} |",
            case.method,
            side_and_mode(case),
            case.precision,
            case.optimizer,
            gib(peak(lines)),
            gib(before),
            seconds(lines).map_or("-".to_owned(), |seconds| format!("{:.1}", seconds.value)),
        );
    }
    text.push_str("\n| ours | beside | ratio of peaks in the steps |\n|---|---|---|\n");
    for (case, lines) in ours {
        let without_reference = |other: &Case| {
            other.side == Side::Ours
                && (&other.precision, &other.optimizer) == (&case.precision, &case.optimizer)
                && case.method == "diffusion-dpo"
                && other.method == "mapo"
        };
        let beside = ours.iter().filter(|(other, _)| without_reference(other));
        let beside = beside.chain(peers.iter().filter(|(other, _)| other.method == case.method));
        for (other, other_lines) in beside {
            if let (Some(we), Some(they)) = (peak(lines), peak(other_lines)) {
                let _ = writeln!(text, "| {case} | {other} | {:.3} |", we / they);
            }
        }
    }
}

fn side_and_mode(case: &Case) -> String {
    format!("{} | {}", if case.side == Side::Ours { "ours" } else { "peer" }, case.mode)
}

/// Seconds of a step.
struct Seconds {
    value: f64,
    /// No step was finished: it takes longer.
    is_bound: bool,
}

fn seconds(lines: &[&Line]) -> Option<Seconds> {
    let timed = median(lines.iter().flat_map(|line| line.measurements.seconds.iter().copied()));
    let bound =
        || lines.iter().filter_map(|line| line.measurements.unfinished_seconds).max_by(f64::total_cmp);
    match timed {
        Some(value) => Some(Seconds { value, is_bound: false }),
        None => Some(Seconds { value: bound()?, is_bound: true }),
    }
}

fn peak(lines: &[&Line]) -> Option<f64> {
    median(lines.iter().filter_map(|line| Some(line.measurements.peak_bytes_in_training? as f64)))
}

/// The ratio of each round in which both have steps.
fn by_round(ours: &[&Line], peer: &[&Line]) -> String {
    let of = |lines: &[&Line], round: u32| {
        let lines = lines.iter().filter(|line| line.round == round);
        median(lines.flat_map(|line| line.measurements.seconds.iter().copied()))
    };
    let last = ours.iter().map(|line| line.round).max().unwrap_or(0);
    let ratios = (1..=last).filter_map(|round| Some(format!("{:.2}", of(peer, round)? / of(ours, round)?)));
    ratios.collect::<Vec<_>>().join(", ")
}

/// The middle value, or the mean of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    Some(if values.len() % 2 == 1 { upper } else { f64::midpoint(values[values.len() / 2 - 1], upper) })
}

#[cfg(test)]
mod tests {
    use super::super::lines::tests::line;
    use super::super::lines::{Measurements, Side};
    use super::{GIB, markdown};

    fn timed(seconds: &[f64]) -> Measurements {
        Measurements { seconds: seconds.to_vec(), ..Measurements::default() }
    }

    fn held(gib: f64) -> Measurements {
        Measurements { peak_bytes_in_training: Some((gib * GIB) as u64), ..Measurements::default() }
    }

    #[test]
    fn speed_is_the_ratio_of_medians_and_each_round_has_its_own() {
        let text = markdown(&[
            line(Side::Ours, "lora", 1, timed(&[1.0, 3.0])),
            line(Side::Peer, "lora-no-vae", 1, timed(&[4.0])),
            line(Side::Ours, "lora", 2, timed(&[2.0])),
            line(Side::Peer, "lora-no-vae", 2, timed(&[6.0])),
        ]);
        assert!(text.contains("| mapo | ours | lora | no | 2.00 | 0.5000 |"), "{text}");
        assert!(text.contains("| mapo | lora no | lora-no-vae no | 2.50 | 2.00, 3.00 |"), "{text}");
    }

    #[test]
    fn a_step_that_was_stopped_bounds_the_ratio() {
        let stopped = Measurements { unfinished_seconds: Some(90.0), ..Measurements::default() };
        let text =
            markdown(&[line(Side::Ours, "lora", 1, timed(&[3.0])), line(Side::Peer, "lora", 1, stopped)]);
        assert!(text.contains("| mapo | lora no | lora no | >30.00 |  |"), "{text}");
    }

    #[test]
    fn memory_of_dpo_is_set_beside_that_of_mapo_and_of_the_peer() {
        let dpo = |side, mode, gib| {
            let mut line = line(side, mode, 1, held(gib));
            line.case.method = "diffusion-dpo".to_owned();
            line
        };
        let text = markdown(&[
            dpo(Side::Ours, "full-precomputed", 10.0),
            line(Side::Ours, "full", 1, held(10.0)),
            dpo(Side::Peer, "full", 20.0),
        ]);
        let ours = "| ours full-precomputed diffusion-dpo no adamw |";
        assert!(text.contains(&format!("{ours} ours full mapo no adamw | 1.000 |")), "{text}");
        assert!(text.contains(&format!("{ours} peer full diffusion-dpo no adamw | 0.500 |")), "{text}");
        assert!(!text.contains("seconds a step | pairs a second"), "no table without rows: {text}");
    }
}
