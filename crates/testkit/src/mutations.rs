//! JSON files and files with a JSON header, damaged by number: the same number always does the same.

use serde_json::{Map, Value, json};

/// Numbers out of a seed (splitmix64).
struct Draw(u64);

impl Draw {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }
}

/// Keys that configurations of models give a meaning to, so that damage can also add what was not there.
const KEYS: [&str; 12] = [
    "addition_embed_type",
    "addition_time_embed_dim",
    "projection_class_embeddings_input_dim",
    "num_attention_heads",
    "transformer_layers_per_block",
    "added_tokens_decoder",
    "additional_special_tokens",
    "rescale_betas_zero_snr",
    "prediction_type",
    "quantization_config",
    "shape",
    "data_offsets",
];

/// The text of a JSON file damaged once or twice: a value swapped for another type, for a huge or a negative number, for
/// something deeply nested or long; a key taken out, doubled or added; bytes flipped, cut out or cut off.
///
/// # Panics
/// When `text` is empty.
pub fn mutated_json(text: &[u8], number: u64) -> Vec<u8> {
    let mut draw = Draw(number.wrapping_mul(0x2545_f491_4f6c_dd1d));
    let times = 1 + draw.below(2);
    (0..times).fold(text.to_vec(), |bytes, _| damage(&bytes, &mut draw))
}

/// A safetensors file whose header is damaged as [`mutated_json`] does; its length is put right in most of them, and now and
/// then the file is cut.
///
/// # Panics
/// When `file` is no safetensors file.
pub fn mutated_safetensors(file: &[u8], number: u64) -> Vec<u8> {
    let length = u64::from_le_bytes(file[..8].try_into().expect("eight bytes")) as usize;
    let mut header = mutated_json(&file[8..8 + length], number);
    let mut draw = Draw(number);
    let claimed = match draw.below(16) {
        0 => draw.next(),
        1 => length as u64,
        _ => header.len() as u64,
    };
    header.splice(0..0, claimed.to_le_bytes());
    header.extend_from_slice(&file[8 + length..]);
    if draw.below(16) == 0 {
        header.truncate(draw.below(header.len()));
    }
    header
}

fn damage(bytes: &[u8], draw: &mut Draw) -> Vec<u8> {
    match serde_json::from_slice::<Value>(bytes) {
        Ok(mut value) if draw.below(4) > 0 => {
            let other = anything(draw);
            swap(&mut value, draw, other);
            // Nesting beyond what the parser takes is put in as text.
            value
                .to_string()
                .replace("\"<deep>\"", &format!("{}{}", "[".repeat(100_000), "]".repeat(9)))
                .into()
        }
        _ => in_bytes(bytes.to_vec(), draw),
    }
}

fn anything(draw: &mut Draw) -> Value {
    let huge = [
        json!(1_000_000_000_000_000_000i64),
        json!(i64::MAX),
        json!(i64::MIN),
        json!(u64::MAX),
        json!(1e308),
        json!(-1e308),
        json!(1e-308),
        json!(4_294_967_296i64),
        json!(16_777_216),
    ];
    match draw.below(12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!("x"),
        3 => json!([]),
        4 => json!({}),
        5 => json!(0),
        6 => json!(-1),
        7 => json!("<deep>"),
        8 => Value::Array(vec![json!(1); 10_000]),
        9 => json!("\u{0}../".repeat(1000)),
        10 => json!([draw.of(&huge), draw.of(&huge)]),
        _ => draw.of(&huge).clone(),
    }
}

/// Puts `other` somewhere into a value.
fn swap(value: &mut Value, draw: &mut Draw, other: Value) {
    let deeper = draw.below(3) > 0;
    match value {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(draw.below(map.len())).cloned().unwrap_or_default();
            match draw.below(8) {
                0 => drop(map.remove(&key)),
                1 => drop(map.insert((*draw.of(&KEYS)).to_owned(), other)),
                2 => renamed(map, &key),
                _ => swap(&mut map[&key], draw, other),
            }
        }
        Value::Array(list) if !list.is_empty() && deeper => {
            let at = draw.below(list.len());
            if draw.below(4) == 0 { list.push(other) } else { swap(&mut list[at], draw, other) }
        }
        _ => *value = other,
    }
}

fn renamed(map: &mut Map<String, Value>, key: &str) {
    if let Some(value) = map.remove(key) {
        map.insert(format!("{key}\u{e9}"), value);
    }
}

fn in_bytes(mut bytes: Vec<u8>, draw: &mut Draw) -> Vec<u8> {
    const PIECES: [&[u8]; 8] =
        [b"{", b"]", b"\"", b"\\ud800", b"1e999", b"18446744073709551616", b"\xff", b"null"];
    let at = draw.below(bytes.len());
    match draw.below(4) {
        0 => bytes.truncate(at),
        1 => drop(bytes.splice(at..at, draw.of(&PIECES).iter().copied())),
        2 => {
            let end = (at + 1 + draw.below(30)).min(bytes.len());
            drop(bytes.drain(at..end));
        }
        _ => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << draw.below(8);
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_does_the_same_and_another_something_else() {
        let text = br#"{"a": [1, 2, {"b": "c"}], "d": 0.5}"#;
        let all: std::collections::BTreeSet<_> = (0..50).map(|number| mutated_json(text, number)).collect();
        assert!(all.len() > 30, "{}", all.len());
        assert_eq!(mutated_json(text, 7), mutated_json(text, 7));
    }
}
