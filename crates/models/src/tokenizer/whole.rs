//! `tokenizer.json`, which says everything that a tokenizer does.

use tokenizers::{ModelWrapper, Tokenizer};

use super::folder::{TokenizerFiles, fault};
use crate::ModelError;

pub(super) const FILE: &str = "tokenizer.json";

/// A letter that no vocabulary has.
const UNKNOWN: &str = "\u{10fffd}";

/// Reads a tokenizer whose model is of this kind, as that of `whose` is; it neither cuts nor fills up.
pub(super) fn read(
    files: &TokenizerFiles,
    (kind, is_kind): (&str, fn(&ModelWrapper) -> bool),
    whose: &str,
) -> Result<Tokenizer, ModelError> {
    let path = files.path(FILE);
    let fault = |message: String| fault(&path, message);
    let mut tokenizer: Tokenizer = files.text(FILE)?.parse().map_err(|e| fault(format!("{e}")))?;
    if !is_kind(tokenizer.get_model()) {
        return Err(fault(format!("another model than {kind}; wanted the tokenizer of {whose}")));
    }
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| fault(format!("{e}")))?;
    let unknown = |e| fault(format!("no id for what it does not know: {e}"));
    tokenizer.encode_fast(UNKNOWN, false).map_err(unknown)?;
    Ok(tokenizer)
}

/// The id of a token that every prompt needs.
pub(super) fn id(tokenizer: &Tokenizer, files: &TokenizerFiles, token: &str) -> Result<i64, ModelError> {
    let missing = || fault(&files.path(FILE), format!("`{token}` has no id"));
    tokenizer.token_to_id(token).map(i64::from).ok_or_else(missing)
}

/// The ids of a text, without any that the tokenizer adds around it.
pub(super) fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<i64> {
    let encoded = tokenizer.encode_fast(text, false);
    let encoded = encoded.expect("a model with an id for what it does not know has one for every text");
    encoded.get_ids().iter().map(|&id| i64::from(id)).collect()
}

/// One more than the highest id.
pub(super) fn n_ids(tokenizer: &Tokenizer) -> usize {
    tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
}
