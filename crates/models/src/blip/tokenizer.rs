//! BERT's tokenizer with BLIP's two tokens more.
//!
//! Source: `huggingface/transformers:src/transformers/models/bert/tokenization_bert.py`; `init_tokenizer` in
//! `salesforce/BLIP:models/blip.py`.

use std::collections::BTreeSet;
use std::path::Path;

use tastemaker_store::json;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{AddedToken, Tokenizer};

use crate::ModelError;

/// Longest prompt, its first and last token included.
const MAX_LENGTH: usize = 35;

/// Letters of the longest word that is taken apart.
const LONGEST_WORD: usize = 100;

const UNKNOWN: &str = "[UNK]";
const FIRST: &str = "[CLS]";
const LAST: &str = "[SEP]";
const FILLER: &str = "[PAD]";

/// Found in the text as they are; the last two stand behind the vocabulary.
const SPECIAL: [&str; 7] = [UNKNOWN, LAST, FILLER, FIRST, "[MASK]", "[DEC]", "[ENC]"];

/// Lower-case WordPiece.
#[derive(Debug)]
pub struct BertTokenizer {
    tokenizer: Tokenizer,
    first: i64,
    last: i64,
    filler: i64,
}

impl BertTokenizer {
    /// Reads a `vocab.txt` with one token a line.
    ///
    /// # Errors
    /// [`ModelError::Store`] for a file that is missing or not UTF-8; [`ModelError::Tokenizer`] for one without the tokens
    /// that frame a prompt, or with one twice.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let fault = |message: String| ModelError::Tokenizer { path: path.to_owned(), message };
        let text = json::read_text(path)?;
        let tokens: BTreeSet<&str> = text.lines().collect();
        if tokens.len() != text.lines().count() {
            return Err(fault("a token that is there twice".to_owned()));
        }
        if let Some(missing) = SPECIAL[..4].iter().find(|token| !tokens.contains(**token)) {
            return Err(fault(format!("no token `{missing}`; wanted the vocabulary of bert-base-uncased")));
        }
        let pieces = WordPiece::builder()
            .vocab(text.lines().map(str::to_owned).zip(0..).collect::<Vocab>())
            .unk_token(UNKNOWN.to_owned())
            .max_input_chars_per_word(LONGEST_WORD)
            .build()
            .map_err(|error| fault(error.to_string()))?;
        let mut tokenizer = Tokenizer::new(pieces);
        tokenizer.with_normalizer(Some(BertNormalizer::new(true, true, None, true)));
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.add_special_tokens(&SPECIAL.map(|token| AddedToken::from(token, true)));
        let id = |token: &str| {
            tokenizer.token_to_id(token).map(i64::from).ok_or_else(|| fault(format!("no token `{token}`")))
        };
        let (first, last, filler) = (id(FIRST)?, id(LAST)?, id(FILLER)?);
        Ok(Self { first, last, filler, tokenizer })
    }

    /// The ids of a prompt, without filling; what is too long is cut before the end.
    pub fn encode(&self, prompt: &str) -> Vec<i64> {
        // Words of a vocabulary that holds the unknown token can always be encoded.
        let text = self.tokenizer.encode_fast(prompt, false);
        let ids = text.map(|text| text.get_ids().to_vec()).unwrap_or_default();
        let inner = ids.into_iter().take(MAX_LENGTH - 2).map(i64::from);
        std::iter::once(self.first).chain(inner).chain([self.last]).collect()
    }

    /// What fills prompts up.
    pub fn filler(&self) -> i64 {
        self.filler
    }

    /// Ids of the longest prompt.
    pub fn max_length(&self) -> usize {
        MAX_LENGTH
    }

    /// One more than the highest id.
    pub fn n_ids(&self) -> usize {
        self.tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1)
    }
}
