//! What is said about a plan before it runs.

use std::path::{Path, PathBuf};

use anyhow::Result;
use tastemaker_math::objectives::{BetaConvention, OBJECTIVES};
use tastemaker_models::original::{Layout, n_numbers};
use tastemaker_models::pipeline::{Family, Model};
use tastemaker_run::health::outside_published;
use tastemaker_run::{Adapter, LoraPlan, MANY_PAIRS, Plan, Problem, Recipe, RunError, Surroundings};
use tastemaker_train::adapter::with_network_weights;
use tastemaker_train::session::{self, kohya_name};
use tch::Device;

use crate::models;
use crate::progress::counted;

/// A learning rate that is this many times that of the recipe which it overrides is far from it.
const FAR: f64 = 30.0;

/// Lists the methods where none was named.
pub fn list_methods(error: &RunError) {
    let is_method = |problem: &Problem| matches!(problem, Problem::Missing { flag: "method", .. });
    if matches!(error, RunError::Invalid(problems) if problems.iter().any(is_method)) {
        let width = OBJECTIVES.iter().map(|entry| entry.name.len()).max().unwrap_or(0);
        eprintln!("methods, for --method:");
        for entry in OBJECTIVES {
            eprintln!("  {:width$}  {}", entry.name, entry.summary);
        }
    }
}

/// Says where a learning rate is far above that of the recipe that it overrides.
pub fn warn_of_override(recipe: &Recipe, plan: &Plan) {
    let found = plan.optimizer.learning_rate;
    if let Some(own) = recipe.optimizer.learning_rate.filter(|own| found > FAR * own) {
        eprintln!(
            "warning: learning_rate {found:e} is {:.0} times the recipe's {own:e}: lower it unless this is meant",
            found / own
        );
    }
}

/// Says what of a plan is far from everything published.
///
/// # Errors
/// [`tastemaker_models::ModelError`] if the UNet's configuration cannot be read.
pub fn warn_of_odd(plan: &Plan, model: &Model) -> Result<()> {
    let n_weights = n_numbers(&model.backbone_config()?.shapes());
    let is_flow = model.schedule()?.schedule.as_flow().is_some();
    for alarm in outside_published(plan, n_weights, is_flow) {
        eprintln!("warning: {alarm}");
    }
    Ok(())
}

/// Says where latents are cached in half precision though nobody asked for it.
pub fn say_cache_dtype(plan: &Plan, n_pairs: usize) {
    if let Some(note) = cache_dtype(plan, n_pairs as u64) {
        eprintln!("note: {note}");
    }
}

fn cache_dtype(plan: &Plan, n_pairs: u64) -> Option<String> {
    let is_chosen = plan.data.no_cache || plan.data.cache_dtype.is_some();
    (!is_chosen && n_pairs > MANY_PAIRS).then(|| {
        format!(
            "latents of {} are cached in fp16, as those of more than {MANY_PAIRS} are, which takes half the space, unless a \
             cache in fp32 is there: --cache_dtype fp32 keeps them as they are computed",
            counted(n_pairs, "pair")
        )
    })
}

/// Says where images are trained on that are far smaller than those that the model was made for.
///
/// # Errors
/// [`tastemaker_models::ModelError`] if the configurations cannot be read.
pub fn warn_of_resolution(plan: &Plan, model: &Model) -> Result<()> {
    let (found, own) = (plan.data.resolution, model.made_for()?);
    if 4 * u64::from(found) < 3 * u64::from(own) {
        eprintln!(
            "warning: resolution {found} is far below the {own} that this model was made for: give --resolution {own} unless this is meant"
        );
    }
    Ok(())
}

/// What is known of the model and of where it trains, for the plan that is shown.
///
/// # Errors
/// [`tastemaker_models::ModelError`] if the configurations cannot be read.
pub fn facts(model: &Model, device: Option<Device>) -> Result<Vec<(&'static str, String)>> {
    let side = model.made_for()?;
    let family = Layout::of_folder(model).map_or("Stable Diffusion", Layout::title);
    let device = match device {
        Some(Device::Cuda(index)) => format!("CUDA device {index}"),
        Some(Device::Mps) => "MPS".to_owned(),
        Some(_) => "CPU".to_owned(),
        None => "not on this machine".to_owned(),
    };
    Ok(vec![("model family", format!("{family}, made for {side} x {side}")), ("device", device)])
}

/// The results of a run, and what the two files of a LoRA are for.
pub fn results(plan: &Plan, family: Family, results: &[PathBuf]) -> String {
    let shown: Vec<String> = results.iter().map(|path| path.display().to_string()).collect();
    let shown = shown.join(", ");
    match (&plan.adapter, results) {
        (Adapter::Lora(_) | Adapter::Continued { .. }, [lora]) => {
            let twin = lora.with_file_name(kohya_name(plan));
            format!(
                "{shown} for diffusers and tastemaker, {} for {}",
                twin.display(),
                family.other_programs()
            )
        }
        _ => shown,
    }
}

/// The plan with the LoRA that training starts from, if there is one; says what becomes of its text encoder layers.
///
/// # Errors
/// Those of [`with_network_weights`].
pub fn with_lora(plan: Plan, model: &Model) -> Result<Plan> {
    warn_of_weights(&plan.adapter, model)?;
    let (plan, file) = with_network_weights(plan, model)?;
    let n_layers: usize =
        file.iter().flat_map(|file| file.text.values()).map(|part| part.layers().len()).sum();
    if n_layers > 0 {
        let fate = if plan.keeps_text() {
            "they stay as they are"
        } else {
            "they are trained; --network_train_unet_only keeps them as they are"
        };
        eprintln!("note: this LoRA has {}; {fate}", counted(n_layers as u64, "text encoder layer"));
    }
    Ok(plan)
}

/// The plan with its betas in this program's convention; says what they were, and what is odd about them.
///
/// # Errors
/// Those of [`session::with_latents`].
pub fn with_latents(plan: Plan, model: &Model) -> Result<Plan> {
    let beta = |plan: &Plan| plan.method.settings.get("beta").cloned().unwrap_or_default();
    let (typed, convention, n_known) = (beta(&plan), plan.train.beta_convention, plan.warnings.len());
    let plan = session::with_latents(plan, model)?;
    if convention != BetaConvention::Mean {
        eprintln!("note: beta {typed} as {} is {} here, where it is mean", convention.name(), beta(&plan));
    }
    for warning in &plan.warnings[n_known..] {
        eprintln!("warning: {warning}");
    }
    Ok(plan)
}

/// Says where the LoRA that training starts from belongs to another kind of model.
fn warn_of_weights(adapter: &Adapter, model: &Model) -> Result<()> {
    match adapter {
        Adapter::Continued { network_weights, .. }
        | Adapter::Lora(LoraPlan { network_weights: Some(network_weights), .. }) => {
            Ok(models::warn_of_prediction(network_weights, model)?)
        }
        _ => Ok(()),
    }
}

/// Says which settings change nothing here.
pub fn say_idle(plan: &Plan, model: &Model, n_held_out: usize, on_host: bool) {
    let place = Path::new(&plan.model.pretrained_model_name_or_path);
    let names = place.components().map(|part| part.as_os_str().to_string_lossy());
    let around = Surroundings {
        on_host,
        has_time_ids: model.family() == Family::StableDiffusionXl,
        is_file: place.is_file(),
        is_fetched: names.into_iter().any(|name| name.starts_with("models--")),
        n_held_out,
    };
    for warning in plan.idle_in(&around) {
        eprintln!("warning: {warning}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_asked_for_is_said_and_only_that() {
        let plan = |more: &str| {
            let run = "[method]\nname = \"sft\"\n[model]\npretrained_model_name_or_path = \"m\"\n[train]\nmax_train_steps = 1\n[data]\ntrain_data_dir = \"d\"\n";
            let text = format!("output_dir = \"o\"\n{run}{more}");
            let recipe = Recipe::parse(Path::new("run.toml"), &text).unwrap();
            tastemaker_run::resolve(recipe, Default::default()).unwrap()
        };
        let said = cache_dtype(&plan(""), 100_001).unwrap();
        assert!(said.starts_with("latents of 100001 pairs are cached in fp16"), "{said}");
        for (more, n_pairs) in
            [("", 100_000), ("no_cache = true", 200_000), ("cache_dtype = \"fp32\"", 200_000)]
        {
            assert_eq!(cache_dtype(&plan(more), n_pairs), None, "{more}");
        }
    }
}
