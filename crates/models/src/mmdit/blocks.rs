//! Blocks: attention and feed-forward layers whose inputs and results are scaled by the timestep and the pooled text.
//!
//! Shapes: b batch, n image patches, m text tokens, c width.
//!
//! Source: `JointTransformerBlock`, `huggingface/diffusers:src/diffusers/models/attention.py`; `normalization.py` there.

use tch::Tensor;

use super::attention::{IMAGE, Stream, TEXT, jointly};
use super::config::MmditConfig;
use crate::nn::{Linear, Scope, layer_norm};

const EPS: f64 = 1e-6;

/// `linear` of an adaptive normalization: so many vectors for each image.
#[derive(Debug)]
pub(super) struct Modulation {
    linear: Linear,
    n: i64,
}

impl Modulation {
    pub(super) fn new(scope: Scope<'_>, width: i64, n: i64) -> Self {
        Self { linear: Linear::closing(scope.sub("linear"), width, n * width), n }
    }

    /// # Shapes
    /// `[b, c]` to `[b, 1, c]`, as many as there are.
    pub(super) fn forward(&self, conditioning: &Tensor) -> Vec<Tensor> {
        self.linear.forward(conditioning).unsqueeze(1).chunk(self.n, -1)
    }
}

/// The layer-normalized tokens, shifted and scaled.
pub(super) fn modulated(x: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    scaled(&layer_norm(x, EPS), shift, scale)
}

fn scaled(normalized: &Tensor, shift: &Tensor, scale: &Tensor) -> Tensor {
    normalized * (scale + 1.0) + shift
}

/// `net.0.proj` to four times the width, GELU by tanh, `net.2` back.
#[derive(Debug)]
struct FeedForward {
    proj: Linear,
    out: Linear,
}

impl FeedForward {
    fn new(scope: Scope<'_>, width: i64) -> Self {
        Self {
            proj: Linear::new(scope.sub("net.0.proj"), width, width * 4),
            out: Linear::closing(scope.sub("net.2"), width * 4, width),
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        self.out.forward(&self.proj.forward(x).gelu("tanh"))
    }
}

/// One of `transformer_blocks`.
#[derive(Debug)]
pub(super) struct Block {
    norm1: Modulation,
    norm1_context: Modulation,
    image: Stream,
    text: Stream,
    /// `attn2`.
    dual: Option<Stream>,
    ff: FeedForward,
    /// Nothing reads the text after the last block.
    ff_context: Option<FeedForward>,
}

impl Block {
    pub(super) fn new(scope: Scope<'_>, config: &MmditConfig, index: i64) -> Self {
        let width = config.width();
        let is_last = index + 1 == config.num_layers;
        let is_dual = config.dual_attention_layers.contains(&index);
        let attn = scope.sub("attn");
        Self {
            norm1: Modulation::new(scope.sub("norm1"), width, if is_dual { 9 } else { 6 }),
            norm1_context: Modulation::new(scope.sub("norm1_context"), width, if is_last { 2 } else { 6 }),
            image: Stream::new(&attn, &IMAGE, config, true),
            text: Stream::new(&attn, &TEXT, config, !is_last),
            dual: is_dual.then(|| Stream::new(&scope.sub("attn2"), &IMAGE, config, true)),
            ff: FeedForward::new(scope.sub("ff"), width),
            ff_context: (!is_last).then(|| FeedForward::new(scope.sub("ff_context"), width)),
        }
    }

    /// Image patches before text tokens, in and out; after the last block the patches alone.
    ///
    /// # Shapes
    /// `joined` `[b, n + m, c]`, `conditioning` `[b, c]`, already through SiLU; result `[b, n + m, c]` or `[b, n, c]`.
    pub(super) fn forward(&self, joined: &Tensor, conditioning: &Tensor, n: i64) -> Tensor {
        let x = joined.narrow(1, 0, n);
        let text = joined.narrow(1, n, joined.size()[1] - n);
        let parts = self.norm1.forward(conditioning);
        let text_parts = self.norm1_context.forward(conditioning);
        let normalized = layer_norm(&x, EPS);
        let image_input = scaled(&normalized, &parts[0], &parts[1]);
        let text_input = match &self.ff_context {
            Some(_) => modulated(&text, &text_parts[0], &text_parts[1]),
            None => modulated(&text, &text_parts[1], &text_parts[0]),
        };
        let mut attended =
            jointly(&[(&self.image, &image_input), (&self.text, &text_input)]).into_iter().flatten();
        let mut next = || attended.next().expect("a result of each stream that is read");
        let mut x = x + &parts[2] * next();
        if let Some(dual) = &self.dual {
            let input = scaled(&normalized, &parts[6], &parts[7]);
            let attended = jointly(&[(dual, &input)]).into_iter().flatten().next();
            x += &parts[8] * attended.expect("the image stream is read");
        }
        let x = &x + &parts[5] * self.ff.forward(&modulated(&x, &parts[3], &parts[4]));
        let Some(ff_context) = &self.ff_context else { return x };
        let text = text + &text_parts[2] * next();
        let input = modulated(&text, &text_parts[3], &text_parts[4]);
        let text = &text + &text_parts[5] * ff_context.forward(&input);
        Tensor::cat(&[x, text], 1)
    }
}
