//! The network.
//!
//! Shapes: b batch, s image side, m patches, c width, p width of the projection.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/modeling_clip.py`.

use tastemaker_store::dtype::DType;
use tastemaker_torch::kind_of;
use tch::{Kind, Tensor};

use super::config::ClipVisionConfig;
use crate::clip_text::Encoder;
use crate::nn::{Conv2d, ConvShape, Embedding, Init, LayerNorm, Linear, Param, Scope};

/// The image tower's results for a batch of images, in the compute type.
#[derive(Debug)]
pub struct ClipVisionOutput {
    /// The embedded patches, then what leaves each layer: `[b, 1 + m, c]` each, the class position first.
    pub hidden_states: Vec<Tensor>,
    /// The class position of the last hidden state, normalized, `[b, c]`.
    pub pooled: Tensor,
    /// The projection of `pooled`, not normalized to unit length, `[b, p]`.
    pub projected: Tensor,
}

/// `CLIPVisionModelWithProjection`.
#[derive(Debug)]
pub struct ClipVision {
    config: ClipVisionConfig,
    compute: Kind,
    class_embedding: Param,
    patch_embedding: Conv2d,
    position_embedding: Embedding,
    pre_layrnorm: LayerNorm,
    encoder: Encoder,
    post_layernorm: LayerNorm,
    visual_projection: Linear,
}

impl ClipVision {
    /// Builds the network from the parameters of `scope`, whose names carry the `vision_model.` prefix
    /// ([`modern_name`](super::modern_name)).
    pub fn new(scope: Scope<'_>, config: ClipVisionConfig, precision: DType) -> Self {
        let width = config.encoder.width;
        let model = scope.sub("vision_model");
        let embeddings = model.sub("embeddings");
        let norm = |name: &str| LayerNorm::new(model.sub(name), width, config.encoder.eps);
        let patches = ConvShape {
            n_in: config.num_channels,
            n_out: width,
            kernel: config.patch_size,
            stride: config.patch_size,
            padding: 0,
        };
        Self {
            compute: kind_of(precision),
            class_embedding: embeddings.param(
                "class_embedding",
                &[width],
                Init::Normal((width as f64).powf(-0.5)),
            ),
            patch_embedding: Conv2d::without_bias(embeddings.sub("patch_embedding"), patches),
            position_embedding: Embedding::new(
                embeddings.sub("position_embedding"),
                config.n_patches() + 1,
                width,
            ),
            pre_layrnorm: norm("pre_layrnorm"), // spelled so in every checkpoint
            encoder: Encoder::new(model.sub("encoder"), &config.encoder, false),
            post_layernorm: norm("post_layernorm"),
            visual_projection: Linear::without_bias(
                scope.sub("visual_projection"),
                width,
                config.projection_dim,
            ),
            config,
        }
    }

    /// The network's configuration.
    pub fn config(&self) -> &ClipVisionConfig {
        &self.config
    }

    /// Encodes images that are already resized and normalized as the network's image processor says.
    ///
    /// # Shapes
    /// `[b, num_channels, s, s]` with s equal to `image_size`.
    pub fn forward(&self, images: &Tensor) -> ClipVisionOutput {
        let patches = self.patch_embedding.forward(&images.to_kind(self.compute)); // [b, c, s', s']
        let patches = patches.flatten(2, -1).transpose(1, 2); // [b, m, c]
        let (b, _, c) = patches.size3().expect("patches are three-dimensional");
        let class = self.class_embedding.value().expand([b, 1, c], false);
        let embedded = Tensor::cat(&[class, patches], 1) + self.position_embedding.table(); // [b, 1 + m, c]
        let hidden_states = self.encoder.forward(self.pre_layrnorm.forward(&embedded));
        let pooled = self.post_layernorm.forward(&hidden_states[hidden_states.len() - 1].select(1, 0));
        let projected = self.visual_projection.forward(&pooled);
        ClipVisionOutput { hidden_states, pooled, projected }
    }
}
