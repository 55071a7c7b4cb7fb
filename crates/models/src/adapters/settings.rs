//! What the header of diffusers' files says of a network's adapter: peft's `LoraConfig`.
//!
//! Source: `huggingface/peft:src/peft/tuners/lora/config.py`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::file::METADATA_KEY;
use super::keys;
use super::part::LoraPart;
use crate::config::ConfigReader;
use crate::names::answers_to;
use crate::nn::Ranks;

/// Keys of peft's configuration that say nothing about the update itself.
const ANNOTATIONS: &str = "auto_mapping base_model_name_or_path exclude_modules inference_mode init_lora_weights layers_pattern \
    layers_to_transform lora_dropout megatron_core peft_version qalora_group_size revision runtime_config task_type";

impl LoraPart {
    /// Peft's configuration.
    pub(super) fn settings(&self) -> Map<String, Value> {
        let number = |n: f64| if n.fract() == 0.0 { json!(n as i64) } else { json!(n) };
        let Ranks { rank, alpha, rank_pattern, alpha_pattern } = &self.ranks;
        let alpha_pattern: Map<_, _> = alpha_pattern.iter().map(|(k, v)| (k.clone(), number(*v))).collect();
        let mut targets = self.target_modules.clone();
        targets.sort();
        let config = json!({
            "alpha_pattern": alpha_pattern, "bias": "none", "lora_alpha": number(*alpha), "lora_bias": false,
            "lora_dropout": 0.0, "peft_type": "LORA", "r": rank, "rank_pattern": rank_pattern, "target_modules": targets,
            "use_dora": self.is_dora(), "use_rslora": false,
        });
        config.as_object().cloned().unwrap_or_default()
    }

    /// With what peft's configuration of this component says. Switches that are off, as most of them are, need no name here.
    pub(super) fn with_settings(
        self,
        component: &str,
        metadata: &Value,
        found: &BTreeMap<String, i64>,
    ) -> Result<Self, String> {
        let Some(entries) = metadata.as_object() else {
            return Err(format!("`{METADATA_KEY}` is {metadata}"));
        };
        let own = |key: &str| key.strip_prefix(component)?.strip_prefix('.').map(str::to_owned);
        let entries = entries.iter().filter_map(|(key, value)| Some((own(key)?, value)));
        let config: Map<_, _> =
            entries.filter(|(_, value)| !is_off(value)).map(|(key, value)| (key, value.clone())).collect();
        let mut r = ConfigReader::new(&Value::Object(config));
        let common = found.values().next().copied().unwrap_or(1);
        let rank = r.or("r", common);
        let alpha = r.or("lora_alpha", rank as f64);
        let whole = |rank: f64| rank >= 1.0 && rank.fract() == 0.0;
        let rank_pattern = pattern(&mut r, "rank_pattern", component, whole, "whole numbers from 1 on");
        let alpha_pattern =
            pattern(&mut r, "alpha_pattern", component, |alpha| alpha > 0.0, "positive numbers");
        let stated = |layer: &str| first(&rank_pattern, layer).map_or(rank, |rank| rank as i64);
        for (layer, found) in found.iter().filter(|(layer, found)| stated(layer) != **found).take(1) {
            let wanted = stated(layer);
            r.problem(format!(
                "`r` and `rank_pattern` give `{layer}` rank {wanted}; its factors have rank {found}"
            ));
        }
        let target_modules = match r.raw("target_modules") {
            Some(Value::Array(names)) => names.iter().map(|name| name.as_str().map(str::to_owned)).collect(),
            _ => None,
        };
        let use_dora = r.or("use_dora", false);
        if use_dora != self.is_dora() {
            let there = if self.is_dora() { "magnitudes" } else { "no magnitudes" };
            r.problem(format!("`use_dora` is {use_dora}; the file has {there}"));
        }
        r.neutral("peft_type", &[json!("LORA")]);
        r.neutral("bias", &[json!("none")]);
        r.ignored(ANNOTATIONS);
        r.finish()?;
        let alpha = |layer: &str| first(&alpha_pattern, layer).unwrap_or(alpha);
        let layers = found.iter().map(|(layer, rank)| (layer.as_str(), *rank, alpha(layer)));
        let target_modules = target_modules.unwrap_or(self.target_modules);
        Ok(Self { ranks: Ranks::of_layers(layers), target_modules, tensors: self.tensors })
    }
}

/// One of peft's patterns in its own order, which decides where several keys fit a layer.
fn pattern(
    r: &mut ConfigReader,
    key: &str,
    component: &str,
    fits: fn(f64) -> bool,
    wanted: &str,
) -> Vec<(String, f64)> {
    let entries = match r.raw(key) {
        None => return Vec::new(),
        Some(Value::Object(entries)) => entries,
        Some(other) => {
            r.problem(format!("`{key}` is {other}; wanted names with numbers"));
            return Vec::new();
        }
    };
    let mut pattern = Vec::with_capacity(entries.len());
    for (name, value) in entries {
        let is_name = !name.trim_start_matches('^').contains(is_regex);
        match value.as_f64().filter(|value| is_name && fits(*value)) {
            Some(value) => pattern.push((keys::pattern(component, name), value)),
            None => r.problem(format!("`{key}` has `{name}` with {value}; wanted names with {wanted}")),
        }
    }
    pattern
}

/// What gives a regular expression away: peft takes them for names, and reads a plain name as one.
fn is_regex(letter: char) -> bool {
    r"\*+?()[]{}|^$".contains(letter)
}

fn first(pattern: &[(String, f64)], layer: &str) -> Option<f64> {
    pattern.iter().find(|(key, _)| answers_to(layer, key)).map(|(_, value)| *value)
}

/// Null, false, or empty.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}
