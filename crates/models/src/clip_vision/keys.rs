//! Names under which CLIP checkpoints hold the same tensors.

use crate::clip_text::POSITION_IDS;
use crate::names::below;

/// First parts of the names below `vision_model.`, which newer transformers releases may write without that prefix.
const PARTS: [&str; 4] = ["embeddings.", "pre_layrnorm.", "encoder.", "post_layernorm."];

/// The name below `vision_model.`; `None` for position ids.
pub fn modern_name(name: &str) -> Option<String> {
    below(name, "vision_model.", &PARTS, POSITION_IDS)
}
