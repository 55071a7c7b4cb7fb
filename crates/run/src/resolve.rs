//! From what was typed to what will be done.

use serde_json::Value;
use tastemaker_math::number;
use tastemaker_math::objectives::{BetaConvention, Corruption, InversionModel, objective};

use crate::beta;
use crate::folders::misplaced;
use crate::idle::RULES;
use crate::plan::{Adapter, MethodPlan, Plan};
use crate::recipe::{MethodSection, Overrides, Recipe};
use crate::schedule::LrScheduler;
use crate::settings::{
    AdapterKind, AdapterSection, Augment, CheckpointPlan, DataPlan, HeldOutChoice, Key, LoggingPlan,
    LoraPlan, ModelPlan, OptimizerPlan, OutputPlan, ReferenceKind, TrainPlan, ValidationPlan, keys,
};
use crate::{Problem, RunError, Warning};

/// Overrides a recipe by flags, fills in the defaults and checks every value.
///
/// # Errors
/// [`RunError::Invalid`] with every missing or impossible value at once; [`RunError::Method`] if the method
/// is unknown or refuses its settings.
pub fn resolve(recipe: Recipe, overrides: Overrides) -> Result<Plan, RunError> {
    resolve_over(recipe, overrides, Recipe::default())
}

/// [`resolve`], with other defaults in place of ours where nobody said anything.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_over(recipe: Recipe, overrides: Overrides, mut defaults: Recipe) -> Result<Plan, RunError> {
    let skipped =
        match (overrides.method.replaces(&recipe.method), &recipe.method.name, &overrides.method.name) {
            (true, Some(recipe), Some(asked)) => {
                Some(Warning::SettingsSkipped { recipe: recipe.clone(), asked: asked.clone() })
            }
            _ => None,
        };
    let said = overrides.over(recipe);
    if said.train.max_train_steps.is_some() {
        defaults.train.num_train_epochs = None;
    }
    if said.train.num_train_epochs.is_some() {
        defaults.train.max_train_steps = None;
    }
    let mut typed = said.clone().over(defaults);
    let mut check = Check::of(&said, &typed)?;
    check.warnings.extend(typed.renamed.iter().cloned().chain(skipped));
    if typed.train.max_train_steps.is_some() && typed.train.num_train_epochs.take().is_some() {
        check.no_effect(|key| key.name() == "num_train_epochs", "max_train_steps says how long");
    }

    let name = typed.method.name.clone().unwrap_or_default();
    if typed.validation.validation_steps.unwrap_or(0) == 0 {
        // Pairs that nobody validates on are better trained on.
        typed.data.held_out_fraction.get_or_insert(0.0);
    }
    // Plans of earlier versions do not say, and drew them.
    typed.data.held_out_choice.get_or_insert(HeldOutChoice::Counted);
    let mut data = DataPlan::from(typed.data);
    check.data(&mut data);
    let adapter = adapter(typed.adapter);
    let optimizer = OptimizerPlan::from(typed.optimizer);
    let train = TrainPlan::from(typed.train);
    check.optimizer(&optimizer, &train);
    let mut output = OutputPlan::from(typed.output);
    output.output_layout.sort_unstable();
    output.output_layout.dedup();
    if adapter != (Adapter::Full {}) {
        output = OutputPlan { output_name: output.output_name, ..OutputPlan::default() };
    }
    if !check.problems.is_empty() {
        return Err(RunError::Invalid(check.problems));
    }
    let has_beta = typed.method.settings.contains_key("beta");
    let method = method(&mut check.warnings, name, typed.method, train.beta_convention)?;
    let objective = method.objective()?;
    if let Some(problem) = beta::problem(&train, &objective, has_beta) {
        return Err(RunError::Invalid(vec![problem]));
    }
    if let (Adapter::Lora(lora), Some(0.0)) = (&adapter, optimizer.text_encoder_lr)
        && !lora.text_encoder_target_modules.is_empty()
    {
        return Err(RunError::Invalid(vec![Problem::Value {
            key: "optimizer.text_encoder_lr",
            found: "0".to_owned(),
            wanted: "a positive number where text encoders get a new LoRA, or no --train_text_encoder: 0 keeps the layers that a LoRA \
                     of --network_weights has",
        }]));
    }
    let by_policy =
        matches!(objective.corruption(), Corruption::DdimInversion { model: InversionModel::Policy, .. });
    let refuse = |key, found: &dyn ToString, wanted| {
        Err(RunError::Invalid(vec![Problem::Value { key, found: found.to_string(), wanted }]))
    };
    if train.reference == ReferenceKind::Precomputed && objective.needs().reference && by_policy {
        let wanted = "live, or model = \"reference\" under [method]: latents that the trained network inverts change at \
                      every step";
        return refuse("train.reference", &"precomputed", wanted);
    }
    if let (Some(_), Some(sigmas)) = (&train.timesteps, &train.sigmas) {
        let found = format!("{sigmas:?}");
        return refuse(
            "train.sigmas",
            &found,
            "none beside timesteps: levels are given one way or the other",
        );
    }
    if train.reference == ReferenceKind::Precomputed && objective.needs().distance {
        let wanted = "live, or no anchor_weight under [method]: an anchor needs the reference's outputs, and only errors are precomputed";
        return refuse("train.reference", &"precomputed", wanted);
    }
    if train.reference == ReferenceKind::Precomputed && objective.needs().reference {
        let wanted = "none, or reference = \"live\": errors of a reference that moves cannot be precomputed";
        if let Some(decay) = train.reference_ema_decay {
            return refuse("train.reference_ema_decay", &decay, wanted);
        }
    }
    if data.label_noise_prob > 0.0 && !objective.needs().loser {
        return refuse("data.label_noise_prob", &data.label_noise_prob, "0, for a method without losers");
    }
    let mut plan = Plan {
        format: Plan::FORMAT,
        model: ModelPlan::from(typed.model),
        data,
        method,
        adapter,
        optimizer,
        train,
        validation: ValidationPlan::from(typed.validation),
        checkpoint: CheckpointPlan::from(typed.checkpoint),
        logging: LoggingPlan::from(typed.logging),
        output,
        output_dir: typed.output_dir.unwrap_or_default(),
        n_processes: 1,
        n_pairs: None,
        n_elements: None,
        cache_root: None,
        memory: None,
        facts: Vec::new(),
        warnings: Vec::new(),
    };
    let misplaced = misplaced(&plan);
    if !misplaced.is_empty() {
        return Err(RunError::Invalid(misplaced));
    }
    for rule in RULES.iter().filter(|rule| rule.holds(&plan, &objective)) {
        check.no_effect(|key| rule.is_about(key), rule.reason);
    }
    plan.warnings = check.warnings;
    Ok(plan)
}

fn adapter(typed: AdapterSection) -> Adapter {
    match (typed.adapter_type.unwrap_or_default(), typed.network_weights.clone()) {
        (AdapterKind::Full, _) => Adapter::Full {},
        (AdapterKind::Lora, Some(network_weights)) => {
            let asked = AdapterSection { adapter_type: None, network_weights: None, ..typed };
            Adapter::Continued { network_weights, asked }
        }
        (AdapterKind::Lora, None) => Adapter::Lora(LoraPlan::from(typed)),
    }
}

fn method(
    warnings: &mut Vec<Warning>,
    name: String,
    typed: MethodSection,
    convention: BetaConvention,
) -> Result<MethodPlan, RunError> {
    let objective = objective(&name, &Value::Object(typed.settings))?;
    // A beta of another convention is judged when it is converted.
    if convention == BetaConvention::Mean {
        warnings.extend(objective.warnings().into_iter().map(Warning::Method));
    }
    Ok(MethodPlan { name, settings: objective.settings().clone() })
}

/// What was said, and what is wrong with it, so that all of it is reported at once.
struct Check {
    /// What somebody said, without defaults.
    said: Value,
    problems: Vec<Problem>,
    warnings: Vec<Warning>,
}

impl Check {
    /// Holds every value against the check beside its declaration.
    fn of(said: &Recipe, recipe: &Recipe) -> Result<Self, RunError> {
        // The plan is JSON, which has no other text.
        let value = |recipe: &Recipe| {
            serde_json::to_value(recipe).map_err(|_| {
                let (found, wanted) = ("not UTF-8".into(), "a path in UTF-8");
                RunError::Invalid(vec![Problem::Value { key: "a path", found, wanted }])
            })
        };
        let typed = value(recipe)?;
        let mut check = Self { said: value(said)?, problems: Vec::new(), warnings: Vec::new() };
        if recipe.method.name.is_none() {
            check.problems.push(Problem::missing("method"));
        }
        let has_length = recipe.train.num_train_epochs.is_some();
        for key in keys() {
            match (key.typed(&typed).cloned(), key.check) {
                (None, _) if key.is_required && !(has_length && key.path == "train.max_train_steps") => {
                    check.problems.push(Problem::missing(key.name()));
                }
                (None, _) => {}
                (Some(Value::String(path)), _) if key.is_place() && path.is_empty() => {
                    check.that(key.path, "nothing", false, "a path or a name");
                }
                (Some(value), Some(crate::settings::Check { wanted, holds })) => {
                    check.that(key.path, shown(&value), holds(&value), wanted);
                }
                (Some(_), None) => {}
            }
        }
        Ok(check)
    }

    fn that(&mut self, key: &'static str, found: impl ToString, holds: bool, wanted: &'static str) {
        if !holds {
            self.problems.push(Problem::Value { key, found: found.to_string(), wanted });
        }
    }

    /// Warns of each key that was typed and changes nothing.
    fn no_effect(&mut self, which: impl Fn(&Key) -> bool, reason: &'static str) {
        let idle = keys().filter(|key| which(key) && key.typed(&self.said).is_some());
        self.warnings.extend(idle.map(|key| Warning::NoEffect { key: key.path, reason }));
    }

    fn data(&mut self, data: &mut DataPlan) {
        let wanted = "no_cache = true with it, because crops of cached images are fixed";
        self.that("data.random_crop", true, data.no_cache || !data.random_crop, wanted);
        let buckets = data.buckets();
        match buckets {
            None => {}
            Some(buckets) => {
                let fits = buckets.min > 0 && buckets.min <= data.resolution;
                self.that("data.min_bucket_reso", buckets.min, fits, "at most the resolution, and not 0");
                let fits = buckets.max >= data.resolution && buckets.max <= 1 << 14;
                self.that(
                    "data.max_bucket_reso",
                    buckets.max,
                    fits,
                    "at least the resolution, and at most 16384",
                );
                let shares_crop = !data.random_crop || data.augment == Augment::Joint;
                let wanted =
                    "joint where buckets are cropped at random, because both images of a pair share one crop";
                self.that("data.augment", "independent", shares_crop, wanted);
            }
        }
        data.bucket_reso_steps = buckets.map(|buckets| buckets.step);
        data.min_bucket_reso = buckets.map(|buckets| buckets.min);
        data.max_bucket_reso = buckets.map(|buckets| buckets.max);
    }

    fn optimizer(&mut self, optimizer: &OptimizerPlan, train: &TrainPlan) {
        let (shape, warmup, training) =
            (optimizer.lr_scheduler, optimizer.lr_warmup_steps, train.max_train_steps);
        let pairs = u64::from(train.train_batch_size) * u64::from(train.gradient_accumulation_steps);
        let wanted = "at most 1048576 pairs per step with train_batch_size";
        self.that("train.gradient_accumulation_steps", pairs, pairs <= 1 << 20, wanted);
        let is_long = train.num_train_epochs.is_none();
        if is_long && shape != LrScheduler::Constant && warmup >= training {
            self.warnings.push(Warning::WarmupNeverEnds { warmup, training });
        }
    }
}

/// A value as it was typed.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "no number".to_owned(),
        Value::Number(n) if n.is_f64() => number(n.as_f64().unwrap_or(f64::NAN)),
        Value::Array(entries) if entries.is_empty() => "nothing".to_owned(),
        Value::Object(entries) => entries
            .iter()
            .map(|(name, value)| format!("`{name}` with {}", shown(value)))
            .collect::<Vec<_>>()
            .join(", "),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
