//! What of a plan can be held against its pairs and its model before any work.

use std::collections::HashMap;

use tastemaker_data::PairSource;
use tastemaker_data::split::Split;
use tastemaker_math::flow::Density;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{Corruption, Grid, Label, Objective};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::ModelError;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Plan, Problem, RunError};
use tch::Device;

use crate::TrainError;
use crate::data::EncodeSettings;
use crate::data::labels::{labels, soft_labels};

/// What a method makes of pairs that it can learn from.
pub(crate) struct Fitting {
    pub(crate) labels: Option<HashMap<u64, Label>>,
    pub(crate) soft_labels: Option<HashMap<u64, f64>>,
}

impl Fitting {
    pub(crate) fn of(plan: &Plan, source: &dyn PairSource, split: &Split) -> Result<Self, TrainError> {
        if split.train.is_empty() {
            let (n_pairs, n_held_out) = (source.len(), split.held_out.len());
            return Err(TrainError::NoPairs { n_pairs, n_held_out, n_skipped: 0 });
        }
        let objective = plan.method.objective().map_err(RunError::from)?;
        let labels = labels(source);
        if labels.is_some() && !objective.is_unpaired() {
            return Err(TrainError::SingleImages { method: objective.name() });
        }
        let soft_labels = objective.needs().soft_label.then(|| soft_labels(source));
        if soft_labels.as_ref().is_some_and(HashMap::is_empty) {
            return Err(TrainError::NoSoftLabels { method: objective.name() });
        }
        Ok(Self { labels, soft_labels })
    }
}

/// Holds pairs and method against each other.
///
/// # Errors
/// [`TrainError`] for no pairs to train on, and for pairs that the method cannot learn from.
pub fn check_pairs(plan: &Plan, source: &dyn PairSource, split: &Split) -> Result<(), TrainError> {
    Fitting::of(plan, source, split).map(drop)
}

/// Holds the noise levels of a plan against those of the model.
///
/// # Errors
/// [`TrainError::Run`] for what the model's schedule does not have; [`TrainError::Model`] if that cannot be read.
pub fn check_levels(plan: &Plan, model: &Model) -> Result<(), TrainError> {
    let schedule = model.schedule()?.schedule;
    check_grid(&plan.method.objective().map_err(RunError::from)?, &schedule)?;
    levels(plan, &schedule)?;
    density(plan, &schedule)?;
    Ok(())
}

/// A density of noise levels, where it is not uniform.
pub(crate) fn density(plan: &Plan, schedule: &NoiseSchedule) -> Result<Option<Density>, RunError> {
    match plan.train.density() {
        Density::Uniform => Ok(None),
        _ if schedule.as_flow().is_none() => Err(no_flow("train.timestep_density", "uniform")),
        density => Ok(Some(density)),
    }
}

/// Whether an inversion can visit its levels on this schedule.
pub(crate) fn check_grid(objective: &Objective, schedule: &NoiseSchedule) -> Result<(), RunError> {
    let release = matches!(objective.corruption(), Corruption::DdimInversion { grid: Grid::Release, .. });
    if !release || (schedule.as_flow().is_none() && schedule.len() == 1000) {
        return Ok(());
    }
    let wanted = "exact for this model: the released levels are of a table of 1000 timesteps";
    let (key, found) = ("method.grid", "release".to_owned());
    Err(RunError::Invalid(vec![Problem::Value { key, found, wanted }]))
}

/// A setting of flow models for another.
fn no_flow(key: &'static str, wanted: &'static str) -> RunError {
    let found = "a model that is no flow".to_owned();
    RunError::Invalid(vec![Problem::Value { key, found, wanted }])
}

/// The levels to train at, if they are listed: noise levels of a flow, or timesteps, every one of them of the schedule.
pub(crate) fn levels(plan: &Plan, schedule: &NoiseSchedule) -> Result<Option<Vec<Level>>, RunError> {
    if let Some(sigmas) = &plan.train.sigmas {
        let Some(flow) = schedule.as_flow() else {
            return Err(no_flow("train.sigmas", "none: a model on a table of betas has timesteps"));
        };
        return Ok(Some(sigmas.iter().map(|&sigma| Level::flow(sigma, flow.n_timesteps)).collect()));
    }
    let Some(typed) = &plan.train.timesteps else { return Ok(None) };
    match typed.iter().find(|&&t| t as usize >= schedule.len()) {
        None => Ok(Some(typed.iter().map(|&t| schedule.level(t as usize)).collect())),
        Some(found) => Err(RunError::Invalid(vec![Problem::Value {
            key: "train.timesteps",
            found: found.to_string(),
            wanted: "timesteps that the model's schedule has, counted from 0",
        }])),
    }
}

/// What a model's networks ask of precision and sizes.
///
/// # Errors
/// [`TrainError::Model`] for a precision whose range they leave, and for sides that a transformer has no whole patches or no positions
/// for.
pub(crate) fn check_model(plan: &Plan, model: &Model) -> Result<(), TrainError> {
    model.check_precision(plan.train.mixed_precision)?;
    let backbone = model.backbone_config()?;
    let (down, patch) = (model.vae_config()?.downsampling(), backbone.side_multiple());
    let multiple = u32::try_from(down * patch).unwrap_or(1).max(1);
    let largest = backbone.largest_side().and_then(|side| u32::try_from(side * down).ok());
    let sizes = EncodeSettings::of(plan, Device::Cpu).resolutions.all();
    let fits = |side: u32| side.is_multiple_of(multiple) && largest.is_none_or(|largest| side <= largest);
    let Some((width, height)) = sizes.into_iter().find(|&(w, h)| patch > 1 && !(fits(w) && fits(h))) else {
        return Ok(());
    };
    let of_most = largest.map_or_else(String::new, |largest| format!(", of at most {largest}"));
    Err(ModelError::Choice(format!(
        "images of {width} x {height} do not fit {}: wanted sides that are multiples of {multiple}{of_most}; change --resolution or the \
         bucket settings",
        model.path().display()
    ))
    .into())
}
