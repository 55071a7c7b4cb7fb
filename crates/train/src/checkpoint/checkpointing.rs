//! The callbacks of a run: events go to the logger, checkpoints to disk, images are generated, and the run stops when it should.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use tastemaker_models::nn::Trainable;
use tastemaker_run::health::Rule;
use tastemaker_run::{Adapter, Event, Plan, Probe, RunDir};
use tastemaker_torch::tensors::{self, Named, OneByOne};

use crate::TrainError;
use crate::checkpoint::{self, Identity};
use crate::distributed::ProcessGroup;
use crate::logger::Logger;
use crate::state::State;
use crate::train_loop::Callbacks;

/// See the module.
pub(crate) struct Checkpointing<'a, 'r> {
    pub(crate) logger: &'a mut Logger<'r>,
    pub(crate) dir: &'a RunDir,
    pub(crate) plan: &'a Plan,
    pub(crate) identity: &'a Identity,
    pub(crate) trainable: &'a [Trainable],
    /// Writes the adapter as other programs load it.
    pub(crate) save_adapter: &'a dyn Fn(&Path) -> Result<(), TrainError>,
    pub(crate) ranks: ProcessGroup<'a>,
    /// Generates the images after a step, and returns where they are.
    pub(crate) generate: &'a dyn Fn(u64) -> Result<Vec<PathBuf>, TrainError>,
    pub(crate) stop: &'a dyn Fn() -> bool,
    /// The last validation.
    pub(crate) probe: Option<Probe>,
    /// The alarm that ends the run.
    pub(crate) ended_by: Option<String>,
}

impl Callbacks for Checkpointing<'_, '_> {
    fn on_event(&mut self, event: &Event) -> Result<(), TrainError> {
        let rule = self.plan.logging.on_alarm;
        let alarms = self.logger.record(event)?;
        if let Some(alarm) = alarms.iter().find(|alarm| rule.ends(alarm)) {
            self.ended_by.get_or_insert_with(|| alarm.to_string());
        }
        Ok(())
    }

    fn on_validation(&mut self, probe: &Probe, state: &State) -> Result<(), TrainError> {
        self.probe = Some(probe.clone());
        let keeps = self.plan.logging.on_alarm == Rule::KeepBest && self.logger.watch.is_best();
        if keeps && self.ranks.is_first() {
            let weights = self.trainable.iter().map(|t| (t.name.clone(), t.tensor.detach()));
            let metadata = [("step".to_owned(), state.step.to_string())].into();
            let path = best_path(self.dir);
            tensors::write(&path, &weights.collect::<Named>(), &metadata)?;
            let path = PathBuf::from(path.file_name().unwrap_or_default());
            self.logger.record(&Event::Checkpoint { step: state.step, path, best: true })?;
        }
        Ok(())
    }

    fn on_step_end(&mut self, state: &State) -> Result<ControlFlow<()>, TrainError> {
        let is_over = state.step == self.plan.train.max_train_steps;
        let wants = !is_over && (self.ended_by.is_some() || (self.stop)());
        let stops = self.ranks.any(wants)?;
        if stops || self.plan.checkpoint.is_due(state.step) {
            self.save(state)?;
        }
        if !stops {
            self.images(state.step)?;
            return Ok(ControlFlow::Continue(()));
        }
        let reason = self.ended_by.clone().unwrap_or_else(|| "asked to stop".to_owned());
        self.logger.record(&Event::Stopping { step: state.step, reason })?;
        Ok(ControlFlow::Break(()))
    }
}

impl Checkpointing<'_, '_> {
    /// Generates, where the plan wants images after this step.
    pub(crate) fn images(&mut self, step: u64) -> Result<(), TrainError> {
        let (every, last) = (self.plan.validation.validation_steps, self.plan.train.max_train_steps);
        if every == 0 || !(step.is_multiple_of(every) || step == last) {
            return Ok(());
        }
        let paths = (self.generate)(step)?;
        if !paths.is_empty() {
            self.logger.record(&Event::Images { step, paths })?;
        }
        Ok(())
    }

    fn save(&mut self, state: &State) -> Result<(), TrainError> {
        let (plan, keep) = (self.plan, self.plan.checkpoint.checkpoints_total_limit);
        let part = match (self.ranks.is_first(), plan.optimizer.shard_optimizer) {
            (true, _) => Some(state.tensors(self.trainable)),
            (false, true) => Some(state.optimizer.state(self.trainable)),
            (false, false) => None,
        };
        let beside = |folder: &Path| match plan.adapter {
            Adapter::Full {} => Ok(()),
            Adapter::Lora(_) | Adapter::Continued { .. } => (self.save_adapter)(folder),
        };
        let part = (state.step, part.as_ref());
        let written =
            checkpoint::write(self.dir.path(), plan, self.identity, part, self.ranks, keep, beside)?;
        if self.ranks.is_first() {
            let path = PathBuf::from(written.file_name().unwrap_or_default());
            self.logger.record(&Event::Checkpoint { step: state.step, path, best: false })?;
        }
        Ok(())
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
    if saved.metadata("step") != Some(best.step.to_string()) {
        return Err(gone());
    }
    for Trainable { name, tensor } in trainable {
        let weights = saved.read(name).filter(|weights| weights.size() == tensor.size()).ok_or_else(gone)?;
        tch::no_grad(|| tensor.shallow_clone().copy_(&weights));
    }
    Ok(Some(best.step))
}
