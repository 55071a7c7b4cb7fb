//! Attention of image patches and text tokens to all of both.
//!
//! Shapes: b batch, n tokens of a stream, c width, H heads, e = c / H.
//!
//! Source: `JointAttnProcessor2_0`, `huggingface/diffusers:src/diffusers/models/attention_processor.py`.

use tch::Tensor;

use super::config::MmditConfig;
use crate::nn::{Linear, RmsNorm, Scope, attend};

/// Names of a stream's layers.
pub(super) struct Names {
    q: &'static str,
    k: &'static str,
    v: &'static str,
    out: &'static str,
    norm_q: &'static str,
    norm_k: &'static str,
}

/// Of image patches.
pub(super) const IMAGE: Names =
    Names { q: "to_q", k: "to_k", v: "to_v", out: "to_out.0", norm_q: "norm_q", norm_k: "norm_k" };

/// Of text tokens.
pub(super) const TEXT: Names = Names {
    q: "add_q_proj",
    k: "add_k_proj",
    v: "add_v_proj",
    out: "to_add_out",
    norm_q: "norm_added_q",
    norm_k: "norm_added_k",
};

const EPS: f64 = 1e-6;

/// The layers of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    q: Linear,
    k: Linear,
    v: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    out: Option<Linear>,
    heads: i64,
}

impl Stream {
    /// `is_read`: whether what comes of it is used, and so has a projection.
    pub(super) fn new(scope: &Scope<'_>, names: &Names, config: &MmditConfig, is_read: bool) -> Self {
        let width = config.width();
        let linear = |name: &str| Linear::new(scope.sub(name), width, width);
        let norm = |name: &str| RmsNorm::new(scope.sub(name), config.attention_head_dim, EPS);
        Self {
            q: linear(names.q),
            k: linear(names.k),
            v: linear(names.v),
            norms: config.qk_norm.then(|| (norm(names.norm_q), norm(names.norm_k))),
            out: is_read.then(|| Linear::closing(scope.sub(names.out), width, width)),
            heads: config.num_attention_heads,
        }
    }

    /// Queries, keys and values, `[b, n, c]` to `[b, H, n, e]` each.
    fn project(&self, x: &Tensor) -> [Tensor; 3] {
        let (b, n, c) = x.size3().expect("tokens are three-dimensional");
        let split = |y: Tensor| y.view([b, n, self.heads, c / self.heads]).transpose(1, 2);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|layer| split(layer.forward(x)));
        match &self.norms {
            Some((norm_q, norm_k)) => [norm_q.forward(&q), norm_k.forward(&k), v],
            None => [q, k, v],
        }
    }
}

/// Every token of every stream attends to all of them; the result of each stream, where it is read.
///
/// # Shapes
/// `[b, n, c]` each to the same.
pub(super) fn jointly(streams: &[(&Stream, &Tensor)]) -> Vec<Option<Tensor>> {
    let projected: Vec<[Tensor; 3]> = streams.iter().map(|(stream, x)| stream.project(x)).collect();
    let [q, k, v] = [0, 1, 2].map(|i| {
        let parts: Vec<&Tensor> = projected.iter().map(|parts| &parts[i]).collect();
        if let [part] = parts[..] { part.shallow_clone() } else { Tensor::cat(&parts, 2) }
    });
    let y = attend(&q, &k, &v, false); // [b, H, all, e]
    let (b, heads, all, e) = y.size4().expect("attention keeps its four dimensions");
    let y = y.transpose(1, 2).reshape([b, all, heads * e]);
    let mut start = 0;
    let mut results = Vec::with_capacity(streams.len());
    for (stream, x) in streams {
        let n = x.size()[1];
        results.push(stream.out.as_ref().map(|out| out.forward(&y.narrow(1, start, n))));
        start += n;
    }
    results
}
