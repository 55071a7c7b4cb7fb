//! Vocabulary and merges, from two files or from one.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;

use super::folder::{TokenizerFiles, fault};
use super::tokens::Listed;
use crate::ModelError;

const SINGLE: &str = "tokenizer.json";
const VOCABULARY: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// The byte-pair encoding itself, from whichever files hold it.
#[derive(Debug)]
pub(super) struct Bpe {
    /// The file that holds the vocabulary.
    pub vocab_path: PathBuf,
    /// The file that holds the merges.
    pub merges_path: PathBuf,
    /// Token to id.
    pub vocab: BTreeMap<String, u32>,
    /// Pairs that become one token, most urgent first.
    pub merges: Vec<(String, String)>,
    /// Id to added token; empty where two files hold the rest.
    pub added: BTreeMap<u32, Listed>,
}

/// `tokenizer.json` where there is one, else `vocab.json` and `merges.txt`.
pub(super) fn read(folder: &TokenizerFiles) -> Result<Bpe, ModelError> {
    if folder.has(SINGLE) {
        return read_single(folder);
    }
    let (vocab_path, merges_path) = (folder.path(VOCABULARY), folder.path(MERGES));
    let vocab = folder.json(VOCABULARY)?;
    let merges = folder
        .text(MERGES)?
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with("#version"))
        .map(|(i, line)| {
            merge(line).ok_or_else(|| {
                fault(
                    &merges_path,
                    format!("line {} is {line:?}; wanted two tokens with a space between", i + 1),
                )
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Bpe { vocab_path, merges_path, vocab, merges, added: BTreeMap::new() })
}

fn merge(line: &str) -> Option<(String, String)> {
    let (left, right) = line.split_once(' ')?;
    let plain = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    plain.then(|| (left.to_owned(), right.to_owned()))
}

fn read_single(folder: &TokenizerFiles) -> Result<Bpe, ModelError> {
    #[derive(Deserialize)]
    struct File {
        model: Model,
        #[serde(default)]
        added_tokens: Vec<Numbered>,
    }
    #[derive(Deserialize)]
    struct Model {
        vocab: BTreeMap<String, u32>,
        merges: Vec<Pair>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Pair {
        Line(String),
        Split(String, String),
    }
    #[derive(Deserialize)]
    struct Numbered {
        id: u32,
        #[serde(flatten)]
        token: Listed,
    }
    let path = folder.path(SINGLE);
    let File { model, added_tokens } = folder.json(SINGLE)?;
    let merges = model
        .merges
        .into_iter()
        .map(|pair| match pair {
            Pair::Split(left, right) => Ok((left, right)),
            Pair::Line(line) => merge(&line).ok_or_else(|| {
                fault(&path, format!("merge {line:?}; wanted two tokens with a space between"))
            }),
        })
        .collect::<Result<_, _>>()?;
    Ok(Bpe {
        vocab: model.vocab,
        merges,
        added: added_tokens.into_iter().map(|numbered| (numbered.id, numbered.token)).collect(),
        merges_path: path.clone(),
        vocab_path: path,
    })
}
