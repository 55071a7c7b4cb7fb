//! The loop: which pairs, how many micro-batches, which learning rate, what is logged.

use std::collections::HashSet;
use std::iter;
use std::ops::ControlFlow;
use std::time::Instant;

use tastemaker_data::PairId;
use tastemaker_models::nn::Trainable;
use tastemaker_run::{Event, Plan, RunError, Skipped, lr_at};

use crate::TrainError;
use crate::data::{Batch, Feed, FeedItem, Order, SkippedPair};
use crate::distributed::GradientExchange;
use crate::metrics::{StepInfo, mean_gain, mean_margin, step_metrics, validation_metrics};
use crate::optimizer::{Averaged, clip_factor};
use crate::reference::PrecomputedReference;
use crate::state::State;
use crate::step::{Engine, PairRecord, StepContext};
use crate::validation::{DrawSettings, HeldOutErrors, TimestepSpread, measure};

/// What is trained, on what.
pub struct TrainLoop<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Network, reference, method, draws.
    pub engine: Engine<'a>,
    /// The masters that are trained.
    pub trainable: &'a [Trainable],
    /// Which pairs are used when; that of the feed.
    pub order: &'a Order,
    /// Identities of its held-out pairs.
    pub held_out: &'a [u64],
    /// The reference's errors, where they are precomputed.
    pub precomputed: Option<&'a PrecomputedReference>,
    /// The processes that train together, and how.
    pub exchange: GradientExchange<'a>,
}

/// What a loop calls as it goes. A closure over events is one.
pub trait Callbacks {
    /// Called with every step and validation, and with pairs that have to be skipped.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError>;

    /// Called after a validation was reported, with the masters as they were validated.
    ///
    /// # Errors
    /// Whatever shall end the run.
    fn on_validation(&mut self, _state: &State) -> Result<(), TrainError> {
        Ok(())
    }

    /// Called after every step; says whether to continue. `check` is to be asked before anything of this state is kept, by all
    /// ranks alike.
    ///
    /// # Errors
    /// Whatever shall end the run, and what `check` found.
    fn on_step_end(
        &mut self,
        _state: &State,
        _check: &dyn Fn() -> Result<(), TrainError>,
    ) -> Result<ControlFlow<()>, TrainError> {
        Ok(ControlFlow::Continue(()))
    }
}

impl<F: FnMut(&Event) -> Result<(), TrainError>> Callbacks for F {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        self(event)
    }
}

/// How a loop ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All steps are done.
    Completed,
    /// The callbacks stopped it.
    Stopped,
}

impl TrainLoop<'_> {
    /// Runs the steps of the plan that `state` has not done yet, on the batches of `feed`, which come in the loop's order.
    ///
    /// Validation comes before the first step, at every `validation.validation_steps` steps, and after the last, if there are held-out
    /// pairs. Its reference metrics are those of the model as it was before the first step. Where weights are averaged, the
    /// averages are validated, for they are the result.
    ///
    /// # Errors
    /// [`TrainError::NonFinite`], with the weights as the step before left them; [`TrainError::NonFiniteState`] before a
    /// validation and after the last step; [`TrainError::EmptyStep`]; and whatever `feed` and `callbacks` return.
    pub fn run(
        &self,
        state: &mut State,
        feed: &mut Feed<'_>,
        callbacks: &mut dyn Callbacks,
    ) -> Result<Ended, TrainError> {
        let n_steps = self.plan.train.max_train_steps;
        let mut skipped = HashSet::new();
        while state.step < n_steps {
            if self.order.validates_at(state.step) {
                self.validate(state, feed, callbacks)?;
            }
            let started = Instant::now();
            let (records, mut info, last) = self.step(state, feed, callbacks, &mut skipped)?;
            info.pairs_per_second = records.len() as f64 / started.elapsed().as_secs_f64();
            callbacks.on_event(&Event::Step(step_metrics(&records, info)))?;
            if state.step == n_steps {
                state.check_finite(self.trainable)?;
            }
            let check = || self.check(state, last.as_ref());
            if callbacks.on_step_end(state, &check)?.is_break() {
                return Ok(Ended::Stopped);
            }
        }
        if self.order.validates_at(n_steps) {
            self.validate(state, feed, callbacks)?;
        }
        Ok(Ended::Completed)
    }

    /// Whether the weights are numbers, and give some on the last micro-batch: no loss follows the last update that would show it.
    fn check(&self, state: &State, last: Option<&Batch>) -> Result<(), TrainError> {
        state.check_finite(self.trainable)?;
        let is_wrong = last.is_some_and(|batch| !self.engine.predicts_numbers(batch));
        match self.exchange.ranks().any(is_wrong)? {
            true => Err(TrainError::NonFinitePrediction { step: state.step }),
            false => Ok(()),
        }
    }

    /// One optimizer step over all ranks. Returns the last micro-batch of this rank with it.
    fn step(
        &self,
        state: &mut State,
        feed: &mut Feed<'_>,
        callbacks: &mut dyn Callbacks,
        known: &mut HashSet<PairId>,
    ) -> Result<(Vec<PairRecord>, StepInfo, Option<Batch>), TrainError> {
        let (step, plan, exchange) = (state.step, self.plan, &self.exchange);
        let rule = plan.auto_beta();
        let beta = rule.map(|rule| rule.beta(state.margin_scale));
        let adapted = beta.map(|beta| self.engine.objective.with_beta(beta)).transpose();
        let adapted = adapted.map_err(RunError::from)?;
        let objective = adapted.as_ref().unwrap_or(self.engine.objective);
        let engine = Engine { objective, ..self.engine };
        let (records, last) = self.accumulate(&engine, state, feed, callbacks, known)?;
        let records = exchange.ranks().gather_records(records)?;
        if records.is_empty() {
            return Err(TrainError::EmptyStep { step });
        }
        exchange.sum(self.trainable)?;
        let loss_scale = state.grad_scaler.map(|scaler| scaler.factor);
        let factor = loss_scale.unwrap_or(1.0);
        let grad_norm = exchange.norm(state.optimizer.gradient_norm())? / factor;
        let lr = lr_at(step, &plan.schedule());
        if let Some(scaler) = &mut state.grad_scaler {
            // A gradient that overflows is skipped where a smaller factor may help.
            let overflows = !grad_norm.is_finite() && records.iter().all(PairRecord::is_finite);
            if scaler.update(!overflows) && overflows {
                state.optimizer.clear_gradients();
            }
        }
        if let Some(reference) = &mut state.reference {
            reference.update(self.trainable, step);
        }
        let skipped = state.grad_scaler.is_some_and(|scaler| scaler.factor < factor);
        if !skipped {
            if let Some(pairs) = not_finite(&records, grad_norm) {
                state.optimizer.clear_gradients();
                return Err(TrainError::NonFinite { step, pairs });
            }
            state.optimizer.step(lr, clip_factor(grad_norm, plan.optimizer.max_grad_norm) / factor);
            state.mean_gain = mean_gain(&records);
            state.margin_scale =
                rule.and_then(|rule| rule.next_scale(state.margin_scale, mean_margin(&records)));
            exchange.gather_parameters(self.trainable)?;
        }
        if let Some(ema) = &mut state.ema {
            ema.update(self.trainable, step);
        }
        state.step += 1;
        let n_train_timesteps = self.engine.schedule.len();
        let info = StepInfo {
            n_train_timesteps,
            loss_scale,
            skipped,
            step,
            grad_norm,
            lr,
            beta,
            pairs_per_second: 0.0,
        };
        Ok((records, info, last))
    }

    /// Accumulates this rank's part of the gradient of a step, scaled, and returns the records of its pairs and the last of its
    /// micro-batches.
    fn accumulate(
        &self,
        engine: &Engine<'_>,
        state: &State,
        feed: &mut Feed<'_>,
        callbacks: &mut dyn Callbacks,
        known: &mut HashSet<PairId>,
    ) -> Result<(Vec<PairRecord>, Option<Batch>), TrainError> {
        let precomputed = self.precomputed.map(|errors| errors.step(state.step)).transpose()?;
        let mut context = StepContext {
            n_total: self.plan.effective_batch() as usize,
            loss_scale: state.grad_scaler.map_or(1.0, |scaler| scaler.factor),
            mean_gain: state.mean_gain,
            precomputed: None,
        };
        let (mut records, mut last) = (Vec::with_capacity(context.n_total), None);
        loop {
            match next(feed)? {
                FeedItem::Batch(mut batch) => {
                    if batch.is_last {
                        self.exchange.next_is_last();
                    }
                    context.precomputed = precomputed.as_ref().map(|step| step.of(&batch)).transpose()?;
                    let draws = batch.draws.take().unwrap_or_else(|| engine.draw(&batch));
                    records.extend(engine.accumulate_with(&batch, &draws, &context));
                    last = Some(batch);
                }
                FeedItem::Skipped(SkippedPair { id, place, detail }) => {
                    if known.insert(id) {
                        callbacks.on_event(&Event::Skipped(Skipped { pair: id.0, place, detail }))?;
                    }
                }
                FeedItem::End => return Ok((records, last)),
            }
        }
    }

    /// Measures held-out pairs, relative to the first validation of this run.
    fn validate(
        &self,
        state: &mut State,
        feed: &mut Feed<'_>,
        callbacks: &mut dyn Callbacks,
    ) -> Result<(), TrainError> {
        state.check_finite(self.trainable)?;
        let _averaged = Averaged::of(state.ema.as_ref(), self.trainable);
        let Engine { policy, schedule, timesteps, text, labels, seed, .. } = self.engine;
        let draws = DrawSettings { spread: TimestepSpread::OverPairs(self.held_out), timesteps, seed, text };
        let mut batches = iter::from_fn(|| {
            loop {
                match next(feed) {
                    Ok(FeedItem::Batch(batch)) => return Some(Ok(batch)),
                    // What cannot be read was named when the run began, or is named by the steps that miss it.
                    Ok(FeedItem::Skipped(_)) => {}
                    Ok(FeedItem::End) => return None,
                    Err(error) => return Some(Err(error)),
                }
            }
        });
        let measured = measure(policy, schedule, &draws, &mut batches)?;
        let errors: HeldOutErrors =
            measured.into_iter().map(|((id, _), errors)| (id, (errors.winner, errors.loser))).collect();
        let now = self.exchange.ranks().gather_errors(errors)?;
        let first = state.before.get_or_insert_with(|| now.clone());
        let probe = validation_metrics(state.step, &now, first, labels);
        let probe = probe.ok_or(TrainError::EmptyStep { step: state.step })?;
        callbacks.on_event(&Event::Probe(probe))?;
        callbacks.on_validation(state)
    }
}

fn next(feed: &mut Feed<'_>) -> Result<FeedItem, TrainError> {
    feed.next().unwrap_or(Err(TrainError::EndOfPairs))
}

/// The pairs to blame if the step cannot be taken: those with numbers that are not finite, or all if none has.
fn not_finite(records: &[PairRecord], grad_norm: f64) -> Option<Vec<u64>> {
    let pairs: Vec<u64> = records.iter().filter(|r| !r.is_finite()).map(|r| r.id).collect();
    match (pairs.is_empty(), grad_norm.is_finite()) {
        (true, true) => None,
        (true, false) => Some(records.iter().map(|r| r.id).collect()),
        (false, _) => Some(pairs),
    }
}
