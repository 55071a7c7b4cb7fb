//! Drawings of the page: win-rate bars and training curves, as inline SVG.

use super::model::{CurvePoint, Method, Report};
use super::page::{color_class, method_label};
use super::text::{escape, percent};
use crate::winrate::WinRate;

/// A win rate as a bar with its interval as a whisker, on an axis from 0 to 100%.
pub(crate) fn win_bar(rate: &WinRate, class: &str) -> String {
    const WIDTH: f64 = 180.0;
    let at = |share: f64| coordinate(share * WIDTH);
    let (low, high, mid, end) = (at(rate.low), at(rate.high), at(0.5), at(rate.rate));
    format!(
        "<svg class=\"bar {class}\" viewBox=\"-1 0 182 24\" role=\"img\" aria-label=\"{} won, 95% interval {} to {}\">\
         <rect class=\"track\" y=\"6\" width=\"180\" height=\"12\" rx=\"3\"/>\
         <rect class=\"fill\" y=\"6\" width=\"{end}\" height=\"12\" rx=\"3\"/>\
         <path class=\"half\" d=\"M{mid} 1V23\"/>\
         <path class=\"whisker\" d=\"M{low} 12H{high}M{low} 7V17M{high} 7V17\"/></svg>",
        percent(rate.rate),
        percent(rate.low),
        percent(rate.high)
    )
}

/// A cell of a table: the bar, and `shown` figures beside it.
pub(crate) fn win_cell(rate: &WinRate, class: &str, shown: fn(f64) -> String) -> String {
    format!(
        "<td class=\"win\" title=\"{} won, {} tied, {} lost\">{}<span><b>{}</b> {}&ndash;{}</span></td>",
        rate.wins,
        rate.ties,
        rate.losses,
        win_bar(rate, class),
        shown(rate.rate),
        shown(rate.low),
        shown(rate.high)
    )
}

/// The training curves of every method; nothing when none was recorded.
pub(super) fn section(report: &Report) -> String {
    let recorded: Vec<&Method> =
        report.methods.iter().filter(|method| !method.training.curve.is_empty()).collect();
    if recorded.is_empty() {
        return String::new();
    }
    // One scale for all methods, so that panels can be compared at a glance.
    let ratios = recorded.iter().flat_map(|method| {
        [winner_ratio, loser_ratio]
            .map(|figure| series(method, figure))
            .into_iter()
            .flat_map(|line| smooth(&line))
    });
    let ratio_range = range(ratios.map(|(_, y)| y).chain([1.0]));
    let figures: String = recorded
        .iter()
        .map(|method| {
            format!(
                "<div class=\"figures {}\">\n<h3>{}</h3>\n{}{}{}</div>\n",
                color_class(report, &method.name),
                method_label(report, method),
                error_chart(method, ratio_range),
                loss_chart(method),
                accuracy_chart(method)
            )
        })
        .collect();
    format!(
        "<section id=\"curves\">\n<h2>Training</h2>\n\
         <p>Faint lines are single steps, strong lines their moving average. Errors are relative to the reference: a \
         healthy run lowers the winner's or keeps it near 1 while the loser's rises above it. Losses are in each method's own \
         unit. Implicit accuracy is the share of pairs whose winner the model already favors more than the \
         reference does.</p>\n{figures}</section>\n"
    )
}

type Line = Vec<(f64, f64)>;

fn series(method: &Method, figure: fn(&CurvePoint) -> Option<f64>) -> Line {
    method.training.curve.iter().filter_map(|point| Some((point.step as f64, figure(point)?))).collect()
}

fn winner_ratio(point: &CurvePoint) -> Option<f64> {
    point.winner_error_ratio
}

fn loser_ratio(point: &CurvePoint) -> Option<f64> {
    point.loser_error_ratio
}

fn error_chart(method: &Method, y_range: (f64, f64)) -> String {
    let (winner, loser) = (series(method, winner_ratio), series(method, loser_ratio));
    if winner.is_empty() && loser.is_empty() {
        return String::new();
    }
    let curves = [
        Curve { line: winner, name: "winner", dashed: false },
        Curve { line: loser, name: "loser", dashed: true },
    ];
    chart("Error relative to the reference", &curves, y_range, Some(1.0))
}

fn loss_chart(method: &Method) -> String {
    let line = series(method, |point| Some(point.loss));
    let y_range = range(line.iter().map(|&(_, y)| y));
    chart("Loss", &[Curve { line, name: "", dashed: false }], y_range, None)
}

fn accuracy_chart(method: &Method) -> String {
    let line = series(method, |point| point.implicit_accuracy);
    if line.is_empty() {
        return String::new();
    }
    chart("Implicit accuracy", &[Curve { line, name: "", dashed: false }], (0.0, 1.0), Some(0.5))
}

struct Curve {
    line: Line,
    name: &'static str,
    dashed: bool,
}

const WIDTH: f64 = 324.0;
const LEFT: f64 = 40.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 140.0;

fn chart(title: &str, curves: &[Curve], (low, high): (f64, f64), reference: Option<f64>) -> String {
    let last_step = curves.iter().flat_map(|curve| &curve.line).map(|&(x, _)| x).fold(1.0, f64::max);
    let named = curves.iter().any(|curve| !curve.name.is_empty());
    let right = WIDTH - if named { 52.0 } else { 8.0 };
    let to_x = |x: f64| LEFT + (right - LEFT) * x / last_step;
    let to_y = |y: f64| BOTTOM - (BOTTOM - TOP) * (y - low) / (high - low);

    let y_ticks: String = ticks(low, high)
        .into_iter()
        .map(|(value, label)| {
            let y = coordinate(to_y(value));
            format!("<path class=\"grid\" d=\"M{LEFT} {y}H{right}\"/><text x=\"34\" y=\"{y}\" dy=\".32em\" text-anchor=\"end\">{label}</text>")
        })
        .collect();
    let x_ticks: String = ticks(0.0, last_step)
        .into_iter()
        .map(|(value, label)| {
            let x = coordinate(to_x(value));
            format!("<text x=\"{x}\" y=\"156\" text-anchor=\"middle\">{label}</text>")
        })
        .collect();
    let reference = reference.filter(|value| (low..=high).contains(value)).map(|value| {
        format!("<path class=\"reference\" d=\"M{LEFT} {0}H{right}\"/>", coordinate(to_y(value)))
    });
    let smoothed: Vec<Line> = curves.iter().map(|curve| smooth(&curve.line)).collect();
    let ends: Vec<Option<f64>> = smoothed.iter().map(|line| line.last().map(|&(_, y)| to_y(y))).collect();
    let label_heights = keep_apart(&ends);
    let lines: String = curves
        .iter()
        .zip(&smoothed)
        .zip(label_heights)
        .map(|((curve, smooth), label_height)| {
            let dashed = if curve.dashed { " dashed" } else { "" };
            let place = |&(x, y): &(f64, f64)| (to_x(x), to_y(y).clamp(TOP - 4.0, BOTTOM + 4.0));
            let label = label_height.filter(|_| !curve.name.is_empty()).map(|y| {
                format!(
                    "<text class=\"name\" x=\"{}\" y=\"{}\" dy=\".32em\">{}</text>",
                    right + 6.0,
                    coordinate(y),
                    curve.name
                )
            });
            format!(
                "<path class=\"raw{dashed}\" d=\"{}\"/><path class=\"line{dashed}\" d=\"{}\"/>{}",
                path(curve.line.iter().map(place)),
                path(smooth.iter().map(place)),
                label.unwrap_or_default()
            )
        })
        .collect();
    format!(
        "<figure><figcaption>{}</figcaption><svg class=\"chart\" viewBox=\"0 0 {WIDTH} 176\" role=\"img\" aria-label=\"{0} over steps\">\
         {y_ticks}{x_ticks}<text x=\"{}\" y=\"172\" text-anchor=\"middle\">step</text>{}{lines}</svg></figure>\n",
        escape(title),
        coordinate((LEFT + right) / 2.0),
        reference.unwrap_or_default()
    )
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
pub(crate) fn coordinate(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// Moving average over a tenth of the line, centerd where both sides have room.
fn smooth(line: &[(f64, f64)]) -> Line {
    let reach = line.len() / 20;
    (0..line.len())
        .map(|center| {
            let window = &line[center.saturating_sub(reach)..(center + reach + 1).min(line.len())];
            (line[center].0, window.iter().map(|&(_, y)| y).sum::<f64>() / window.len() as f64)
        })
        .collect()
}

/// A range that holds all finite values, with a little room.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
    if low > high {
        return (0.0, 1.0);
    }
    let room = (0.08 * (high - low)).max(1e-3 * high.abs()).max(1e-9);
    (low - room, high + room)
}

/// Round values within a range, with their labels.
pub(crate) fn ticks(low: f64, high: f64) -> Vec<(f64, String)> {
    let rough = (high - low) / 5.0;
    let magnitude = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * magnitude).into_iter().find(|&step| step >= rough);
    let step = step.unwrap_or(10.0 * magnitude);
    let decimals = (-step.log10().floor()).clamp(0.0, 9.0) as usize;
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    (first..=last).map(|index| (index as f64 * step, format!("{:.decimals$}", index as f64 * step))).collect()
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
}
