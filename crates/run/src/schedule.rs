//! The learning rate over a run.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of the learning rate, named as in diffusers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LrScheduler {
    /// The same all along, without warm-up.
    #[default]
    Constant,
    /// The same after warm-up.
    ConstantWithWarmup,
    /// Straight down to 0 after warm-up.
    Linear,
    /// Half a cosine down to 0 after warm-up.
    Cosine,
    /// As `Cosine`, several times over.
    CosineWithRestarts,
    /// Down to [`POLYNOMIAL_END`] as a power of what is left, after warm-up.
    Polynomial,
}

/// The learning rate that `Polynomial` ends at; one that is not above it stays.
///
/// Source: `huggingface/diffusers:src/diffusers/optimization.py`, `get_polynomial_decay_schedule_with_warmup`.
pub const POLYNOMIAL_END: f64 = 1e-7;

/// All that the learning rate depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The shape.
    pub kind: LrScheduler,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Optimizer steps of linear warm-up.
    pub warmup_steps: u64,
    /// Optimizer steps of the run.
    pub max_steps: u64,
    /// Cosines of `CosineWithRestarts`.
    pub num_cycles: u32,
    /// Exponent of `Polynomial`.
    pub power: f64,
}

/// The learning rate of optimizer step `step`, counted from 0.
///
/// Steps are optimizer steps, whatever the number of devices or accumulated micro-batches, so warm-up has the
/// same length on all of them. With warm-up the first step has rate 0, as in the reference.
///
/// Source: `huggingface/diffusers:src/diffusers/optimization.py`, `get_scheduler`; there the plain cosine
/// ignores the number of cycles, too.
pub fn lr_at(step: u64, schedule: &Schedule) -> f64 {
    let Schedule { kind, learning_rate, warmup_steps, max_steps, num_cycles, power } = *schedule;
    if kind == LrScheduler::Constant {
        return learning_rate;
    }
    if step < warmup_steps {
        return learning_rate * (step as f64 / warmup_steps as f64);
    }
    let n_decay = max_steps.saturating_sub(warmup_steps).max(1) as f64;
    let progress = (step - warmup_steps) as f64 / n_decay;
    learning_rate
        * match kind {
            LrScheduler::Constant | LrScheduler::ConstantWithWarmup => 1.0,
            LrScheduler::Linear => (max_steps.saturating_sub(step) as f64 / n_decay).max(0.0),
            LrScheduler::Cosine => (0.5 * (1.0 + (PI * progress).cos())).max(0.0),
            LrScheduler::Polynomial => {
                let end = (POLYNOMIAL_END / learning_rate).min(1.0);
                (1.0 - end) * (1.0 - progress).max(0.0).powf(power) + end
            }
            LrScheduler::CosineWithRestarts if progress >= 1.0 => 0.0,
            LrScheduler::CosineWithRestarts => {
                0.5 * (1.0 + (PI * (f64::from(num_cycles) * progress).fract()).cos())
            }
        }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn curve(kind: LrScheduler, warmup_steps: u64, max_steps: u64, num_cycles: u32) -> Vec<f64> {
        let schedule = Schedule { kind, learning_rate: 1.0, warmup_steps, max_steps, num_cycles, power: 2.0 };
        (0..max_steps + 2).map(|step| lr_at(step, &schedule)).collect()
    }

    /// Curves recorded from diffusers 0.42.1 (`get_scheduler` around an SGD of rate 1): warm-up 3, 11 steps,
    /// 2 cycles, power 2.
    const RECORDED: [(LrScheduler, [f64; 13]); 6] = [
        (LrScheduler::Constant, [1.0; 13]),
        (
            LrScheduler::ConstantWithWarmup,
            [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0],
        ),
        (
            LrScheduler::Linear,
            [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0, 0.0],
        ),
        (
            LrScheduler::Cosine,
            [
                0.0,
                1.0 / 3.0,
                2.0 / 3.0,
                1.0,
                0.9619397662556434,
                0.8535533905932737,
                0.6913417161825449,
                0.5,
                0.30865828381745514,
                0.14644660940672627,
                0.03806023374435663,
                0.0,
                0.038060233744356575,
            ],
        ),
        (
            LrScheduler::CosineWithRestarts,
            [
                0.0,
                1.0 / 3.0,
                2.0 / 3.0,
                1.0,
                0.8535533905932737,
                0.5,
                0.14644660940672627,
                1.0,
                0.8535533905932737,
                0.5,
                0.14644660940672627,
                0.0,
                0.0,
            ],
        ),
        (
            LrScheduler::Polynomial,
            [
                0.0,
                1.0 / 3.0,
                2.0 / 3.0,
                1.0,
                0.7656250234374999,
                0.56250004375,
                0.39062506093750005,
                0.250000075,
                0.1406250859375,
                0.06250009375,
                0.015625098437500002,
                1e-07,
                1e-07,
            ],
        ),
    ];

    #[test]
    fn curves_are_those_of_diffusers() {
        for (kind, recorded) in RECORDED {
            for (step, (ours, theirs)) in curve(kind, 3, 11, 2).into_iter().zip(recorded).enumerate() {
                assert!((ours - theirs).abs() < 1e-15, "{kind:?} step {step}: {ours} for {theirs}");
            }
        }
    }

    #[test]
    fn the_first_step_without_warm_up_has_the_full_rate() {
        for (kind, _) in RECORDED {
            assert_eq!(curve(kind, 0, 5, 1)[0], 1.0, "{kind:?}");
        }
    }

    proptest! {
        #[test]
        fn the_rate_stays_between_nothing_and_its_value(
            which in 0usize..6, warmup in 0u64..20, steps in 1u64..20, cycles in 1u32..4, step in 0u64..60,
        ) {
            let schedule = Schedule {
                kind: RECORDED[which].0, learning_rate: 3e-5, warmup_steps: warmup, max_steps: steps, num_cycles: cycles,
                power: 2.0,
            };
            let rate = lr_at(step, &schedule);
            prop_assert!((0.0..=3e-5).contains(&rate), "{}", rate);
        }
    }
}
