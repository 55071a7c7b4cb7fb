//! The network.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/modeling_clip.py`, `CLIPModel`.

use tastemaker_store::dtype::DType;
use tch::{Kind, Tensor};

use super::config::ClipConfig;
use super::keys::LOGIT_SCALE;
use crate::clip_text::ClipText;
use crate::clip_vision::ClipVision;
use crate::nn::{Init, Scope};

/// Both towers of a CLIP.
#[derive(Debug)]
pub struct Clip {
    /// The text tower.
    pub text: ClipText,
    /// The image tower.
    pub vision: ClipVision,
}

impl Clip {
    /// Builds the network from the parameters of `scope`, under transformers' names.
    pub fn new(scope: Scope<'_>, config: &ClipConfig, precision: DType) -> Self {
        // The scale is in every checkpoint, and cosines do without: `ClipFiles::scale` reads it in full precision.
        drop(scope.param(LOGIT_SCALE, &[], Init::Zeros));
        Self {
            text: ClipText::new(scope.clone(), config.text.clone()),
            vision: ClipVision::new(scope.clone(), config.vision.clone(), precision),
        }
    }

    /// Unit vectors of images.
    ///
    /// # Shapes
    /// As [`ClipVision::forward`], to `[b, p]` in f32.
    pub fn embed_images(&self, images: &Tensor) -> Tensor {
        unit(&self.vision.forward(images).projected)
    }

    /// Unit vectors of prompts.
    ///
    /// # Shapes
    /// As [`ClipText::forward`], to `[b, p]` in f32.
    ///
    /// # Panics
    /// If the text tower was built without its projection, which [`ClipConfig`] always has.
    pub fn embed_text(&self, ids: &Tensor) -> Tensor {
        unit(&self.text.forward(ids).projected.expect("both towers project"))
    }
}

fn unit(x: &Tensor) -> Tensor {
    let x = x.to_kind(Kind::Float);
    &x / x.norm_scalaropt_dim(2.0, [-1i64], true)
}
