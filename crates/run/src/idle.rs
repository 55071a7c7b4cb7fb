//! Settings that change nothing in a run: each of them says so.

use tastemaker_math::objectives::{Corruption, Objective};

use crate::Warning;
use crate::health::Rule as OnAlarm;
use crate::plan::{Adapter, Plan};
use crate::schedule::LrScheduler;
use crate::settings::{Key, OptimizerKind, ReferenceKind, TimeIds, TimestepDensity, Tracker};

/// Settings that were typed and change nothing if the plan is such.
pub(crate) struct Rule {
    /// Names of keys, or a whole section.
    keys: &'static [&'static str],
    holds: fn(&Plan, &Objective) -> bool,
    /// Why not.
    pub(crate) reason: &'static str,
}

impl Rule {
    /// Names of keys, or a whole section.
    pub(crate) fn keys(&self) -> &'static [&'static str] {
        self.keys
    }

    /// Whether it is about a key.
    pub(crate) fn is_about(&self, key: &Key) -> bool {
        key.name() != "adapter_type"
            && (self.keys.contains(&key.name()) || self.keys.contains(&key.section()))
    }

    /// Whether the plan is such.
    pub(crate) fn holds(&self, plan: &Plan, objective: &Objective) -> bool {
        (self.holds)(plan, objective)
    }
}

const fn rule(
    keys: &'static [&'static str],
    reason: &'static str,
    holds: fn(&Plan, &Objective) -> bool,
) -> Rule {
    Rule { keys, holds, reason }
}

/// All of them.
pub(crate) static RULES: &[Rule] = &[
    rule(&["cache_to", "cache_dtype"], "nothing is cached", |plan, _| plan.data.no_cache),
    rule(
        &["bucket_reso_steps", "min_bucket_reso", "max_bucket_reso"],
        "there are no buckets without enable_bucket",
        |plan, _| !plan.data.enable_bucket,
    ),
    rule(&["augment"], "nothing is drawn: images are neither flipped nor cropped at random", |plan, _| {
        plan.data.no_hflip && !plan.data.random_crop
    }),
    rule(&["adapter"], "every weight of the network is trained (adapter_type is full)", |plan, _| {
        plan.adapter == Adapter::Full {}
    }),
    rule(
        &["base_precision"],
        "every weight is trained (adapter_type is full), so that none is frozen",
        |plan, _| plan.train.base_precision.is_some() && plan.adapter == Adapter::Full {},
    ),
    rule(
        &["text_encoder_lr"],
        "no text encoder is trained; text_encoder_target_modules says which layers are",
        |plan, _| match &plan.adapter {
            // That none is trained is what was asked for.
            _ if plan.keeps_text() => false,
            Adapter::Full {} => true,
            Adapter::Lora(lora) => lora.text_encoder_target_modules.is_empty(),
            // The file says.
            Adapter::Continued { .. } => false,
        },
    ),
    rule(
        &["lr_warmup_steps"],
        "lr_scheduler is constant; for warm-up take constant_with_warmup",
        |plan, _| plan.optimizer.lr_scheduler == LrScheduler::Constant && plan.optimizer.lr_warmup_steps > 0,
    ),
    rule(&["lr_num_cycles"], "only lr_scheduler cosine_with_restarts starts over", |plan, _| {
        plan.optimizer.lr_scheduler != LrScheduler::CosineWithRestarts && plan.optimizer.lr_num_cycles > 1
    }),
    rule(&["adam_beta1", "adam_beta2", "adam_epsilon"], "adafactor keeps no such moments", |plan, _| {
        plan.optimizer.optimizer_type == OptimizerKind::Adafactor
    }),
    rule(&["reference"], "the method has no reference", |plan, objective| {
        plan.train.reference == ReferenceKind::Precomputed && !objective.needs().reference
    }),
    rule(&["reference_ema_decay"], "the method has no reference", |plan, objective| {
        plan.train.reference_ema_decay.is_some() && !objective.needs().reference
    }),
    rule(
        &["auto_beta_target_gf", "auto_beta_decay", "auto_beta_min", "auto_beta_max"],
        "beta stays as it is without auto_beta",
        |plan, _| !plan.train.auto_beta,
    ),
    rule(&["reference_dir"], "no reference is precomputed", |plan, objective| {
        plan.train.reference != ReferenceKind::Precomputed || !objective.needs().reference
    }),
    rule(&["held_out_choice"], "no pairs are held out: held_out_fraction is 0", |plan, _| {
        plan.data.held_out_fraction == 0.0
    }),
    rule(&["validation_prompts"], "validation_steps says when, and it is 0", |plan, _| {
        plan.validation.validation_steps == 0 && has_prompts(plan)
    }),
    rule(
        &["validation_pairs"],
        "no held-out pairs are validated on: validation_steps or held_out_fraction is 0",
        |plan, _| !validates(plan),
    ),
    rule(
        &["num_validation_images", "num_inference_steps", "guidance_scale"],
        "no images are generated: give validation_prompts, and validation_steps above 0",
        |plan, _| plan.validation.validation_steps == 0 || !has_prompts(plan),
    ),
    rule(
        &["validation_steps"],
        "there is nothing to validate on: held_out_fraction is 0, and there are no validation_prompts",
        |plan, _| plan.validation.validation_steps > 0 && !validates(plan) && !has_prompts(plan),
    ),
    rule(
        &["on_alarm"],
        "no state can be found the best without validation: validation_steps or held_out_fraction is 0",
        |plan, _| plan.logging.on_alarm == OnAlarm::KeepBest && !validates(plan),
    ),
    rule(&["checkpointing_steps"], "save_every_n_epochs says when", |plan, _| {
        plan.checkpoint.save_every_n_epochs.is_some()
    }),
    rule(&["logging_dir", "tracker_name"], "there is no tracker (report_to is none)", |plan, _| {
        plan.logging.report_to == Tracker::None
    }),
    rule(
        &["output_layout", "save_precision"],
        "a LoRA is always written for diffusers and as kohya's scripts do, in fp32",
        |plan, _| plan.adapter != Adapter::Full {},
    ),
    rule(&["output_name"], "only the file of a LoRA has it", |plan, _| plan.adapter == Adapter::Full {}),
    rule(&["lr_power"], "only lr_scheduler polynomial is a power", |plan, _| {
        plan.optimizer.lr_scheduler != LrScheduler::Polynomial
    }),
    rule(
        &[
            "timestep_density",
            "logit_mean",
            "logit_std",
            "mode_scale",
            "sigmoid_scale",
            "discrete_flow_shift",
        ],
        "training visits the given levels, all alike",
        |plan, _| plan.train.sigmas.is_some() || plan.train.timesteps.is_some(),
    ),
    rule(&["logit_mean", "logit_std"], "timestep_density is neither logit_normal nor logsnr", |plan, _| {
        !matches!(plan.train.timestep_density, TimestepDensity::LogitNormal | TimestepDensity::Logsnr)
    }),
    rule(&["mode_scale"], "timestep_density is not mode", |plan, _| {
        plan.train.timestep_density != TimestepDensity::Mode
    }),
    rule(&["sigmoid_scale", "discrete_flow_shift"], "timestep_density is not sigmoid", |plan, _| {
        plan.train.timestep_density != TimestepDensity::Sigmoid
    }),
    rule(&["noise_offset"], "latents become noisy by inversion", |_, objective| {
        objective.corruption() != Corruption::Forward
    }),
];

fn validates(plan: &Plan) -> bool {
    plan.validation.validation_steps > 0 && plan.data.held_out_fraction > 0.0
}

fn has_prompts(plan: &Plan) -> bool {
    !plan.validation.validation_prompts.is_empty()
}

/// What a plan meets on a machine, and does not know by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether training is on the host's processor.
    pub on_host: bool,
    /// Whether the model is conditioned on sizes and crops, as SDXL is.
    pub has_time_ids: bool,
    /// Whether the model is a single file.
    pub is_file: bool,
    /// Whether the model was found by its name on the Hub.
    pub is_fetched: bool,
    /// Pairs that are held out.
    pub n_held_out: usize,
}

impl Plan {
    /// The settings that change nothing there.
    pub fn idle_in(&self, around: &Surroundings) -> Vec<Warning> {
        let Self { model, data, optimizer, .. } = self;
        let validates_on_pairs = validates(self) && !has_prompts(self);
        let rules = [
            (
                "data.time_ids",
                data.time_ids != TimeIds::Constant && !around.has_time_ids,
                "this model is not conditioned on sizes and crops",
            ),
            (
                "optimizer.offload_optimizer",
                optimizer.offload_optimizer && around.on_host,
                "training is on the host already",
            ),
            (
                "optimizer.shard_optimizer",
                optimizer.shard_optimizer && self.n_processes == 1,
                "this process trains alone",
            ),
            (
                "optimizer.scale_lr",
                optimizer.scale_lr && self.effective_batch() == 1,
                "a step has a single pair",
            ),
            (
                "model.model_config",
                model.model_config.is_some() && !around.is_file,
                "the model is a folder, which has its own",
            ),
            ("model.variant", model.variant.is_some() && around.is_file, "the model is a single file"),
            (
                "model.revision",
                model.revision.is_some() && !around.is_fetched,
                "the model is given by its place, not by its name on the Hub",
            ),
            (
                "validation.validation_steps",
                validates_on_pairs && around.n_held_out == 0,
                "no pairs are held out: there are too few captions",
            ),
        ];
        let idle = rules.into_iter().filter(|(_, holds, _)| *holds);
        idle.map(|(key, _, reason)| Warning::NoEffect { key, reason }).collect()
    }
}
