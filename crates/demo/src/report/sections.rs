//! Sections of the page that a plain comparison does not have.

use tastemaker_eval::compare::Comparison;
use tastemaker_pages::charts::{Curve, Line, lines, range, smooth};
use tastemaker_pages::format::{duration, memory, percent, ratio, signed_points, tenths};
use tastemaker_pages::{Markup, Section, color, html, named, nothing, number, table};

use super::{
    CAPTION_ACCURACY_TOLERANCE, CurvePoint, Details, Finding, Fractions, Method, Severity,
    WINNER_DRIFT_LIMIT, position,
};

/// A line for the card of each model.
pub fn cards(comparison: &Comparison, details: &Details) -> Vec<String> {
    let line = |name: &str| {
        let method = details.methods.iter().find(|method| method.name == name)?;
        let change = method.fractions?[0].caption_accuracy - details.base[0].caption_accuracy;
        let Method { training, .. } = method;
        let (steps, seconds) = (training.steps, duration(training.seconds));
        Some(format!("captions {} points; {steps} steps, {seconds}", signed_points(change)))
    };
    comparison.models.iter().map(|model| line(&model.name).unwrap_or_default()).collect()
}

/// What else to know to read the page.
pub fn reading(details: &Details) -> Markup {
    html! {
        p {
            b { "Held-out" } " prompts were kept out of the training pairs, so they tell learning from memorizing; " b { "seen" }
            " prompts were in them. " b { "Caption accuracy" } " is how often the judge recognizes what was asked for; it should \
             not fall."
            @if let Some(control) = details.methods.iter().find(|method| method.is_control) {
                " " b { (control.name) } " is a control that merely imitates the winners: a method earns its keep only where it \
                 also beats the control, or does the same with less damage."
            }
        }
    }
}

/// What went wrong; nothing when nothing did.
pub fn alarms(findings: &[Finding]) -> Option<Section> {
    let worst = findings.first()?;
    let heading = if worst.severity == Severity::Note { "Worth knowing" } else { "What went wrong" };
    // One box per model, that with the worst finding first.
    let mut boxes: Vec<Vec<&Finding>> = Vec::new();
    for finding in findings {
        match boxes.iter_mut().find(|found| found[0].model == finding.model) {
            Some(found) => found.push(finding),
            None => boxes.push(vec![finding]),
        }
    }
    let alarm = |found: &[&Finding]| {
        let (class, word) = match found[0].severity {
            Severity::Error => ("error", "Failed"),
            Severity::Warning => ("warning", "Caution"),
            Severity::Note => ("note", "Note"),
        };
        html! { li class=(class) { b { (word) } div { h3 { (found[0].model) } @for one in found { p { (one.what) } } } } }
    };
    Some(Section::new("alarms", heading, html! { ul.alarms { @for found in &boxes { (alarm(found)) } } }))
}

/// Costs, training curves, the judge.
pub fn after(comparison: &Comparison, details: &Details) -> Vec<Section> {
    let curves = curves(comparison, details).map(|body| Section::new("training", "Training", body));
    let costs = Section::new("costs", "Costs", costs(comparison, details));
    let costs = costs.headed("What it kept, what it took".to_owned());
    [Some(costs), curves, Some(Section::new("judge", "The judge", judge(details)))]
        .into_iter()
        .flatten()
        .collect()
}

/// A method's name in its color; gray for one without a model.
fn label(comparison: &Comparison, method: &Method) -> Markup {
    named(&class(comparison, method), &method.name)
}

fn class(comparison: &Comparison, method: &Method) -> String {
    color(position(comparison, method).unwrap_or(0))
}

/// What each model kept of the base, and what its training took.
fn costs(comparison: &Comparison, details: &Details) -> Markup {
    let target =
        details.task.target().map(|(_, label)| ["held out", "seen"].map(|side| format!("{label}, {side}")));
    let heads: Vec<&str> = ["Model", "caption accuracy, held out", "caption accuracy, seen"]
        .into_iter()
        .chain(target.iter().flatten().map(String::as_str))
        .chain(["winner error ratio", "loser error ratio", "steps", "training time", "peak memory"])
        .collect();
    let base = html! {
        th scope="row" { (named(&color(0), comparison.baseline())) } (fractions(details, Some(&details.base), true))
        @for _ in 0..5 { (nothing()) }
    };
    let method = |method: &Method| {
        html! {
            th scope="row" { (label(comparison, method)) } (fractions(details, method.fractions.as_ref(), false))
            (training(method))
        }
    };
    let rows = std::iter::once(base).chain(details.methods.iter().map(method));
    html! {
        p {
            "Changes against the base are in percentage points. The error ratios compare the model's squared error on winners \
             and losers with the reference's at the end of training: winners should not rise much above 1."
        }
        (table("", &heads, rows))
    }
}

fn fractions(details: &Details, of: Option<&[Fractions; 2]>, is_base: bool) -> Markup {
    let cell = |side: usize, read: fn(&Fractions) -> Option<f64>, tolerance: f64| {
        let Some(value) = of.and_then(|of| read(&of[side])) else { return nothing() };
        let change = read(&details.base[side]).map(|base| value - base).filter(|_| !is_base);
        let fell = change.is_some_and(|change| change < -tolerance);
        html! { td.fell[fell] { (percent(value)) @if let Some(change) = change { " " i { (signed_points(change)) } } } }
    };
    html! {
        @for side in 0..2 { (cell(side, |of| Some(of.caption_accuracy), CAPTION_ACCURACY_TOLERANCE)) }
        @if details.task.target().is_some() { @for side in 0..2 { (cell(side, |of| of.target, f64::INFINITY)) } }
    }
}

fn training(method: &Method) -> Markup {
    let training = &method.training;
    let (winner, loser) = training.final_error_ratios();
    let drifted = winner.is_some_and(|winner| winner > WINNER_DRIFT_LIMIT);
    let cell = |text: Option<String>| text.map_or_else(nothing, |text| number(text, None));
    html! {
        @match winner { Some(winner) => td.fell[drifted] { (ratio(winner)) }, None => (nothing()) }
        (cell(loser.map(ratio))) (cell(Some(training.steps.to_string()))) (cell(Some(duration(training.seconds))))
        (cell(training.peak_memory_bytes.map(memory)))
    }
}

/// The training curves of every method; nothing when none was recorded.
fn curves(comparison: &Comparison, details: &Details) -> Option<Markup> {
    let recorded: Vec<&Method> =
        details.methods.iter().filter(|method| !method.training.curve.is_empty()).collect();
    // One scale for all methods, so that panels can be compared at a glance.
    let ratios = recorded.iter().flat_map(|method| {
        [winner_ratio, loser_ratio].into_iter().flat_map(|metric| smooth(&series(method, metric)))
    });
    let y_range = range(ratios.map(|(_, y)| y).chain([1.0]));
    let panels = |method: &Method| {
        html! {
            div class={ "panels " (class(comparison, method)) } {
                h3 { (label(comparison, method)) }
                @for chart in [errors(method, y_range), Some(loss(method)), accuracy(method)].iter().flatten() { (chart) }
            }
        }
    };
    (!recorded.is_empty()).then(|| {
        html! {
            p {
                "Faint lines are single steps, strong lines their moving average. Errors are relative to the reference: a \
                 healthy run lowers the winner's or keeps it near 1 while the loser's rises above it. Losses are in each \
                 method's own unit. Implicit accuracy is the fraction of pairs whose winner the model already favors more than \
                 the reference does."
            }
            @for method in &recorded { (panels(method)) }
        }
    })
}

fn series(method: &Method, metric: fn(&CurvePoint) -> Option<f64>) -> Line {
    method.training.curve.iter().filter_map(|point| Some((point.step as f64, metric(point)?))).collect()
}

fn winner_ratio(point: &CurvePoint) -> Option<f64> {
    point.winner_error_ratio
}

fn loser_ratio(point: &CurvePoint) -> Option<f64> {
    point.loser_error_ratio
}

fn errors(method: &Method, y_range: (f64, f64)) -> Option<Markup> {
    let curves = [
        Curve { line: series(method, winner_ratio), name: "winner", dashed: false },
        Curve { line: series(method, loser_ratio), name: "loser", dashed: true },
    ];
    let is_empty = curves.iter().all(|curve| curve.line.is_empty());
    (!is_empty).then(|| lines("Error relative to the reference", &curves, y_range, Some(1.0)))
}

fn loss(method: &Method) -> Markup {
    let line = series(method, |point| Some(point.loss));
    let y_range = range(line.iter().map(|&(_, y)| y));
    lines("Loss", &[Curve { line, name: "", dashed: false }], y_range, None)
}

fn accuracy(method: &Method) -> Option<Markup> {
    let line = series(method, |point| point.implicit_accuracy);
    (!line.is_empty()).then(|| {
        lines("Implicit accuracy", &[Curve { line, name: "", dashed: false }], (0.0, 1.0), Some(0.5))
    })
}

/// How far judge and scorer can be trusted.
fn judge(details: &Details) -> Markup {
    html! {
        p {
            "The judge is the nearest real artwork, by caption and style, in a feature space fixed by formula; no trained \
             network has a say in it."
            @if !details.judge_check.is_empty() {
                " Before it judged any model, it read real artworks that were disturbed in these ways, and had to name what \
                 they show and how they are drawn:"
            }
        }
        @if !details.judge_check.is_empty() {
            (table("narrow", &["Disturbance", "artworks", "caption named", "style named"], details.judge_check.iter().map(|row| {
                html! {
                    th scope="row" { (row.disturbance) } (number(row.n.to_string(), None))
                    (number(tenths(row.caption_accuracy), None)) (number(tenths(row.style_accuracy), None))
                }
            })))
        }
        @if let Some(check) = &details.scorer_check {
            h3 { "The preference scorer" }
            p {
                "A second opinion, learned from " (check.n_train_pairs) " ranked pairs of real art whose captions were not held \
                 out, so that its scores of seen prompts say little. Before it was used, it ranked real art of held-out \
                 captions, with a 95% Wilson interval:"
            }
            @let heads = ["Held-out pairs", "pairs", "ranked correctly", "by the judge", "agreement"];
            (table("narrow", &heads, check.rows.iter().map(|row| {
                let interval = format!("{} to {}", percent(row.wilson_low), percent(row.wilson_high));
                html! {
                    th scope="row" { (row.pairs) } (number(row.n.to_string(), None))
                    (number(tenths(row.accuracy), Some(interval))) (number(tenths(row.judge_accuracy), None))
                    (number(tenths(row.agreement), None))
                }
            })))
        }
    }
}
