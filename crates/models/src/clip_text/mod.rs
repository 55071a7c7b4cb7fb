//! `CLIPTextModel` and `CLIPTextModelWithProjection` of transformers: the text encoders of SD1.x, SD2.x and SDXL.

mod config;
mod encoder;
mod keys;
mod model;

pub use config::{Activation, ClipTextConfig, Pooling};
pub(crate) use config::{EncoderShape, annotations, encoder_shape};
pub(crate) use encoder::Encoder;
pub use keys::modern_names;
pub(crate) use keys::under_prefix;
pub use model::{ClipText, ClipTextOutput};
