//! The network.
//!
//! Shapes: b batch, n tokens, c width, p width of the projection.
//!
//! Source: `huggingface/transformers:src/transformers/models/clip/modeling_clip.py`.

use tch::{Kind, Tensor};

use super::config::{ClipTextConfig, Pooling};
use super::encoder::Encoder;
use crate::nn::{Embedding, LayerNorm, Linear, Scope};

/// The text encoder's results for a batch of prompts, in the compute type.
#[derive(Debug)]
pub struct ClipTextOutput {
    /// The embedded tokens, then what leaves each layer, without the final normalization: `[b, n, c]` each.
    pub hidden_states: Vec<Tensor>,
    /// The last hidden state after the final normalization, `[b, n, c]`.
    pub last_hidden_state: Tensor,
    /// `last_hidden_state` at the end of the text, `[b, c]`.
    pub pooled: Tensor,
    /// The projection of `pooled`, `[b, p]`, where the network has one.
    pub projected: Option<Tensor>,
}

impl ClipTextOutput {
    /// What enters the last layer: SDXL's `hidden_states[-2]`, `[b, n, c]`.
    pub fn penultimate(&self) -> &Tensor {
        &self.hidden_states[self.hidden_states.len() - 2]
    }
}

/// `CLIPTextModel`, or with a projection `CLIPTextModelWithProjection`.
#[derive(Debug)]
pub struct ClipText {
    config: ClipTextConfig,
    token_embedding: Embedding,
    position_embedding: Embedding,
    encoder: Encoder,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}

impl ClipText {
    /// Builds the network from the parameters of `scope`, whose names carry the `text_model.` prefix
    /// ([`modern_name`](super::modern_name)).
    pub fn new(scope: Scope<'_>, config: ClipTextConfig) -> Self {
        let model = scope.sub("text_model");
        let embeddings = model.sub("embeddings");
        let table = |name: &str, n: i64| Embedding::new(embeddings.sub(name), n, config.encoder.width);
        Self {
            token_embedding: table("token_embedding", config.vocab_size),
            position_embedding: table("position_embedding", config.max_position_embeddings),
            encoder: Encoder::new(model.sub("encoder"), &config.encoder, true),
            final_layer_norm: LayerNorm::new(
                model.sub("final_layer_norm"),
                config.encoder.width,
                config.encoder.eps,
            ),
            text_projection: config.with_projection.then(|| {
                Linear::without_bias(
                    scope.sub("text_projection"),
                    config.encoder.width,
                    config.projection_dim,
                )
            }),
            config,
        }
    }

    /// The network's configuration.
    pub fn config(&self) -> &ClipTextConfig {
        &self.config
    }

    /// Encodes token ids.
    ///
    /// # Shapes
    /// `ids` `[b, n]` int64 with n at most `max_position_embeddings`, every id below `vocab_size`.
    pub fn forward(&self, ids: &Tensor) -> ClipTextOutput {
        let (_, n) = ids.size2().expect("token ids are two-dimensional");
        let positions = self.position_embedding.table().narrow(0, 0, n);
        let hidden_states = self.encoder.forward(self.token_embedding.forward(ids) + positions);
        let last_hidden_state = self.final_layer_norm.forward(&hidden_states[hidden_states.len() - 1]);
        let pooled = at(&last_hidden_state, &self.end_of_text(ids));
        let projected = self.text_projection.as_ref().map(|projection| projection.forward(&pooled));
        ClipTextOutput { hidden_states, last_hidden_state, pooled, projected }
    }

    /// Where each prompt ends, `[b]`; the first position if it has no end.
    fn end_of_text(&self, ids: &Tensor) -> Tensor {
        // The argmax of equal values is the first of them.
        match self.config.pooling {
            Pooling::HighestId => ids.argmax(-1, false),
            Pooling::First(id) => ids.eq(id).to_kind(Kind::Int).argmax(-1, false),
        }
    }
}

/// The vector at one position of each row: `[b, n, c]` and `[b]` to `[b, c]`.
fn at(states: &Tensor, position: &Tensor) -> Tensor {
    let (b, _, c) = states.size3().expect("hidden states are three-dimensional");
    states.gather(1, &position.view([b, 1, 1]).expand([b, 1, c], false), false).squeeze_dim(1)
}
