//! Distributions of scores, as inline SVG.

use super::figures::Figures;
use super::model::Comparison;
use crate::report::charts::{coordinate, ticks};
use crate::report::text::escape;

const WIDTH: f64 = 480.0;
const LEFT: f64 = 8.0;
const RIGHT: f64 = 472.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 150.0;
const N_BINS: usize = 28;

/// Share of the values at either end that the outermost bins take in, so that a few of them do not squeeze the rest.
const TAIL: f64 = 0.005;

/// Scores of every model, and differences from the first, by every scorer.
pub(super) fn section(comparison: &Comparison, figures: &Figures) -> String {
    let blocks: String =
        (0..comparison.scorers.len()).map(|scorer| block(comparison, figures, scorer)).collect();
    format!(
        "<section id=\"distributions\">\n<h2>Distributions</h2>\n<p>Left: the scores of all images; a tick on the axis is a \
         model's mean. Right: the score minus that of <b>{}</b> for the same prompt and seed; what lies right of the \
         line are wins. The outermost bars take in what lies beyond.</p>\n{blocks}</section>\n",
        escape(&comparison.models[0].name)
    )
}

fn block(comparison: &Comparison, figures: &Figures, scorer: usize) -> String {
    let scores = &comparison.scores[scorer];
    let n = comparison.models.len();
    let marks: Vec<(usize, f64)> =
        (0..n).filter_map(|one| Some((one, figures.standing(scorer, one, None)?.mean.value))).collect();
    let all: Vec<(usize, Vec<f64>)> = scores.iter().cloned().enumerate().collect();
    let differences: Vec<(usize, Vec<f64>)> = (1..n)
        .map(|one| (one, scores[one].iter().zip(&scores[0]).map(|(score, first)| score - first).collect()))
        .collect();
    let pair = if n > 3 { "pair many" } else { "pair" };
    let unit = &comparison.scorers[scorer].unit;
    let legend: String = (0..n)
        .map(|one| {
            format!(
                "<li class=\"{}\"><span class=\"dot\"></span>{}</li>",
                comparison.color(one),
                escape(&comparison.models[one].name)
            )
        })
        .collect();
    format!(
        "<div class=\"by-scorer\" data-scorer=\"{scorer}\">\n<h3>{} <i>{}</i></h3>\n<ul class=\"legend\">{legend}</ul>\n\
         <div class=\"{pair}\">{}{}</div></div>\n",
        escape(&comparison.scorers[scorer].name),
        escape(unit),
        histogram(comparison, "Scores", &all, &marks, None),
        histogram(
            comparison,
            &format!("Difference from {}", comparison.models[0].name),
            &differences,
            &[],
            Some(0.0)
        )
    )
}

/// Counts in equal bins as outlines over a common axis.
fn histogram(
    comparison: &Comparison,
    title: &str,
    series: &[(usize, Vec<f64>)],
    marks: &[(usize, f64)],
    line: Option<f64>,
) -> String {
    let mut all: Vec<f64> = series.iter().flat_map(|(_, values)| values).copied().collect();
    let (low, high) = range(central(&mut all).iter().copied().chain(line));
    let counted: Vec<(usize, Vec<usize>)> =
        series.iter().map(|(one, values)| (*one, bins(values, low, high))).collect();
    let most = counted.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(1).max(1) as f64;
    let to_x = |value: f64| LEFT + (RIGHT - LEFT) * (value - low) / (high - low);
    let to_y = |count: usize| BOTTOM - (BOTTOM - TOP) * count as f64 / most;
    let outlines: String = counted
        .iter()
        .map(|(one, counts)| {
            let steps: String = counts
                .iter()
                .enumerate()
                .map(|(bin, &count)| {
                    let end = LEFT + (RIGHT - LEFT) * (bin + 1) as f64 / N_BINS as f64;
                    format!("V{}H{}", coordinate(to_y(count)), coordinate(end))
                })
                .collect();
            format!(
                "<path class=\"outline {}\" d=\"M{} {BOTTOM}{steps}V{BOTTOM}Z\"/>",
                comparison.color(*one),
                coordinate(LEFT)
            )
        })
        .collect();
    let labels: String = ticks(low, high)
        .into_iter()
        .map(|(value, label)| {
            let x = coordinate(to_x(value));
            format!("<path class=\"grid\" d=\"M{x} {BOTTOM}v4\"/><text x=\"{x}\" y=\"169\" text-anchor=\"middle\">{label}</text>")
        })
        .collect();
    let marks: String = marks
        .iter()
        .map(|(one, value)| {
            let x = coordinate(to_x(*value));
            format!("<path class=\"mark {}\" d=\"M{x} {BOTTOM}v-9\"/>", comparison.color(*one))
        })
        .collect();
    let line = line
        .map(|value| format!("<path class=\"reference\" d=\"M{} 4V{BOTTOM}\"/>", coordinate(to_x(value))));
    format!(
        "<figure><figcaption>{0}</figcaption><svg class=\"histogram\" viewBox=\"0 0 {WIDTH} 176\" role=\"img\" \
         aria-label=\"{0}\">{outlines}<path class=\"grid\" d=\"M{LEFT} {BOTTOM}H{RIGHT}\"/>{labels}{1}{marks}</svg></figure>\n",
        escape(title),
        line.unwrap_or_default()
    )
}

/// The values in order, without the tails.
fn central(values: &mut [f64]) -> &[f64] {
    values.sort_by(f64::total_cmp);
    let tail = (values.len() as f64 * TAIL) as usize;
    &values[tail..values.len() - tail]
}

fn bins(values: &[f64], low: f64, high: f64) -> Vec<usize> {
    let mut counts = vec![0; N_BINS];
    for value in values {
        // A value below the range becomes 0.
        let bin = ((value - low) / (high - low) * N_BINS as f64) as usize;
        counts[bin.min(N_BINS - 1)] += 1;
    }
    counts
}

fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    let room = (0.02 * (high - low)).max(1e-6 * high.abs()).max(1e-9);
    (low - room, high + room)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bin() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (low, high) = range(values.iter().copied());
        let counts = bins(&values, low, high);
        assert_eq!(counts.iter().sum::<usize>(), 100);
        assert!(counts.iter().all(|count| (2..=4).contains(count)), "{counts:?}");
        assert_eq!(bins(&[-1e9, 1e9], 0.0, 1.0)[N_BINS - 1], 1);
        assert_eq!(central(&mut [3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        let (low, high) = range([3.0, 3.0].into_iter());
        assert!(low < 3.0 && high > 3.0 && bins(&[3.0, 3.0], low, high).iter().sum::<usize>() == 2);
    }
}
