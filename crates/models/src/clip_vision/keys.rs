//! Names under which CLIP checkpoints hold the same tensors.

use tastemaker_torch::tensors::Named;

use crate::clip_text::under_prefix;

/// First parts of the names below `vision_model.`, which newer transformers releases may write without that prefix.
const PARTS: [&str; 4] = ["embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm."];

/// An image tower's tensors under `vision_model.` and without position ids.
pub fn modern_names(tensors: Named) -> Named {
    under_prefix(tensors, "vision_model.", &PARTS)
}
