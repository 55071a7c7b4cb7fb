//! What the network holds in memory beside its weights while it is trained, counted from its configuration as that of a UNet is.

use super::config::ZImageConfig;
use super::model::filled_up;
use crate::nn::keeps_scores;
use crate::unet::{Activations, Footprint, Pass, TrainedPart};

/// Numbers for each token and channel that a block keeps: inputs of all four normalizations and what they become, twice behind gates, queries,
/// keys and values, the former two normalized and turned, and the result of attention twice.
const KEPT: u64 = 4 + 4 + 2 + 3 + 4 + 2;

/// Numbers for each token and channel within a feed-forward layer that are kept: both inputs of the product and that of SiLU.
const KEPT_INSIDE: u64 = 3;

/// What is kept besides where every weight is trained: the inputs of the products.
const KEPT_OF_WEIGHTS: u64 = 4;

/// Bytes of a score: kept, in f32 and rounded; while its gradient is computed.
const KEPT_SCORES: u64 = 4 + 2;
const SCORES_BACKWARD: u64 = 2 + 4 + 4 + 2;

impl ZImageConfig {
    /// What a pass holds for each sample; [`Pass::n_tokens`] are those of the longest caption.
    pub fn footprint(&self, pass: &Pass) -> Footprint {
        let (h, w) = pass.size;
        let patch = self.patch_size as u64;
        let filled = |n: u64| filled_up(n as i64) as u64;
        let n = filled((h / patch) * (w / patch));
        let all = n + filled(pass.n_tokens);
        let (bytes, width, inner) = (pass.dtype.bytes() as u64, self.dim as u64, self.hidden() as u64);
        let of_weights = if pass.trained == TrainedPart::Everything { KEPT_OF_WEIGHTS } else { 0 };
        // The outputs and updates of the adapted layers, each as large as what enters.
        let of_dora = if pass.use_dora { 2 * 4 } else { 0 };
        let head = self.dim / self.n_heads;
        let scores = |each: u64| match keeps_scores(pass.dtype, head, false) {
            true => each * self.n_heads as u64 * all * all,
            false => 0,
        };
        let of_token = (KEPT + of_weights + of_dora) * width + KEPT_INSIDE * inner;
        let inside = bytes * of_token * all + scores(KEPT_SCORES);
        // Refiners see the image or the caption, which is as much as one block over both.
        let n_blocks = (self.n_layers + self.n_refiner_layers) as u64;
        let kept = match pass.activations {
            Activations::All => inside * n_blocks,
            Activations::LayerInputs => bytes * width * all * n_blocks + inside,
        };
        let at_once = bytes * (2 * width + 3 * inner) * all;
        let last = 2 * bytes * width * n;
        Footprint { kept: kept + last, backward: at_once + scores(SCORES_BACKWARD), forward: at_once + last }
    }
}
