//! The network.
//!
//! Shapes: b batch, n tokens, c width, H heads, e width of a head.
//!
//! Source: `huggingface/transformers:src/transformers/models/t5/modeling_t5.py`, `T5Stack`.

use tch::{Device, Kind, Tensor};

use super::config::T5Config;
use crate::nn::{Embedding, Linear, RmsNorm, Scope};

#[derive(Debug)]
struct Attention {
    q: Linear,
    k: Linear,
    v: Linear,
    o: Linear,
    heads: i64,
}

impl Attention {
    fn new(scope: &Scope<'_>, config: &T5Config) -> Self {
        let (width, inner) = (config.d_model, config.num_heads * config.d_kv);
        let linear = |name: &str| Linear::without_bias(scope.sub(name), width, inner);
        Self {
            q: linear("q"),
            k: linear("k"),
            v: linear("v"),
            o: Linear::without_bias(scope.sub("o"), inner, width),
            heads: config.num_heads,
        }
    }

    /// Scores are not divided by the root of the head's width; `bias` `[1, H, n, n]` is added to them.
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let (b, n, _) = x.size3().expect("hidden states are three-dimensional");
        let [q, k, v] = [&self.q, &self.k, &self.v]
            .map(|layer| layer.forward(x).view([b, n, self.heads, -1]).transpose(1, 2).to_kind(Kind::Float));
        let scores = q.matmul(&k.transpose(-2, -1)) + bias;
        let y = scores.softmax(-1, Kind::Float).matmul(&v).to_kind(x.kind()); // [b, H, n, e]
        self.o.forward(&y.transpose(1, 2).reshape([b, n, -1]))
    }
}

/// One of `encoder.block`: normalize, attend, add; normalize, feed forward behind a gate of GELU, add.
#[derive(Debug)]
struct Block {
    norm1: RmsNorm,
    attention: Attention,
    norm2: RmsNorm,
    wi_0: Linear,
    wi_1: Linear,
    wo: Linear,
}

impl Block {
    fn new(scope: Scope<'_>, config: &T5Config) -> Self {
        let (first, second) = (scope.sub("layer.0"), scope.sub("layer.1"));
        let dense = second.sub("DenseReluDense");
        let norm = |scope: &Scope<'_>| RmsNorm::new(scope.sub("layer_norm"), config.d_model, config.eps);
        Self {
            norm1: norm(&first),
            attention: Attention::new(&first.sub("SelfAttention"), config),
            norm2: norm(&second),
            wi_0: Linear::without_bias(dense.sub("wi_0"), config.d_model, config.d_ff),
            wi_1: Linear::without_bias(dense.sub("wi_1"), config.d_model, config.d_ff),
            wo: Linear::without_bias(dense.sub("wo"), config.d_ff, config.d_model),
        }
    }

    fn forward(&self, x: &Tensor, bias: &Tensor) -> Tensor {
        let x = x + self.attention.forward(&self.norm1.forward(x), bias);
        let y = self.norm2.forward(&x);
        let y = self.wi_0.forward(&y).gelu("tanh") * self.wi_1.forward(&y);
        &x + self.wo.forward(&y)
    }
}

/// `T5EncoderModel`.
#[derive(Debug)]
pub struct T5Encoder {
    config: T5Config,
    shared: Embedding,
    /// What is added to the scores of each head, by the kind of distance.
    distances: Embedding,
    blocks: Vec<Block>,
    final_layer_norm: RmsNorm,
}

impl T5Encoder {
    /// Builds the network from the parameters of `scope`.
    pub fn new(scope: Scope<'_>, config: T5Config) -> Self {
        let encoder = scope.sub("encoder");
        let blocks = encoder.sub("block");
        Self {
            shared: Embedding::new(scope.sub("shared"), config.vocab_size, config.d_model),
            distances: Embedding::new(
                blocks.sub("0.layer.0.SelfAttention.relative_attention_bias"),
                config.n_buckets,
                config.num_heads,
            ),
            blocks: (0..config.num_layers).map(|i| Block::new(blocks.sub(i), &config)).collect(),
            final_layer_norm: RmsNorm::new(encoder.sub("final_layer_norm"), config.d_model, config.eps),
            config,
        }
    }

    /// The network's configuration.
    pub fn config(&self) -> &T5Config {
        &self.config
    }

    /// Encodes token ids; padding is a token as any other, as SD3's pipeline has it.
    ///
    /// # Shapes
    /// `ids` `[b, n]` int64, every id below `vocab_size`; result `[b, n, c]`, in the compute type.
    pub fn forward(&self, ids: &Tensor) -> Tensor {
        let (_, n) = ids.size2().expect("token ids are two-dimensional");
        let buckets = buckets(n, self.config.n_buckets, self.config.max_distance).to_device(ids.device());
        let bias = self.distances.forward(&buckets).permute([2, 0, 1]).unsqueeze(0).to_kind(Kind::Float);
        let x = self.blocks.iter().fold(self.shared.forward(ids), |x, block| block.forward(&x, &bias));
        self.final_layer_norm.forward(&x)
    }
}

/// The kind of distance from each token (first axis) to each other one: half of the kinds for each direction, of which half are
/// single distances and the others grow with the logarithm.
///
/// # Shapes
/// `[n, n]` int64.
///
/// Source: `_relative_position_bucket`, with its f32 arithmetic.
fn buckets(n: i64, n_buckets: i64, max_distance: i64) -> Tensor {
    let places = Tensor::arange(n, (Kind::Int64, Device::Cpu));
    let ahead = places.unsqueeze(0) - places.unsqueeze(1);
    let of_direction = n_buckets / 2;
    let single = of_direction / 2;
    let distance = ahead.abs();
    let steps = (max_distance as f64 / single as f64).ln();
    let far: Tensor = (distance.clamp_min(1).to_kind(Kind::Float) / single as f64).log() / steps
        * (of_direction - single) as f64;
    let far = (far.to_kind(Kind::Int64) + single).clamp_max(of_direction - 1);
    let kind = distance.where_self(&distance.lt(single), &far);
    ahead.gt(0).to_kind(Kind::Int64) * of_direction + kind
}
