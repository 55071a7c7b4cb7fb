//! Everything between a plan and its first step: cache, bank, networks, state.

use std::collections::HashMap;
use std::path::Path;

use tastemaker_data::PairSource;
use tastemaker_data::split::Split;
use tastemaker_diffusion::Denoiser;
use tastemaker_math::objectives::{Corruption, InversionModel, Label, Objective};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::adapters::LoraFile;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, TextEncoders};
use tastemaker_run::{Adapter, Event, Plan, ReferenceKind, Skipped};
use tch::Device;

use crate::TrainError;
use crate::checkpoint::{self, Identity};
use crate::data::cache::{self, precision, text_learns};
use crate::data::encode::Captions;
use crate::data::labels::pairs_identity;
use crate::data::{CachedPairs, Making, Order, Pairs, Unusable};
use crate::distributed::Processes;
use crate::logger::Recorder;
use crate::networks::Networks;
use crate::reference::Bank;
use crate::reference::Reference;
use crate::reference::precompute;
use crate::state::State;
use crate::step::{Engine, Timesteps};
use crate::validation::images::Easel;

/// What a run is made of.
pub(crate) struct Parts<'a> {
    pub(crate) folder: &'a Model,
    pub(crate) plan: &'a Plan,
    pub(crate) source: &'a dyn PairSource,
    pub(crate) split: &'a Split,
    pub(crate) objective: &'a Objective,
    pub(crate) schedule: &'a NoiseSchedule,
    pub(crate) timesteps: Timesteps<'a>,
    pub(crate) soft_labels: Option<&'a HashMap<u64, f64>>,
    pub(crate) labels: Option<&'a HashMap<u64, Label>>,
    pub(crate) ranks: Processes<'a>,
    pub(crate) device: Device,
}

impl<'a> Parts<'a> {
    /// The engine of these networks.
    pub(crate) fn engine(
        &self,
        policy: &'a dyn Denoiser,
        reference: &'a Reference<'a>,
        text: Option<&'a TextEncoders>,
    ) -> Engine<'a> {
        let Self { objective, schedule, timesteps, .. } = *self;
        let (soft_labels, labels, seed) = (self.soft_labels, self.labels, self.plan.train.seed);
        Engine { policy, reference, text, objective, soft_labels, labels, schedule, timesteps, seed }
    }
}

/// What training needs.
pub(crate) struct Prepared<'a> {
    pub(crate) networks: Networks,
    /// `None` where pairs are encoded whenever they are used.
    pub(crate) pairs: Option<CachedPairs>,
    pub(crate) order: Order,
    pub(crate) bank: Option<Bank>,
    pub(crate) identity: Identity,
    pub(crate) easel: Option<Easel<'a>>,
    pub(crate) state: State,
}

/// Everything that can still be found wrong before training. The cache comes first, so that VAE and text encoders are gone
/// when the networks come; whatever is wrong with those, it stays. A bank comes next, so that the reference is gone, too.
pub(crate) fn prepare<'a>(
    parts: &Parts<'a>,
    start: Option<LoraFile>,
    origin: Option<&str>,
    checkpoint: Option<&Path>,
    recorder: &mut Recorder<'_>,
) -> Result<Prepared<'a>, TrainError> {
    let Parts { folder, plan, source, objective, ranks, device, .. } = *parts;
    // What is wrong with the network shall not be found out after hours of encoding.
    folder.check_unet()?;
    let pairs = pairs_identity(source, objective.needs().soft_label);
    let identity = Identity { pairs, unet: folder.unet_fingerprint()? };
    let saved = checkpoint.map(|path| checkpoint::read(path, plan, &identity)).transpose()?;
    let easel = Easel::new(folder, plan, parts.schedule, text_learns(plan), device)?;
    let captions = Captions::of(source);
    let settings = cache::caching(plan, device, ranks.share());
    let cached = match plan.data.no_cache {
        true => None,
        false => {
            let mut last = None;
            let mut tell = |event: &Event| {
                last = Some(event.clone());
                recorder.mention(event)
            };
            let mut cached = cache::cache(plan, folder, source, &captions, &settings, &mut tell)?;
            if ranks.share().1 > 1 {
                // The first puts the shares together, and the others see what it made.
                let whole = cache::caching(plan, device, (0, 1));
                for turn in [true, false] {
                    ranks.wait()?;
                    if ranks.is_first() == turn {
                        cached = cache::cache(plan, folder, source, &captions, &whole, &mut tell)?;
                    }
                }
            }
            // The log holds the end alone.
            last.iter().try_for_each(|event| recorder.log(event))?;
            Some(cached)
        }
    };
    let opened = |text: Option<&TextEncoders>| {
        let open = |(cache, key)| cache::open_cached(plan, folder, source, &captions, (cache, key), text);
        cached.as_ref().map(|(cache, key)| open((cache, key))).transpose()
    };
    let plain = opened(None)?;
    let order = order(parts, plain.as_ref(), recorder)?;
    let with_reference = needs_reference(objective);
    let wants_bank = with_reference && plan.train.reference == ReferenceKind::Precomputed;
    let bank = match wants_bank {
        true => {
            let key = match &cached {
                Some((_, key)) => key.clone(),
                None => cache::cache_key(plan, folder, source)?,
            };
            Some(precompute::open(plan, folder, &key, (parts.schedule, &order), &identity.unet, origin)?)
        }
        false => None,
    };
    let fill =
        |bank: &Bank, reference: &Reference<'_>, text: Option<&TextEncoders>, recorder: &mut Recorder<'_>| {
            let Some(policy) = reference.network() else { return Ok(()) };
            let engine = parts.engine(policy, reference, text);
            let pairs: Box<dyn Pairs> = match opened(text)? {
                Some(cached) => Box::new(cached),
                None => Box::new(cache::open_live(plan, folder, source, device)?),
            };
            let making =
                Making { augmentation: cache::augmentation(plan), with_losers: order.with_losers, device };
            let mut tell = |event: &Event| recorder.mention(event);
            precompute::fill(bank, &engine, pairs.as_ref(), &order, (making, ranks), &mut tell)
        };
    let is_missing = |bank: &Bank| !bank.missing(order.steps()).is_empty();
    if let (Some(bank), Adapter::Full {}) = (&bank, &plan.adapter)
        && ranks.any(is_missing(bank))?
    {
        let frozen = folder.unet(Role::Frozen, precision(plan), device, None)?.network;
        fill(bank, &Reference::Frozen(&frozen), None, recorder)?;
    }
    let networks = Networks::load(folder, plan, start, with_reference && !wants_bank, device)?;
    if let (Some(bank), false) = (&bank, plan.adapter == Adapter::Full {})
        && ranks.any(is_missing(bank))?
    {
        fill(bank, &networks.reference(), networks.text.as_ref(), recorder)?;
    }
    networks.policy.network.set_recompute(plan.train.gradient_checkpointing);
    let trainable = networks.shared();
    let (rank, _) = ranks.share();
    let owned = match plan.optimizer.shard_optimizer {
        true => ranks.owners(&trainable).into_iter().map(|owner| owner == rank).collect(),
        false => vec![true; trainable.len()],
    };
    let n_text = trainable.len() - networks.policy.trainable.len();
    let mut state = State::new(&trainable, n_text, owned, plan);
    if let (Some(saved), Some(path)) = (saved, checkpoint) {
        let found = || "its state is that of another network".to_owned();
        let damaged = || TrainError::DamagedCheckpoint { path: path.to_owned(), found: found() };
        state.restore(&trainable, &|name| saved.read(name)).ok_or_else(damaged)?;
    }
    let pairs = match &networks.text {
        Some(text) => opened(Some(text))?,
        None => plain,
    };
    Ok(Prepared { networks, pairs, order, bank, identity, easel, state })
}

/// Which pairs are used when, those skipped that cannot be.
fn order(
    parts: &Parts<'_>,
    cached: Option<&CachedPairs>,
    recorder: &mut Recorder<'_>,
) -> Result<Order, TrainError> {
    let Parts { plan, source, split, objective, .. } = *parts;
    let (mut train, mut held_out) = (split.train.clone(), split.held_out.clone());
    if let Some(pairs) = cached {
        for Unusable { id, place, detail } in pairs.skipped(source) {
            recorder.record(&Event::Skipped(Skipped { pair: id.0, place, detail }))?;
        }
        train.retain(|&position| pairs.has(position));
        held_out.retain(|&position| pairs.has(position));
    }
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
    Ok(if parts.labels.is_some() { order.of_singles() } else { order })
}

/// Whether a method asks the reference for anything: its errors, or the inversion.
pub(crate) fn needs_reference(objective: &Objective) -> bool {
    let reference = InversionModel::Reference;
    let inverts =
        matches!(objective.corruption(), Corruption::DdimInversion { model, .. } if model == reference);
    objective.needs().reference || inverts
}
