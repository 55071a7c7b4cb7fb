//! The network.
//!
//! Shapes: b batch, n tokens, c width, H heads, e width of a head.
//!
//! Source: `huggingface/transformers:src/transformers/models/qwen3/modeling_qwen3.py`.

use tch::{Device, Kind, Tensor};

use super::config::Qwen3Config;
use crate::nn::{Embedding, Linear, RmsNorm, Scope, attend_causally};

#[derive(Debug)]
struct Layer {
    input_layernorm: RmsNorm,
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    o_proj: Linear,
    q_norm: RmsNorm,
    k_norm: RmsNorm,
    post_attention_layernorm: RmsNorm,
    gate_proj: Linear,
    up_proj: Linear,
    down_proj: Linear,
    head_dim: i64,
    /// Heads of queries for each of keys and values.
    shared_by: i64,
}

impl Layer {
    fn new(scope: Scope<'_>, config: &Qwen3Config) -> Self {
        let (attention, mlp) = (scope.sub("self_attn"), scope.sub("mlp"));
        let (width, inner, e) = (config.hidden_size, config.intermediate_size, config.head_dim);
        let (n_queries, n_keys) = (config.num_attention_heads * e, config.num_key_value_heads * e);
        let linear =
            |scope: &Scope<'_>, name: &str, n_in, n_out| Linear::without_bias(scope.sub(name), n_in, n_out);
        let norm = |scope: &Scope<'_>, name: &str, width| RmsNorm::new(scope.sub(name), width, config.eps);
        Self {
            input_layernorm: norm(&scope, "input_layernorm", width),
            q_proj: linear(&attention, "q_proj", width, n_queries),
            k_proj: linear(&attention, "k_proj", width, n_keys),
            v_proj: linear(&attention, "v_proj", width, n_keys),
            o_proj: linear(&attention, "o_proj", n_queries, width),
            q_norm: norm(&attention, "q_norm", e),
            k_norm: norm(&attention, "k_norm", e),
            post_attention_layernorm: norm(&scope, "post_attention_layernorm", width),
            gate_proj: linear(&mlp, "gate_proj", width, inner),
            up_proj: linear(&mlp, "up_proj", width, inner),
            down_proj: linear(&mlp, "down_proj", inner, width),
            head_dim: e,
            shared_by: config.num_attention_heads / config.num_key_value_heads,
        }
    }

    /// `rotation`: cosines and sines, `[n, e]` each.
    fn forward(&self, x: &Tensor, rotation: &[Tensor; 2]) -> Tensor {
        let y = self.input_layernorm.forward(x);
        let split = |y: Tensor| y.unflatten(-1, [-1, self.head_dim]); // [b, n, H, e]
        let q = self.q_norm.forward(&split(self.q_proj.forward(&y))).transpose(1, 2);
        let k = self.k_norm.forward(&split(self.k_proj.forward(&y))).transpose(1, 2);
        let v = split(self.v_proj.forward(&y)).transpose(1, 2);
        let all = |y: Tensor| y.repeat_interleave_self_int(self.shared_by, 1, None);
        let y = attend_causally(&turned(&q, rotation), &all(turned(&k, rotation)), &all(v));
        let x = x + self.o_proj.forward(&y.transpose(1, 2).flatten(2, 3));
        let y = self.post_attention_layernorm.forward(&x);
        &x + self.down_proj.forward(&(self.gate_proj.forward(&y).silu() * self.up_proj.forward(&y)))
    }
}

/// Turns pairs of which one is in each half.
fn turned(x: &Tensor, [cosines, sines]: &[Tensor; 2]) -> Tensor {
    let halves = x.chunk(2, -1);
    x * cosines + Tensor::cat(&[-&halves[1], halves[0].shallow_clone()], -1) * sines
}

/// `Qwen3Model`, or its first layers.
#[derive(Debug)]
pub struct Qwen3 {
    config: Qwen3Config,
    embed_tokens: Embedding,
    layers: Vec<Layer>,
    /// After the last layer, where that is there.
    norm: Option<RmsNorm>,
}

impl Qwen3 {
    /// Builds the first `n_layers` layers from the parameters of `scope`; of a whole network the last normalization too.
    pub fn new(scope: Scope<'_>, config: Qwen3Config, n_layers: i64) -> Self {
        let is_whole = n_layers >= config.num_hidden_layers;
        Self {
            embed_tokens: Embedding::new(scope.sub("embed_tokens"), config.vocab_size, config.hidden_size),
            layers: (0..n_layers.min(config.num_hidden_layers))
                .map(|i| Layer::new(scope.sub("layers").sub(i), &config))
                .collect(),
            norm: is_whole.then(|| RmsNorm::new(scope.sub("norm"), config.hidden_size, config.eps)),
            config,
        }
    }

    /// The network's configuration.
    pub fn config(&self) -> &Qwen3Config {
        &self.config
    }

    /// The embedded tokens and what leaves each layer, the last of a whole network normalized: `hidden_states` of transformers. A token
    /// sees those before it, so fillers at the end change nothing before them.
    ///
    /// # Shapes
    /// `ids` `[b, n]` int64; `[b, n, c]` each, in the compute type.
    pub fn forward(&self, ids: &Tensor) -> Vec<Tensor> {
        let mut states = Vec::with_capacity(self.layers.len() + 1);
        let last = self.last(ids, |state| states.push(state.shallow_clone()));
        states.push(last);
        states
    }

    /// What leaves the last layer that is there, as the last of [`Qwen3::forward`]; `before` is shown what came before it.
    pub fn last(&self, ids: &Tensor, mut before: impl FnMut(&Tensor)) -> Tensor {
        let (_, n) = ids.size2().expect("token ids are two-dimensional");
        let mut state = self.embed_tokens.forward(ids);
        let rotation = self.rotation(n).map(|table| table.to_device(ids.device()).to_kind(state.kind()));
        for layer in &self.layers {
            before(&state);
            state = layer.forward(&state, &rotation);
        }
        self.norm.as_ref().map_or_else(|| state.shallow_clone(), |norm| norm.forward(&state))
    }

    /// Cosines and sines, `[n, e]` each, f32 all the way as published.
    fn rotation(&self, n: i64) -> [Tensor; 2] {
        let options = (Kind::Float, Device::Cpu);
        let e = self.config.head_dim;
        let powers = Tensor::arange_start_step(0, e, 2, options) / e as f64;
        let frequencies = Tensor::full([1], self.config.rope_theta, options).pow(&powers).reciprocal();
        let angles = Tensor::arange(n, options).unsqueeze(1) * frequencies.unsqueeze(0);
        let angles = Tensor::cat(&[&angles, &angles], 1);
        [angles.cos(), angles.sin()]
    }
}
