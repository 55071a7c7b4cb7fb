//! From what was typed to what will be done.

use std::path::PathBuf;

use serde_json::Value;
use tastemaker_math::objectives::{Corruption, objective};

use crate::keeping::{CheckpointPlan, LoggingPlan};
use crate::plan::{
    Adapter, Augment, BucketPlan, DataPlan, LoraPlan, MethodPlan, ModelPlan, OptimizerPlan, OutputPlan, Plan,
    ReferenceKind, TrainPlan, ValidationPlan,
};
use crate::recipe::{
    AdapterKind, AdapterSection, DataSection, LoggingSection, MethodSection, ModelSection, OneOrMore,
    OptimizerSection, OutputSection, Overrides, Recipe, TrainSection, ValidationSection,
};
use crate::schedule::LrScheduler;
use crate::{Problem, RunError, Warning};

/// Lays flags over a recipe, fills in the defaults and checks every value.
///
/// # Errors
/// [`RunError::Invalid`] with every missing or impossible value at once; [`RunError::Method`] if the method
/// is unknown or refuses its settings.
pub fn resolve(recipe: Recipe, overrides: Overrides) -> Result<Plan, RunError> {
    let mut warnings = Vec::new();
    if let (true, Some(recipe), Some(asked)) =
        (overrides.method.replaces(&recipe.method), &recipe.method.name, &overrides.method.name)
    {
        warnings.push(Warning::SettingsSkipped { recipe: recipe.clone(), asked: asked.clone() });
    }
    let typed = overrides.over(recipe);

    let mut check = Check::default();
    let name = check.required("method.name", typed.method.name.clone());
    let output_dir = check.path("output_dir", typed.output_dir);
    let model = model(&mut check, typed.model);
    let data = data(&mut check, &mut warnings, typed.data);
    let adapter = adapter(&mut check, &mut warnings, typed.adapter);
    let optimizer = optimizer(&mut check, &mut warnings, typed.optimizer);
    let train = train(&mut check, typed.train);
    let validation = validation(&mut check, &mut warnings, typed.validation);
    let checkpoint = CheckpointPlan::from(typed.checkpoint);
    let logging = logging(&mut check, typed.logging);
    let output = output(&mut check, &mut warnings, typed.output, &adapter);
    if !check.problems.is_empty() {
        return Err(RunError::Invalid(check.problems));
    }
    let method = method(&mut warnings, name, typed.method)?;
    if train.reference == ReferenceKind::Bank {
        let objective = method.objective()?;
        if !objective.needs().reference {
            let reason = "the method has no reference";
            warnings.push(Warning::NoEffect { key: "train.reference", reason });
        } else if objective.corruption() != Corruption::Forward {
            let wanted = "live, for latents are inverted anew at every step";
            let problem = Problem { key: "train.reference", found: "bank".to_owned(), wanted };
            return Err(RunError::Invalid(vec![problem]));
        }
    }

    let (warmup, training) = (optimizer.lr_warmup_steps, train.max_train_steps);
    if optimizer.lr_scheduler != LrScheduler::Constant && warmup >= training {
        warnings.push(Warning::WarmupNeverEnds { warmup, training });
    }
    Ok(Plan {
        format: Plan::FORMAT,
        model,
        data,
        method,
        adapter,
        optimizer,
        train,
        validation,
        checkpoint,
        logging,
        output,
        output_dir,
        n_pairs: None,
        cache_root: None,
        memory: None,
        warnings,
    })
}

fn model(check: &mut Check, typed: ModelSection) -> ModelPlan {
    ModelPlan {
        pretrained_model_name_or_path: check
            .required("model.pretrained_model_name_or_path", typed.pretrained_model_name_or_path),
        pretrained_vae_model_name_or_path: typed.pretrained_vae_model_name_or_path,
        unet_init: typed.unet_init,
        model_config: typed.model_config,
        variant: typed.variant,
        revision: typed.revision,
        prediction_type: typed.prediction_type,
        rescale_betas_zero_snr: typed.rescale_betas_zero_snr.unwrap_or(false),
    }
}

fn data(check: &mut Check, warnings: &mut Vec<Warning>, typed: DataSection) -> DataPlan {
    let resolution = typed.resolution.unwrap_or(512);
    check.that(
        "data.resolution",
        resolution,
        resolution > 0 && resolution.is_multiple_of(8),
        "a multiple of 8",
    );
    let held_out_fraction = typed.held_out_fraction.unwrap_or(0.05);
    let some_left = (0.0..1.0).contains(&held_out_fraction);
    check.that("data.held_out_fraction", held_out_fraction, some_left, "at least 0 and below 1");
    let proportion_empty_prompts = typed.proportion_empty_prompts.unwrap_or(0.0);
    let is_share = (0.0..=1.0).contains(&proportion_empty_prompts);
    check.that("data.proportion_empty_prompts", proportion_empty_prompts, is_share, "between 0 and 1");
    let buckets = buckets(check, warnings, &typed, resolution);
    let (no_cache, random_crop) = (typed.no_cache.unwrap_or(false), typed.random_crop.unwrap_or(false));
    let from_pixels = no_cache || !random_crop;
    check.that(
        "data.random_crop",
        random_crop,
        from_pixels,
        "no_cache = true beside it, for crops of cached images are fixed",
    );
    let augment =
        typed.augment.unwrap_or(if buckets.is_some() { Augment::Joint } else { Augment::Independent });
    let shares = !random_crop || buckets.is_none() || augment == Augment::Joint;
    check.that(
        "data.augment",
        "independent",
        shares,
        "joint where buckets are cropped at random, for both halves share one crop",
    );
    if no_cache {
        let typed =
            [("data.cache_to", typed.cache_to.is_some()), ("data.cache_dtype", typed.cache_dtype.is_some())];
        let idle = typed.into_iter().filter(|(_, is_typed)| *is_typed);
        warnings.extend(idle.map(|(key, _)| Warning::NoEffect { key, reason: "nothing is cached" }));
    }
    DataPlan {
        train_data_dir: check.required("data.train_data_dir", typed.train_data_dir),
        dataset_config_name: typed.dataset_config_name,
        dataset_split_name: typed.dataset_split_name,
        format: typed.format,
        columns: typed.columns.unwrap_or_default(),
        exclude: typed.exclude.map(|list| check.path("data.exclude", Some(list))),
        resolution,
        held_out_fraction,
        buckets,
        no_hflip: typed.no_hflip.unwrap_or(false),
        random_crop,
        augment,
        proportion_empty_prompts,
        time_ids: typed.time_ids.unwrap_or_default(),
        cache_to: typed.cache_to.map(|path| check.path("data.cache_to", Some(path))),
        cache_dtype: typed.cache_dtype.unwrap_or_default(),
        no_cache,
        dataloader_num_workers: typed.dataloader_num_workers.unwrap_or(0),
    }
}

fn buckets(
    check: &mut Check,
    warnings: &mut Vec<Warning>,
    typed: &DataSection,
    resolution: u32,
) -> Option<BucketPlan> {
    let DataSection { enable_bucket, bucket_reso_steps, min_bucket_reso, max_bucket_reso, .. } = typed;
    if !enable_bucket.unwrap_or(false) {
        let idle = [
            ("data.bucket_reso_steps", bucket_reso_steps),
            ("data.min_bucket_reso", min_bucket_reso),
            ("data.max_bucket_reso", max_bucket_reso),
        ];
        let idle = idle.into_iter().filter(|(_, value)| value.is_some());
        let reason = "there are no buckets without enable_bucket";
        warnings.extend(idle.map(|(key, _)| Warning::NoEffect { key, reason }));
        return None;
    }
    let step = bucket_reso_steps.unwrap_or(64);
    let (min, max) = (min_bucket_reso.unwrap_or(resolution / 2), max_bucket_reso.unwrap_or(2 * resolution));
    check.that("data.bucket_reso_steps", step, step > 0 && step.is_multiple_of(8), "a multiple of 8");
    check.that(
        "data.min_bucket_reso",
        min,
        min > 0 && min <= resolution,
        "at most the resolution, and not 0",
    );
    let fits = max >= resolution && max <= 1 << 14;
    check.that("data.max_bucket_reso", max, fits, "at least the resolution, and at most 16384");
    Some(BucketPlan { bucket_reso_steps: step, min_bucket_reso: min, max_bucket_reso: max })
}

fn adapter(check: &mut Check, warnings: &mut Vec<Warning>, typed: AdapterSection) -> Adapter {
    let AdapterSection {
        kind,
        rank,
        alpha,
        target_modules,
        rank_pattern,
        alpha_pattern,
        use_dora,
        text_encoder_target_modules,
        network_weights,
    } = typed.clone();
    match kind.unwrap_or_default() {
        AdapterKind::Full => {
            let typed = [
                ("adapter.rank", rank.is_some()),
                ("adapter.alpha", alpha.is_some()),
                ("adapter.target_modules", target_modules.is_some()),
                ("adapter.rank_pattern", rank_pattern.is_some()),
                ("adapter.alpha_pattern", alpha_pattern.is_some()),
                ("adapter.use_dora", use_dora.is_some()),
                ("adapter.text_encoder_target_modules", text_encoder_target_modules.is_some()),
                ("adapter.network_weights", network_weights.is_some()),
            ];
            let reason = "every weight of the network learns (adapter.kind is full)";
            let idle = typed.into_iter().filter(|(_, is_typed)| *is_typed);
            warnings.extend(idle.map(|(key, _)| Warning::NoEffect { key, reason }));
            Adapter::Full {}
        }
        AdapterKind::Lora => {
            let rank = rank.unwrap_or(8);
            check.that("adapter.rank", rank, rank > 0, "at least 1");
            let alpha = alpha.unwrap_or(f64::from(rank));
            check.positive("adapter.alpha", alpha);
            let target_modules = target_modules
                .unwrap_or_else(|| ["to_k", "to_q", "to_v", "to_out.0"].map(str::to_owned).to_vec());
            let named = !target_modules.is_empty() && target_modules.iter().all(|name| !name.is_empty());
            check.that(
                "adapter.target_modules",
                format!("{target_modules:?}"),
                named,
                "name endings of layers",
            );
            let text_encoder_target_modules = text_encoder_target_modules.unwrap_or_default();
            check.that(
                "adapter.text_encoder_target_modules",
                format!("{text_encoder_target_modules:?}"),
                text_encoder_target_modules.iter().all(|name| !name.is_empty()),
                "name endings of layers",
            );
            let (rank_pattern, alpha_pattern) =
                (rank_pattern.unwrap_or_default(), alpha_pattern.unwrap_or_default());
            for (name, rank) in &rank_pattern {
                let found = format!("`{name}` with {rank}");
                check.that("adapter.rank_pattern", found, is_name(name) && *rank > 0, PATTERN);
            }
            for (name, alpha) in &alpha_pattern {
                let found = format!("`{name}` with {alpha}");
                let fits = is_name(name) && *alpha > 0.0 && alpha.is_finite();
                check.that("adapter.alpha_pattern", found, fits, PATTERN);
            }
            match network_weights {
                Some(file) => {
                    let network_weights = check.path("adapter.network_weights", Some(file));
                    let asked = AdapterSection { kind: None, network_weights: None, ..typed };
                    Adapter::Continued { network_weights, asked }
                }
                None => Adapter::Lora(LoraPlan {
                    rank,
                    alpha,
                    target_modules,
                    rank_pattern,
                    alpha_pattern,
                    use_dora: use_dora.unwrap_or(false),
                    text_encoder_target_modules,
                    network_weights,
                }),
            }
        }
    }
}

const PATTERN: &str = "name endings of layers, not expressions, and positive numbers";

/// Whether peft, which reads keys of patterns as expressions, takes this for a name: dots, and a caret for a whole name.
fn is_name(key: &str) -> bool {
    let name = key.strip_prefix('^').unwrap_or(key);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn optimizer(check: &mut Check, warnings: &mut Vec<Warning>, typed: OptimizerSection) -> OptimizerPlan {
    let plan = OptimizerPlan {
        kind: typed.kind.unwrap_or_default(),
        shard_optimizer: typed.shard_optimizer.unwrap_or(false),
        offload_optimizer: typed.offload_optimizer.unwrap_or(false),
        learning_rate: typed.learning_rate.unwrap_or(1e-5),
        text_encoder_lr: typed.text_encoder_lr,
        scale_lr: typed.scale_lr.unwrap_or(false),
        adam_beta1: typed.adam_beta1.unwrap_or(0.9),
        adam_beta2: typed.adam_beta2.unwrap_or(0.999),
        adam_weight_decay: typed.adam_weight_decay.unwrap_or(1e-2),
        adam_epsilon: typed.adam_epsilon.unwrap_or(1e-8),
        max_grad_norm: typed.max_grad_norm.unwrap_or(1.0),
        lr_scheduler: typed.lr_scheduler.unwrap_or_default(),
        lr_warmup_steps: typed.lr_warmup_steps.unwrap_or(0),
        lr_num_cycles: typed.lr_num_cycles.unwrap_or(1),
    };
    check.positive("optimizer.learning_rate", plan.learning_rate);
    check.positive("optimizer.text_encoder_lr", plan.text_encoder_lr.unwrap_or(1.0));
    for (key, value) in [("optimizer.adam_beta1", plan.adam_beta1), ("optimizer.adam_beta2", plan.adam_beta2)]
    {
        check.that(key, value, (0.0..1.0).contains(&value), "at least 0 and below 1");
    }
    let decay = plan.adam_weight_decay;
    check.that(
        "optimizer.adam_weight_decay",
        decay,
        decay >= 0.0 && decay.is_finite(),
        "0 or a positive number",
    );
    check.positive("optimizer.adam_epsilon", plan.adam_epsilon);
    check.positive("optimizer.max_grad_norm", plan.max_grad_norm);
    check.that("optimizer.lr_num_cycles", plan.lr_num_cycles, plan.lr_num_cycles > 0, "at least 1");

    if plan.lr_scheduler == LrScheduler::Constant && plan.lr_warmup_steps > 0 {
        let reason = "lr_scheduler is constant; for warm-up take constant_with_warmup";
        warnings.push(Warning::NoEffect { key: "optimizer.lr_warmup_steps", reason });
    }
    if plan.lr_scheduler != LrScheduler::CosineWithRestarts && plan.lr_num_cycles > 1 {
        let reason = "only lr_scheduler cosine_with_restarts starts over";
        warnings.push(Warning::NoEffect { key: "optimizer.lr_num_cycles", reason });
    }
    plan
}

fn train(check: &mut Check, typed: TrainSection) -> TrainPlan {
    let plan = TrainPlan {
        max_train_steps: check.required("train.max_train_steps", typed.max_train_steps),
        train_batch_size: typed.train_batch_size.unwrap_or(1),
        gradient_accumulation_steps: typed.gradient_accumulation_steps.unwrap_or(1),
        mixed_precision: typed.mixed_precision.unwrap_or_default(),
        timesteps: typed.timesteps,
        n_processes: 1,
        gradient_checkpointing: typed.gradient_checkpointing.unwrap_or(false),
        reference: typed.reference.unwrap_or_default(),
        bank_to: typed.bank_to,
        ema_decay: typed.ema_decay,
        seed: typed.seed.unwrap_or(0),
    };
    let (batch, accumulation) = (plan.train_batch_size, plan.gradient_accumulation_steps);
    // A missing count is complained about already.
    check.that("train.max_train_steps", 0, typed.max_train_steps != Some(0), "at least 1");
    check.that("train.train_batch_size", batch, batch > 0, "at least 1");
    check.that("train.gradient_accumulation_steps", accumulation, accumulation > 0, "at least 1");
    let some = plan.timesteps.as_ref().is_none_or(|timesteps| !timesteps.is_empty());
    check.that("train.timesteps", "none", some, "at least one timestep");
    let decay = plan.ema_decay.unwrap_or(0.0);
    check.that("train.ema_decay", decay, (0.0..1.0).contains(&decay), "at least 0 and below 1");
    plan
}

fn validation(check: &mut Check, warnings: &mut Vec<Warning>, typed: ValidationSection) -> ValidationPlan {
    let n_pairs = typed.n_pairs.unwrap_or(64);
    check.that("validation.n_pairs", n_pairs, n_pairs > 0, "at least 1; to switch validation off, every = 0");
    let plan = ValidationPlan {
        every: typed.every.unwrap_or(0),
        n_pairs,
        prompts: typed.prompts.unwrap_or_default(),
        num_validation_images: typed.num_validation_images.unwrap_or(1),
        num_inference_steps: typed.num_inference_steps.unwrap_or(25),
        guidance_scale: typed.guidance_scale.unwrap_or(7.5),
    };
    let (n_images, n_steps) = (plan.num_validation_images, plan.num_inference_steps);
    check.that("validation.num_validation_images", n_images, n_images > 0, "at least 1");
    check.that("validation.num_inference_steps", n_steps, n_steps > 0, "at least 1");
    check.that("validation.guidance_scale", plan.guidance_scale, plan.guidance_scale.is_finite(), "a number");
    if plan.every == 0 && !plan.prompts.is_empty() {
        let reason = "validation.every says when, and it is 0";
        warnings.push(Warning::NoEffect { key: "validation.prompts", reason });
    }
    plan
}

fn logging(check: &mut Check, typed: LoggingSection) -> LoggingPlan {
    let usual = LoggingPlan::default();
    let plan = LoggingPlan {
        report_to: typed.report_to.unwrap_or_default(),
        logging_dir: typed.logging_dir.unwrap_or(usual.logging_dir),
        tracker_name: typed.tracker_name.unwrap_or(usual.tracker_name),
        rule: typed.rule.unwrap_or_default(),
    };
    let is_name = !plan.tracker_name.is_empty() && !plan.tracker_name.starts_with(['/', '.']);
    check.that("logging.tracker_name", &plan.tracker_name, is_name, "the name of a folder");
    plan
}

fn output(
    check: &mut Check,
    warnings: &mut Vec<Warning>,
    typed: OutputSection,
    adapter: &Adapter,
) -> OutputPlan {
    if *adapter != (Adapter::Full {}) {
        let typed = [("output.layout", typed.layout.is_some()), ("output.dtype", typed.dtype.is_some())];
        let reason = "a LoRA is always written for diffusers and as kohya's scripts do, in float32";
        let idle = typed.into_iter().filter(|(_, is_typed)| *is_typed);
        warnings.extend(idle.map(|(key, _)| Warning::NoEffect { key, reason }));
        return OutputPlan::default();
    }
    let mut layout = typed.layout.map_or_else(|| OutputPlan::default().layout, OneOrMore::into_vec);
    layout.sort_unstable();
    layout.dedup();
    check.that("output.layout", "nothing", !layout.is_empty(), "at least one layout");
    OutputPlan { layout, dtype: typed.dtype.unwrap_or_default() }
}

fn method(warnings: &mut Vec<Warning>, name: String, typed: MethodSection) -> Result<MethodPlan, RunError> {
    let objective = objective(&name, &Value::Object(typed.settings))?;
    warnings.extend(objective.warnings().into_iter().map(Warning::Method));
    Ok(MethodPlan { name, settings: objective.settings().clone() })
}

/// Collects what is wrong, so that all of it is reported at once.
#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn that(&mut self, key: &'static str, found: impl ToString, holds: bool, wanted: &'static str) {
        if !holds {
            self.problems.push(Problem { key, found: found.to_string(), wanted });
        }
    }

    fn positive(&mut self, key: &'static str, value: f64) {
        self.that(key, value, value > 0.0 && value.is_finite(), "a positive number");
    }

    fn required<T: Default>(&mut self, key: &'static str, value: Option<T>) -> T {
        self.that(key, "nothing", value.is_some(), "a value");
        value.unwrap_or_default()
    }

    fn path(&mut self, key: &'static str, value: Option<PathBuf>) -> PathBuf {
        let path = self.required(key, value);
        // The plan is JSON, which has no other text.
        self.that(key, path.display(), path.to_str().is_some(), "a path in UTF-8");
        path
    }
}
