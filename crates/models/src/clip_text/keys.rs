//! Names under which CLIP checkpoints hold the same tensors.

use crate::names::{after, below};
use crate::place::{Change, Place};

/// First parts of the names below `text_model.`, which newer transformers releases write without that prefix.
const PARTS: [&str; 3] = ["embeddings.", "encoder.", "final_layer_norm."];

/// Buffers of older transformers releases: the numbers from 0, never a parameter.
pub(crate) const POSITION_IDS: &str = "embeddings.position_ids";

/// The name in a published SD1.x checkpoint, below `text_model.`; `None` for position ids.
pub fn modern_name(name: &str) -> Option<String> {
    below(name, "text_model.", &PARTS, POSITION_IDS)
}

/// (Our name, OpenCLIP's name) of the layers of one transformer block.
const OPEN_CLIP_BLOCK: [(&str, &str); 5] = [
    ("layer_norm1", "ln_1"),
    ("layer_norm2", "ln_2"),
    ("self_attn.out_proj", "attn.out_proj"),
    ("mlp.fc1", "mlp.c_fc"),
    ("mlp.fc2", "mlp.c_proj"),
];

/// Queries, keys and values, in the order in which OpenCLIP stacks their rows.
const STACKED: [&str; 3] = ["self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj."];

/// Where a tensor lies in a checkpoint of OpenCLIP's text tower; `None` for names no text encoder has.
///
/// Source: names in `mlfoundations/open_clip:src/open_clip/transformer.py`, `TextTransformer`.
pub fn open_clip(name: &str) -> Option<Place> {
    match name {
        "text_model.embeddings.token_embedding.weight" => {
            return Some(Place::same("token_embedding.weight"));
        }
        "text_model.embeddings.position_embedding.weight" => {
            return Some(Place::same("positional_embedding"));
        }
        "text_projection.weight" => {
            return Some(Place { name: "text_projection".to_owned(), change: Change::Transposed });
        }
        _ => {}
    }
    if let Some(end) = after(name, "text_model.final_layer_norm") {
        return Some(Place::same(&format!("ln_final{end}")));
    }
    open_clip_block(name.strip_prefix("text_model.encoder.layers.")?)
}

/// Where a tensor of a transformer block lies, below a tower of OpenCLIP; `name` begins with the block's number.
pub(crate) fn open_clip_block(name: &str) -> Option<Place> {
    let (layer, inner) = name.split_once('.')?;
    layer.parse::<u32>().ok()?;
    let place = |inner: String, change| {
        Some(Place { name: format!("transformer.resblocks.{layer}.{inner}"), change })
    };
    for (part, prefix) in STACKED.iter().enumerate() {
        if let Some(kind) = inner.strip_prefix(prefix) {
            return place(format!("attn.in_proj_{kind}"), Change::Rows { part, of: STACKED.len() });
        }
    }
    let found = |(ours, theirs): &(&str, &str)| Some(format!("{theirs}{}", after(inner, ours)?));
    place(OPEN_CLIP_BLOCK.iter().find_map(found)?, Change::None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names;

    fn renamed(names: &[&str]) -> Vec<String> {
        names::renamed(names.iter().copied(), modern_name).into_keys().collect()
    }

    #[test]
    fn both_spellings_become_one() {
        let want = ["text_model.encoder.layers.0.mlp.fc1.bias", "text_model.final_layer_norm.bias"];
        assert_eq!(renamed(&["encoder.layers.0.mlp.fc1.bias", "final_layer_norm.bias"]), want);
        assert_eq!(renamed(&want), want);
    }

    #[test]
    fn the_projection_stays_and_position_ids_go() {
        assert_eq!(
            renamed(&[
                "text_projection.weight",
                "text_model.embeddings.position_ids",
                "embeddings.position_ids"
            ]),
            ["text_projection.weight"]
        );
    }

    #[test]
    fn a_tensor_that_is_there_twice_is_not_lost() {
        let names = ["final_layer_norm.bias", "text_model.final_layer_norm.bias"];
        assert_eq!(renamed(&names), names);
    }
}
