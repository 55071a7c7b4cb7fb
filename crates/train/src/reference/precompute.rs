//! Computing the reference of a plan beforehand: what it depends on, where it is, what is missing.

use serde_json::{Value, json};
use tastemaker_data::cache::Key;
use tastemaker_math::flow::Density;
use tastemaker_math::objectives::Corruption;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Adapter, Event, Plan};
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::lock::{FolderLock, Sharing};
use tastemaker_torch::driver::Driver;
use tastemaker_torch::versions;
use tch::Device;

use super::{PrecomputedKey, PrecomputedReference};
use crate::TrainError;
use crate::data::cache::{Encoder, OnEvent};
use crate::data::{BatchOptions, Order, Pairs, feed};
use crate::distributed::ProcessGroup;
use crate::step::Engine;

/// What a precomputed reference depends on.
pub(crate) struct ReferenceInputs<'a> {
    pub(crate) plan: &'a Plan,
    pub(crate) encoder: &'a Encoder<'a>,
    /// The key of the plan's cache.
    pub(crate) encoded: &'a Key,
    pub(crate) schedule: &'a NoiseSchedule,
    /// How latents become noisy.
    pub(crate) corruption: Corruption,
    pub(crate) order: &'a Order,
    /// SHA-256 of the network.
    pub(crate) unet: &'a str,
    /// The LoRA that training starts from, with its hash.
    pub(crate) origin: Option<&'a str>,
}

impl ReferenceInputs<'_> {
    /// The precomputed reference, with whatever steps it holds already.
    ///
    /// # Errors
    /// [`TrainError`] if the model cannot be read, or the folder holds another one.
    pub(crate) fn open(&self) -> Result<PrecomputedReference, TrainError> {
        let Self { plan, encoder, encoded, schedule, corruption, order, unet, origin } = self;
        let (data, train, model): (_, _, &Model) = (&plan.data, &plan.train, encoder.model);
        let positions = order.train.iter().flat_map(|&position| (position as u64).to_le_bytes());
        let levels = (0..schedule.len()).flat_map(|t| schedule.alpha_bar(t).to_le_bytes());
        let prediction = format!("{:?} {:?}", schedule.prediction(), train.timesteps).into_bytes();
        let mut draws = json!({
            "seed": train.seed,
            "mixed_precision": train.mixed_precision.mixed_precision_name(),
            "train_batch_size": train.train_batch_size,
            "pairs_per_step": plan.effective_batch(),
            "proportion_empty_prompts": data.proportion_empty_prompts,
            "time_ids": data.time_ids,
            "augment": data.augment,
            "random_crop": data.random_crop,
            "no_cache": data.no_cache,
            "with_losers": order.with_losers,
        });
        // Forward noise, which most methods share, goes without saying.
        if *corruption != Corruption::Forward {
            draws["corruption"] = json!(corruption);
        }
        // As does every level of the table alike.
        if train.density() != Density::Uniform {
            draws["timestep_density"] = json!(train.density());
        }
        if let Some(sigmas) = &train.sigmas {
            draws["sigmas"] = json!(sigmas);
        }
        if let Some(base) = train.base_precision.filter(|_| plan.adapter != Adapter::Full {}) {
            draws["base_precision"] = json!(base);
        }
        compute_on(&mut draws, kind(encoder.settings.device), versions::libtorch());
        if let Some(group) = order.drawn_in() {
            draws["drawn_in"] = group.into();
        }
        if train.noise_offset > 0.0 {
            draws["noise_offset"] = train.noise_offset.into();
        }
        let key = PrecomputedKey {
            format: PrecomputedKey::FORMAT,
            reference: format!("{unet} {}", origin.unwrap_or("bare")),
            text: match &encoded.text {
                Some(text) => text.encoders.clone(),
                None => model.text_fingerprint()?,
            },
            latents: encoded.digest(),
            schedule: sha256(levels.chain(prediction)),
            positions: sha256(positions),
            draws,
        };
        let name = format!("reference-{}", &key.digest()[..16]);
        let folder = train.reference_dir.clone().unwrap_or_else(|| encoder.settings.cache_root.join(name));
        PrecomputedReference::open(&folder, &key, plan.effective_batch())
    }
}

/// Computes whatever steps of `order` are missing, each rank its part.
///
/// # Errors
/// Those of `pairs` and `on_event`, and if the errors cannot be written.
pub(crate) fn fill(
    precomputed: &PrecomputedReference,
    engine: &Engine<'_>,
    pairs: &dyn Pairs,
    order: &Order,
    options: BatchOptions,
    ranks: ProcessGroup<'_>,
    on_event: &mut OnEvent<'_>,
) -> Result<(), TrainError> {
    let rank = ranks.rank();
    // The first rank keeps other runs out for all of this one, and those find what it has made.
    let lock = match ranks.is_first() {
        true => {
            let path = precomputed.folder();
            let on_wait = || on_event(&Event::Waiting { path: path.to_owned() });
            Some(FolderLock::wait(path, Sharing::Alone, on_wait)?)
        }
        false => None,
    };
    ranks.barrier()?;
    let missing = precomputed.missing(order.steps())?;
    let missing: Vec<_> = missing.into_iter().skip(rank.rank).step_by(rank.world_size).collect();
    // No rank lists shards that others have begun to write.
    ranks.barrier()?;
    let n_steps = missing.iter().map(|steps| steps.end - steps.start).sum();
    let mut n_done = 0;
    for steps in missing {
        let part = order.clone().without_validation().over(steps.clone());
        n_done += steps.end - steps.start;
        precomputed.fill(steps, engine, &mut feed(pairs, part, options))?;
        on_event(&Event::Reference(tastemaker_run::Reference { n_done, n_steps }))?;
    }
    ranks.barrier()?;
    drop(lock);
    Ok(())
}

/// The libtorch whose sums go without saying.
const LIBTORCH: &str = "2.11.";

/// Adds what decides the rounding of an error beside the plan. A CPU and the libtorch of the first versions, whose references are there
/// already, go without saying.
fn compute_on(draws: &mut Value, device: Option<String>, libtorch: Option<String>) {
    let other = libtorch.filter(|release| !release.starts_with(LIBTORCH));
    for (name, value) in [("device", device), ("libtorch", other)] {
        if let Some(value) = value {
            draws[name] = value.into();
        }
    }
}

/// The kind of a device, such as `NVIDIA H200`: two of a kind give the same bits, two of different kinds do not. `None` for the CPU.
fn kind(device: Device) -> Option<String> {
    match device {
        Device::Cpu => None,
        Device::Cuda(index) => {
            let gpus = Driver::open().ok().and_then(|driver| driver.gpus().ok()).unwrap_or_default();
            Some(gpus.get(index).map_or_else(|| "CUDA".to_owned(), |gpu| gpu.name.clone()))
        }
        other => Some(format!("{other:?}")),
    }
}

fn sha256(bytes: impl Iterator<Item = u8>) -> String {
    sha256_bytes(&bytes.collect::<Vec<u8>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_one_kind_of_device_are_not_taken_for_those_of_another_and_old_ones_of_a_cpu_are() {
        let key = |device: Option<&str>, libtorch: &str| {
            let mut draws = json!({"seed": 0});
            compute_on(&mut draws, device.map(str::to_owned), Some(libtorch.to_owned()));
            let word = || "x".to_owned();
            PrecomputedKey {
                format: PrecomputedKey::FORMAT,
                reference: word(),
                text: word(),
                latents: word(),
                schedule: word(),
                positions: word(),
                draws,
            }
        };
        let cpu = key(None, "2.11.0");
        assert_eq!(cpu.draws, json!({"seed": 0}), "as earlier versions wrote it");
        let others =
            [key(Some("NVIDIA H200"), "2.11.0"), key(Some("NVIDIA A100"), "2.11.0"), key(None, "2.12.0")];
        let folder = tempfile::tempdir().unwrap();
        PrecomputedReference::open(folder.path(), &cpu, 1).unwrap();
        for (number, other) in others.iter().enumerate() {
            assert_ne!(other.digest(), cpu.digest());
            assert!(others[..number].iter().all(|known| known.digest() != other.digest()));
            let error = PrecomputedReference::open(folder.path(), other, 1).unwrap_err();
            assert!(matches!(error, TrainError::OtherPrecomputed { .. }), "{error}");
        }
        assert_eq!(kind(Device::Cpu), None);
    }
}
