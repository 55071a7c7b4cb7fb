//! Making the reference bank of a plan: what it depends on, where it is, what is missing.

use serde_json::json;
use tastemaker_data::cache::Key;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::Model;
use tastemaker_run::{Event, Plan, Reference};
use tastemaker_store::checksum::sha256_bytes;

use crate::TrainError;
use crate::data::cache::{Tell, caches};
use crate::data::{Making, Order, Pairs, feed};
use crate::distributed::Processes;
use crate::reference::{Bank, BankKey};
use crate::step::Engine;

/// The bank of a plan, with whatever steps it holds already. `encoded` is the key of the plan's cache.
///
/// # Errors
/// [`TrainError`] if the model cannot be read, or the folder holds another bank.
pub(crate) fn open(
    plan: &Plan,
    model: &Model,
    encoded: &Key,
    (schedule, order): (&NoiseSchedule, &Order),
    unet: &str,
    adapter: Option<&str>,
) -> Result<Bank, TrainError> {
    let (data, train) = (&plan.data, &plan.train);
    let positions = order.train.iter().flat_map(|&position| (position as u64).to_le_bytes());
    let levels = (0..schedule.len()).flat_map(|t| schedule.alpha_bar(t).to_le_bytes());
    let prediction = format!("{:?} {:?}", schedule.prediction(), train.timesteps).into_bytes();
    let key = BankKey {
        format: BankKey::FORMAT,
        reference: format!("{unet} {}", adapter.unwrap_or("bare")),
        text: match &encoded.text {
            Some(text) => text.encoders.clone(),
            None => model.text_fingerprint()?,
        },
        latents: encoded.digest(),
        schedule: sha256(levels.chain(prediction)),
        positions: sha256(positions),
        draws: json!({
            "seed": train.seed,
            "mixed_precision": train.mixed_precision,
            "train_batch_size": train.train_batch_size,
            "pairs_per_step": plan.effective_batch(),
            "proportion_empty_prompts": data.proportion_empty_prompts,
            "time_ids": data.time_ids,
            "augment": data.augment,
            "random_crop": data.random_crop,
            "no_cache": data.no_cache,
            "with_losers": order.with_losers,
        }),
    };
    let name = format!("bank-{}", &key.digest()[..16]);
    let folder = train.reference_dir.clone().unwrap_or_else(|| caches(plan).join(name));
    Bank::open(&folder, &key, plan.effective_batch())
}

/// Computes whatever steps of `order` are missing in a bank.
///
/// # Errors
/// Those of `pairs` and `tell`, and if the bank cannot be written.
pub(crate) fn fill(
    bank: &Bank,
    engine: &Engine<'_>,
    pairs: &dyn Pairs,
    order: &Order,
    (making, ranks): (Making, Processes<'_>),
    tell: &mut Tell<'_>,
) -> Result<(), TrainError> {
    let (rank, n_ranks) = ranks.share();
    let missing: Vec<_> = bank.missing(order.steps()).into_iter().skip(rank).step_by(n_ranks).collect();
    // Nobody looks for shards that others have begun to write.
    ranks.wait()?;
    let n_steps = missing.iter().map(|steps| steps.end - steps.start).sum();
    let mut n_done = 0;
    for steps in missing {
        let part = order.clone().without_looks().over(steps.clone());
        n_done += steps.end - steps.start;
        bank.fill(steps, engine, &mut feed(pairs, part, making))?;
        tell(&Event::Reference(Reference { n_done, n_steps }))?;
    }
    ranks.wait()
}

fn sha256(bytes: impl Iterator<Item = u8>) -> String {
    sha256_bytes(&bytes.collect::<Vec<u8>>())
}
