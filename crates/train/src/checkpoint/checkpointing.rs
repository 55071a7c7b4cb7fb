//! The callbacks of a run: events go to the logger, checkpoints to disk, images are generated, and the run stops when it should.

use std::ops::ControlFlow;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};

use tastemaker_models::nn::Trainable;
use tastemaker_run::health::Rule;
use tastemaker_run::{Adapter, Event, Plan, RunDir};
use tastemaker_torch::tensors::{self, Named, OneByOne};

use crate::TrainError;
use crate::checkpoint::{self, Begun, Identity, Written};
use crate::distributed::ProcessGroup;
use crate::logger::Logger;
use crate::networks::Networks;
use crate::optimizer::Averaged;
use crate::state::{State, not_finite};
use crate::train_loop::Callbacks;
use crate::validation::images::ValidationImages;

/// See the module.
pub(crate) struct Checkpointing<'a, 'r> {
    pub(crate) logger: &'a mut Logger<'r>,
    pub(crate) dir: &'a RunDir,
    pub(crate) plan: &'a Plan,
    pub(crate) identity: &'a Identity,
    pub(crate) trainable: &'a [Trainable],
    /// Writes the adapter of a step as other programs load it.
    pub(crate) save_adapter: &'a dyn Fn(u64, &Path) -> Result<(), TrainError>,
    pub(crate) ranks: ProcessGroup<'a>,
    /// The images of this run, where there are any.
    pub(crate) images: Option<&'a ValidationImages<'a>>,
    pub(crate) networks: &'a Networks,
    /// The signal that asks the run to stop.
    pub(crate) stop: &'a dyn Fn() -> Option<i32>,
    /// The alarm that ends the run.
    pub(crate) ended_by: Option<String>,
    /// The signal that ends it, on whichever rank it came.
    pub(crate) signal: Option<i32>,
    /// The checkpoint that is on its way to the disk.
    pub(crate) pending: Option<Pending>,
}

/// A checkpoint that another thread syncs and puts into its place. It is waited for, whatever becomes of the run.
#[derive(Debug)]
pub(crate) struct Pending {
    step: u64,
    thread: Option<JoinHandle<Result<Written, TrainError>>>,
}

impl Pending {
    fn of(step: u64, begun: Begun) -> Self {
        Self { step, thread: Some(thread::spawn(|| begun.finish())) }
    }

    fn wait(&mut self) -> Option<Result<Written, TrainError>> {
        Some(self.thread.take()?.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// What ranks say of an alarm that ends the run, where others say the number of a signal.
const ALARM: u8 = u8::MAX;

impl Callbacks for Checkpointing<'_, '_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        let rule = self.plan.logging.on_alarm;
        let alarms = self.logger.record(event)?;
        if let Some(alarm) = alarms.iter().find(|alarm| rule.ends(alarm)) {
            self.ended_by.get_or_insert_with(|| alarm.to_string());
        }
        Ok(())
    }

    fn on_validation(&mut self, state: &State) -> Result<(), TrainError> {
        let keeps = self.plan.logging.on_alarm == Rule::KeepBest && self.logger.watch.is_best();
        if keeps && self.ranks.is_first() {
            let weights = self.trainable.iter().map(|t| (t.name.clone(), t.tensor.detach()));
            let metadata = [("step".to_owned(), state.step.to_string())].into();
            let path = best_path(self.dir);
            tensors::write_sealed(&path, &weights.collect::<Named>(), &metadata)?;
            let path = PathBuf::from(path.file_name().unwrap_or_default());
            self.logger.record(&Event::Checkpoint { step: state.step, path, best: true })?;
        }
        Ok(())
    }

    fn on_step_end(
        &mut self,
        state: &State,
        check: &dyn Fn() -> Result<(), TrainError>,
    ) -> Result<ControlFlow<()>, TrainError> {
        self.settle()?;
        let is_over = state.step == self.plan.train.max_train_steps;
        let signal = (self.stop)().and_then(|signal| u8::try_from(signal).ok());
        let wants = match &self.ended_by {
            _ if is_over => 0,
            Some(_) => ALARM,
            None => signal.unwrap_or(0),
        };
        let stops = self.ranks.highest(wants)?;
        let shows = stops == 0 && self.images.is_some_and(|images| images.are_due(state.step));
        let saves = stops > 0 || is_over || self.plan.checkpoint.is_due(state.step);
        if shows || saves {
            check()?;
        }
        // Images come first: a run that is killed between the two makes them again, and none are missing.
        if shows {
            self.images(state)?;
        }
        if saves {
            // With several ranks each syncs its part before any goes on.
            let is_between = stops == 0 && !is_over && self.ranks.rank().world_size == 1;
            self.save(state, is_between)?;
        }
        if stops == 0 {
            return Ok(ControlFlow::Continue(()));
        }
        self.signal = (stops < ALARM).then_some(stops.into());
        let reason = self.ended_by.clone().unwrap_or_else(|| "asked to stop".to_owned());
        self.logger.record(&Event::Stopping { step: state.step, reason })?;
        Ok(ControlFlow::Break(()))
    }
}

impl Checkpointing<'_, '_> {
    /// Generates, where the plan wants images after this step.
    pub(crate) fn images(&mut self, state: &State) -> Result<(), TrainError> {
        let step = state.step;
        let Some(images) = self.images.filter(|images| images.are_due(step)) else { return Ok(()) };
        let networks = self.networks;
        let paths = {
            let _averaged = Averaged::of(state.ema.as_ref(), self.trainable);
            images.generate(&networks.policy.network, networks.text.as_ref(), step, self.ranks)?
        };
        if !paths.is_empty() {
            self.logger.record(&Event::Images { step, paths })?;
        }
        Ok(())
    }

    /// Generates before the first step of this process: those of the untouched model, or those that a run that was stopped
    /// at a checkpoint has not made.
    pub(crate) fn missing_images(&mut self, state: &State) -> Result<(), TrainError> {
        let is_missing = |images: &ValidationImages<'_>| !images.are_there(state.step);
        let missing = state.step == 0 || self.images.is_some_and(is_missing);
        // No rank sees what others have begun to generate.
        if self.ranks.any(missing)? { self.images(state) } else { Ok(()) }
    }

    /// # Errors
    /// [`TrainError::NonFiniteState`] on every rank if the part of one is not finite.
    fn check_finite(&self, step: u64, part: Option<&Named>) -> Result<(), TrainError> {
        let found = part.and_then(not_finite);
        if !self.ranks.any(found.is_some())? {
            return Ok(());
        }
        let tensor = found.unwrap_or("the state of another rank").to_owned();
        Err(TrainError::NonFiniteState { step, tensor })
    }

    /// Waits for the checkpoint of a step before, and logs it.
    ///
    /// # Errors
    /// [`TrainError::Run`] if it could not be written.
    pub(crate) fn settle(&mut self) -> Result<(), TrainError> {
        let Some(mut pending) = self.pending.take() else { return Ok(()) };
        pending.wait().map_or(Ok(()), |written| self.log_checkpoint(pending.step, &written?))
    }

    fn log_checkpoint(&mut self, step: u64, written: &Written) -> Result<(), TrainError> {
        if let Some(first) = written.left.first() {
            let others = match written.left.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            let text = format!("{}{others} stays, though that checkpoint is removed", first.display());
            self.logger.record(&Event::Note { text })?;
        }
        let path = PathBuf::from(written.path.file_name().unwrap_or_default());
        self.logger.record(&Event::Checkpoint { step, path, best: false })?;
        Ok(())
    }

    /// Writes the state. Where another step follows, syncing and renaming go on meanwhile.
    fn save(&mut self, state: &State, is_between: bool) -> Result<(), TrainError> {
        let (plan, keep) = (self.plan, self.plan.checkpoint.checkpoints_total_limit);
        let part = match (self.ranks.is_first(), plan.optimizer.shard_optimizer) {
            (true, _) => Some(state.tensors(self.trainable)),
            (false, true) => Some(state.optimizer.state(self.trainable)),
            (false, false) => None,
        };
        self.check_finite(state.step, part.as_ref())?;
        let beside = |folder: &Path| match plan.adapter {
            Adapter::Full {} => Ok(()),
            Adapter::Lora(_) | Adapter::Continued { .. } => {
                let _averaged = Averaged::of(state.ema.as_ref(), self.trainable);
                (self.save_adapter)(state.step, folder)
            }
        };
        let (dir, identity, step) = (self.dir.path(), self.identity, state.step);
        let part = (step, part.as_ref());
        if is_between {
            let begun = checkpoint::begin(dir, plan, identity, part, self.ranks, keep, beside)?;
            self.pending = begun.map(|begun| Pending::of(step, begun));
            return Ok(());
        }
        let written = checkpoint::write(dir, plan, identity, part, self.ranks, keep, beside)?;
        if self.ranks.is_first() { self.log_checkpoint(step, &written) } else { Ok(()) }
    }
}

fn best_path(dir: &RunDir) -> PathBuf {
    dir.path().join("best.safetensors")
}

/// Puts the best weights of a run in the place of the masters, and returns the step they are of; `None` where the last
/// ones are the best, or no validation could judge.
///
/// # Errors
/// [`TrainError::NoBest`] if they are not on disk any more.
pub(crate) fn restore_best(
    dir: &RunDir,
    logger: &Logger<'_>,
    trainable: &[Trainable],
) -> Result<Option<u64>, TrainError> {
    let Some(best) = logger.watch.best().filter(|_| !logger.watch.is_best()) else { return Ok(None) };
    let path = best_path(dir);
    let gone = || TrainError::NoBest { path: path.clone(), step: best.step };
    let saved = OneByOne::open(&path).map_err(|_| gone())?;
    if saved.metadata("step") != Some(best.step.to_string()) || !saved.holds() {
        return Err(gone());
    }
    for Trainable { name, tensor } in trainable {
        let weights = saved.read(name).filter(|weights| weights.size() == tensor.size()).ok_or_else(gone)?;
        tch::no_grad(|| tensor.shallow_clone().copy_(&weights));
    }
    Ok(Some(best.step))
}
