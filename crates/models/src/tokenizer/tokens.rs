//! Special and added tokens: what a folder says about them, and which of two opinions counts.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::folder::fault;
use crate::ModelError;

/// The special tokens in the order in which they are added, and what the first four are where the folder does not say.
const SPECIAL: [(&str, Option<&str>); 7] = [
    ("bos_token", Some("<|startoftext|>")),
    ("eos_token", Some("<|endoftext|>")),
    ("unk_token", Some("<|endoftext|>")),
    ("sep_token", None),
    ("pad_token", Some("<|endoftext|>")),
    ("cls_token", None),
    ("mask_token", None),
];

/// Names and tokens of everything special, in the order in which it is added.
///
/// `value` is what the folder says under a key, `origin` the file that says it.
pub(super) fn special_tokens<'a>(
    value: impl Fn(&str) -> Option<&'a Value>,
    origin: impl Fn(&str) -> &'a PathBuf,
) -> Result<Vec<(String, AddedToken)>, ModelError> {
    let read = |key: &str, value: &Value| {
        Token::deserialize(value)
            .map(|token| (key.to_owned(), token.into()))
            .map_err(|_| fault(origin(key), format!("`{key}` is {value}; wanted a token")))
    };
    let mut tokens = Vec::new();
    for (key, default) in SPECIAL {
        match (value(key), default) {
            (Some(value), _) => tokens.push(read(key, value)?),
            (None, Some(default)) => tokens.push((key.to_owned(), AddedToken::from(default, true))),
            (None, None) => {}
        }
    }
    for key in ["additional_special_tokens", "extra_special_tokens"] {
        for value in value(key).and_then(Value::as_array).into_iter().flatten() {
            tokens.push(read(key, value)?);
        }
    }
    Ok(tokens)
}

/// What is found in the text before it is split: listed tokens as they are listed, special tokens as they were named last.
pub(super) fn added(listed: BTreeMap<u32, Listed>, specials: Vec<(String, AddedToken)>) -> Vec<AddedToken> {
    let is_special = |content: &str| specials.iter().any(|(_, token)| token.content == content);
    let mut added: Vec<AddedToken> = listed
        .into_values()
        .map(|token| AddedToken { special: token.special || is_special(&token.content), ..token.into() })
        .collect();
    let n_listed = added.len();
    for (_, token) in specials {
        match added.iter().position(|other| other.content == token.content) {
            Some(i) if i < n_listed => {}
            Some(i) => added[i] = token,
            None => added.push(token),
        }
    }
    added
}

/// A token as the special tokens hold it: its text, or its text and how it is matched.
#[derive(Deserialize)]
#[serde(untagged)]
enum Token {
    Text(String),
    Full(Listed),
}

impl From<Token> for AddedToken {
    fn from(token: Token) -> Self {
        match token {
            Token::Text(content) => AddedToken::from(content, true),
            Token::Full(listed) => Listed { special: true, ..listed }.into(),
        }
    }
}

/// A token with its way of being matched.
#[derive(Debug, Deserialize)]
pub(super) struct Listed {
    pub content: String,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    /// `None`: normalized unless special.
    normalized: Option<bool>,
    #[serde(default)]
    special: bool,
}

impl Listed {
    /// Matched anywhere, spaces around it kept.
    pub(super) fn plain(special: bool, content: String) -> Self {
        Self { content, single_word: false, lstrip: false, rstrip: false, normalized: None, special }
    }
}

impl From<Listed> for AddedToken {
    fn from(token: Listed) -> Self {
        AddedToken {
            normalized: token.normalized.unwrap_or(!token.special),
            content: token.content,
            single_word: token.single_word,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            special: token.special,
        }
    }
}
