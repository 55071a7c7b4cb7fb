//! Which files of a repository to fetch.

use std::collections::{BTreeMap, HashSet};

use crate::glob::fits;
use crate::part::{CARD, part_of};
use crate::weight_name::{Format, WeightName};

/// Which files to fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selection {
    /// What a pipeline, one of its components or a LoRA is loaded from: configurations, tokenizers, schedulers, and one
    /// set of weights per component, safetensors before pickles.
    Pipeline {
        /// Which set of weights, where a component has it: `fp16` takes `*.fp16.safetensors`. `None` is the plain one.
        variant: Option<String>,
    },
    /// What pairs are read from: rows, images and captions, and the card; never what would be run.
    Data {
        /// Which configuration, of a dataset that has several.
        config: Option<String>,
        /// Which split, of a dataset that has several.
        split: Option<String>,
    },
    /// The files that fit one of these patterns, whatever they are.
    Matching(Vec<String>),
}

impl Default for Selection {
    fn default() -> Self {
        Self::Pipeline { variant: None }
    }
}

/// Text files that a tokenizer is read from, besides JSON.
const TOKENIZER_FILES: [&str; 4] = ["merges.txt", "vocab.txt", "spiece.model", "tokenizer.model"];

/// A folder with one of these is a component.
const CONFIGURATIONS: [&str; 6] = [
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "vocab.json",
    "tokenizer.json",
];

/// The files of one folder, names without it.
type Folder<'a> = Vec<&'a str>;

impl Selection {
    /// Picks from the names of a repository's files, in their order.
    ///
    /// # Errors
    /// What to ask for instead, if nothing fits a pattern or a component has weights in other variants only.
    pub fn pick<'a>(&self, names: &[&'a str]) -> Result<Vec<&'a str>, String> {
        match self {
            Self::Pipeline { variant } => pipeline(names, variant.as_deref()),
            Self::Data { config, split } => data(names, config.as_deref(), split.as_deref()),
            Self::Matching(patterns) => matching(names, patterns),
        }
    }
}

fn data<'a>(names: &[&'a str], config: Option<&str>, split: Option<&str>) -> Result<Vec<&'a str>, String> {
    let rows: HashSet<&str> = part_of(names, config, split)?.into_iter().collect();
    if rows.is_empty() {
        return Err(
            "files that pairs are read from (parquet, jsonl, json, csv, tar, images); name others one by one"
                .into(),
        );
    }
    Ok(names.iter().copied().filter(|name| rows.contains(name) || *name == CARD).collect())
}

fn matching<'a>(names: &[&'a str], patterns: &[String]) -> Result<Vec<&'a str>, String> {
    let idle = patterns.iter().find(|pattern| !names.iter().any(|name| fits(pattern, name)));
    match idle {
        Some(pattern) => Err(format!("a file that fits {pattern:?}")),
        None => {
            let wanted = |name: &&&str| patterns.iter().any(|pattern| fits(pattern, name));
            Ok(names.iter().filter(wanted).copied().collect())
        }
    }
}

fn pipeline<'a>(names: &[&'a str], variant: Option<&str>) -> Result<Vec<&'a str>, String> {
    let is_pipeline = names.contains(&"model_index.json");
    let mut folders: BTreeMap<&str, Folder> = BTreeMap::new();
    for name in names {
        let (folder, file) = parted(name);
        folders.entry(folder).or_default().push(file);
    }
    let mut picked = HashSet::new();
    for (folder, files) in &folders {
        let depth = folder.split('/').count();
        let is_root = folder.is_empty();
        // What lies deeper is a conversion to another engine, or an intermediate state of training.
        if depth > 1 || !is_root && !is_component(files) {
            continue;
        }
        // Weights at the root of a whole pipeline repeat those of its components.
        let set = if is_root && is_pipeline { None } else { weights_of(folder, files, variant)? };
        let has_configuration = is_component(files);
        let wanted = |file: &str| match WeightName::parse(file) {
            Some(weights) => {
                set.is_some_and(|set| set == (weights.format, weights.variant))
                    && (weights.is_lora || has_configuration)
            }
            None => file.ends_with(".json") || TOKENIZER_FILES.contains(&file),
        };
        picked.extend(files.iter().filter(|file| wanted(file)).map(|file| (*folder, *file)));
    }
    let names: Vec<&str> = names.iter().filter(|name| picked.contains(&parted(name))).copied().collect();
    let has_weights = names.iter().any(|name| WeightName::parse(parted(name).1).is_some());
    if !has_weights {
        return Err("the files of a diffusers pipeline, of one of its components or of a LoRA; \
                    name others one by one"
            .into());
    }
    Ok(names)
}

/// A name as folder and file.
fn parted(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// Whether a folder holds a component: it says how to build it, and has not only another engine's weights.
fn is_component(files: &[&str]) -> bool {
    let foreign =
        |file: &&str| [".onnx", ".msgpack", ".xml", ".ckpt", ".pb"].iter().any(|end| file.ends_with(end));
    let ours = files.iter().any(|file| WeightName::parse(file).is_some());
    files.iter().any(|file| CONFIGURATIONS.contains(file)) && (ours || !files.iter().any(foreign))
}

/// The one set of weights of a folder to take.
fn weights_of<'a>(
    folder: &str,
    files: &[&'a str],
    variant: Option<&str>,
) -> Result<Option<(Format, Option<&'a str>)>, String> {
    let mut sets: Vec<(Format, Option<&str>)> =
        files.iter().filter_map(|file| WeightName::parse(file)).map(|w| (w.format, w.variant)).collect();
    sets.sort_unstable();
    sets.dedup();
    // Safetensors before pickles, and in either the variant before the plain weights.
    let rank = |set: &(Format, Option<&str>)| match set.1 {
        found if found == variant => Some((set.0, 0)),
        None => Some((set.0, 1)),
        Some(_) => None,
    };
    let best = sets.iter().filter_map(|set| Some((rank(set)?, *set))).min_by_key(|(rank, _)| *rank);
    if best.is_none() && !sets.is_empty() {
        let mut others: Vec<&str> = sets.iter().filter_map(|set| set.1).collect();
        others.dedup();
        let place = if folder.is_empty() { "the repository" } else { folder };
        let asked = variant.map_or_else(String::new, |variant| format!("{variant} or "));
        return Err(format!(
            "{asked}plain weights in {place}, where there are only variants: {}",
            others.join(", ")
        ));
    }
    Ok(best.map(|(_, set)| set))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SD15: [&str; 44] = [
        ".gitattributes",
        "README.md",
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "safety_checker/config.json",
        "safety_checker/flax_model.msgpack",
        "safety_checker/model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "safety_checker/pytorch_model.bin",
        "safety_checker/pytorch_model.fp16.bin",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder/flax_model.msgpack",
        "text_encoder/model.fp16.safetensors",
        "text_encoder/model.onnx",
        "text_encoder/model.safetensors",
        "text_encoder/openvino_model.bin",
        "text_encoder/openvino_model.xml",
        "text_encoder/pytorch_model.bin",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "unet/diffusion_flax_model.msgpack",
        "unet/diffusion_pytorch_model.bin",
        "unet/diffusion_pytorch_model.fp16.bin",
        "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.bin",
        "unet/diffusion_pytorch_model.non_ema.safetensors",
        "unet/diffusion_pytorch_model.safetensors",
        "v1-5-pruned-emaonly.ckpt",
        "v1-5-pruned-emaonly.safetensors",
        "v1-5-pruned.safetensors",
        "v1-inference.yaml",
        "vae/config.json",
        "vae/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16.bin",
        "vae_decoder/config.json",
        "vae_decoder/model.onnx",
        "vae_decoder/openvino_model.bin",
        "onnx/unet/model.onnx",
        "onnx/unet/config.json",
        "sd.msgpack",
    ];

    const COMMON: [&str; 11] = [
        "feature_extractor/preprocessor_config.json",
        "model_index.json",
        "safety_checker/config.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "tokenizer/merges.txt",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer_config.json",
        "tokenizer/vocab.json",
        "unet/config.json",
        "vae/config.json",
    ];

    fn pick<'a>(variant: Option<&str>, names: &[&'a str]) -> Result<Vec<&'a str>, String> {
        Selection::Pipeline { variant: variant.map(str::to_owned) }.pick(names)
    }

    fn with_common<'a>(weights: &[&'a str]) -> Vec<&'a str> {
        let mut names = [COMMON.as_slice(), weights].concat();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_pipeline_is_configurations_and_one_set_of_weights_each() {
        let weights = [
            "safety_checker/model.safetensors",
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.bin",
        ];
        assert_eq!(pick(None, &SD15).unwrap(), with_common(&weights));
    }

    #[test]
    fn a_variant_is_taken_where_it_is_and_safetensors_come_first() {
        let weights = [
            "safety_checker/model.fp16.safetensors",
            "text_encoder/model.fp16.safetensors",
            "unet/diffusion_pytorch_model.fp16.safetensors",
            "vae/diffusion_pytorch_model.fp16.bin",
        ];
        assert_eq!(pick(Some("fp16"), &SD15).unwrap(), with_common(&weights));
        let weights = [
            "safety_checker/model.safetensors",
            "text_encoder/model.safetensors",
            "unet/diffusion_pytorch_model.non_ema.safetensors",
            "vae/diffusion_pytorch_model.bin",
        ];
        assert_eq!(pick(Some("non_ema"), &SD15).unwrap(), with_common(&weights));
    }

    #[test]
    fn three_hundred_thousand_names_are_picked_from_at_once() {
        let names: Vec<String> = (0..300_000).map(|i| format!("unet/part-{i:06}.json")).collect();
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.extend(["model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"]);
        let started = std::time::Instant::now();
        assert_eq!(pick(None, &names).unwrap().len(), names.len());
        assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
    }

    #[test]
    fn shards_come_with_their_index() {
        let names = [
            "transformer/config.json",
            "transformer/diffusion_pytorch_model-00001-of-00002.safetensors",
            "transformer/diffusion_pytorch_model-00002-of-00002.safetensors",
            "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
            "transformer/diffusion_pytorch_model.safetensors.index.fp16.json",
            "transformer/diffusion_pytorch_model.safetensors.index.json",
        ];
        let plain = [names[0], names[1], names[2], names[5]];
        assert_eq!(pick(None, &names).unwrap(), plain);
        assert_eq!(pick(Some("fp16"), &names).unwrap(), [names[0], names[3], names[4]]);
    }

    #[test]
    fn a_component_or_a_lora_alone_is_a_repository_too() {
        let unet = [
            "README.md",
            "config.json",
            "diffusion_pytorch_model.bin",
            "diffusion_pytorch_model.safetensors",
        ];
        assert_eq!(pick(None, &unet).unwrap(), [unet[1], unet[3]]);
        let lora = ["README.md", "image_0.png", "pytorch_lora_weights.safetensors"];
        assert_eq!(pick(None, &lora).unwrap(), [lora[2]]);
        let clip = [
            "config.json",
            "merges.txt",
            "model.safetensors",
            "pytorch_model.bin",
            "vocab.json",
            "tf_model.h5",
        ];
        assert_eq!(pick(None, &clip).unwrap(), [clip[0], clip[1], clip[2], clip[4]]);
    }

    #[test]
    fn weights_in_other_variants_only_are_named() {
        let names = ["unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors"];
        let wanted = "plain weights in unet, where there are only variants: fp16";
        assert_eq!(pick(None, &names).unwrap_err(), wanted);
        let wanted = "bf16 or plain weights in unet, where there are only variants: fp16";
        assert_eq!(pick(Some("bf16"), &names).unwrap_err(), wanted);
    }

    #[test]
    fn single_files_and_other_engines_alone_are_no_pipeline() {
        for names in [["sd_xl_base_1.0.safetensors", "README.md"], ["unet/model.onnx", "unet/config.json"]] {
            assert!(pick(None, &names).unwrap_err().starts_with("the files of"), "{names:?}");
        }
    }

    #[test]
    fn data_comes_with_its_card_and_without_scripts() {
        let names = ["README.md", "load.py", "data/train-00000-of-00001.parquet", "state.pkl", "test.jsonl"];
        let pick = |split: Option<&str>| {
            Selection::Data { config: None, split: split.map(str::to_owned) }.pick(&names)
        };
        assert_eq!(pick(None).unwrap(), [names[0], names[2], names[4]]);
        assert_eq!(pick(Some("test")).unwrap(), [names[0], names[4]]);
        assert!(pick(Some("dev")).unwrap_err().ends_with("the names are: test, train"));
        let none = Selection::Data { config: None, split: None }.pick(&names[1..2]);
        assert!(none.unwrap_err().starts_with("files that pairs are read from"));
    }

    #[test]
    fn patterns_name_files_of_any_kind() {
        let pick = |patterns: &[&str]| {
            Selection::Matching(patterns.iter().map(|&p| p.to_owned()).collect()).pick(&SD15)
        };
        let found = pick(&["*.onnx", "v1-5-pruned.*"]).unwrap();
        assert_eq!(
            found,
            [
                "text_encoder/model.onnx",
                "v1-5-pruned.safetensors",
                "vae_decoder/model.onnx",
                "onnx/unet/model.onnx"
            ]
        );
        assert_eq!(pick(&["*.json", "*.gguf"]).unwrap_err(), "a file that fits \"*.gguf\"");
    }
}
