//! The loop: which pairs, how many micro-batches, which learning rate, what is told.

use std::collections::HashSet;
use std::iter;
use std::ops::ControlFlow;
use std::time::Instant;

use tastemaker_models::nn::Trainable;
use tastemaker_run::{Event, Plan, Probe, Skipped, lr_at};

use crate::TrainError;
use crate::data::{Fed, Feed, Order, Unusable};
use crate::distributed::Processes;
use crate::metrics::{Circumstances, mean_gain, of_look, of_step};
use crate::optimizer::clip_factor;
use crate::reference::Bank;
use crate::state::State;
use crate::step::{Engine, PairRecord, Share};
use crate::validation::{ProbeSet, Spread, probe};

/// What is trained, on what.
pub struct Fit<'a> {
    /// Network, reference, method, draws.
    pub engine: Engine<'a>,
    /// The masters that learn.
    pub trainable: &'a [Trainable],
    /// Which pairs are used when; that of the feed.
    pub order: &'a Order,
    /// Identities of its held-out pairs.
    pub held_out: &'a [u64],
    /// The reference's errors, where they were computed beforehand.
    pub bank: Option<&'a Bank>,
    /// The processes that train together.
    pub ranks: Processes<'a>,
}

/// Who a loop runs for. A closure that hears of events is one.
pub trait Host {
    /// Hears of every step and look, and of pairs that have to be skipped.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn tell(&mut self, event: &Event) -> Result<(), TrainError>;

    /// Sees the state that a look at held-out pairs was told about.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn looked(&mut self, _probe: &Probe, _state: &State) -> Result<(), TrainError> {
        Ok(())
    }

    /// Sees the state behind every step, and says whether to go on.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn made(&mut self, _state: &State) -> Result<ControlFlow<()>, TrainError> {
        Ok(ControlFlow::Continue(()))
    }
}

impl<F: FnMut(&Event) -> Result<(), TrainError>> Host for F {
    fn tell(&mut self, event: &Event) -> Result<(), TrainError> {
        self(event)
    }
}

/// How a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are made.
    Completed,
    /// The host wanted no more.
    Stopped,
}

/// Runs the steps of the plan that `state` has not made yet, on the batches of `feed`, which come in `fit.order`.
///
/// A probe is taken before the first step, at every `validation.validation_steps` steps, and after the last, if there are held-out
/// pairs. Its reference figures are those of the model as it was before the first step.
///
/// # Errors
/// [`TrainError::NonFinite`], with the weights as the step before left them; [`TrainError::EmptyStep`]; and whatever `feed`
/// and `host` return.
pub fn fit(
    fit: &Fit<'_>,
    plan: &Plan,
    state: &mut State,
    feed: &mut Feed<'_>,
    host: &mut dyn Host,
) -> Result<Ended, TrainError> {
    let mut known = HashSet::new();
    while state.step < plan.train.max_train_steps {
        let step = state.step;
        if fit.order.probes(step) {
            look(fit, plan, state, feed, host)?;
        }
        let started = Instant::now();
        let records = fit.ranks.gather(gradients(fit, plan, state, feed, host, &mut known)?)?;
        if records.is_empty() {
            return Err(TrainError::EmptyStep { step });
        }
        fit.ranks.sum_gradients(fit.trainable)?;
        let factor = state.scale.map_or(1.0, |scale| scale.factor);
        let grad_norm = state.optimizer.gradient_norm() / factor;
        let lr = lr_at(step, &plan.schedule());
        if let Some(scale) = &mut state.scale {
            // A gradient that overflows is skipped where a smaller factor may help.
            let overflows = !grad_norm.is_finite() && records.iter().all(PairRecord::is_finite);
            if scale.heard(!overflows) && overflows {
                state.optimizer.clear_gradients();
            }
        }
        let skipped = state.scale.is_some_and(|scale| scale.factor < factor);
        if !skipped {
            if let Some(pairs) = not_finite(&records, grad_norm) {
                state.optimizer.clear_gradients();
                return Err(TrainError::NonFinite { step, pairs });
            }
            state.optimizer.step(lr, clip_factor(grad_norm, plan.optimizer.max_grad_norm) / factor);
            state.mean_gain = mean_gain(&records);
            if plan.optimizer.shard_optimizer {
                fit.ranks.share_parameters(fit.trainable, &fit.ranks.owners(fit.trainable))?;
            }
        }
        if let Some(average) = &mut state.average {
            average.follow(fit.trainable, step);
        }
        let pairs_per_second = records.len() as f64 / started.elapsed().as_secs_f64();
        state.step += 1;
        let around = Circumstances {
            n_train_timesteps: fit.engine.schedule.len(),
            loss_scale: state.scale.map(|_| factor),
            skipped,
            step,
            grad_norm,
            lr,
            pairs_per_second,
        };
        host.tell(&Event::Step(of_step(&records, around)))?;
        if host.made(state)?.is_break() {
            return Ok(Ended::Stopped);
        }
    }
    if fit.order.probes(plan.train.max_train_steps) {
        look(fit, plan, state, feed, host)?;
    }
    Ok(Ended::Completed)
}

/// Accumulates the gradient of a step, scaled, and returns what its pairs did.
fn gradients(
    fit: &Fit<'_>,
    plan: &Plan,
    state: &State,
    feed: &mut Feed<'_>,
    host: &mut dyn Host,
    known: &mut HashSet<tastemaker_data::PairId>,
) -> Result<Vec<PairRecord>, TrainError> {
    let step = state.step;
    let banked = fit.bank.map(|bank| bank.step(step)).transpose()?;
    let mut share = Share {
        n_total: plan.effective_batch() as usize,
        loss_scale: state.scale.map_or(1.0, |scale| scale.factor),
        mean_gain: state.mean_gain,
        reference: None,
    };
    let mut records = Vec::with_capacity(share.n_total);
    loop {
        match next(feed)? {
            Fed::Batch(batch) => {
                share.reference = banked.as_ref().map(|errors| errors.of(&batch)).transpose()?;
                records.extend(fit.engine.accumulate_as(&batch, &fit.engine.draw(&batch), &share));
            }
            Fed::Skipped(Unusable { id, place, detail }) => {
                if known.insert(id) {
                    host.tell(&Event::Skipped(Skipped { pair: id.0, place, detail }))?;
                }
            }
            Fed::End => break,
        }
    }
    Ok(records)
}

fn next(feed: &mut Feed<'_>) -> Result<Fed, TrainError> {
    feed.next().unwrap_or(Err(TrainError::EndOfPairs))
}

/// A look at held-out pairs, compared with the first one of this run.
fn look(
    fit: &Fit<'_>,
    plan: &Plan,
    state: &mut State,
    feed: &mut Feed<'_>,
    host: &mut dyn Host,
) -> Result<(), TrainError> {
    let set = ProbeSet {
        spread: Spread::OverPairs(fit.held_out),
        timesteps: fit.engine.timesteps,
        seed: plan.train.seed,
        text: fit.engine.text,
    };
    let mut batches = iter::from_fn(|| {
        loop {
            match next(feed) {
                Ok(Fed::Batch(batch)) => return Some(Ok(batch)),
                // What cannot be read was named when the run began, or is named by the steps that miss it.
                Ok(Fed::Skipped(_)) => {}
                Ok(Fed::End) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    });
    let now = fit.ranks.join(probe(fit.engine.policy, fit.engine.schedule, &set, &mut batches)?)?;
    let first = state.before.get_or_insert_with(|| now.clone());
    let probe = of_look(state.step, &now, first, fit.engine.labels);
    let probe = probe.ok_or(TrainError::EmptyStep { step: state.step })?;
    host.tell(&Event::Probe(probe.clone()))?;
    host.looked(&probe, state)
}

/// The pairs to blame if the step cannot be taken: those with figures that are not finite, or all if none has.
fn not_finite(records: &[PairRecord], grad_norm: f64) -> Option<Vec<u64>> {
    let pairs: Vec<u64> = records.iter().filter(|r| !r.is_finite()).map(|r| r.id).collect();
    match (pairs.is_empty(), grad_norm.is_finite()) {
        (true, true) => None,
        (true, false) => Some(records.iter().map(|r| r.id).collect()),
        (false, _) => Some(pairs),
    }
}
