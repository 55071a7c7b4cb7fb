//! Drawings as inline SVG: rates with intervals, lines over steps, histograms.

use maud::{Markup, html};
use tastemaker_math::intervals::Interval;

use crate::format::percent;

/// A rate as a bar with its interval as a whisker, on an axis from 0 to 100% with a line at one half.
pub fn rate_bar(rate: &Interval, color: &str) -> Markup {
    const WIDTH: f64 = 180.0;
    let at = |fraction: f64| coordinate(fraction * WIDTH);
    let Interval { estimate, low, high } = *rate;
    let label = format!("{}, 95% interval {} to {}", percent(estimate), percent(low), percent(high));
    let (low, high) = (at(low), at(high));
    html! {
        svg class={ "bar " (color) } viewBox="-1 0 182 24" role="img" aria-label=(label) {
            rect.track y="6" width="180" height="12" rx="3" {}
            rect.fill y="6" width=(at(estimate)) height="12" rx="3" {}
            path.half d={ "M" (at(0.5)) " 1V23" } {}
            path.whisker d={ "M" (low) " 12H" (high) "M" (low) " 7V17M" (high) " 7V17" } {}
        }
    }
}

/// Points of a line, by x.
pub type Line = Vec<(f64, f64)>;

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Curve {
    /// Its points.
    pub line: Line,
    /// Its name, shown at its end; empty for none.
    pub name: &'static str,
    /// Whether it is dashed.
    pub dashed: bool,
}

const WIDTH: f64 = 324.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 140.0;

/// Lines over steps: faint as they are, strong as their moving average. `reference` is a value with a line of its own.
pub fn lines(title: &str, curves: &[Curve], (low, high): (f64, f64), reference: Option<f64>) -> Markup {
    let last_step = curves.iter().flat_map(|curve| &curve.line).map(|&(x, _)| x).fold(1.0, f64::max);
    let named = curves.iter().any(|curve| !curve.name.is_empty());
    let right = WIDTH - if named { 52.0 } else { 8.0 };
    let to_x = |x: f64| LEFT + (right - LEFT) * x / last_step;
    let to_y = |y: f64| BOTTOM - (BOTTOM - TOP) * (y - low) / (high - low);
    let reference =
        reference.filter(|value| (low..=high).contains(value)).map(|value| coordinate(to_y(value)));
    let smoothed: Vec<Line> = curves.iter().map(|curve| smooth(&curve.line)).collect();
    let ends: Vec<Option<f64>> = smoothed.iter().map(|line| line.last().map(|&(_, y)| to_y(y))).collect();
    let place = |&(x, y): &(f64, f64)| (to_x(x), to_y(y).clamp(TOP - 4.0, BOTTOM + 4.0));
    html! {
        figure {
            figcaption { (title) }
            svg.chart viewBox={ "0 0 " (WIDTH) " 176" } role="img" aria-label={ (title) " over steps" } {
                @for (value, label) in ticks(low, high) {
                    @let y = coordinate(to_y(value));
                    path.grid d={ "M" (LEFT) " " (y) "H" (right) } {}
                    text x="34" y=(y) dy=".32em" text-anchor="end" { (label) }
                }
                @for (value, label) in ticks(0.0, last_step) {
                    text x=(coordinate(to_x(value))) y="156" text-anchor="middle" { (label) }
                }
                text x=(coordinate((LEFT + right) / 2.0)) y="172" text-anchor="middle" { "step" }
                @if let Some(y) = reference { path.reference d={ "M" (LEFT) " " (y) "H" (right) } {} }
                @for ((curve, smooth), height) in curves.iter().zip(&smoothed).zip(keep_apart(&ends)) {
                    path.raw.dashed[curve.dashed] d=(path(curve.line.iter().map(place))) {}
                    path.line.dashed[curve.dashed] d=(path(smooth.iter().map(place))) {}
                    @if let Some(y) = height.filter(|_| !curve.name.is_empty()) {
                        text.name x=(right + 6.0) y=(coordinate(y)) dy=".32em" { (curve.name) }
                    }
                }
            }
        }
    }
}

/// Heights for line-end labels, at least a line of text from each other.
fn keep_apart(ends: &[Option<f64>]) -> Vec<Option<f64>> {
    const GAP: f64 = 13.0;
    let mut order: Vec<usize> =
        (0..ends.len()).filter(|&index| ends[index].is_some_and(f64::is_finite)).collect();
    order.sort_by(|&a, &b| ends[a].partial_cmp(&ends[b]).unwrap_or(std::cmp::Ordering::Equal));
    let mut heights = vec![None; ends.len()];
    let mut above = f64::NEG_INFINITY;
    for index in order {
        let wanted = ends[index].unwrap_or(TOP).clamp(TOP, BOTTOM);
        above = wanted.max(above + GAP);
        heights[index] = Some(above);
    }
    heights
}

/// An SVG path; a value that is not finite leaves a gap.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut pen_down = false;
    let mut drawn = String::new();
    for (x, y) in points {
        if x.is_finite() && y.is_finite() {
            drawn.push(if pen_down { 'L' } else { 'M' });
            drawn.push_str(&format!("{} {}", coordinate(x), coordinate(y)));
        }
        pen_down = x.is_finite() && y.is_finite();
    }
    drawn
}

/// A coordinate with one decimal at most: a tenth of a pixel is enough.
fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// Moving average over a tenth of the line, centered where both sides have room.
pub fn smooth(line: &[(f64, f64)]) -> Line {
    let reach = line.len() / 20;
    (0..line.len())
        .map(|center| {
            let window = &line[center.saturating_sub(reach)..(center + reach + 1).min(line.len())];
            (line[center].0, window.iter().map(|&(_, y)| y).sum::<f64>() / window.len() as f64)
        })
        .collect()
}

/// A range that holds all finite values, with a little room.
pub fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = (0.05 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
    (low - room, high + room)
}

/// Round values within a range, with their labels.
fn ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 5.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(10.0 * magnitude);
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|index| (index as f64 * step, format!("{:.decimals$}", index as f64 * step))).collect()
}

const N_BINS: usize = 28;

/// Fraction of the values at either end that the outermost bins take in, so that a few of them do not squeeze the rest.
const TAIL: f64 = 0.005;

/// Counts in equal bins as outlines over a common axis. `series` and `marks` begin with the CSS class of a color; a mark is a
/// tick on the axis, and `line` a value with a line of its own.
pub fn histogram(
    title: &str,
    series: &[(String, Vec<f64>)],
    marks: &[(String, f64)],
    line: Option<f64>,
) -> Markup {
    const WIDTH: f64 = 480.0;
    const LEFT: f64 = 8.0;
    const RIGHT: f64 = 472.0;
    const TOP: f64 = 12.0;
    const BOTTOM: f64 = 150.0;
    let mut all: Vec<f64> = series.iter().flat_map(|(_, values)| values).copied().collect();
    let (low, high) = range(central(&mut all).iter().copied().chain(line));
    let counted: Vec<(&String, Vec<usize>)> =
        series.iter().map(|(color, values)| (color, bins(values, low, high))).collect();
    let most = counted.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(1).max(1) as f64;
    let to_x = |value: f64| coordinate(LEFT + (RIGHT - LEFT) * (value - low) / (high - low));
    let to_y = |count: usize| coordinate(BOTTOM - (BOTTOM - TOP) * count as f64 / most);
    let steps = |counts: &[usize]| -> String {
        let end = |bin: usize| coordinate(LEFT + (RIGHT - LEFT) * (bin + 1) as f64 / N_BINS as f64);
        counts.iter().enumerate().map(|(bin, &count)| format!("V{}H{}", to_y(count), end(bin))).collect()
    };
    html! {
        figure {
            figcaption { (title) }
            svg.histogram viewBox={ "0 0 " (WIDTH) " 176" } role="img" aria-label=(title) {
                @for (color, counts) in &counted {
                    path class={ "outline " (color) } d={ "M" (LEFT) " " (BOTTOM) (steps(counts)) "V" (BOTTOM) "Z" } {}
                }
                path.grid d={ "M" (LEFT) " " (BOTTOM) "H" (RIGHT) } {}
                @for (value, label) in ticks(low, high) {
                    path.grid d={ "M" (to_x(value)) " " (BOTTOM) "v4" } {}
                    text x=(to_x(value)) y="169" text-anchor="middle" { (label) }
                }
                @if let Some(value) = line { path.reference d={ "M" (to_x(value)) " 4V" (BOTTOM) } {} }
                @for (color, value) in marks {
                    path class={ "mark " (color) } d={ "M" (to_x(*value)) " " (BOTTOM) "v-9" } {}
                }
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        let labels = |low, high| ticks(low, high).into_iter().map(|(_, label)| label).collect::<Vec<_>>();
        assert_eq!(labels(0.0, 1.0), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(0.93, 1.21), ["1.0", "1.1", "1.2"]);
        assert_eq!(labels(0.0, 100.0), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(labels(0.6929, 0.6935), ["0.6930", "0.6932", "0.6934"]);
    }

    #[test]
    fn values_that_are_not_finite_leave_gaps() {
        let points = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.25)];
        assert_eq!(path(points.into_iter()), "M0 1M2 3L3 4.2");
        assert_eq!(range([f64::NAN, f64::INFINITY].into_iter()), (0.0, 1.0));
    }

    #[test]
    fn smoothing_keeps_the_middle_of_a_straight_line_and_calms_its_ends() {
        let line: Line = (0..100).map(|x| (f64::from(x), 2.0 * f64::from(x))).collect();
        let smoothed = smooth(&line);
        assert!((5..95).all(|index| (smoothed[index].1 - line[index].1).abs() < 1e-9));
        assert_eq!((smoothed[0].1, smoothed[99].1), (5.0, 193.0)); // means of 0..=5 and 94..=99, doubled
    }

    #[test]
    fn labels_never_overlap() {
        let heights = keep_apart(&[Some(50.0), Some(52.0), None]);
        assert_eq!(heights, [Some(50.0), Some(63.0), None]);
    }

    #[test]
    fn every_value_falls_into_a_bin() {
        let values: Vec<f64> = (0..100).map(f64::from).collect();
        let (low, high) = range(values.iter().copied());
        let counts = bins(&values, low, high);
        assert_eq!(counts.iter().sum::<usize>(), 100);
        assert_eq!(bins(&[-1e9, 1e9], 0.0, 1.0)[N_BINS - 1], 1);
        assert_eq!(central(&mut [3.0, 1.0, 2.0]), [1.0, 2.0, 3.0]);
        let (low, high) = range([3.0, 3.0].into_iter());
        assert!(low < 3.0 && high > 3.0 && bins(&[3.0, 3.0], low, high).iter().sum::<usize>() == 2);
    }

    #[test]
    fn a_bar_says_its_interval_in_words() {
        let bar = rate_bar(&Interval { estimate: 0.75, low: 0.5, high: 0.9 }, "c1").into_string();
        assert!(bar.contains("aria-label=\"75%, 95% interval 50% to 90%\""), "{bar}");
        assert!(bar.contains("<path class=\"whisker\" d=\"M90 12H162M90 7V17M162 7V17\"></path>"), "{bar}");
    }
}
