//! What a cache was made from.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tastemaker_store::checksum::sha256_bytes;
use tastemaker_store::dtype::DType;

use crate::buckets::BucketResolutions;

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
    /// What images are resized and cropped to.
    #[serde(alias = "frames")]
    pub images: BucketResolutions,
    /// Whether horizontally flipped images are there too.
    #[serde(alias = "mirrored")]
    pub hflip: bool,
    /// How latents were made.
    pub latents: LatentKey,
    /// How captions were encoded; `None` where their encoders are trained.
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
    /// What they are stored as; they are computed in fp32.
    pub dtype: DType,
    /// Revision of what made pixels of images, [`PairSource::decoder`](crate::PairSource::decoder); caches of earlier versions
    /// have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decoder: Option<u32>,
}

/// How captions were encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextKey {
    /// SHA-256 over tokenizers, configurations and weights.
    pub encoders: String,
    /// What they were computed in and are stored as.
    pub dtype: DType,
}

impl Key {
    /// Version of the layout that this code writes. It reads version 1 too, which has other names for the same.
    pub const FORMAT: u32 = 2;

    /// Reads what [`json`](Self::json) wrote, or the same of version 1.
    ///
    /// # Errors
    /// [`serde_json::Error`] if it is something else.
    pub fn parse(value: Value) -> Result<Self, serde_json::Error> {
        let mut key: Self = serde_json::from_value(value)?;
        if key.format == 1 {
            key.format = Self::FORMAT;
        }
        Ok(key)
    }

    /// The key that earlier versions had, which did not say how images are decoded.
    pub fn without_decoder(&self) -> Self {
        let latents = LatentKey { decoder: None, ..self.latents.clone() };
        Self { latents, ..self.clone() }
    }

    /// Names the key: SHA-256 of its JSON, hexadecimal. It is spelled as in version 1, so that caches named after it are found.
    pub fn digest(&self) -> String {
        let value = in_version_1(serde_json::to_value(self).unwrap_or_default());
        sha256_bytes(format!("{value:#}\n").as_bytes())
    }

    /// What is written to `key.json`.
    pub fn json(&self) -> String {
        let value = serde_json::to_value(self).unwrap_or_default();
        format!("{value:#}\n")
    }

    /// Where two keys differ, in words: `images.resolution is 512 there and 768 here`.
    pub fn differences(there: &Self, here: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let value = |key: &Self| serde_json::to_value(key).unwrap_or_default();
        compare("", &value(there), &value(here), &mut found);
        found
    }
}

fn in_version_1(value: Value) -> Value {
    let Value::Object(fields) = value else { return value };
    let fields = fields.into_iter().map(|(name, value)| match name.as_str() {
        "format" => (name, 1.into()),
        "images" => ("frames".to_owned(), value),
        "hflip" => ("mirrored".to_owned(), value),
        "dtype" => match serde_json::from_value::<DType>(value) {
            Ok(dtype) => (name, dtype.long_name().into()),
            Err(_) => (name, Value::Null),
        },
        _ => (name, in_version_1(value)),
    });
    Value::Object(fields.collect())
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
        _ if name == "latents.decoder" => {
            found.push(
                "its images were decoded by another version, to other pixels where they are JPEG".into(),
            );
        }
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
            images: BucketResolutions { resolution: 64, buckets: None },
            hflip: true,
            latents: LatentKey { vae: "cd".repeat(32), batch_size: 8, dtype: DType::F32, decoder: None },
            text: Some(TextKey { encoders: "ef".repeat(32), dtype: DType::Bf16 }),
        }
    }

    #[test]
    fn a_key_survives_the_way_to_json_and_back() {
        assert_eq!(Key::parse(serde_json::from_str(&key().json()).unwrap()).unwrap(), key());
    }

    #[test]
    fn a_key_of_version_1_is_the_same_key_and_has_the_same_digest() {
        let old = format!(
            r#"{{
  "format": 1,
  "pairs": "{}",
  "n_pairs": 600,
  "frames": {{
    "resolution": 64
  }},
  "mirrored": true,
  "latents": {{
    "vae": "{}",
    "batch_size": 8,
    "dtype": "float32"
  }},
  "text": {{
    "encoders": "{}",
    "dtype": "bfloat16"
  }}
}}
"#,
            "ab".repeat(32),
            "cd".repeat(32),
            "ef".repeat(32)
        );
        assert_eq!(Key::parse(serde_json::from_str(&old).unwrap()).unwrap(), key());
        assert_eq!(key().digest(), sha256_bytes(old.as_bytes()));
    }

    #[test]
    fn a_key_that_names_a_decoder_is_another_key() {
        let mut here = key();
        here.latents.decoder = Some(2);
        assert_ne!(here.digest(), key().digest());
        assert_eq!(here.without_decoder(), key());
        assert_eq!(Key::parse(serde_json::from_str(&here.json()).unwrap()).unwrap(), here);
        let found = Key::differences(&key(), &here);
        assert_eq!(
            found,
            ["its images were decoded by another version, to other pixels where they are JPEG"]
        );
    }

    #[test]
    fn differences_are_named() {
        let mut here = key();
        here.images.resolution = 96;
        here.text = None;
        let found = Key::differences(&key(), &here);
        assert_eq!(found[0], "images.resolution is 64 there and 96 here");
        assert!(found[1].starts_with("text is {") && found[1].ends_with("there and null here"), "{found:?}");
        assert_eq!(Key::differences(&here, &here), Vec::<String>::new());
        assert_ne!(here.digest(), key().digest());
    }
}
