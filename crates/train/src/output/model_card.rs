//! The model card: what a result is, where it came from, how to load it. A README as the Hub reads it.

use std::fmt::Write as _;
use std::path::Path;
use tastemaker_store::version;

use serde_json::Value;
use tastemaker_math::number;
use tastemaker_models::adapters::FILE_NAME;
use tastemaker_models::pipeline::Family;
use tastemaker_run::health::{Alarm, Severity};
use tastemaker_run::{Adapter, LoraPlan, OptimizerKind, OutputLayout, Plan, Probe};
use tastemaker_store::checksum::hex;
use tastemaker_store::dtype::DType;

use super::{RunFacts, file_name, kohya_name};
use crate::data::EncodeSettings;

/// What a card says besides the plan.
pub(crate) struct CardFacts<'a> {
    /// How the model's parts work together.
    pub family: Family,
    /// Hash of the pairs.
    pub fingerprint: [u8; 32],
    /// Pairs never trained on.
    pub n_held_out: usize,
    /// The LoRA that training started from, in words.
    pub origin: Option<&'a str>,
    /// The validation of the result on them.
    pub probe: Option<&'a Probe>,
    /// What was raised about the result.
    pub alarms: &'a [Alarm],
    /// What was done.
    pub run: RunFacts,
}

/// Writes the card. It holds no time and no place, so that equal runs write equal cards.
pub(crate) fn card(plan: &Plan, facts: &CardFacts<'_>) -> String {
    let is_lora = !matches!(plan.adapter, Adapter::Full {});
    let family = match facts.family {
        Family::StableDiffusion => "stable-diffusion",
        Family::StableDiffusionXl => "stable-diffusion-xl",
        Family::StableDiffusion3 => "sd3",
        Family::ZImage => "z-image",
    };
    let base = base_model(&plan.model.pretrained_model_name_or_path);
    let mut text = String::from("---\n");
    if let Some(base) = &base {
        text += &format!("base_model: {}\n", Value::from(base.as_str()));
    }
    text += "library_name: diffusers\ninference: true\ntags:\n- text-to-image\n- diffusers\n- diffusers-training\n";
    text += if is_lora { "- lora\n" } else { "" };
    text += &format!("- {family}\n- {family}-diffusers\n---\n\n");

    let title = plan.output_dir.file_name().map_or("result".into(), |name| name.to_string_lossy());
    let what = if is_lora { "A LoRA" } else { "A model" };
    let of = base.as_ref().map(|base| format!(" of `{base}`")).unwrap_or_default();
    text += &format!(
        "# {title}\n\n{what}{of}, aligned with preference pairs by {} with tastemaker {}.\n\n",
        plan.method.name,
        version()
    );
    for alarm in facts.alarms.iter().filter(|alarm| alarm.severity() == Severity::Critical) {
        let _ = writeln!(text, "> **Critical alarm:** {alarm}\n");
    }
    text += "| | |\n|---|---|\n";
    for (what, value) in rows(plan, facts) {
        let _ = writeln!(text, "| {what} | {} |", value.replace('|', "\\|"));
    }
    text += &use_it(plan, facts.family, base.as_deref().unwrap_or("path/to/the/base-model"));
    text
}

fn rows(plan: &Plan, facts: &CardFacts<'_>) -> Vec<(&'static str, String)> {
    let weights = match &plan.adapter {
        Adapter::Full {} => {
            let dtype = serde_json::to_value(plan.output.save_precision).unwrap_or_default();
            format!("the whole UNet, {}", dtype.as_str().unwrap_or("float32"))
        }
        Adapter::Continued { .. } => "a LoRA".to_owned(),
        Adapter::Lora(lora) => {
            let LoraPlan { rank, alpha, .. } = lora;
            let kind = if lora.use_dora { "DoRA" } else { "LoRA" };
            let ranks = lora.rank_pattern.iter().map(|(name, rank)| format!(", rank {rank} on {name}"));
            let alphas = lora
                .alpha_pattern
                .iter()
                .map(|(name, alpha)| format!(", alpha {} on {name}", number(*alpha)));
            let others: String = ranks.chain(alphas).collect();
            format!(
                "{kind} of rank {rank}, alpha {}, on {}{others}",
                number(*alpha),
                lora.target_modules.join(", ")
            )
        }
    };
    let train = &plan.train;
    let run = &facts.run;
    let rate = plan.effective_learning_rate();
    let optimizer = match plan.optimizer.optimizer_type {
        OptimizerKind::AdamW => "AdamW",
        OptimizerKind::AdamW8bit => "AdamW with 8-bit state",
        OptimizerKind::Adafactor => "Adafactor",
    };
    let mut optimizer = format!("{optimizer}, learning rate {rate:e}");
    if EncodeSettings::trains_text(plan) && plan.keeps_text() {
        optimizer.push_str(", text encoder layers kept as they were");
    } else if EncodeSettings::trains_text(plan) && plan.text_rate() != 1.0 {
        let _ = write!(optimizer, ", {:e} for text encoders", rate * plan.text_rate());
    }
    let n_steps =
        if run.steps == 1 { "1 optimizer step".to_owned() } else { format!("{} optimizer steps", run.steps) };
    let n_pairs = plan.effective_batch();
    let mut steps = format!("{n_steps}, {n_pairs} {} each", if n_pairs == 1 { "pair" } else { "pairs" });
    if plan.n_processes > 1 {
        let _ = write!(steps, " on {} processes", plan.n_processes);
    }
    if run.steps < train.max_train_steps {
        let _ = write!(steps, "; {} were planned", train.max_train_steps);
    }
    if let Some(decay) = train.ema_decay {
        let _ = write!(steps, "; EMA decay {}", number(decay));
    }
    let masters = if train.mixed_precision == DType::F32 { "" } else { ", fp32 master weights" };
    let precision = format!("{}{masters}", train.mixed_precision);
    let hash = hex(&facts.fingerprint);
    let (n_used, n_pairs) = (run.n_used(plan), run.n_pairs);
    let of = if n_used < n_pairs { format!(" of {n_pairs}") } else { String::new() };
    let pairs = format!("{n_used}{of} trained on, ");
    let other =
        |path: &String| base_model(path).map_or("not the model's own".to_owned(), |name| format!("`{name}`"));
    let parts = [
        ("UNet to start from", &plan.model.unet_init),
        ("VAE", &plan.model.pretrained_vae_model_name_or_path),
    ];
    let parts = parts.into_iter().filter_map(|(what, path)| Some((what, other(path.as_ref()?))));
    let mut rows = vec![
        ("method", format!("{} `{}`", plan.method.name, plan.method.settings)),
        ("weights", weights),
        ("optimizer", optimizer),
        ("steps", steps),
        ("images", format!("{0} x {0} pixels", plan.data.resolution)),
        ("precision", precision),
        ("seed", train.seed.to_string()),
        ("pairs", format!("{pairs}{} held out, sha256 `{hash}`", facts.n_held_out)),
    ];
    rows.extend(parts);
    if plan.model.max_token_length > 75 {
        rows.push((
            "captions",
            format!("up to {} tokens, encoded in chunks of 75", plan.model.max_token_length),
        ));
    }
    if let Some(origin) = facts.origin {
        rows.insert(1, ("started from", origin.to_owned()));
    }
    let warnings = facts.alarms.iter().filter(|alarm| alarm.severity() == Severity::Warning);
    rows.extend(warnings.map(|alarm| ("alarm", alarm.to_string())));
    if let Some(probe) = facts.probe {
        let against = |now: f64, before: Option<f64>| {
            before.map_or_else(
                || format!("{now:.4}"),
                |before| format!("{:+.2}%", 100.0 * (now / before - 1.0)),
            )
        };
        let mut text = format!("winner error {}", against(probe.winner_error, probe.ref_winner));
        if let Some(loser) = probe.loser_error {
            text += &format!(", loser error {}", against(loser, probe.ref_loser));
        }
        if let Some(accuracy) = probe.implicit_accuracy {
            text = format!("preference accuracy {:.0}%, {text}", 100.0 * accuracy);
        }
        rows.push(("held-out pairs", format!("{text} ({} pairs)", probe.n_pairs)));
    }
    rows
}

/// How to load each thing that was written, in its own Python session.
fn use_it(plan: &Plan, family: Family, base: &str) -> String {
    let mut text = String::from("\n## Use\n");
    let mut add = |imports: &str, python: &str, others: &str| {
        text += &format!("\n```python\nfrom diffusers import {imports}\n\n{python}\n```\n{others}");
    };
    if let Adapter::Lora { .. } = plan.adapter {
        let python = format!(
            "pipe = DiffusionPipeline.from_pretrained(\"{base}\")\n\
             pipe.load_lora_weights(\"path/to/this/folder\", weight_name=\"{FILE_NAME}\")"
        );
        let others =
            format!("\n`{}` is the same adapter for {}.\n", kohya_name(plan), family.other_programs());
        add("DiffusionPipeline", &python, &others);
        return text;
    }
    for layout in &plan.output.output_layout {
        let name = file_name(*layout, family);
        match layout {
            OutputLayout::Diffusers => {
                // Alone, the card lies in the model's folder.
                let inner =
                    if plan.output.output_layout.len() > 1 { format!("/{name}") } else { String::new() };
                let python =
                    format!("pipe = DiffusionPipeline.from_pretrained(\"path/to/this/folder{inner}\")");
                add("DiffusionPipeline", &python, "");
            }
            OutputLayout::Unet => {
                let (component, class) = (family.backbone(), family.components()[0].1[0]);
                let python = format!(
                    "{component} = {class}.from_pretrained(\"path/to/this/folder\", subfolder=\"{name}\")\n\
                     pipe = DiffusionPipeline.from_pretrained(\"{base}\", {component}={component})"
                );
                add(&format!("DiffusionPipeline, {class}"), &python, "");
            }
            OutputLayout::Original => {
                let class = family.class();
                let python = format!("pipe = {class}.from_single_file(\"path/to/this/folder/{name}\")");
                let others = format!("\n`{name}` loads in {} too.\n", family.other_programs());
                add(class, &python, &others);
            }
        }
    }
    text
}

/// The name on the Hub of a model in its cache; a folder elsewhere has a name only on the machine it is on.
fn base_model(path: &str) -> Option<String> {
    let parts = Path::new(path).components().filter_map(|part| part.as_os_str().to_str());
    let (owner, name) =
        parts.filter_map(|part| part.strip_prefix("models--")).next_back()?.split_once("--")?;
    Some(format!("{owner}/{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cached_model_is_known_by_its_name_and_a_folder_by_none() {
        let cached = "cache/hub/models--org--some--name/snapshots/abc";
        assert_eq!(base_model(cached).as_deref(), Some("org/some--name"));
        assert_eq!(base_model("models/mine"), None);
    }
}
