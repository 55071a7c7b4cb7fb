//! What a single-file checkpoint skips: configurations, tokenizers and the noise schedule of each layout.
//!
//! Configurations as published with the models on the Hub, less what every reader takes as default.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::keys::Layout;
use crate::backbone::BackboneConfig;
use crate::pipeline::Family;
use crate::tokenizer::TokenizerFiles;

/// The merges of CLIP's tokenizer; its vocabulary follows from them.
const MERGES: &str = include_str!("../../../../assets/clip/merges.txt");

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";

macro_rules! preset {
    ($family:literal, $($name:literal),*) => {
        &[$(($name, include_str!(concat!("../../presets/", $family, "/", $name, ".json")))),*]
    };
}

/// The parts of a diffusers folder that are the same for every checkpoint of a layout.
#[derive(Debug, Clone, PartialEq)]
pub struct Preset {
    /// Whose.
    pub layout: Layout,
    /// Each component's configuration by name, the scheduler's, and `model_index`.
    pub configs: BTreeMap<String, Value>,
}

impl Preset {
    /// As published with the models of a layout.
    pub fn published(layout: Layout) -> Self {
        let files: &[(&str, &str)] = match layout {
            Layout::Sd1 => preset!("sd1", "model_index", "unet", "vae", "text_encoder", "scheduler"),
            Layout::Sd2 => preset!("sd2", "model_index", "unet", "vae", "text_encoder", "scheduler"),
            Layout::Sdxl => {
                preset!("sdxl", "model_index", "unet", "vae", "text_encoder", "text_encoder_2", "scheduler")
            }
            Layout::Sd3 => {
                preset!(
                    "sd3",
                    "model_index",
                    "transformer",
                    "vae",
                    "text_encoder",
                    "text_encoder_2",
                    "scheduler"
                )
            }
            // The rest of Z-Image is never guessed at: its tokenizer is in no file of weights.
            Layout::ZImage => preset!("zimage", "transformer"),
        };
        let parse = |text: &str| serde_json::from_str(text).expect("presets are JSON");
        let configs = files.iter().map(|(name, text)| ((*name).to_owned(), parse(text))).collect();
        Self { layout, configs }
    }

    /// The configuration of this name; null if there is none.
    pub fn config(&self, name: &str) -> &Value {
        self.configs.get(name).unwrap_or(&Value::Null)
    }

    /// Every file of a tokenizer folder, by name. `second`: of the second tokenizer of SDXL or SD3.
    ///
    /// OpenAI's models fill prompts up with the end token, OpenCLIP's with the first entry of the vocabulary.
    pub fn tokenizer(&self, second: bool) -> Vec<(&'static str, String)> {
        let pad = if second || self.layout == Layout::Sd2 { "!" } else { END };
        let special = |content: &str| json!({ "content": content, "lstrip": false, "normalized": true, "rstrip": false, "single_word": false });
        let specials = json!({ "bos_token": special(START), "eos_token": special(END), "unk_token": special(END), "pad_token": pad });
        let mut settings = json!({
            "add_prefix_space": false, "do_lower_case": true, "errors": "replace", "model_max_length": 77,
            "tokenizer_class": "CLIPTokenizer",
        });
        if let (Some(settings), Some(specials)) = (settings.as_object_mut(), specials.as_object()) {
            settings.extend(specials.clone());
        }
        vec![
            ("merges.txt", MERGES.to_owned()),
            ("special_tokens_map.json", format!("{specials:#}\n")),
            ("tokenizer_config.json", format!("{settings:#}\n")),
            ("vocab.json", json!(vocabulary()).to_string()),
        ]
    }
}

impl Layout {
    /// The network that predicts in the models published in this layout; for SD3, that of SD3.5-medium.
    pub fn published_backbone(self) -> BackboneConfig {
        let (family, preset) = (Family::from(self), Preset::published(self));
        BackboneConfig::from_json(family, preset.config(family.backbone())).expect("presets are supported")
    }
}

/// CLIP's tokenizer as OpenAI's models have it, for weights that come without one.
pub(crate) fn published_tokenizer(path: &Path) -> TokenizerFiles {
    let files = Preset::published(Layout::Sd1).tokenizer(false).into_iter();
    TokenizerFiles::at_hand(path, files.map(|(name, text)| (name.to_owned(), text)).collect())
}

/// CLIP's vocabulary: every byte, every byte at the end of a word, every merge, the two special tokens.
///
/// Source: `openai/CLIP:clip/simple_tokenizer.py`, `SimpleTokenizer.__init__`.
fn vocabulary() -> BTreeMap<String, usize> {
    let bytes = byte_letters();
    let ends = bytes.iter().map(|letter| format!("{letter}</w>"));
    let letters = bytes.iter().map(char::to_string).chain(ends);
    let merges = MERGES.lines().skip(1).map(|line| line.replace(' ', ""));
    let specials = [START, END].map(str::to_owned);
    letters.chain(merges).chain(specials).enumerate().map(|(id, token)| (token, id)).collect()
}

/// The letter that stands for each byte, printable bytes first, as GPT-2 orders them.
fn byte_letters() -> Vec<char> {
    let printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..256u32).filter(printable);
    let moved = (0..256u32).filter(|byte| !printable(byte)).zip(256u32..).map(|(_, letter)| letter);
    own.chain(moved).filter_map(char::from_u32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vocabulary_follows_from_the_merges() {
        // SHA-256 of the tokens in the order of their ids, a line each, in OpenAI's published `vocab.json`.
        let mut tokens: Vec<(usize, String)> =
            vocabulary().into_iter().map(|(token, id)| (id, token)).collect();
        tokens.sort();
        assert_eq!(tokens.len(), 49_408);
        let lines: String = tokens.into_iter().map(|(_, token)| token + "\n").collect();
        let published = "e30e57b6f1e47616982ef898d8922be24e535b4fa3d0110477b3a6f02ebbae7d";
        assert_eq!(tastemaker_store::checksum::sha256_bytes(lines.as_bytes()), published);
    }
}
