//! Every curve on the board.

use crate::{Event, Probe, Step};

/// Whose name a curve has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedAs {
    /// diffusers `train_diffusion_dpo.py` and `train_diffusion_dpo_sdxl.py`.
    Diffusers,
    /// mapo-t2i/mapo `train.py`; written by that method alone.
    Mapo,
    /// Ours, for what none of them shows.
    Tastemaker,
}

/// One curve.
#[derive(Debug, Clone, Copy)]
pub struct Scalar {
    /// Its name on the board.
    pub tag: &'static str,
    /// Who named it so.
    pub named_as: NamedAs,
    /// What it is.
    pub meaning: &'static str,
    metric: Metric,
}

#[derive(Debug, Clone, Copy)]
enum Metric {
    Step(fn(&Step) -> Option<f64>),
    Probe(fn(&Probe) -> Option<f64>),
}

const fn step(
    tag: &'static str,
    named_as: NamedAs,
    meaning: &'static str,
    metric: fn(&Step) -> Option<f64>,
) -> Scalar {
    Scalar { tag, named_as, meaning, metric: Metric::Step(metric) }
}

const fn probe(tag: &'static str, meaning: &'static str, metric: fn(&Probe) -> Option<f64>) -> Scalar {
    Scalar { tag, named_as: NamedAs::Tastemaker, meaning, metric: Metric::Probe(metric) }
}

use NamedAs::{Diffusers, Mapo, Tastemaker};

/// All curves, one for each metric. A metric that a method does not have is skipped.
///
/// Sources: the calls of `accelerator.log` in the scripts that [`NamedAs`] names. Their metrics are those of the last
/// micro-batch of one process where ours are means over all pairs of the step.
pub static SCALARS: &[Scalar] = &[
    step("loss", Diffusers, "the objective", |s| Some(s.loss)),
    step("raw_model_loss", Diffusers, "the policy's error, mean of winners and losers", model_error),
    step("ref_loss", Diffusers, "the reference's error, mean of winners and losers", reference_error),
    step("implicit_acc", Diffusers, "fraction of pairs with a positive logit, ties counting half", |s| {
        s.implicit_accuracy
    }),
    step("lr", Diffusers, "the learning rate", |s| Some(s.lr)),
    step("OR loss", Mapo, "the margin's part of the loss: `loss` minus the winner's error", |s| {
        Some(s.loss - s.winner_error)
    }),
    step("train/winner_error", Tastemaker, "the policy's error on winners", |s| Some(s.winner_error)),
    step("train/loser_error", Tastemaker, "the policy's error on losers", |s| s.loser_error),
    step(
        "train/winner_drift",
        Tastemaker,
        "the error on winners minus the reference's; below 0 is better than the reference",
        |s| Some(s.winner_error - s.ref_winner?),
    ),
    step("train/loser_drift", Tastemaker, "the error on losers minus the reference's", |s| {
        Some(s.loser_error? - s.ref_loser?)
    }),
    step("train/logit", Tastemaker, "the number inside the sigmoid", |s| s.logit_mean),
    step("train/margin", Tastemaker, "drift of losers minus drift of winners", |s| s.margin),
    step(
        "train/margin_t0",
        Tastemaker,
        "the margin of pairs in the first quarter of timesteps, with the least noise",
        |s| s.margin_by_quarter?[0],
    ),
    step("train/margin_t1", Tastemaker, "the same in the second quarter", |s| s.margin_by_quarter?[1]),
    step("train/margin_t2", Tastemaker, "the same in the third quarter", |s| s.margin_by_quarter?[2]),
    step("train/margin_t3", Tastemaker, "the same in the last quarter, with the most noise", |s| {
        s.margin_by_quarter?[3]
    }),
    step("train/grad_norm", Tastemaker, "gradient norm before clipping", |s| Some(s.grad_norm)),
    step("train/prediction_norm", Tastemaker, "root mean square of the network's outputs", |s| {
        s.prediction_norm
    }),
    step(
        "train/norm_growth",
        Tastemaker,
        "how far the outputs are longer than the reference's, as a fraction; a model that goes wrong exaggerates first",
        Step::norm_growth,
    ),
    step("train/beta", Tastemaker, "the method's beta, where it follows margins", |s| s.beta),
    step("train/pairs_per_second", Tastemaker, "throughput", |s| Some(s.pairs_per_second)),
    step("train/loss_scale", Tastemaker, "the factor on the loss, in fp16", |s| s.loss_scale),
    step(
        "train/residual_factor",
        Tastemaker,
        "mean factor of the safeguard on losers, where one is set",
        |s| s.residual_factor,
    ),
    probe(
        "held_out/accuracy",
        "fraction of held-out pairs with a positive margin, ties counting half",
        |p| p.implicit_accuracy,
    ),
    probe("held_out/accuracy_low", "lower end of its 95% interval", |p| p.accuracy_low),
    probe("held_out/accuracy_high", "upper end of its 95% interval", |p| p.accuracy_high),
    probe("held_out/margin", "the margin of held-out pairs", |p| p.margin),
    probe("held_out/winner_error", "the policy's error on held-out winners", |p| Some(p.winner_error)),
    probe("held_out/loser_error", "the policy's error on held-out losers", |p| p.loser_error),
    probe("held_out/winner_drift", "the error on held-out winners minus that before the first step", |p| {
        Some(p.winner_error - p.ref_winner?)
    }),
    probe("held_out/loser_drift", "the error on held-out losers minus that before the first step", |p| {
        Some(p.loser_error? - p.ref_loser?)
    }),
];

fn model_error(step: &Step) -> Option<f64> {
    Some(0.5 * (step.winner_error + step.loser_error?))
}

fn reference_error(step: &Step) -> Option<f64> {
    Some(0.5 * (step.ref_winner? + step.ref_loser?))
}

/// Where on the board an event goes, and its curves there; `None` if it has none. `method` is the run's.
pub fn scalars(event: &Event, method: &str) -> Option<(u64, Vec<(&'static str, f64)>)> {
    let at = match event {
        Event::Step(step) => step.step + 1,
        Event::Probe(probe) => probe.step,
        _ => return None,
    };
    let of = |scalar: &Scalar| {
        let value = match (scalar.metric, event) {
            (Metric::Step(metric), Event::Step(step)) => metric(step),
            (Metric::Probe(metric), Event::Probe(probe)) => metric(probe),
            _ => None,
        };
        Some((scalar.tag, value?))
    };
    let is_shown = |scalar: &&Scalar| scalar.named_as != Mapo || method == "mapo";
    Some((at, SCALARS.iter().filter(is_shown).filter_map(of).collect()))
}
