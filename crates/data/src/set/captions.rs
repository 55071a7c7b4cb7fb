//! Many short texts in little memory.

use std::hash::{BuildHasher, RandomState};

use hashbrown::HashTable;

/// Texts one after the other; the i-th one is found at once.
#[derive(Debug, Clone, Default)]
pub struct Strings {
    text: String,
    ends: Vec<u64>,
}

impl Strings {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The i-th text.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn get(&self, i: usize) -> &str {
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.text[start as usize..self.ends[i] as usize]
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        (0..self.len()).map(|i| self.get(i))
    }

    /// Appends a text and returns its number.
    pub fn push(&mut self, text: &str) -> u32 {
        self.text.push_str(text);
        self.ends.push(self.text.len() as u64);
        (self.ends.len() - 1) as u32
    }
}

/// Collects texts of which many are equal; each is kept once.
#[derive(Debug, Default)]
pub(super) struct Interned {
    strings: Strings,
    table: HashTable<u32>,
    hasher: RandomState,
}

impl Interned {
    /// The number of a text, the same for equal ones.
    pub fn number(&mut self, text: &str) -> u32 {
        let Self { strings, table, hasher } = self;
        let hash = hasher.hash_one(text);
        if let Some(&number) = table.find(hash, |&number| strings.get(number as usize) == text) {
            return number;
        }
        let number = strings.push(text);
        table.insert_unique(hash, number, |&number| hasher.hash_one(strings.get(number as usize)));
        number
    }

    /// Bytes of all texts.
    pub fn bytes(&self) -> usize {
        self.strings.text.len()
    }

    pub fn into_strings(mut self) -> Strings {
        self.strings.text.shrink_to_fit();
        self.strings.ends.shrink_to_fit();
        self.strings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_texts_have_one_number_and_are_kept_once() {
        let mut texts = Interned::default();
        let numbers: Vec<u32> = ["a fox", "", "a fox", "é", ""].map(|text| texts.number(text)).to_vec();
        assert_eq!(numbers, [0, 1, 0, 2, 1]);
        let strings = texts.into_strings();
        assert_eq!(strings.iter().collect::<Vec<_>>(), ["a fox", "", "é"]);
    }
}
