//! T5's unigram tokenizer.
//!
//! Source: `huggingface/transformers:src/transformers/models/t5/tokenization_t5.py`.

use tokenizers::{ModelWrapper, Tokenizer};

use super::folder::TokenizerFiles;
use super::whole;
use crate::ModelError;

const END: &str = "</s>";
const PADDING: &str = "<pad>";

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
        let unigram = |model: &ModelWrapper| matches!(model, ModelWrapper::Unigram(_));
        let tokenizer = whole::read(files, ("Unigram", unigram), "a T5 encoder")?;
        let (eos, pad) = (whole::id(&tokenizer, files, END)?, whole::id(&tokenizer, files, PADDING)?);
        Ok(Self { eos, pad, max_length, tokenizer })
    }

    /// The ids of a prompt: text, end, then fillers. What is too long is cut before the end.
    ///
    /// # Shapes
    /// Always [`max_length`](Self::max_length) ids.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let mut ids = whole::ids(&self.tokenizer, prompt);
        ids.truncate(self.max_length - 1);
        ids.push(self.eos);
        ids.resize(self.max_length, self.pad);
        ids
    }

    /// Tokens of a prompt, without the one that ends it.
    pub fn n_tokens(&self, prompt: &str) -> usize {
        whole::ids(&self.tokenizer, prompt).len()
    }

    /// Ids of every prompt, fillers included.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the highest id; the text encoder's token table must be at least as long.
    pub fn n_ids(&self) -> usize {
        whole::n_ids(&self.tokenizer)
    }
}
