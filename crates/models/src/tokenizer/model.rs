//! From text to ids.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/tokenization_clip.py`.

use std::path::Path;

use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::normalizers::{self, Lowercase, NFC, Replace};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{SplitDelimiterBehavior, Tokenizer};

use super::files::{self, Files};
use super::folder::TokenizerFiles;
use crate::ModelError;
use crate::original::published_tokenizer;

/// English contractions, runs of letters, single digits, runs of anything else that is not space.
const WORDS: &str =
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// CLIP's byte-pair encoding, with the ids that frame and fill a prompt.
#[derive(Debug)]
pub struct ClipTokenizer {
    tokenizer: Tokenizer,
    bos: i64,
    eos: i64,
    pad: i64,
    max_length: usize,
}

impl ClipTokenizer {
    /// Reads a diffusers `tokenizer/` folder: `tokenizer_config.json` with either `vocab.json` and `merges.txt` or
    /// `tokenizer.json`, and `special_tokens_map.json` and `added_tokens.json` where they are needed.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing or not JSON of the right form; [`ModelError::Tokenizer`] for a bad
    /// merge, a merge or special token outside the vocabulary, or a setting that would change the ids.
    pub fn from_folder(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        Self::from_files(&TokenizerFiles::in_folder(path.as_ref()))
    }

    /// CLIP's own, which all SD1.x, SD2.x and SDXL models share but for what fills a prompt.
    ///
    /// # Errors
    /// Never, unless the vocabulary was damaged before it was built in.
    pub fn published() -> Result<Self, ModelError> {
        Self::from_files(&published_tokenizer("CLIP's vocabulary".as_ref()))
    }

    /// The same from files that are at hand.
    ///
    /// # Errors
    /// As [`ClipTokenizer::from_folder`].
    pub fn from_files(files: &TokenizerFiles) -> Result<Self, ModelError> {
        build(files::read(files)?)
    }

    /// The ids of a prompt: start, text, end, then fillers. What is too long is cut before the end.
    ///
    /// # Shapes
    /// Always [`max_length`](Self::max_length) ids.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        self.encode_chunks(prompt, 1)
    }

    /// The ids of a prompt in chunks, each framed and filled as a prompt of its own; what is too long for all is cut.
    ///
    /// Source: `get_input_ids` of `kohya-ss/sd-scripts:library/train_util.py`.
    ///
    /// # Shapes
    /// `n_chunks` times [`max_length`](Self::max_length) ids.
    pub fn encode_chunks(&self, prompt: &str, n_chunks: usize) -> Vec<i64> {
        let text = self.text_ids(prompt);
        let mut pieces = text.chunks((self.max_length - 2).max(1));
        let mut ids = Vec::with_capacity(n_chunks * self.max_length);
        for chunk in 1..=n_chunks {
            ids.push(self.bos);
            ids.extend(pieces.next().unwrap_or_default().iter().map(|&id| i64::from(id)));
            ids.truncate(chunk * self.max_length - 1);
            ids.push(self.eos);
            ids.resize(chunk * self.max_length, self.pad);
        }
        ids
    }

    /// The ids of several prompts, one after the other.
    ///
    /// # Shapes
    /// `prompts.len()` times [`max_length`](Self::max_length) ids.
    pub fn encode_batch(&self, prompts: &[impl AsRef<str>]) -> Vec<i64> {
        prompts.iter().flat_map(|prompt| self.encode(prompt.as_ref())).collect()
    }

    /// Tokens of a prompt, without the two that frame it.
    pub fn n_tokens(&self, prompt: &str) -> usize {
        self.text_ids(prompt).len()
    }

    fn text_ids(&self, prompt: &str) -> Vec<u32> {
        let encoded = self.tokenizer.encode_fast(prompt, false);
        encoded.expect("byte-level encoding has an id for every text").get_ids().to_vec()
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

fn build(files: Files) -> Result<ClipTokenizer, ModelError> {
    let fault = |path: &Path, message: String| ModelError::Tokenizer { path: path.to_owned(), message };
    let bpe = BPE::builder()
        .vocab_and_merges(files.vocab.into_iter().collect::<Vocab>(), files.merges)
        .continuing_subword_prefix(String::new())
        .end_of_word_suffix("</w>".to_owned())
        .unk_token(files.unk)
        .build()
        .map_err(|e| fault(&files.merges_path, e.to_string()))?;
    let mut tokenizer = Tokenizer::new(bpe);
    tokenizer.with_normalizer(Some(normalizers::Sequence::new(vec![
        NFC.into(),
        Replace::new(ReplacePattern::Regex(r"\s+".to_owned()), " ").expect("a fixed pattern").into(),
        Lowercase.into(),
    ])));
    let words = SplitPattern::Regex(WORDS.to_owned());
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![
        Split::new(words, SplitDelimiterBehavior::Removed, true).expect("a fixed pattern").into(),
        ByteLevel::new(false, true, true).into(),
    ])));
    tokenizer.add_tokens(&files.added);

    for (content, wanted) in &files.added_ids {
        let found = tokenizer.token_to_id(content);
        if found != Some(*wanted) {
            let found = found.map_or("none".to_owned(), |id| id.to_string());
            let message = format!("added token `{content}` has id {wanted}; the next free id is {found}");
            return Err(fault(&files.vocab_path, message));
        }
    }
    let id = |content: &str| {
        tokenizer
            .token_to_id(content)
            .map(i64::from)
            .ok_or_else(|| fault(&files.vocab_path, format!("`{content}` has no id")))
    };
    let (bos, eos, pad) = (id(&files.bos)?, id(&files.eos)?, id(&files.pad)?);
    Ok(ClipTokenizer { bos, eos, pad, max_length: files.max_length, tokenizer })
}
