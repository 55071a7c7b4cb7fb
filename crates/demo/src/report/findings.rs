//! What the results say, derived from them alone, so that a lost comparison cannot be skipped.

use serde::Serialize;
use tastemaker_eval::compare::{Comparison, Results};
use tastemaker_eval::winrate::{Verdict, WinRate};
use tastemaker_pages::format::{percent, points, ratio};

use super::{Details, Method, position};

/// Fall in caption accuracy, in fractions of images, that counts as damage.
pub const CAPTION_ACCURACY_TOLERANCE: f64 = 0.03;

/// Winner error over the reference's beyond which a model has drifted from the images it should generate.
pub const WINNER_DRIFT_LIMIT: f64 = 1.15;

/// Indices of the scorers in the comparison.
const JUDGE: usize = 0;
const PREFERENCE: usize = 1;

/// Something a reader must not miss.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Name of the model it is about.
    pub model: String,
    /// What happened, as a sentence.
    pub what: String,
}

/// How bad a finding is, worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// A method failed or made things worse.
    Error,
    /// A claim is not supported, or a guard was crossed.
    Warning,
    /// Worth knowing.
    Note,
}

/// Everything a reader must not miss, worst first.
pub fn findings(comparison: &Comparison, results: &Results, details: &Details) -> Vec<Finding> {
    let mut found = Vec::new();
    for method in &details.methods {
        found.extend(
            about(method, comparison, results, details).into_iter().map(|(severity, what)| Finding {
                severity,
                model: method.name.clone(),
                what,
            }),
        );
    }
    found.sort_by_key(|finding| finding.severity); // stable: methods keep their order
    found
}

fn about(
    method: &Method,
    comparison: &Comparison,
    results: &Results,
    details: &Details,
) -> Vec<(Severity, String)> {
    let mut found = Vec::new();
    if let Some(failure) = &method.failure {
        found.push((Severity::Error, format!("Ended early: {failure}")));
    }
    if let Some(model) = position(comparison, method) {
        found.extend(about_base(model, results));
        found.extend(about_captions(method, details));
        let control = details.methods.iter().find(|other| other.is_control && other.name != method.name);
        let control = control.and_then(|control| position(comparison, control));
        let rate = control.and_then(|control| results.overall(JUDGE, model, control));
        found.extend(rate.and_then(|rate| about_control(&rate)));
    }
    let (winner, _) = method.training.final_error_ratios();
    if let Some(drift) = winner.filter(|winner| *winner > WINNER_DRIFT_LIMIT) {
        let what = format!(
            "Its error on winners grew to {} of the reference's (guard: {}). It no longer predicts the images it \
             is meant to prefer, the usual sign of too many steps or too high a learning rate.",
            ratio(drift),
            ratio(WINNER_DRIFT_LIMIT)
        );
        found.push((Severity::Warning, what));
    }
    found
}

fn about_base(model: usize, results: &Results) -> Vec<(Severity, String)> {
    let Some(rate) = results.overall(JUDGE, model, 0) else { return Vec::new() };
    let mut found = Vec::new();
    match rate.verdict() {
        Verdict::Better => {}
        Verdict::Worse => found.push((
            Severity::Error,
            format!("Lost to the base on held-out prompts: it wins only {} of the samples.", interval(&rate)),
        )),
        Verdict::Unclear => found.push((
            Severity::Warning,
            format!(
                "Not shown to beat the base on held-out prompts: it wins {} of the samples.",
                interval(&rate)
            ),
        )),
    }
    if let Some(second) = results.overall(PREFERENCE, model, 0)
        && (rate.verdict(), second.verdict()) == (Verdict::Better, Verdict::Worse)
    {
        let what = format!(
            "The preference scorer disagrees with the judge: by its scores the method wins only {} of the held-out \
             samples against the base.",
            interval(&second)
        );
        found.push((Severity::Warning, what));
    }
    found
}

fn about_captions(method: &Method, details: &Details) -> Option<(Severity, String)> {
    let now = method.fractions?[0].caption_accuracy;
    let fall = details.base[0].caption_accuracy - now;
    let what = format!(
        "Caption accuracy on held-out prompts fell by {} to {}: it generates what it was asked for less often.",
        points(fall),
        percent(now)
    );
    (fall > CAPTION_ACCURACY_TOLERANCE).then_some((Severity::Warning, what))
}

fn about_control(rate: &WinRate) -> Option<(Severity, String)> {
    match rate.verdict() {
        Verdict::Better => None,
        Verdict::Unclear => Some((
            Severity::Note,
            format!(
                "No clear difference from the control that only imitates winners: it wins {}.",
                interval(rate)
            ),
        )),
        Verdict::Worse => Some((
            Severity::Warning,
            format!("Loses to the control that only imitates winners: it wins {}.", interval(rate)),
        )),
    }
}

fn interval(rate: &WinRate) -> String {
    let [estimate, low, high] = [rate.rate.estimate, rate.rate.low, rate.rate.high].map(percent);
    format!("{estimate} (95% interval {low} to {high})")
}
