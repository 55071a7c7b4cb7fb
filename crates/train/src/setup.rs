//! Everything between a plan and its first step: model, cache, reference, networks, state.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tastemaker_store::version;

use serde_json::Value;
use tastemaker_data::PairSource;
use tastemaker_data::split::Split;
use tastemaker_data::transform::Size;
use tastemaker_diffusion::Denoiser;
use tastemaker_math::flow::Density;
use tastemaker_math::level::Level;
use tastemaker_math::objectives::{Corruption, InversionModel, Label, Objective};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::{Role, Trainable};
use tastemaker_models::pipeline::{Model, ModelSources, TextEncoders};
use tastemaker_run::{Adapter, Augment, Event, ModelPlan, Plan, ReferenceKind, RunError, Skipped};
use tch::Device;

use crate::TrainError;
use crate::adapter::{origin, with_network_weights};
use crate::checkpoint::{self, Identity, Saved};
use crate::data::cache::{Cache, Encoder, with_cache_dtype};
use crate::data::labels::pairs_identity;
use crate::data::{
    Augmentation, BatchOptions, CachedPairs, EncodeSettings, Order, Pairs, Rank, SkippedPair, unreadable,
};
use crate::distributed::ProcessGroup;
use crate::draws::{Disturbance, Timesteps};
use crate::fitting::{Fitting, check_grid, check_model, density, levels};
use crate::logger::Logger;
use crate::networks::Networks;
use crate::output::{self, RunFacts};
use crate::reference::precompute::{ReferenceInputs, fill};
use crate::reference::{PrecomputedReference, Reference};
use crate::state::State;
use crate::step::Engine;
use crate::validation::images::ValidationImages;

/// What a run is made of, opened and checked.
pub(crate) struct RunInputs<'a> {
    pub(crate) model: Model,
    pub(crate) plan: Plan,
    pub(crate) source: &'a dyn PairSource,
    pub(crate) split: &'a Split,
    pub(crate) objective: Objective,
    pub(crate) schedule: NoiseSchedule,
    /// The LoRA that training starts from, in words.
    pub(crate) origin: Option<String>,
    pub(crate) ranks: ProcessGroup<'a>,
    pub(crate) device: Device,
    levels: Option<Vec<Level>>,
    density: Option<Density>,
    soft_labels: Option<HashMap<u64, f64>>,
    labels: Option<HashMap<u64, Label>>,
}

impl<'a> RunInputs<'a> {
    /// Opens the model of a plan and holds pairs and method against each other; with the LoRA to start from, if there is one.
    ///
    /// # Errors
    /// [`TrainError`] for whatever does not fit.
    pub(crate) fn open(
        plan: &Plan,
        source: &'a dyn PairSource,
        split: &'a Split,
        ranks: ProcessGroup<'a>,
        device: Device,
    ) -> Result<(Self, Option<LoraFile>), TrainError> {
        let Fitting { labels, soft_labels } = Fitting::of(plan, source, split)?;
        let plan = plan.clone().with_data(split.train.len() as u64);
        let model = Model::from_sources(&sources(&plan.model))?;
        let (plan, lora) = with_network_weights(plan, &model)?;
        let plan = with_cache_dtype(with_latents(plan, &model)?, &model, source)?;
        // Its beta was of another convention, perhaps.
        let objective = plan.method.objective().map_err(RunError::from)?;
        let origin = origin(&plan)?;
        let schedule = model.schedule()?.schedule;
        let levels = levels(&plan, &schedule)?;
        let density = density(&plan, &schedule)?;
        check_grid(&objective, &schedule)?;
        let inputs = Self {
            model,
            plan,
            source,
            split,
            objective,
            schedule,
            origin,
            ranks,
            device,
            levels,
            density,
            soft_labels,
            labels,
        };
        Ok((inputs, lora))
    }

    /// The engine of these networks.
    pub(crate) fn engine<'b>(
        &'b self,
        policy: &'b dyn Denoiser,
        reference: &'b Reference<'b>,
        text: Option<&'b TextEncoders>,
    ) -> Engine<'b> {
        Engine {
            policy,
            reference,
            text,
            objective: &self.objective,
            soft_labels: self.soft_labels.as_ref(),
            labels: self.labels.as_ref(),
            schedule: &self.schedule,
            timesteps: match (&self.levels, self.density) {
                (Some(levels), _) => Timesteps::Among(levels),
                (None, Some(density)) => Timesteps::By(density),
                (None, None) => Timesteps::All,
            },
            seed: self.plan.train.seed,
            disturbance: Disturbance {
                noise_offset: self.plan.train.noise_offset,
                label_noise: self.plan.data.label_noise_prob,
            },
        }
    }

    /// What the batches of an order are made by.
    pub(crate) fn batch_options(&self, order: &Order) -> BatchOptions {
        let joint = self.plan.data.augment == Augment::Joint;
        let augmentation = Augmentation { seed: self.plan.train.seed, joint };
        BatchOptions { augmentation, with_losers: order.with_losers, device: self.device }
    }

    /// What identifies the run beside its plan.
    ///
    /// # Errors
    /// [`TrainError::Model`] if the network cannot be read.
    pub(crate) fn identity(&self) -> Result<Identity, TrainError> {
        // What is wrong with the network shall not be found out after hours of encoding.
        self.model.check_backbone()?;
        let pairs = pairs_identity(self.source, self.objective.needs().soft_label);
        Ok(Identity { pairs, unet: self.model.backbone_fingerprint()?, drawn_in: None })
    }

    /// Holds against each other what the ranks of the run would do; `checkpoint` is what this one resumes from.
    ///
    /// # Errors
    /// [`TrainError::RanksDiffer`]; [`TrainError::Model`] if a network cannot be read.
    pub(crate) fn agree(&self, identity: &Identity, checkpoint: Option<&Path>) -> Result<(), TrainError> {
        if self.ranks.rank().world_size == 1 {
            return Ok(());
        }
        let mut plan = serde_json::to_value(&self.plan).unwrap_or_default();
        for (section, key) in OF_ONE_RANK {
            plan.get_mut(section).and_then(Value::as_object_mut).and_then(|section| section.remove(*key));
        }
        plan["version"] = version().into();
        plan["the checkpoint"] = checkpoint.and_then(Path::file_name).map(OsStr::to_string_lossy).into();
        plan["the pairs"] = identity.pairs.as_str().into();
        plan["the network"] = identity.unet.as_str().into();
        plan["the VAE"] = self.model.vae_fingerprint()?.into();
        plan["the text encoders"] = self.model.text_fingerprint()?.into();
        plan["the LoRA to start from"] = self.origin.as_deref().into();
        self.ranks.agree(&plan)
    }

    /// Writes what was trained into a folder.
    ///
    /// # Errors
    /// [`TrainError`] if it cannot be written, or reads back as something else.
    pub(crate) fn save(
        &self,
        networks: &Networks,
        facts: &RunFacts,
        folder: &Path,
    ) -> Result<(), TrainError> {
        let trained: Vec<_> = networks.results().collect();
        output::save(&self.model, &trained, &networks.shapes, (&self.plan, facts), &self.schedule, folder)
    }
}

/// What may differ from rank to rank: where things lie, whose contents are compared, and how a machine does its part.
const OF_ONE_RANK: &[(&str, &str)] = &[
    ("model", "pretrained_model_name_or_path"),
    ("model", "pretrained_vae_model_name_or_path"),
    ("model", "unet_init"),
    ("model", "model_config"),
    ("model", "variant"),
    ("model", "revision"),
    ("data", "train_data_dir"),
    ("data", "dataloader_num_workers"),
    ("adapter", "network_weights"),
];

/// The files that a plan names, all of them on this machine.
pub fn sources(plan: &ModelPlan) -> ModelSources {
    let path = |name: &Option<String>| name.as_ref().map(PathBuf::from);
    ModelSources {
        model: PathBuf::from(&plan.pretrained_model_name_or_path),
        config: path(&plan.model_config),
        vae: path(&plan.pretrained_vae_model_name_or_path),
        unet: path(&plan.unet_init),
        variant: plan.variant.clone(),
        prediction: plan.prediction_type,
        zero_terminal_snr: plan.rescale_betas_zero_snr,
        shift: plan.shift,
        max_token_length: Some(plan.max_token_length),
    }
}

/// The plan, knowing the size of the model's latents, and so its betas in this program's convention. Buckets count as the square that they
/// have the area of.
///
/// # Errors
/// [`TrainError::Model`] if the VAE's configuration cannot be read; those of `check_model` and [`Plan::with_latents`].
pub fn with_latents(plan: Plan, model: &Model) -> Result<Plan, TrainError> {
    check_model(&plan, model)?;
    let vae = model.vae_config()?;
    let side = u64::from(plan.data.resolution) / vae.downsampling() as u64;
    Ok(plan.with_latents(vae.latent_channels as u64 * side * side)?)
}

/// What training needs.
pub(crate) struct Prepared<'a> {
    pub(crate) networks: Networks,
    /// Second handles on the masters.
    pub(crate) trainable: Vec<Trainable>,
    pub(crate) encoder: Encoder<'a>,
    /// `None` where pairs are encoded whenever they are used.
    pub(crate) cached: Option<CachedPairs>,
    /// Pairs that are skipped since an image of theirs cannot be read.
    pub(crate) n_unreadable: u64,
    pub(crate) order: Order,
    pub(crate) precomputed: Option<PrecomputedReference>,
    pub(crate) identity: Identity,
    pub(crate) images: Option<ValidationImages<'a>>,
    pub(crate) state: State,
}

/// Everything that can still be found wrong before training. The cache comes first, so that VAE and text encoders are gone
/// when the networks come; whatever is wrong with those, it stays. A precomputed reference comes next, so that the reference
/// is gone, too.
pub(crate) fn prepare<'a>(
    inputs: &'a RunInputs<'a>,
    mut identity: Identity,
    lora: Option<LoraFile>,
    checkpoint: Option<&Path>,
    logger: &mut Logger<'_>,
) -> Result<Prepared<'a>, TrainError> {
    let RunInputs { model, plan, source, objective, ranks, device, .. } = inputs;
    let (ranks, device) = (*ranks, *device);
    let saved = checkpoint.map(|path| checkpoint::read(path, plan, &identity)).transpose()?;
    if let Some(split) = saved.as_ref().map(|saved| &saved.split_changes).filter(|split| !split.is_empty()) {
        let text = format!(
            "resuming with the pairs of a step split otherwise ({}): each step has the same pairs as before, and results \
             differ by rounding from those of an uninterrupted run",
            split.join("; ")
        );
        logger.notify(&Event::Note { text })?;
    }
    let settings = EncodeSettings::of(plan, device);
    if let (ReferenceKind::Precomputed, Some(folder)) = (plan.train.reference, &plan.train.reference_dir) {
        PrecomputedReference::check_place(folder)?;
    }
    let images = ValidationImages::new(model, plan, &inputs.schedule, &settings)?;
    let encoder = Encoder::new(model, *source, settings);
    let cache = match plan.data.no_cache {
        true => None,
        false => Some(make_cache(&encoder, ranks, logger)?),
    };
    let unreadable = match plan.data.no_cache {
        true => unreadable(&encoder, ranks, &mut |event| logger.notify(event))?,
        false => Vec::new(),
    };
    let open = |text: Option<&TextEncoders>| {
        cache.as_ref().map(|cache| encoder.open_cached(cache, text)).transpose()
    };
    let mut cached = open(None)?;
    let unreadable = match &cached {
        Some(cached) => cached.skipped(*source).collect(),
        None => unreadable,
    };
    let order = order(inputs, &unreadable, logger)?;
    let resolution =
        |index| cached.as_ref().map_or_else(|| encoder.resolution(index), |c| c.resolution(index));
    let order = by_bucket(order, plan, saved.as_ref(), resolution, logger)?;
    identity.drawn_in = order.drawn_in();
    let options = inputs.batch_options(&order);

    let compares = needs_reference(objective);
    let precomputed = match compares && plan.train.reference == ReferenceKind::Precomputed {
        true => {
            let encoded = cache.as_ref().map_or_else(|| encoder.key(), |cache| Ok(cache.key.clone()))?;
            let inputs = ReferenceInputs {
                plan,
                encoder: &encoder,
                encoded: &encoded,
                schedule: &inputs.schedule,
                corruption: objective.corruption(),
                order: &order,
                unet: &identity.unet,
                origin: inputs.origin.as_deref(),
            };
            Some(inputs.open()?)
        }
        false => None,
    };
    let mut precompute = |reference: &Reference<'_>, text: Option<&TextEncoders>| {
        let (Some(precomputed), Some(policy)) = (&precomputed, reference.network()) else { return Ok(()) };
        if !ranks.any(!precomputed.missing(order.steps())?.is_empty())? {
            return Ok(());
        }
        let pairs: Box<dyn Pairs> = match open(text)? {
            Some(cached) => Box::new(cached),
            None => Box::new(encoder.open_live()?),
        };
        let engine = inputs.engine(policy, reference, text);
        fill(precomputed, &engine, pairs.as_ref(), &order, options, ranks, &mut |event| logger.notify(event))
    };
    let is_full = plan.adapter == Adapter::Full {};
    if let (Some(errors), true) = (&precomputed, is_full)
        && ranks.any(!errors.missing(order.steps())?.is_empty())?
    {
        let frozen = model.backbone(Role::Frozen, encoder.settings.precision, device, None)?.network;
        precompute(&Reference::Frozen(&frozen), None)?;
    }
    let copies = compares && precomputed.is_none() && plan.train.reference_ema_decay.is_none();
    let networks = Networks::load(model, plan, lora, copies, device)?;
    if !is_full {
        precompute(&networks.reference(), networks.text.as_ref())?;
    }
    networks.policy.network.set_recompute(plan.train.gradient_checkpointing);
    let trainable = networks.handles();
    let owned = match plan.optimizer.shard_optimizer {
        true => ranks.owners(&trainable).into_iter().map(|owner| owner == ranks.rank().rank).collect(),
        false => vec![true; trainable.len()],
    };
    let n_text = trainable.len() - networks.policy.trainable.len();
    let mut state = State::new(&trainable, n_text, owned, plan);
    if let (Some(saved), Some(path)) = (saved, checkpoint) {
        let found = || "its state is that of another network".to_owned();
        let damaged = || TrainError::DamagedCheckpoint { path: path.to_owned(), found: found() };
        let restored = state.restore(&trainable, &|name| saved.read(name));
        restored.filter(|()| state.step == saved.step).ok_or_else(damaged)?;
    }
    if let Some(text) = &networks.text {
        cached = open(Some(text))?;
    }
    let n_unreadable = unreadable.len() as u64;
    Ok(Prepared {
        networks,
        trainable,
        encoder,
        cached,
        n_unreadable,
        order,
        precomputed,
        identity,
        images,
        state,
    })
}

/// Makes the cache of a run, each rank its part, and logs its end.
fn make_cache(
    encoder: &Encoder<'_>,
    ranks: ProcessGroup<'_>,
    logger: &mut Logger<'_>,
) -> Result<Cache, TrainError> {
    let mut last = None;
    let mut on_event = |event: &Event| {
        last = Some(event.clone());
        logger.notify(event)
    };
    let mut cache = encoder.cache(ranks.rank(), &mut on_event)?;
    if ranks.rank().world_size > 1 {
        // The first puts the parts together, and the others see what it made.
        for first in [true, false] {
            ranks.barrier()?;
            if ranks.is_first() == first {
                cache = encoder.cache(Rank::ONLY, &mut on_event)?;
            }
        }
    }
    // The log holds the end alone.
    last.iter().try_for_each(|event| logger.log(event))?;
    Ok(cache)
}

/// Which pairs are used when, without those that cannot be.
fn order(
    inputs: &RunInputs<'_>,
    unreadable: &[(usize, SkippedPair)],
    logger: &mut Logger<'_>,
) -> Result<Order, TrainError> {
    let RunInputs { plan, source, split, objective, .. } = inputs;
    for (_, SkippedPair { id, place, detail }) in unreadable {
        let (place, detail) = (place.clone(), detail.clone());
        logger.record(&Event::Skipped(Skipped { pair: id.0, place, detail }))?;
    }
    let positions: HashSet<usize> = unreadable.iter().map(|(position, _)| *position).collect();
    let readable = |positions_of: &[usize]| -> Vec<usize> {
        positions_of.iter().copied().filter(|position| !positions.contains(position)).collect()
    };
    let (mut train, held_out) = (readable(&split.train), readable(&split.held_out));
    if objective.needs().soft_label {
        train.retain(|&position| source.soft_label(position).is_some());
        if train.is_empty() {
            return Err(TrainError::NoSoftLabels { method: objective.name() });
        }
    }
    if train.is_empty() {
        let n_skipped = split.train.len() + split.held_out.len() - held_out.len();
        return Err(TrainError::NoPairs { n_pairs: source.len(), n_held_out: held_out.len(), n_skipped });
    }
    let order = Order::new(plan, train, held_out, objective.needs().loser);
    Ok(if inputs.labels.is_some() { order.of_single_images() } else { order })
}

/// Draws pairs by bucket, as long as the run that is resumed did.
fn by_bucket(
    order: Order,
    plan: &Plan,
    saved: Option<&Saved>,
    resolution: impl Fn(usize) -> Size,
    logger: &mut Logger<'_>,
) -> Result<Order, TrainError> {
    if plan.data.buckets().is_none() {
        return Ok(order);
    }
    let group = saved.and_then(|saved| saved.drawn_in).unwrap_or(plan.train.train_batch_size.into());
    let drawn = order.clone().by_bucket(group, resolution);
    if drawn.drawn_in().is_none() || saved.is_none_or(|saved| saved.drawn_in.is_some()) {
        return Ok(drawn);
    }
    let text = "the run was begun with pairs drawn one by one, and keeps their order: buckets leave micro-batches that are not full, \
                which a run begun anew does not have";
    logger.notify(&Event::Note { text: text.to_owned() })?;
    Ok(order)
}

/// Whether a method needs the reference for anything: its errors, or the inversion.
pub(crate) fn needs_reference(objective: &Objective) -> bool {
    let reference = InversionModel::Reference;
    let inverts =
        matches!(objective.corruption(), Corruption::DdimInversion { model, .. } if model == reference);
    objective.needs().reference || inverts
}
