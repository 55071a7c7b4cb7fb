//! Layers that know their diffusers name, their precision and their adapter.

mod attention;
mod conv;
mod embedding;
mod linear;
mod lora;
mod norm;
mod param;
mod ranks;
mod time;
mod weights;

pub(crate) use attention::{attend, attend_causally, keeps_scores};
pub use conv::{Conv2d, ConvShape};
pub use embedding::Embedding;
pub use linear::Linear;
pub use lora::{AdapterSwitch, Factors, Lora, LoraSpec, is_target};
pub(crate) use norm::layer_norm;
pub use norm::{GroupNorm, LayerNorm, RmsNorm};
pub use param::{Param, Trainable};
pub use ranks::{MAX_ALPHA, Ranks};
pub(crate) use time::{TimestepEmbedding, sinusoids};
pub use weights::{Init, Role, Scope, TensorSource, Weights, WeightsReport, is_large};
