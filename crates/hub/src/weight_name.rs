//! What the name of a weight file says.
//!
//! Source: `huggingface/diffusers:src/diffusers/pipelines/pipeline_loading_utils.py`, `variant_compatible_siblings`.

/// How tensors are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Format {
    Safetensors,
    Pickle,
}

/// A file of weights, or the index of its shards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WeightName<'a> {
    pub format: Format,
    /// `fp16`, `non_ema`, ...; `None` for the plain weights.
    pub variant: Option<&'a str>,
    pub is_lora: bool,
}

/// The stems that pipelines load. A single-file checkpoint has another.
const STEMS: [&str; 3] = ["diffusion_pytorch_model", "model", "pytorch_model"];

const LORA_STEM: &str = "pytorch_lora_weights";

impl<'a> WeightName<'a> {
    /// Takes apart the last part of a file's name; `None` if no pipeline loads weights of that name.
    ///
    /// The spellings are `stem[.variant][-00001-of-00002].ext`, `stem-00001-of-00002.variant.ext`, and for an index
    /// `stem.ext.index[.variant].json`, `stem.ext.variant.index.json` and `stem.variant.ext.index.json`.
    pub fn parse(name: &'a str) -> Option<Self> {
        let mut parts = name.split('.');
        let stem = without_shard(parts.next()?);
        let is_lora = stem == LORA_STEM;
        if !is_lora && !STEMS.contains(&stem) {
            return None;
        }
        let mut rest: Vec<&str> = parts.collect();
        if rest.last() == Some(&"json") {
            rest.pop();
            let at = rest.iter().position(|part| *part == "index")?;
            rest.remove(at);
        }
        let at = rest.iter().position(|part| format_of(part).is_some())?;
        let format = format_of(rest.remove(at))?;
        match rest[..] {
            [] => Some(Self { format, variant: None, is_lora }),
            [variant] => Some(Self { format, variant: Some(without_shard(variant)), is_lora }),
            _ => None,
        }
    }
}

fn format_of(part: &str) -> Option<Format> {
    match part {
        "safetensors" => Some(Format::Safetensors),
        "bin" => Some(Format::Pickle),
        _ => None,
    }
}

/// A part of a name without `-00001-of-00002`.
fn without_shard(part: &str) -> &str {
    let number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let cut = part.len().checked_sub("-00001-of-00002".len()).and_then(|at| part.split_at_checked(at));
    match cut {
        Some((head, tail)) if tail.starts_with('-') && tail.get(6..10) == Some("-of-") => {
            let numbers = tail.get(1..6).is_some_and(number) && tail.get(10..).is_some_and(number);
            if numbers { head } else { part }
        }
        _ => part,
    }
}

#[cfg(test)]
mod tests {
    use super::{Format, WeightName};

    #[test]
    fn every_spelling_of_a_variant_is_read() {
        for name in [
            "model.fp16.safetensors",
            "model.fp16-00001-of-00002.safetensors",
            "model-00001-of-00002.fp16.safetensors",
            "model.safetensors.index.fp16.json",
            "model.safetensors.fp16.index.json",
            "model.fp16.safetensors.index.json",
        ] {
            let wanted = WeightName { format: Format::Safetensors, variant: Some("fp16"), is_lora: false };
            assert_eq!(WeightName::parse(name), Some(wanted), "{name}");
        }
    }

    #[test]
    fn plain_weights_have_no_variant() {
        for (name, format) in [
            ("diffusion_pytorch_model.safetensors", Format::Safetensors),
            ("diffusion_pytorch_model-00002-of-00003.safetensors", Format::Safetensors),
            ("diffusion_pytorch_model.safetensors.index.json", Format::Safetensors),
            ("pytorch_model.bin", Format::Pickle),
            ("pytorch_model.bin.index.json", Format::Pickle),
            ("pytorch_lora_weights.safetensors", Format::Safetensors),
        ] {
            let found = WeightName::parse(name).unwrap();
            assert_eq!((found.format, found.variant), (format, None), "{name}");
        }
    }

    #[test]
    fn other_files_are_no_weights() {
        for name in [
            "v1-5-pruned-emaonly.safetensors",
            "sd_xl_base_1.0.safetensors",
            "model.onnx",
            "flax_model.msgpack",
            "diffusion_flax_model.msgpack",
            "openvino_model.bin",
            "model.ckpt",
            "config.json",
            "model_index.json",
            "model.a.b.safetensors",
            "model",
            "é-00001-of-00002",
        ] {
            assert_eq!(WeightName::parse(name), None, "{name}");
        }
    }
}
