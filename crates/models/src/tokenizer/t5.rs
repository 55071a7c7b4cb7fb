//! T5's unigram tokenizer.
//!
//! Source: `huggingface/transformers:src/transformers/models/t5/tokenization_t5.py`.

use tokenizers::{ModelWrapper, Tokenizer};

use super::folder::{TokenizerFiles, fault};
use crate::ModelError;

const FILE: &str = "tokenizer.json";
const END: &str = "</s>";
const PADDING: &str = "<pad>";

/// A letter that no vocabulary has.
const UNKNOWN: &str = "\u{10fffd}";

/// SentencePiece's unigram model as SD3's third tokenizer has it, with the ids that end and fill a prompt.
#[derive(Debug)]
pub struct T5Tokenizer {
    tokenizer: Tokenizer,
    eos: i64,
    pad: i64,
    max_length: usize,
}

impl T5Tokenizer {
    /// Reads `tokenizer.json`. Prompts have `max_length` ids, whatever the folder says: SD3's pipeline has a length of its own.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing; [`ModelError::Tokenizer`] for one that is no unigram model, or lacks the
    /// tokens that end and fill a prompt.
    pub fn from_files(files: &TokenizerFiles, max_length: usize) -> Result<Self, ModelError> {
        let path = files.path(FILE);
        let fault = |message: String| fault(&path, message);
        let mut tokenizer: Tokenizer = files.text(FILE)?.parse().map_err(|e| fault(format!("{e}")))?;
        if !matches!(tokenizer.get_model(), ModelWrapper::Unigram(_)) {
            return Err(fault("another model than Unigram; wanted the tokenizer of a T5 encoder".to_owned()));
        }
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| fault(format!("{e}")))?;
        tokenizer
            .encode_fast(UNKNOWN, false)
            .map_err(|e| fault(format!("no id for what it does not know: {e}")))?;
        let id = |token: &str| {
            tokenizer.token_to_id(token).map(i64::from).ok_or_else(|| fault(format!("`{token}` has no id")))
        };
        let (eos, pad) = (id(END)?, id(PADDING)?);
        Ok(Self { eos, pad, max_length, tokenizer })
    }

    /// The ids of a prompt: text, end, then fillers. What is too long is cut before the end.
    ///
    /// # Shapes
    /// Always [`max_length`](Self::max_length) ids.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let mut ids = self.text_ids(prompt);
        ids.truncate(self.max_length - 1);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        ids
    }

    /// Tokens of a prompt, without the one that ends it.
    pub fn n_tokens(&self, prompt: &str) -> usize {
        self.text_ids(prompt).len()
    }

    fn text_ids(&self, prompt: &str) -> Vec<i64> {
        let encoded = self.tokenizer.encode_fast(prompt, false);
        let text = encoded.expect("a model with an id for what it does not know has one for every text");
        text.get_ids().iter().map(|&id| i64::from(id)).collect()
    }

    /// Ids of every prompt, fillers included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the highest id; the text encoder's token table must be at least as long.
    pub fn n_ids(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }
}
