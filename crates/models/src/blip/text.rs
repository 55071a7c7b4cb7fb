//! The text encoder: BERT with a second attention in every layer, from text to image.
//!
//! Shapes: b batch, n tokens, m image positions, c width.
//!
//! Source: `salesforce/BLIP:models/med.py`, `BertModel` in its mode `multimodal`.

use tch::{Kind, Tensor};

use super::config::MedConfig;
use crate::nn::{Embedding, LayerNorm, Linear, Scope, attend};

#[derive(Debug)]
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    dense: Linear,
    norm: LayerNorm,
    n_heads: i64,
}

impl Attention {
    /// `width_in`: of what is attended to.
    fn new(scope: Scope<'_>, config: &MedConfig, width_in: i64) -> Self {
        let (own, output) = (scope.sub("self"), scope.sub("output"));
        Self {
            query: Linear::new(own.sub("query"), config.width, config.width),
            key: Linear::new(own.sub("key"), width_in, config.width),
            value: Linear::new(own.sub("value"), width_in, config.width),
            dense: Linear::closing(output.sub("dense"), config.width, config.width),
            norm: LayerNorm::new(output.sub("LayerNorm"), config.width, config.eps),
            n_heads: config.n_heads,
        }
    }

    /// `hidden` `[b, n]` is true for positions of `to` that are not to be seen.
    fn forward(&self, x: &Tensor, to: &Tensor, hidden: Option<&Tensor>) -> Tensor {
        let (b, n, c) = x.size3().expect("hidden states are three-dimensional");
        let split = |y: Tensor| y.view([b, -1, self.n_heads, c / self.n_heads]).transpose(1, 2); // [b, H, _, e]
        let (q, k, v) = (self.query.forward(x), self.key.forward(to), self.value.forward(to));
        let (q, k, v) = (split(q), split(k), split(v));
        let y = match hidden {
            None => attend(&q, &k, &v, false),
            Some(hidden) => {
                let scores = q.matmul(&k.transpose(-2, -1)) / ((c / self.n_heads) as f64).sqrt();
                let hidden = hidden.unsqueeze(1).unsqueeze(1); // [b, 1, 1, n]
                let scores = scores.masked_fill(&hidden, f64::NEG_INFINITY);
                scores.softmax(-1, Kind::Float).to_kind(v.kind()).matmul(&v)
            }
        };
        self.norm.forward(&(self.dense.forward(&y.transpose(1, 2).reshape([b, n, c])) + x))
    }
}

#[derive(Debug)]
struct Layer {
    attention: Attention,
    crossattention: Attention,
    intermediate: Linear,
    output: Linear,
    norm: LayerNorm,
}

impl Layer {
    fn new(scope: Scope<'_>, config: &MedConfig, image_width: i64) -> Self {
        let output = scope.sub("output");
        Self {
            attention: Attention::new(scope.sub("attention"), config, config.width),
            crossattention: Attention::new(scope.sub("crossattention"), config, image_width),
            intermediate: Linear::new(
                scope.sub("intermediate").sub("dense"),
                config.width,
                config.intermediate,
            ),
            output: Linear::closing(output.sub("dense"), config.intermediate, config.width),
            norm: LayerNorm::new(output.sub("LayerNorm"), config.width, config.eps),
        }
    }

    fn forward(&self, x: &Tensor, image: &Tensor, hidden: &Tensor) -> Tensor {
        let x = self.attention.forward(x, x, Some(hidden));
        let x = self.crossattention.forward(&x, image, None);
        let y = self.output.forward(&self.intermediate.forward(&x).gelu("none"));
        self.norm.forward(&(y + x))
    }
}

/// The text encoder.
#[derive(Debug)]
pub struct Med {
    word_embeddings: Embedding,
    position_embeddings: Embedding,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Med {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: &MedConfig, image_width: i64) -> Self {
        let embeddings = scope.sub("embeddings");
        let table = |name: &str, n: i64| Embedding::new(embeddings.sub(name), n, config.width);
        let layer = |i: i64| Layer::new(scope.sub("encoder").sub("layer").sub(i), config, image_width);
        Self {
            word_embeddings: table("word_embeddings", config.vocab_size),
            position_embeddings: table("position_embeddings", config.max_position_embeddings),
            norm: LayerNorm::new(embeddings.sub("LayerNorm"), config.width, config.eps),
            layers: (0..config.n_layers).map(layer).collect(),
        }
    }

    /// The last hidden state of the first position, `[b, c]`.
    ///
    /// # Shapes
    /// `ids` `[b, n]` int64; `hidden` `[b, n]`, true where there is only filling; `image` `[b, m, image width]`.
    pub fn forward(&self, ids: &Tensor, hidden: &Tensor, image: &Tensor) -> Tensor {
        let (_, n) = ids.size2().expect("token ids are two-dimensional");
        let positions = self.position_embeddings.table().narrow(0, 0, n);
        let x = self.norm.forward(&(self.word_embeddings.forward(ids) + positions));
        self.layers.iter().fold(x, |x, layer| layer.forward(&x, image, hidden)).select(1, 0)
    }
}
