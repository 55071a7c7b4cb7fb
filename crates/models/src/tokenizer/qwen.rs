//! Qwen's byte-level tokenizer, and the chat that Z-Image puts a prompt into.
//!
//! Source: `huggingface/transformers:src/transformers/models/qwen2/tokenization_qwen2.py`; `encode_prompt` of diffusers' `ZImagePipeline`.

use tokenizers::{ModelWrapper, Tokenizer};

use super::folder::TokenizerFiles;
use super::whole;
use crate::ModelError;

/// What stands around a prompt: a message of a user and the beginning of an answer, as the published template has them.
const CHAT: [&str; 2] = ["<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"];

const PADDING: &str = "<|endoftext|>";

/// Byte-pair encoding over bytes, as Z-Image's tokenizer has it.
#[derive(Debug)]
pub struct QwenTokenizer {
    tokenizer: Tokenizer,
    pad: i64,
    max_length: usize,
}

impl QwenTokenizer {
    /// Reads `tokenizer.json`. Prompts have at most `max_length` ids, the chat around them included.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing; [`ModelError::Tokenizer`] for one of another model, or without the tokens that
    /// a chat is made of.
    pub fn from_files(files: &TokenizerFiles, max_length: usize) -> Result<Self, ModelError> {
        let bpe = |model: &ModelWrapper| matches!(model, ModelWrapper::BPE(_));
        let tokenizer = whole::read(files, ("BPE", bpe), "a Qwen encoder")?;
        for token in ["<|im_start|>", "<|im_end|>"] {
            whole::id(&tokenizer, files, token)?;
        }
        let pad = whole::id(&tokenizer, files, PADDING)?;
        Ok(Self { pad, max_length, tokenizer })
    }

    /// The ids of a prompt in its chat, as many as there are; what is too long is cut at the end, the chat's end with it.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        let mut ids = self.whole(prompt);
        ids.truncate(self.max_length);
        ids
    }

    /// Ids of a prompt in its chat before anything is cut.
    pub fn n_tokens(&self, prompt: &str) -> usize {
        self.whole(prompt).len()
    }

    fn whole(&self, prompt: &str) -> Vec<i64> {
        let [before, after] = CHAT;
        whole::ids(&self.tokenizer, &format!("{before}{prompt}{after}"))
    }

    /// What fills up the shorter ones of several prompts; none of their own tokens sees it.
    pub fn pad(&self) -> i64 {
        self.pad
    }

    /// Most ids of a prompt.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// One more than the highest id; the text encoder's token table must be at least as long.
    pub fn n_ids(&self) -> usize {
        whole::n_ids(&self.tokenizer)
    }
}
