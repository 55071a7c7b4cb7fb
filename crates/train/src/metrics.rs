//! Metrics of steps and of validation on held-out pairs: means over their pairs.

use std::collections::HashMap;

use tastemaker_math::objectives::{Label, TieRule, implicit_accuracy};
use tastemaker_math::schedule::quarter as quarter_of;
use tastemaker_run::{Probe, Step};

use crate::step::PairRecord;
use crate::validation::HeldOutErrors;

/// 0/0 of nothing.
fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, n) = values.fold((0.0, 0u64), |(sum, n), value| (sum + value, n + 1));
    sum / n as f64
}

/// The mean of a metric that every record has, or `None`.
fn mean_of(records: &[PairRecord], metric: impl Fn(&PairRecord) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = records.iter().map(metric).collect();
    values.map(|values| mean(values.into_iter()))
}

/// What describes a step beside its pairs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StepInfo {
    pub(crate) n_train_timesteps: usize,
    pub(crate) loss_scale: Option<f64>,
    pub(crate) skipped: bool,
    pub(crate) step: u64,
    pub(crate) grad_norm: f64,
    pub(crate) lr: f64,
    /// Where it follows margins.
    pub(crate) beta: Option<f64>,
    pub(crate) pairs_per_second: f64,
}

/// How much more the policy prefers the winner than the reference does.
fn margin_of(record: &PairRecord) -> Option<f64> {
    let (reference_winner, reference_loser) = record.reference?;
    Some((record.loser_error? - record.winner_error) - (reference_loser - reference_winner))
}

/// Mean errors of policy and reference on single images, liked ones as winners and others as losers.
struct ImageMeans {
    /// Of all images where none is liked: then there is no `ref_winner`.
    winner_error: f64,
    loser_error: Option<f64>,
    ref_winner: Option<f64>,
    ref_loser: Option<f64>,
    /// Mean over disliked images of policy error minus reference error, less the same over liked ones.
    margin: Option<f64>,
}

/// Means over images, each a label, the policy's error and the reference's.
fn of_images(images: &[(Label, f64, f64)]) -> ImageMeans {
    let over = |wanted: Label, metric: fn(&(Label, f64, f64)) -> f64| {
        let some = || images.iter().filter(move |image| image.0 == wanted);
        some().next().map(|_| mean(some().map(metric)))
    };
    let drift = |wanted| over(wanted, |image| image.1 - image.2);
    let all = || mean(images.iter().map(|image| image.1));
    ImageMeans {
        winner_error: over(Label::Liked, |image| image.1).unwrap_or_else(all),
        loser_error: over(Label::Disliked, |image| image.1),
        ref_winner: over(Label::Liked, |image| image.2),
        ref_loser: over(Label::Disliked, |image| image.2),
        margin: drift(Label::Disliked).zip(drift(Label::Liked)).map(|(disliked, liked)| disliked - liked),
    }
}

/// The single images of records, `None` for those of pairs.
fn images(records: &[PairRecord]) -> Option<Vec<(Label, f64, f64)>> {
    records.iter().map(|r| Some((r.label?, r.winner_error, r.reference?.0))).collect()
}

/// The metrics of a step.
pub(crate) fn step_metrics(records: &[PairRecord], info: StepInfo) -> Step {
    let StepInfo { n_train_timesteps, loss_scale, skipped, step, grad_norm, lr, beta, pairs_per_second } =
        info;
    let in_quarter = |quarter: usize| {
        let of: Vec<f64> = records
            .iter()
            .filter(|r| quarter_of(r.timestep, n_train_timesteps) == quarter)
            .filter_map(margin_of)
            .collect();
        (!of.is_empty()).then(|| mean(of.into_iter()))
    };
    let has_margin = records.iter().all(|r| margin_of(r).is_some());
    let errors = match images(records) {
        Some(images) => of_images(&images),
        None => ImageMeans {
            winner_error: mean(records.iter().map(|r| r.winner_error)),
            loser_error: mean_of(records, |r| r.loser_error),
            ref_winner: mean_of(records, |r| Some(r.reference?.0)),
            ref_loser: mean_of(records, |r| Some(r.reference?.1)),
            margin: mean_of(records, margin_of),
        },
    };
    let ImageMeans { winner_error, loser_error, ref_winner, ref_loser, margin } = errors;
    Step {
        step,
        loss: mean(records.iter().map(|r| r.outcome.loss)),
        winner_error,
        loser_error,
        ref_winner,
        ref_loser,
        logit_mean: mean_of(records, |r| r.outcome.logit),
        implicit_accuracy: mean_of(records, |r| Some(implicit_accuracy(r.outcome.logit?, TieRule::Half))),
        margin,
        margin_by_quarter: has_margin.then(|| [0, 1, 2, 3].map(in_quarter)),
        residual_factor: mean_of(records, |r| r.outcome.residual_factor),
        prediction_norm: Some(mean(records.iter().map(|r| r.square)).sqrt()),
        ref_norm: mean_of(records, |r| r.ref_square).map(f64::sqrt),
        beta,
        loss_scale,
        skipped,
        grad_norm,
        lr,
        pairs_per_second,
    }
}

/// The metrics of validation on held-out pairs, relative to the first validation; `None` if they have no pair in common. `labels`
/// are those of single images by their identity.
pub(crate) fn validation_metrics(
    step: u64,
    now: &HeldOutErrors,
    first: &HeldOutErrors,
    labels: Option<&HashMap<u64, Label>>,
) -> Option<Probe> {
    if let Some(labels) = labels {
        return image_validation_metrics(step, now, first, labels);
    }
    let pairs: Vec<[(f64, f64); 2]> =
        now.iter().filter_map(|(id, now)| Some([*now, *first.get(id)?])).collect();
    if pairs.is_empty() {
        return None;
    }
    let of = |metric: fn(&[(f64, f64); 2]) -> f64| mean(pairs.iter().map(metric));
    let margin = |[now, first]: &[(f64, f64); 2]| (now.1 - now.0) - (first.1 - first.0);
    let drift = |[now, first]: &[(f64, f64); 2]| now.0 - first.0;
    let probe = Probe {
        step,
        n_pairs: pairs.len() as u64,
        winner_error: of(|pair| pair[0].0),
        loser_error: Some(of(|pair| pair[0].1)),
        ref_winner: Some(of(|pair| pair[1].0)),
        ref_loser: Some(of(|pair| pair[1].1)),
        implicit_accuracy: Some(mean(
            pairs.iter().map(|pair| implicit_accuracy(margin(pair), TieRule::Half)),
        )),
        margin: Some(mean(pairs.iter().map(margin))),
        winner_drift_se: standard_error(pairs.iter().map(drift)),
        ..Probe::default()
    };
    Some(probe.with_interval())
}

/// Of a mean; `None` of fewer than two.
fn standard_error(values: impl Iterator<Item = f64> + Clone) -> Option<f64> {
    let n = values.clone().count() as f64;
    let center = mean(values.clone());
    let squares: f64 = values.map(|value| (value - center).powi(2)).sum();
    (n > 1.0).then(|| (squares / (n - 1.0) / n).sqrt())
}

fn image_validation_metrics(
    step: u64,
    now: &HeldOutErrors,
    first: &HeldOutErrors,
    labels: &HashMap<u64, Label>,
) -> Option<Probe> {
    let image = |(id, now): (&u64, &(f64, f64))| Some((*labels.get(id)?, now.0, first.get(id)?.0));
    let images: Vec<(Label, f64, f64)> = now.iter().filter_map(image).collect();
    if images.is_empty() {
        return None;
    }
    let gain = |&(label, now, first): &(Label, f64, f64)| match label {
        Label::Liked => first - now,
        Label::Disliked => now - first,
    };
    let ImageMeans { winner_error, loser_error, ref_winner, ref_loser, margin } = of_images(&images);
    let probe = Probe {
        step,
        n_pairs: images.len() as u64,
        winner_error,
        loser_error,
        ref_winner,
        ref_loser,
        implicit_accuracy: Some(mean(
            images.iter().map(|image| implicit_accuracy(gain(image), TieRule::Half)),
        )),
        margin,
        ..Probe::default()
    };
    Some(probe.with_interval())
}

/// Mean over pairs of the margin's absolute value; NaN without a reference or losers.
pub(crate) fn mean_margin(records: &[PairRecord]) -> f64 {
    mean(records.iter().map(|record| margin_of(record).map_or(f64::NAN, f64::abs)))
}

/// Mean over images of reference minus policy error, at least 0; 0 without a reference.
pub(crate) fn mean_gain(records: &[PairRecord]) -> f64 {
    let gains = records.iter().flat_map(|record| {
        let (winner, loser) = record.reference.unwrap_or((f64::NAN, f64::NAN));
        [Some(winner - record.winner_error), record.loser_error.map(|error| loser - error)]
            .into_iter()
            .flatten()
    });
    mean(gains).max(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tastemaker_math::objectives::Outcome;

    fn record(label: Label, winner_error: f64, reference: f64) -> PairRecord {
        PairRecord {
            id: 0,
            timestep: 0.0,
            label: Some(label),
            winner_error,
            loser_error: None,
            reference: Some((reference, reference)),
            square: 1.0,
            ref_square: Some(1.0),
            outcome: Outcome {
                loss: 0.5,
                d_winner: 0.0,
                d_loser: 0.0,
                d_distance: 0.0,
                logit: Some(1.0),
                residual_factor: None,
            },
        }
    }

    fn metrics(images: &[(Label, f64, f64)]) -> Step {
        let records = images.iter().map(|&(label, error, reference)| record(label, error, reference));
        of_records(&records.collect::<Vec<_>>())
    }

    fn of_records(records: &[PairRecord]) -> Step {
        step_metrics(
            records,
            StepInfo {
                n_train_timesteps: 1000,
                loss_scale: None,
                skipped: false,
                step: 0,
                grad_norm: 1.0,
                lr: 1.0,
                beta: None,
                pairs_per_second: 1.0,
            },
        )
    }

    #[track_caller]
    fn assert_near(found: Option<f64>, wanted: Option<f64>) {
        let is_near = match (found, wanted) {
            (Some(found), Some(wanted)) => (found - wanted).abs() < 1e-12,
            _ => found == wanted,
        };
        assert!(is_near, "{found:?}, not {wanted:?}");
    }

    #[test]
    fn a_safeguard_is_reported_by_the_mean_of_its_factors() {
        let pair = |residual_factor| PairRecord {
            label: None,
            loser_error: Some(0.5),
            outcome: Outcome { residual_factor, ..record(Label::Liked, 0.2, 0.3).outcome },
            ..record(Label::Liked, 0.2, 0.3)
        };
        assert_near(of_records(&[pair(Some(1.0)), pair(Some(0.25))]).residual_factor, Some(0.625));
        assert_eq!(of_records(&[pair(None), pair(None)]).residual_factor, None);
    }

    #[test]
    fn single_images_count_by_their_labels() {
        use Label::{Disliked, Liked};
        let step = metrics(&[(Liked, 0.2, 0.3), (Disliked, 0.5, 0.3), (Liked, 0.4, 0.4)]);
        assert_near(Some(step.winner_error), Some(0.3));
        assert_near(step.ref_winner, Some(0.35));
        assert_near(step.loser_error, Some(0.5));
        assert_near(step.ref_loser, Some(0.3));
        // Disliked ones drifted by 0.2, liked ones by -0.05
        assert_near(step.margin, Some(0.25));
        assert_eq!(step.implicit_accuracy, Some(1.0));
    }

    #[test]
    fn without_one_label_there_is_no_margin_and_every_metric_is_a_number() {
        let step = metrics(&[(Label::Disliked, 0.5, 0.3)]);
        assert_near(Some(step.winner_error), Some(0.5));
        assert_eq!((step.ref_winner, step.margin), (None, None));
        let step = metrics(&[(Label::Liked, 0.5, 0.3)]);
        assert_eq!((step.loser_error, step.ref_loser, step.margin), (None, None, None));
    }
}
