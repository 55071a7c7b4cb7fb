//! The values of settings that are words.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::SeqAccessDeserializer;
use serde::de::{self, IntoDeserializer, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The layouts of a trained model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OutputLayout {
    /// A whole folder, as diffusers writes it.
    #[default]
    Diffusers,
    /// The network alone, as diffusers writes it: a UNet, or the transformer in its place.
    Unet,
    /// One file under the names of the original Stable Diffusion code.
    Original,
}

/// Which weights are trained.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdapterKind {
    /// Low-rank additions to named layers.
    #[default]
    Lora,
    /// Every weight of the network.
    Full,
}

/// The optimizer, named as in kohya's scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW, its moments in f32.
    #[default]
    AdamW,
    /// AdamW, its moments in blocks of 8-bit codes.
    AdamW8bit,
    /// Adafactor at a given learning rate, as the SDXL recipe of Diffusion-DPO uses it.
    Adafactor,
}

/// Where the reference's errors come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReferenceKind {
    /// From a frozen network in memory, or from the policy with its adapter off.
    #[default]
    Live,
    /// Computed before the first step; no reference is in memory during training.
    #[serde(alias = "bank")]
    Precomputed,
}

/// Whether winner and loser are augmented alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Augment {
    /// Each draws its own flip and crop.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py, which transforms each image on its own.
    #[default]
    Independent,
    /// Both are flipped or not, and cut at the same place.
    ///
    /// Source: diffusers train_diffusion_dpo_sdxl.py, which transforms both images at once.
    Joint,
}

/// SDXL micro-conditioning on an image's size, crop and target size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimeIds {
    /// That of an uncropped square image of the training resolution, for every pair.
    ///
    /// Source: SalesforceAIResearch/DiffusionDPO train.py.
    #[default]
    Constant,
    /// The winner's size as stored and where its square was cut out, for both images of a pair: what conditions them must not
    /// tell them apart.
    ///
    /// Source: diffusers train_diffusion_dpo_sdxl.py and mapo-t2i/mapo train.py, which take the first image's sizes
    /// whichever won.
    Real,
}

/// Where metrics go beside `events.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracker {
    /// TensorBoard, by its event files.
    #[default]
    Tensorboard,
    /// Nowhere.
    None,
}

/// Reads a word as a list of one.
pub(super) fn one_or_more<'de, T: Deserialize<'de>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    struct Words<T>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Words<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a word or a list of words")
        }

        fn visit_str<E: de::Error>(self, word: &str) -> Result<Self::Value, E> {
            T::deserialize(word.into_deserializer()).map(|value| vec![value])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, words: A) -> Result<Self::Value, A::Error> {
            Vec::deserialize(SeqAccessDeserializer::new(words))
        }
    }

    deserializer.deserialize_any(Words(PhantomData)).map(Some)
}

/// How captions are held out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HeldOutChoice {
    /// Each by itself, with the fraction as probability: what plans mean that do not say.
    #[default]
    Drawn,
    /// As many as the fraction says.
    Counted,
}

/// How the noise levels that a flow model is trained at are drawn, in the words of the field's scripts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TimestepDensity {
    /// Every entry of the training table alike.
    #[default]
    Uniform,
    /// SD3's.
    LogitNormal,
    /// The other of the same paper.
    Mode,
    /// A sigmoid of a normal number, shifted.
    Sigmoid,
    /// Normal in the log-signal-to-noise ratio.
    Logsnr,
}
