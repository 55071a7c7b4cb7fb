//! What a cache was made from.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_store::checksum::sha256_bytes;

use crate::buckets::Frames;

/// Element type of what is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Element {
    /// IEEE single precision.
    #[default]
    Float32,
    /// IEEE half precision.
    Float16,
    /// bfloat16.
    Bfloat16,
}

/// Everything that the contents of a cache depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Version of the layout.
    pub format: u32,
    /// Fingerprint of the set of pairs, hexadecimal.
    pub pairs: String,
    /// How many pairs it has.
    pub n_pairs: u64,
    /// What images are cut to.
    pub frames: Frames,
    /// Whether flipped images are there too.
    pub flipped: bool,
    /// How latents were made.
    pub latents: LatentKey,
    /// How captions were encoded; `None` where their encoders learn.
    pub text: Option<TextKey>,
}

/// How latents were made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatentKey {
    /// SHA-256 over the VAE's configuration and weights.
    pub vae: String,
    /// Images per forward pass, which may show in the last bits.
    pub batch_size: usize,
    /// What they are stored as; they are computed in float32.
    pub dtype: Element,
}

/// How captions were encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextKey {
    /// SHA-256 over tokenizers, configurations and weights.
    pub encoders: String,
    /// What they were computed in and are stored as.
    pub dtype: Element,
}

impl Key {
    /// Version of the layout that this code reads and writes.
    pub const FORMAT: u32 = 1;

    /// Names the key: SHA-256 of its JSON, hexadecimal.
    pub fn digest(&self) -> String {
        sha256_bytes(self.json().as_bytes())
    }

    /// What is written to `key.json`.
    pub fn json(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        format!("{value:#}\n")
    }

    /// Where two keys differ, in words: `frames.resolution is 512 there and 768 here`.
    pub fn differences(there: &Self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let value = |key: &Self| serde_json::to_value(key).unwrap_or_default();
        compare("", &value(there), &value(here), &mut found);
        found
    }
}

fn compare(name: &str, there: &Value, here: &Value, found: &mut Vec<String>) {
    match (there, here) {
        (Value::Object(a), Value::Object(b)) => {
            for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                let inner = if name.is_empty() { key.clone() } else { format!("{name}.{key}") };
                let part =
                    |object: &serde_json::Map<String, Value>| object.get(key).cloned().unwrap_or_default();
                compare(&inner, &part(a), &part(b), found);
            }
        }
        _ if there == here => {}
        _ => found.push(format!("{name} is {there} there and {here} here")),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn key() -> Key {
        Key {
            format: Key::FORMAT,
            pairs: "ab".repeat(32),
            n_pairs: 600,
            frames: Frames { resolution: 64, buckets: None },
            flipped: true,
            latents: LatentKey { vae: "cd".repeat(32), batch_size: 8, dtype: Element::Float32 },
            text: Some(TextKey { encoders: "ef".repeat(32), dtype: Element::Bfloat16 }),
        }
    }

    #[test]
    fn a_key_survives_the_way_to_json_and_back() {
        assert_eq!(serde_json::from_str::<Key>(&key().json()).unwrap(), key());
    }

    #[test]
    fn differences_are_named() {
        let mut here = key();
        here.frames.resolution = 96;
        here.text = None;
        let found = Key::differences(&key(), &here);
        assert_eq!(found[0], "frames.resolution is 64 there and 96 here");
        assert!(found[1].starts_with("text is {") && found[1].ends_with("there and null here"), "{found:?}");
        assert_eq!(Key::differences(&here, &here), Vec::<String>::new());
        assert_ne!(here.digest(), key().digest());
    }
}
