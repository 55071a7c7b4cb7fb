//! The files of a tokenizer folder: vocabulary, merges, special and added tokens, prompt length.
//!
//! Folders saved by transformers up to release 4 hold `vocab.json` and `merges.txt`, newer ones a single `tokenizer.json`,
//! which wins where both are present. The special tokens are in `tokenizer_config.json` and, in older folders, again in
//! `special_tokens_map.json`.
//!
//! Source: `huggingface/transformers:src/transformers/tokenization_utils_base.py`, `_from_pretrained`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tastemaker_store::StoreError;
use tokenizers::AddedToken;

use super::bpe::{self, Bpe};
use super::folder::{TokenizerFiles, fault};
use super::tokens::{self, Listed};
use crate::ModelError;

/// Prompts longer than this are not CLIP's: transformers writes 1e30 for "no limit".
const LONGEST: f64 = 65_536.0;

/// Everything a tokenizer folder says.
#[derive(Debug)]
pub(super) struct Files {
    /// The file that holds the vocabulary.
    pub vocab_path: PathBuf,
    /// The file that holds the merges.
    pub merges_path: PathBuf,
    /// Token to id.
    pub vocab: BTreeMap<String, u32>,
    /// Pairs that become one token, most urgent first.
    pub merges: Vec<(String, String)>,
    /// Tokens found in the text before it is split, each once.
    pub added: Vec<AddedToken>,
    /// The ids the folder gives to added tokens.
    pub added_ids: BTreeMap<String, u32>,
    /// First token of every prompt.
    pub bos: String,
    /// Last token of every prompt.
    pub eos: String,
    /// Stands for what the vocabulary cannot spell.
    pub unk: String,
    /// Fills prompts up.
    pub pad: String,
    /// Ids of every prompt, fillers included.
    pub max_length: usize,
}

/// Reads a file that may be absent.
fn optional<T: serde::de::DeserializeOwned>(
    folder: &TokenizerFiles,
    name: &str,
) -> Result<Option<T>, StoreError> {
    if folder.has(name) { folder.json(name).map(Some) } else { Ok(None) }
}

/// Reads and checks the files of a tokenizer.
pub(super) fn read(folder: &TokenizerFiles) -> Result<Files, ModelError> {
    const CONFIG: &str = "tokenizer_config.json";
    const MAP: &str = "special_tokens_map.json";
    let config_path = folder.path(CONFIG);
    let config: Map<String, Value> = folder.json(CONFIG)?;
    check_settings(&config_path, &config)?;
    let max_length = max_length(&config_path, &config)?;
    let Bpe { vocab_path, merges_path, vocab, merges, added } = bpe::read(folder)?;

    // A list of added tokens in the settings is the newer way and replaces what the other files say.
    let decoder = config.get("added_tokens_decoder");
    let map_path = folder.path(MAP);
    let map = if decoder.is_none() { optional(folder, MAP)? } else { None };
    let map: Map<String, Value> = map.unwrap_or_default();
    let origin = |key: &str| if map.contains_key(key) { &map_path } else { &config_path };
    let value = |key: &str| map.get(key).or_else(|| config.get(key)).filter(|value| !value.is_null());
    let specials = tokens::special_tokens(value, |key| origin(key))?;

    let listed = match decoder {
        Some(decoder) => {
            let listed = Deserialize::deserialize(decoder)
                .map_err(|e| fault(&config_path, format!("`added_tokens_decoder`: {e}")))?;
            check_ids(&config_path, &listed, &vocab)?;
            listed
        }
        None => {
            check_ids(&vocab_path, &added, &vocab)?;
            let mut listed = legacy_tokens(folder, &specials, &vocab)?;
            listed.extend(added);
            listed
        }
    };
    let added_ids: BTreeMap<String, u32> =
        listed.iter().map(|(&id, token)| (token.content.clone(), id)).collect();
    let named = |key: &str| {
        let (_, token) = specials.iter().find(|(k, _)| k == key).expect("this one has a default");
        // The encoder itself looks the unknown token up, and it knows the vocabulary only.
        let is_added = key != "unk_token" && added_ids.contains_key(&token.content);
        if is_added || vocab.contains_key(&token.content) {
            return Ok(token.content.clone());
        }
        Err(fault(origin(key), format!("`{key}` is {}, which is not in the vocabulary", token.content)))
    };
    Ok(Files {
        bos: named("bos_token")?,
        eos: named("eos_token")?,
        unk: named("unk_token")?,
        pad: named("pad_token")?,
        added: tokens::added(listed, specials),
        added_ids,
        vocab_path,
        merges_path,
        vocab,
        merges,
        max_length,
    })
}

/// `added_tokens.json`, which folders of older transformers releases have.
fn legacy_tokens(
    folder: &TokenizerFiles,
    specials: &[(String, AddedToken)],
    vocab: &BTreeMap<String, u32>,
) -> Result<BTreeMap<u32, Listed>, ModelError> {
    const NAME: &str = "added_tokens.json";
    let ids: BTreeMap<String, u32> = optional(folder, NAME)?.unwrap_or_default();
    let is_special = |content: &String| specials.iter().any(|(_, token)| token.content == *content);
    let listed =
        ids.into_iter().map(|(content, id)| (id, Listed::plain(is_special(&content), content))).collect();
    check_ids(&folder.path(NAME), &listed, vocab)?;
    Ok(listed)
}

/// An added token that the vocabulary also holds must have the same id in both.
fn check_ids(
    path: &Path,
    listed: &BTreeMap<u32, Listed>,
    vocab: &BTreeMap<String, u32>,
) -> Result<(), ModelError> {
    for (id, Listed { content, .. }) in listed {
        if let Some(other) = vocab.get(content).filter(|other| *other != id) {
            return Err(fault(path, format!("`{content}` has id {id}; the vocabulary gives it {other}")));
        }
    }
    Ok(())
}

/// Refuses another class of tokenizer, and settings that would change the ids.
fn check_settings(path: &Path, config: &Map<String, Value>) -> Result<(), ModelError> {
    let class = config.get("tokenizer_class").filter(|class| !class.is_null());
    let known = ["CLIPTokenizer", "CLIPTokenizerFast"];
    if let Some(class) = class.filter(|class| class.as_str().is_none_or(|name| !known.contains(&name))) {
        return Err(fault(path, format!("`tokenizer_class` is {class}; wanted CLIPTokenizer")));
    }
    let supported = [
        ("add_prefix_space", json!(false)),
        ("do_lower_case", json!(true)),
        ("padding_side", json!("right")),
        ("split_special_tokens", json!(false)),
        ("truncation_side", json!("right")),
    ];
    for (key, wanted) in &supported {
        if let Some(value) = config.get(*key).filter(|value| !value.is_null() && *value != wanted) {
            return Err(fault(path, format!("`{key}` is {value}, which is not supported; wanted {wanted}")));
        }
    }
    Ok(())
}

fn max_length(path: &Path, config: &Map<String, Value>) -> Result<usize, ModelError> {
    let value = config.get("model_max_length").unwrap_or(&Value::Null);
    // Two ids are the least: a start and an end.
    match value.as_f64() {
        Some(n) if (2.0..=LONGEST).contains(&n) && n.fract() == 0.0 => Ok(n as usize),
        _ => Err(fault(
            path,
            format!("`model_max_length` is {value}; wanted the length of a prompt, 77 for most models"),
        )),
    }
}
