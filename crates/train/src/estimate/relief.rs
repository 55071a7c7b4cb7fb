//! What would make a run fit.

use tastemaker_run::{Adapter, MemoryEstimate, OptimizerKind, Plan, ReferenceKind, Relief};
use tastemaker_store::dtype::{BasePrecision, DType};

/// A change of a plan that takes less memory: its flags, or `None` where it changes nothing. The number is what a micro-batch is
/// divided by.
type Change = fn(&mut Plan, u32) -> Option<String>;

/// Changes that leave the result as it is or nearly so, those first that change it least.
const CHANGES: [Change; 7] =
    [checkpointed, smaller_batch, precomputed, eight_bit, bf16, base_in_int8, base_in_nf4];

fn checkpointed(plan: &mut Plan, _: u32) -> Option<String> {
    let changes = !std::mem::replace(&mut plan.train.gradient_checkpointing, true);
    changes.then(|| "--gradient_checkpointing".to_owned())
}

fn smaller_batch(plan: &mut Plan, by: u32) -> Option<String> {
    let train = &mut plan.train;
    if by == 1 || !train.train_batch_size.is_multiple_of(by) {
        return None;
    }
    train.train_batch_size /= by;
    train.gradient_accumulation_steps = train.gradient_accumulation_steps.saturating_mul(by);
    let (batch, accumulated) = (train.train_batch_size, train.gradient_accumulation_steps);
    Some(format!("--train_batch_size {batch} --gradient_accumulation_steps {accumulated}"))
}

/// It saves memory only where the reference is a copy of the network.
fn precomputed(plan: &mut Plan, _: u32) -> Option<String> {
    let changes = plan.adapter == (Adapter::Full {}) && plan.train.reference == ReferenceKind::Live;
    plan.train.reference = ReferenceKind::Precomputed;
    changes.then(|| "--reference precomputed".to_owned())
}

fn eight_bit(plan: &mut Plan, _: u32) -> Option<String> {
    let changes = plan.optimizer.optimizer_type == OptimizerKind::AdamW;
    plan.optimizer.optimizer_type = OptimizerKind::AdamW8bit;
    changes.then(|| "--optimizer_type adamw8bit".to_owned())
}

fn bf16(plan: &mut Plan, _: u32) -> Option<String> {
    let changes = plan.train.mixed_precision == DType::F32;
    plan.train.mixed_precision = DType::Bf16;
    changes.then(|| "--mixed_precision bf16".to_owned())
}

fn base_in_int8(plan: &mut Plan, _: u32) -> Option<String> {
    smaller_base(plan, BasePrecision::Int8)
}

fn base_in_nf4(plan: &mut Plan, _: u32) -> Option<String> {
    smaller_base(plan, BasePrecision::Nf4)
}

fn smaller_base(plan: &mut Plan, base: BasePrecision) -> Option<String> {
    if plan.adapter == (Adapter::Full {}) || plan.train.base_precision.is_some_and(|now| now >= base) {
        return None;
    }
    plan.train.base_precision = Some(base);
    Some(format!("--base_precision {base}"))
}

/// Each change alone that takes less than `limit`, of micro-batches the largest that does; where none does, as many changes together as
/// are needed. Empty where all of them are not enough.
pub(super) fn relief(
    plan: &Plan,
    limit: u64,
    estimate: &dyn Fn(&Plan) -> Option<MemoryEstimate>,
) -> Vec<Relief> {
    let with = |changes: &[Change], by: u32| {
        let mut changed = plan.clone();
        let settings: Vec<String> = changes.iter().filter_map(|change| change(&mut changed, by)).collect();
        let bytes = estimate(&changed)?.total();
        (!settings.is_empty() && bytes < limit).then(|| Relief { settings: settings.join(" "), bytes })
    };
    let batch = plan.train.train_batch_size;
    let divisors = || (2..=batch).filter(|by| batch.is_multiple_of(*by));
    let fitting = |changes: &[Change]| {
        let divides = changes.iter().any(|change| std::ptr::fn_addr_eq(*change, smaller_batch as Change));
        if divides && batch > 1 { divisors().find_map(|by| with(changes, by)) } else { with(changes, 1) }
    };
    let alone: Vec<Relief> =
        CHANGES.iter().filter_map(|change| fitting(std::slice::from_ref(change))).collect();
    match alone.is_empty() {
        true => (2..=CHANGES.len()).find_map(|n| fitting(&CHANGES[..n])).into_iter().collect(),
        false => alone,
    }
}

/// Says them.
pub fn words(all: &[Relief]) -> String {
    let one =
        |Relief { settings, bytes }: &Relief| format!("{settings} (about {} MiB)", bytes.div_ceil(1 << 20));
    all.iter().map(one).collect::<Vec<_>>().join(", or ")
}
