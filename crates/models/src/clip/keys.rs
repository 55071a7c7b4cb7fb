//! Names under which checkpoints of both towers hold the same tensors.

use crate::clip_text::{POSITION_IDS, open_clip_block, open_clip_place as open_clip_text};
use crate::names::after;
use crate::place::{Change, Place};

/// The name of the scale, the same in every layout.
pub(crate) const LOGIT_SCALE: &str = "logit_scale";

/// What stands before the image tower's names in OpenCLIP's layout.
const VISUAL: &str = "visual.";

/// Names that tell transformers' layout from OpenCLIP's, for errors.
pub(crate) const TRANSFORMERS: [&str; 2] = ["text_model.", "vision_model."];

/// The name of today; `None` for position ids, which are no weights.
pub fn modern_name(name: &str) -> Option<String> {
    (!name.ends_with(POSITION_IDS)).then(|| name.to_owned())
}

/// Where a tensor lies in a checkpoint of OpenCLIP's `CLIP`; `None` for names it does not have.
///
/// Source: names in `mlfoundations/open_clip:src/open_clip/transformer.py`, `VisionTransformer` and `TextTransformer`.
pub fn open_clip(name: &str) -> Option<Place> {
    if name == LOGIT_SCALE {
        return Some(Place::same(LOGIT_SCALE));
    }
    visual(name).map(|place| place.under(VISUAL)).or_else(|| open_clip_text(name))
}

fn visual(name: &str) -> Option<Place> {
    match name {
        "vision_model.embeddings.class_embedding" => return Some(Place::same("class_embedding")),
        "vision_model.embeddings.patch_embedding.weight" => return Some(Place::same("conv1.weight")),
        "vision_model.embeddings.position_embedding.weight" => {
            return Some(Place::same("positional_embedding"));
        }
        "visual_projection.weight" => {
            return Some(Place { name: "proj".to_owned(), change: Change::Transposed });
        }
        _ => {}
    }
    for (ours, theirs) in [("pre_layrnorm", "ln_pre"), ("post_layernorm", "ln_post")] {
        if let Some(end) = after(name.strip_prefix("vision_model.")?, ours) {
            return Some(Place::same(&format!("{theirs}{end}")));
        }
    }
    open_clip_block(name.strip_prefix("vision_model.encoder.layers.")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_tower_has_its_place() {
        for (ours, theirs, change) in [
            ("logit_scale", "logit_scale", Change::None),
            ("visual_projection.weight", "visual.proj", Change::Transposed),
            ("text_projection.weight", "text_projection", Change::Transposed),
            ("vision_model.pre_layrnorm.bias", "visual.ln_pre.bias", Change::None),
            (
                "vision_model.encoder.layers.3.self_attn.k_proj.weight",
                "visual.transformer.resblocks.3.attn.in_proj_weight",
                Change::Rows { part: 1, of: 3 },
            ),
            (
                "text_model.encoder.layers.0.mlp.fc1.bias",
                "transformer.resblocks.0.mlp.c_fc.bias",
                Change::None,
            ),
        ] {
            assert_eq!(open_clip(ours), Some(Place { name: theirs.to_owned(), change }), "{ours}");
        }
        assert_eq!(open_clip("vision_model.embeddings.other"), None);
    }
}
