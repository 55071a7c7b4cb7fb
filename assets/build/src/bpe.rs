//! A byte-level BPE vocabulary in CLIP's format, learned from the captions.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, ensure};

/// Entries of the vocabulary: 512 byte symbols, the merges, and the two special tokens.
pub const N_ENTRIES: usize = 1_600;
/// Opens every sequence; last entry but one, as in CLIP.
pub const START: &str = "<|startoftext|>";
/// Closes and pads every sequence; last entry, as in CLIP.
pub const END: &str = "<|endoftext|>";
/// Marks the last symbol of a word.
const WORD_END: &str = "</w>";
/// CLIP's contractions, tried before anything else.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];

/// A learned vocabulary.
pub struct Bpe {
    /// Entries in id order.
    pub entries: Vec<String>,
    /// Merges in the order learned, which is also the order of their rank.
    pub merges: Vec<(String, String)>,
}

/// The printable stand-in of each byte, in the order CLIP numbers them: printable Latin-1 first, the rest after.
fn byte_symbols() -> Vec<(u8, char)> {
    let printable = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let stands_for_itself = (0..=255_u8).filter(|byte| printable(*byte)).map(|byte| (byte, char::from(byte)));
    let shifted = (0..=255_u8).filter(|byte| !printable(*byte)).zip('\u{100}'..);
    stands_for_itself.chain(shifted).collect()
}

/// Splits text as CLIP does: lower case, then contractions, letter runs, single digits, and runs of anything else.
pub fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase();
    let mut words = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = if let Some(found) = CONTRACTIONS.iter().find(|found| rest.starts_with(**found)) {
            found.len()
        } else if first.is_numeric() {
            first.len_utf8()
        } else if first.is_alphabetic() {
            rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len())
        } else {
            rest.find(|c: char| c.is_alphabetic() || c.is_numeric() || c.is_whitespace())
                .unwrap_or(rest.len())
        };
        words.push(rest[..length].to_owned());
        rest = rest[length..].trim_start();
    }
    words
}

/// Byte symbols of one word, the last one carrying the end mark.
fn symbols(word: &str, table: &HashMap<u8, char>) -> Vec<String> {
    let mut symbols: Vec<String> = word.bytes().map(|byte| table[&byte].to_string()).collect();
    if let Some(last) = symbols.last_mut() {
        last.push_str(WORD_END);
    }
    symbols
}

/// Replaces every occurrence of `pair`, left to right.
fn merge(symbols: &mut Vec<String>, pair: &(String, String)) {
    let mut index = 0;
    while index + 1 < symbols.len() {
        if symbols[index] == pair.0 && symbols[index + 1] == pair.1 {
            let second = symbols.remove(index + 1);
            symbols[index].push_str(&second);
        }
        index += 1;
    }
}

/// Learns a vocabulary from texts with weights: repeatedly merge the heaviest pair, the smallest pair on a tie.
///
/// # Errors
/// When the texts hold too few distinct pairs for [`N_ENTRIES`].
pub fn learn<'a>(texts: impl IntoIterator<Item = (&'a str, u64)>) -> Result<Bpe> {
    let bytes = byte_symbols();
    let table: HashMap<u8, char> = bytes.iter().copied().collect();
    let mut weights: BTreeMap<String, u64> = BTreeMap::new();
    for (text, weight) in texts {
        for word in words(text) {
            *weights.entry(word).or_default() += weight;
        }
    }
    let mut corpus: Vec<(Vec<String>, u64)> =
        weights.iter().map(|(word, weight)| (symbols(word, &table), *weight)).collect();

    let plain = bytes.iter().map(|(_, symbol)| symbol.to_string());
    let ending = bytes.iter().map(|(_, symbol)| format!("{symbol}{WORD_END}"));
    let mut entries: Vec<String> = plain.chain(ending).collect();
    let mut merges = Vec::new();
    while entries.len() + 2 < N_ENTRIES {
        let pair = heaviest_pair(&corpus).context("the texts hold too few pairs for the vocabulary")?;
        for (symbols, _) in &mut corpus {
            merge(symbols, &pair);
        }
        entries.push(format!("{}{}", pair.0, pair.1));
        merges.push(pair);
    }
    entries.extend([START.to_owned(), END.to_owned()]);
    let distinct: std::collections::BTreeSet<&String> = entries.iter().collect();
    ensure!(distinct.len() == entries.len(), "two merges spell the same entry");
    Ok(Bpe { entries, merges })
}

fn heaviest_pair(corpus: &[(Vec<String>, u64)]) -> Option<(String, String)> {
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for (symbols, weight) in corpus {
        for pair in symbols.windows(2) {
            *counts.entry((&pair[0], &pair[1])).or_default() += weight;
        }
    }
    // `max_by_key` keeps the last of equals, so the reversed walk of the sorted map keeps the smallest pair.
    let (pair, _) = counts.into_iter().rev().max_by_key(|(_, weight)| *weight)?;
    Some((pair.0.to_owned(), pair.1.to_owned()))
}

impl Bpe {
    /// Reads a vocabulary back from the two files' texts.
    ///
    /// # Errors
    /// When an id is missing or a merge is not two symbols.
    pub fn parse(vocab: &str, merges: &str) -> Result<Self> {
        let ids: BTreeMap<String, usize> = serde_json::from_str(vocab).context("vocab.json")?;
        let mut entries = vec![String::new(); ids.len()];
        for (entry, id) in ids {
            let slot = entries.get_mut(id).with_context(|| format!("id {id} of {entry:?} leaves a gap"))?;
            ensure!(slot.is_empty(), "id {id} is given twice");
            *slot = entry;
        }
        let merges = merges
            .lines()
            .skip(1)
            .map(|line| {
                let (left, right) = line.split_once(' ').with_context(|| format!("merge {line:?}"))?;
                Ok((left.to_owned(), right.to_owned()))
            })
            .collect::<Result<_>>()?;
        Ok(Self { entries, merges })
    }

    /// Ids of `text` without the special tokens.
    ///
    /// # Errors
    /// When a symbol is not in the vocabulary, which a complete vocabulary never meets.
    pub fn encode(&self, text: &str) -> Result<Vec<usize>> {
        let table: HashMap<u8, char> = byte_symbols().into_iter().collect();
        let ids: HashMap<&str, usize> =
            self.entries.iter().enumerate().map(|(id, entry)| (entry.as_str(), id)).collect();
        let mut encoded = Vec::new();
        for word in words(text) {
            let mut symbols = symbols(&word, &table);
            // Ranks only grow along the list, so one walk in order equals CLIP's repeated search for the lowest rank.
            for pair in &self.merges {
                merge(&mut symbols, pair);
            }
            for symbol in symbols {
                encoded.push(*ids.get(symbol.as_str()).with_context(|| format!("no entry {symbol:?}"))?);
            }
        }
        Ok(encoded)
    }

    /// Text of `ids`, words separated by one space.
    ///
    /// # Errors
    /// When an id is out of range or the bytes are not UTF-8.
    pub fn decode(&self, ids: &[usize]) -> Result<String> {
        let table: HashMap<char, u8> =
            byte_symbols().into_iter().map(|(byte, symbol)| (symbol, byte)).collect();
        let mut spelled = String::new();
        for id in ids {
            spelled.push_str(self.entries.get(*id).with_context(|| format!("no entry has id {id}"))?);
        }
        let mut decoded = Vec::new();
        for word in spelled.split_terminator(WORD_END) {
            let bytes: Vec<u8> = word.chars().filter_map(|symbol| table.get(&symbol).copied()).collect();
            decoded.push(String::from_utf8(bytes).context("decoding bytes")?);
        }
        Ok(decoded.join(" "))
    }

    /// `vocab.json`: entry to id, one line per entry.
    ///
    /// # Errors
    /// Never in practice: strings always encode.
    pub fn vocab_json(&self) -> Result<String> {
        let map: serde_json::Map<String, serde_json::Value> =
            self.entries.iter().enumerate().map(|(id, entry)| (entry.clone(), id.into())).collect();
        let mut text = serde_json::to_string_pretty(&map).context("encoding the vocabulary")?;
        text.push('\n');
        Ok(text)
    }

    /// `merges.txt`, with CLIP's version line.
    pub fn merges_txt(&self) -> String {
        let lines = self.merges.iter().map(|(left, right)| format!("{left} {right}\n"));
        std::iter::once("#version: 0.2\n".to_owned()).chain(lines).collect()
    }
}
