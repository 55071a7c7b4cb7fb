//! `CLIPTextModel` and `CLIPTextModelWithProjection` of transformers: the text encoders of SD1.x, SD2.x and SDXL.

mod config;
mod encoder;
mod keys;
mod model;

pub use config::{Activation, ClipTextConfig, Pooling};
pub(crate) use config::{EncoderShape, annotations, encoder_shape};
pub(crate) use encoder::Encoder;
pub(crate) use keys::{POSITION_IDS, open_clip_block};
pub use keys::{modern_name, open_clip as open_clip_place};
pub use model::{ClipText, ClipTextOutput};
