//! Element types of weights, activations and cached numbers.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An element type, spelled `fp32`, `fp16` or `bf16` as in the flags of published scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DType {
    /// IEEE single precision.
    #[default]
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl DType {
    /// All, as they are spelled.
    pub const NAMES: [&str; 3] = ["fp32", "fp16", "bf16"];

    /// As it is spelled.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "fp32",
            Self::F16 => "fp16",
            Self::Bf16 => "bf16",
        }
    }

    /// As PyTorch spells it.
    pub fn long_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }

    /// As accelerate's `mixed_precision` spells it, where full precision is `no`.
    pub fn mixed_precision_name(self) -> &'static str {
        if self == Self::F32 { "no" } else { self.name() }
    }

    /// Bytes of one number.
    pub fn bytes(self) -> usize {
        if self == Self::F32 { 4 } else { 2 }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How the frozen weights of a network's large linear layers are held, where not in its compute type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BasePrecision {
    /// bfloat16, whatever the compute type: 16 bits a weight.
    Bf16,
    /// 8-bit integers with a scale for each row, as bitsandbytes' `int8` and quanto's `qint8`: 8 bits.
    Int8,
    /// float8 e4m3 with a scale for each row, as torchao's float8 weight-only: 8 bits.
    Fp8,
    /// 4-bit NormalFloat in blocks of 64 with scales of 8 bits, as bitsandbytes' `nf4` with double quantization: 4.13 bits.
    Nf4,
}

impl BasePrecision {
    /// All, from most bits to least.
    pub const ALL: [Self; 4] = [Self::Bf16, Self::Int8, Self::Fp8, Self::Nf4];

    /// All, as they are spelled.
    pub const NAMES: [&str; 4] = ["bf16", "int8", "fp8", "nf4"];

    /// As it is spelled in flags.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Fp8 => "fp8",
            Self::Nf4 => "nf4",
        }
    }

    /// Bytes of a weight `[rows, columns]`, its scales included.
    pub fn bytes(self, rows: u64, columns: u64) -> u64 {
        let n = rows * columns;
        let blocks = n.div_ceil(64);
        match self {
            Self::Bf16 => 2 * n,
            Self::Int8 | Self::Fp8 => n + 4 * rows,
            Self::Nf4 => n.div_ceil(2) + blocks + 4 * blocks.div_ceil(256) + 4 * 256 + 4,
        }
    }
}

impl fmt::Display for BasePrecision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for BasePrecision {
    type Err = UnknownBasePrecision;

    /// Reads the spellings of other tools, too.
    fn from_str(word: &str) -> Result<Self, UnknownBasePrecision> {
        match word {
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            "int8" | "qint8" | "int8-quanto" | "int8-torchao" => Ok(Self::Int8),
            "fp8" | "float8" | "qfloat8" | "fp8-quanto" | "fp8-torchao" => Ok(Self::Fp8),
            "nf4" | "nf4-bnb" => Ok(Self::Nf4),
            _ => Err(UnknownBasePrecision(word.to_owned())),
        }
    }
}

impl Serialize for BasePrecision {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for BasePrecision {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(|_| de::Error::unknown_variant(&word, &Self::NAMES))
    }
}

/// A word that is no precision of a base.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown base precision {0}, expected one of {names}", names = BasePrecision::NAMES.join(", "))]
pub struct UnknownBasePrecision(String);

/// A word that is no element type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown element type {0}, expected one of {names}", names = DType::NAMES.join(", "))]
pub struct UnknownDType(String);

impl FromStr for DType {
    type Err = UnknownDType;

    /// Reads the spellings of PyTorch and of published scripts, too; `no`, for no mixed precision, is `fp32`.
    fn from_str(word: &str) -> Result<Self, UnknownDType> {
        match word {
            "fp32" | "f32" | "float32" | "float" | "no" => Ok(Self::F32),
            "fp16" | "f16" | "float16" | "half" => Ok(Self::F16),
            "bf16" | "bfloat16" => Ok(Self::Bf16),
            _ => Err(UnknownDType(word.to_owned())),
        }
    }
}

impl Serialize for DType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for DType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map_err(|_| de::Error::unknown_variant(&word, &Self::NAMES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read_and_one_is_written() {
        for (words, dtype) in [
            (&["fp32", "float32", "float", "f32", "no"][..], DType::F32),
            (&["fp16", "float16", "f16"], DType::F16),
            (&["bf16", "bfloat16"], DType::Bf16),
        ] {
            for word in words {
                let read: DType = serde_json::from_str(&format!("\"{word}\"")).expect(word);
                assert_eq!((read, word.parse()), (dtype, Ok(dtype)));
            }
            assert_eq!(serde_json::to_string(&dtype).expect("a word"), format!("\"{}\"", words[0]));
        }
        assert_eq!(
            [DType::F32, DType::F16, DType::Bf16].map(DType::mixed_precision_name),
            ["no", "fp16", "bf16"]
        );
        let error = serde_json::from_str::<DType>("\"fp8\"").expect_err("no such type").to_string();
        assert!(
            error.starts_with("unknown variant `fp8`, expected one of `fp32`, `fp16`, `bf16`"),
            "{error}"
        );
    }
}
