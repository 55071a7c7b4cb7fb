//! What the network holds in memory beside its weights while it is trained, counted from its configuration as that of a UNet is.

use super::config::MmditConfig;
use crate::nn::keeps_scores;
use crate::unet::{Activations, Footprint, Pass, TrainedPart};

/// Numbers for each token and channel that a block keeps: inputs of both normalizations, what they become for attention, queries, keys and
/// values and the former two again where they are normalized, the result of attention twice, and the input of GELU.
const KEPT: u64 = 2 + 1 + 3 + 2 + 4;

/// What is kept besides where every weight is trained: both normalized, both results before their gates, and the inputs of the products.
const KEPT_OF_WEIGHTS: u64 = 2 + 2 + 1 + 4;

/// What a second attention keeps.
const KEPT_OF_DUAL: u64 = 1 + 3 + 2 + 2;

/// What a feed-forward layer holds at once: its input, normalized, and both sides of GELU.
const FEED_FORWARD: u64 = 1 + 1 + 4 + 4;

/// Bytes of a score: kept, in f32 and rounded; while its gradient is computed.
const KEPT_SCORES: u64 = 4 + 2;
const SCORES_BACKWARD: u64 = 2 + 4 + 4 + 2;

impl MmditConfig {
    /// What a pass holds for each sample; [`Pass::n_tokens`] are those of the whole text.
    pub fn footprint(&self, pass: &Pass) -> Footprint {
        let (h, w) = pass.size;
        let patch = self.patch_size as u64;
        let (n, width) = ((h / patch) * (w / patch), self.width() as u64);
        let all = n + pass.n_tokens;
        let bytes = pass.dtype.bytes() as u64;
        let of_weights = if pass.trained == TrainedPart::Everything { KEPT_OF_WEIGHTS } else { 0 };
        // The outputs and updates of the adapted layers, each as large as what enters.
        let of_dora = if pass.use_dora { 2 * 4 } else { 0 };
        let scores = |each: u64| match keeps_scores(pass.dtype, self.attention_head_dim, false) {
            true => each * self.num_attention_heads as u64 * all * all,
            false => 0,
        };
        let inside = |index: i64| {
            let dual = if self.dual_attention_layers.contains(&index) { KEPT_OF_DUAL } else { 0 };
            let of_tokens = (KEPT + of_weights + of_dora) * all + dual * n;
            bytes * width * of_tokens + scores(KEPT_SCORES)
        };
        let most = (0..self.num_layers).map(inside).max().unwrap_or(0);
        let kept = match pass.activations {
            Activations::All => (0..self.num_layers).map(inside).sum(),
            Activations::LayerInputs => bytes * width * all * self.num_layers as u64 + most,
        };
        let at_once = bytes * width * FEED_FORWARD * all;
        let last = 2 * bytes * width * n;
        Footprint { kept: kept + last, backward: at_once + scores(SCORES_BACKWARD), forward: at_once + last }
    }
}
