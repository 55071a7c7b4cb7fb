//! The settings file that people keep beside a single file: `model.yaml` for `model.safetensors`, as A1111 takes it.
//!
//! Source: `find_checkpoint_config` in `AUTOMATIC1111/stable-diffusion-webui:modules/sd_models_config.py`; `parameterization` of
//! `CompVis/stable-diffusion:ldm/models/diffusion/ddpm.py`; `scaling_config` of
//! `Stability-AI/generative-models:sgm/modules/diffusionmodules/denoiser.py`.

use std::path::{Path, PathBuf};

use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;
use tastemaker_math::schedule::Prediction;
use tastemaker_store::{StoreError, json};

use super::noise::parsed;

const ENDINGS: [&str; 2] = ["yaml", "yml"];

/// The most that is read of a settings file, in bytes; published ones have two thousand.
const MAX_BYTES: u64 = 1 << 20;

/// The most levels and values of one, those that aliases repeat included; published ones have seven and a hundred.
const MAX_DEPTH: usize = 32;
const MAX_NODES: usize = 10_000;

const WANTED: &str = "settings in YAML as A1111 takes them, or no file of this name beside the model";

/// What the settings files beside a single file say that its network predicts, and where.
///
/// # Errors
/// [`StoreError`] for a file that is no YAML, or whose prediction is none that is known.
pub(super) fn beside(path: &Path) -> Result<Vec<(Prediction, PathBuf)>, StoreError> {
    let mut said = Vec::new();
    for beside in ENDINGS.map(|ending| path.with_extension(ending)) {
        let text = match json::read_text_within(&beside, MAX_BYTES) {
            Ok(text) => text,
            Err(StoreError::Missing { .. }) => continue,
            Err(error) => return Err(error),
        };
        let settings = read(&beside, &text)?;
        said.extend(predictions(&beside, &settings)?.into_iter().map(|says| (says, beside.clone())));
    }
    Ok(said)
}

fn read(path: &Path, text: &str) -> Result<Value, StoreError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_events: 2 * MAX_NODES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        duplicate_keys: DuplicateKeyPolicy::Error,
        with_snippet: false,
    };
    let refuse = |found| StoreError::malformed(path, found, WANTED);
    let read = serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let found = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        refuse(format!("no YAML that can be read ({found})"))
    })?;
    match read {
        Value::Null | Value::Object(_) => Ok(read),
        Value::Array(_) => Err(refuse("a list".to_owned())),
        _ => Err(refuse("text without settings".to_owned())),
    }
}

/// What is said anywhere in the settings.
fn predictions(path: &Path, settings: &Value) -> Result<Vec<Prediction>, StoreError> {
    let mut said = Vec::new();
    let mut left = vec![settings];
    while let Some(value) = left.pop() {
        let Some(entries) = value.as_object() else {
            left.extend(value.as_array().into_iter().flatten());
            continue;
        };
        for (key, value) in entries {
            let says = match key.as_str() {
                "parameterization" => value.as_str().map(parsed),
                "scaling_config" => value.get("target").map(|target| target.as_str().and_then(scaling)),
                _ => {
                    left.push(value);
                    continue;
                }
            };
            let says = says.flatten().ok_or_else(|| {
                StoreError::malformed(path, format!("`{key}` is {value}"), "what predicts eps or v")
            })?;
            said.push(says);
        }
    }
    Ok(said)
}

/// What a network with this class around it predicts.
fn scaling(target: &str) -> Option<Prediction> {
    match target.rsplit('.').next()? {
        "EpsScaling" => Some(Prediction::Epsilon),
        "VScaling" => Some(Prediction::VPrediction),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn said(text: &[u8], ending: &str) -> Result<Vec<Prediction>, String> {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("model").with_extension(ending), text).unwrap();
        let said = beside(&folder.path().join("model.safetensors")).map_err(|error| error.to_string())?;
        Ok(said.into_iter().map(|(says, _)| says).collect())
    }

    #[test]
    fn what_settings_say_is_found_in_every_spelling_of_yaml() {
        const V: Prediction = Prediction::VPrediction;
        let published = "model:\n  base_learning_rate: 1.0e-4\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    \
                         linear_start: 0.00085\n    ";
        let long = format!("{published}parameterization: v\n# {}\n", "x".repeat(100_000));
        let late = format!("# {}\n{published}parameterization: v\n", "x".repeat(100_000));
        let sgm = "sgm.modules.diffusionmodules.denoiser_scaling";
        let cases: Vec<(String, Vec<Prediction>)> = vec![
            (format!("{published}parameterization: \"v\"\n"), vec![V]),
            (format!("{published}parameterization: eps # as ever\n"), vec![Prediction::Epsilon]),
            (long, vec![V]),
            (late, vec![V]),
            ("\u{feff}model: {params: {parameterization: 'v'}}".into(), vec![V]),
            ("model:\r\n  params:\r\n    parameterization: >-\r\n      v\r\n".into(), vec![V]),
            ("a: &v v\nmodel: {params: {parameterization: *v}}".into(), vec![V]),
            ("{\"model\": {\"params\": {\"parameterization\": \"v\"}}}".into(), vec![V]),
            ("parameterization: v".into(), vec![V]),
            (
                format!(
                    "model:\n  denoiser_config:\n    params:\n      scaling_config:\n        target: {sgm}.VScaling"
                ),
                vec![V],
            ),
            (format!("scaling_config: {{target: {sgm}.EpsScaling}}"), vec![Prediction::Epsilon]),
            ("note: |\n  parameterization: v\n".into(), vec![]),
            ("# parameterization: v\nmodel: 1\n".into(), vec![]),
            (String::new(), vec![]),
            ("# nothing\n".into(), vec![]),
        ];
        for (text, wanted) in cases {
            for ending in ENDINGS {
                assert_eq!(
                    said(text.as_bytes(), ending).as_ref(),
                    Ok(&wanted),
                    "{}",
                    &text[..text.len().min(200)]
                );
            }
        }
    }

    #[test]
    fn settings_that_cannot_be_read_are_named_with_what_was_found() {
        let mut bomb = "a0: &a0 [v, v, v, v, v, v, v, v, v, v]\n".to_owned();
        for level in 1..12 {
            let repeated = vec![format!("*a{}", level - 1); 10].join(", ");
            bomb += &format!("a{level}: &a{level} [{repeated}]\n");
        }
        let indented: String = (0..200).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
        let cases: [(&str, Vec<u8>); 13] = [
            ("no YAML", b"model: [1, 2".to_vec()),
            ("no YAML", b"model:\n\tparams: 1\n".to_vec()),
            ("no YAML", b"model: 1\nmodel: 2\n".to_vec()),
            ("no YAML", b"a: 1\n---\nb: 2\n".to_vec()),
            ("no YAML", bomb.into_bytes()),
            ("no YAML", indented.into_bytes()),
            ("no YAML", [&b"a: "[..], &b"[".repeat(100_000)].concat()),
            ("text without settings", b"<html><body>Not Found</body></html>".to_vec()),
            ("a list", b"- parameterization\n".to_vec()),
            ("longer text", [&b"a: "[..], &b"x".repeat(2 << 20)].concat()),
            ("UTF-8", b"model: \xff\xfe".to_vec()),
            ("`parameterization` is \"x0\"", b"parameterization: x0".to_vec()),
            ("`parameterization` is 7", b"parameterization: 7".to_vec()),
        ];
        for (words, text) in cases {
            let error = said(&text, "yml").unwrap_err();
            assert!(error.contains("model.yml") && error.contains(words), "{words}: {error}");
            assert!(error.len() < 600 && !error.contains('\n'), "{error}");
        }
    }
}
