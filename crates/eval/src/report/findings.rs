//! What the figures say, derived from them alone, so that a lost comparison cannot be skipped.

use super::model::{Alarm, Method, Outcome, Report, Severity};
use super::text::{percent, points, ratio};
use crate::winrate::WinRate;

/// Fall in caption accuracy, in shares of images, that counts as damage.
pub const CAPTION_ACCURACY_TOLERANCE: f64 = 0.03;

/// Winner error over the reference's beyond which a model has drifted from the images it should generate.
pub const WINNER_DRIFT_LIMIT: f64 = 1.15;

/// What a win rate with its interval allows to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole interval lies above one half.
    Better,
    /// The interval holds one half.
    Unclear,
    /// The whole interval lies below one half.
    Worse,
}

impl Verdict {
    /// Reads a win rate.
    pub fn of(win_rate: &WinRate) -> Self {
        if win_rate.low > 0.5 {
            Self::Better
        } else if win_rate.high < 0.5 {
            Self::Worse
        } else {
            Self::Unclear
        }
    }

    /// One or two words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Better => "better",
            Self::Unclear => "no clear difference",
            Self::Worse => "worse",
        }
    }
}

/// Everything a reader must not miss, worst first: the alarms of the run and what the figures show.
pub fn findings(report: &Report) -> Vec<Alarm> {
    let mut found = report.alarms.clone();
    for method in &report.methods {
        found.extend(about(method, report).into_iter().map(|(severity, what)| Alarm {
            severity,
            method: Some(method.label.clone()),
            what,
        }));
    }
    found.sort_by_key(|alarm| alarm.severity); // stable: methods keep their order
    found
}

fn about(method: &Method, report: &Report) -> Vec<(Severity, String)> {
    let mut found = Vec::new();
    if let Some(failure) = &method.failure {
        found.push((Severity::Failure, format!("Ended early: {failure}")));
    }
    if let Some(outcome) = &method.outcome {
        found.extend(about_outcome(method, outcome, report));
    }
    if let (Some(winner_drift), _) = method.final_error_ratios()
        && winner_drift > WINNER_DRIFT_LIMIT
    {
        let what = format!(
            "Its error on winners grew to {} of the reference's (guard: {}). It no longer predicts the images it \
             is meant to prefer, the usual sign of too many steps or too high a learning rate.",
            ratio(winner_drift),
            ratio(WINNER_DRIFT_LIMIT)
        );
        found.push((Severity::Warning, what));
    }
    found
}

fn about_outcome(method: &Method, outcome: &Outcome, report: &Report) -> Vec<(Severity, String)> {
    let mut found = Vec::new();
    let held_out = &outcome.versus_base.held_out;
    let interval = format!(
        "{} (95% interval {} to {})",
        percent(held_out.rate),
        percent(held_out.low),
        percent(held_out.high)
    );
    match Verdict::of(held_out) {
        Verdict::Better => {}
        Verdict::Worse => found.push((
            Severity::Failure,
            format!("Lost to the base on held-out captions: it wins only {interval} of the comparisons."),
        )),
        Verdict::Unclear => found.push((
            Severity::Warning,
            format!(
                "Not shown to beat the base on held-out captions: it wins {interval} of the comparisons."
            ),
        )),
    }
    if let Some(second) = &outcome.versus_base_by_scorer
        && Verdict::of(held_out) == Verdict::Better
        && Verdict::of(second) == Verdict::Worse
    {
        let what = format!(
            "The preference scorer disagrees with the judge: by its scores the method wins only {} (95% interval {} to \
             {}) of the held-out comparisons with the base.",
            percent(second.rate),
            percent(second.low),
            percent(second.high)
        );
        found.push((Severity::Warning, what));
    }
    let fall = report.base.held_out.caption_accuracy - outcome.shares.held_out.caption_accuracy;
    if fall > CAPTION_ACCURACY_TOLERANCE {
        let what = format!(
            "Caption accuracy on held-out captions fell by {} to {}: it generates what it was asked for less often.",
            points(fall),
            percent(outcome.shares.held_out.caption_accuracy)
        );
        found.push((Severity::Warning, what));
    }
    let control = report.methods.iter().find(|other| other.is_control && other.name != method.name);
    if let Some(versus_control) = control.and_then(|control| outcome.versus_methods.get(&control.name)) {
        let rate = &versus_control.held_out;
        let interval =
            format!("{} (95% interval {} to {})", percent(rate.rate), percent(rate.low), percent(rate.high));
        match Verdict::of(rate) {
            Verdict::Better => {}
            Verdict::Unclear => found.push((
                Severity::Remark,
                format!(
                    "Not shown to differ from the control that only imitates winners: it wins {interval}."
                ),
            )),
            Verdict::Worse => found.push((
                Severity::Warning,
                format!("Behind the control that only imitates winners: it wins {interval}."),
            )),
        }
    }
    found
}
