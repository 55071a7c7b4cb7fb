//! Names of the tensors in checkpoints of Stability AI and ComfyUI, and the sizes that are read off them.
//!
//! Source: `MMDIT_MAP_BASIC` and `MMDIT_MAP_BLOCK`, `Comfy-Org/ComfyUI:comfy/utils.py`; `Stability-AI/sd3.5:mmditx.py`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::config::MmditConfig;
use crate::names::after;
use crate::place::{Change, Place};

/// (Our name, original name) of the layers outside all blocks.
const OUTER: [(&str, &str); 9] = [
    ("pos_embed.proj", "x_embedder.proj"),
    ("pos_embed.pos_embed", "pos_embed"),
    ("time_text_embed.timestep_embedder.linear_1", "t_embedder.mlp.0"),
    ("time_text_embed.timestep_embedder.linear_2", "t_embedder.mlp.2"),
    ("time_text_embed.text_embedder.linear_1", "y_embedder.mlp.0"),
    ("time_text_embed.text_embedder.linear_2", "y_embedder.mlp.2"),
    ("context_embedder", "context_embedder"),
    ("norm_out.linear", "final_layer.adaLN_modulation.1"),
    ("proj_out", "final_layer.linear"),
];

/// (Our name, original name) of the layers of a block.
const BLOCK: [(&str, &str); 15] = [
    ("norm1.linear", "x_block.adaLN_modulation.1"),
    ("norm1_context.linear", "context_block.adaLN_modulation.1"),
    ("attn.to_out.0", "x_block.attn.proj"),
    ("attn.norm_q", "x_block.attn.ln_q"),
    ("attn.norm_k", "x_block.attn.ln_k"),
    ("attn.to_add_out", "context_block.attn.proj"),
    ("attn.norm_added_q", "context_block.attn.ln_q"),
    ("attn.norm_added_k", "context_block.attn.ln_k"),
    ("attn2.to_out.0", "x_block.attn2.proj"),
    ("attn2.norm_q", "x_block.attn2.ln_q"),
    ("attn2.norm_k", "x_block.attn2.ln_k"),
    ("ff.net.0.proj", "x_block.mlp.fc1"),
    ("ff.net.2", "x_block.mlp.fc2"),
    ("ff_context.net.0.proj", "context_block.mlp.fc1"),
    ("ff_context.net.2", "context_block.mlp.fc2"),
];

/// (Queries, keys and values in the order in which their rows are stacked, original name).
const STACKED: [([&str; 3], &str); 3] = [
    (["attn.to_q", "attn.to_k", "attn.to_v"], "x_block.attn.qkv"),
    (["attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"], "context_block.attn.qkv"),
    (["attn2.to_q", "attn2.to_k", "attn2.to_v"], "x_block.attn2.qkv"),
];

/// Stands before the number of a block, in our names and in the original.
const BLOCKS: (&str, &str) = ("transformer_blocks.", "joint_blocks.");

/// Where a tensor lies in an original checkpoint; `None` for names no such transformer has.
///
/// The last normalizations, that of the text in the last block and that of the whole network, have their shift before their scale
/// there.
pub fn original(config: &MmditConfig, name: &str) -> Option<Place> {
    let place = |ours: &str, theirs: &str, name: &str, change: Change| {
        Some(Place { name: format!("{theirs}{}", after(name, ours)?), change })
    };
    if let Some(inner) = name.strip_prefix(BLOCKS.0) {
        let (number, inner) = inner.split_once('.')?;
        let number: i64 = number.parse().ok().filter(|number| (0..config.num_layers).contains(number))?;
        let is_last = number + 1 == config.num_layers;
        let renamed = BLOCK.iter().find_map(|(ours, theirs)| {
            let swaps = is_last && *ours == "norm1_context.linear";
            place(ours, theirs, inner, if swaps { Change::Swapped } else { Change::None })
        });
        let stacked = || {
            STACKED.iter().find_map(|(parts, theirs)| {
                let part = |part| place(parts[part], theirs, inner, Change::Rows { part, of: parts.len() });
                (0..parts.len()).find_map(part)
            })
        };
        return Some(renamed.or_else(stacked)?.under(&format!("{}{number}.", BLOCKS.1)));
    }
    OUTER.iter().find_map(|(ours, theirs)| {
        let swaps = *ours == "norm_out.linear";
        place(ours, theirs, name, if swaps { Change::Swapped } else { Change::None })
    })
}

/// Whether an original checkpoint's transformer has a tensor of this name.
pub(crate) fn is_original(name: &str) -> bool {
    name.starts_with(BLOCKS.1) || OUTER.iter().any(|(_, theirs)| after(name, theirs).is_some())
}

/// Width of a head in every published transformer.
const HEAD: usize = 64;

/// The diffusers configuration of the transformer whose tensors have these original names and shapes; `None` where one that tells
/// sizes is missing.
///
/// Source: `convert_sd3_transformer_checkpoint_to_diffusers`, `huggingface/diffusers:src/diffusers/loaders/single_file_utils.py`, which
/// takes what differs between the published ones off the names too.
pub(crate) fn config_of(shapes: &BTreeMap<&str, &[usize]>) -> Option<Value> {
    let size = |name: &str, axis: usize| shapes.get(name)?.get(axis).copied();
    let width = size("x_embedder.proj.weight", 0)?;
    let patch = size("x_embedder.proj.weight", 2)?;
    let has = |name: String| shapes.contains_key(name.as_str());
    let block = |number: usize, name: &str| has(format!("{}{number}.{name}", BLOCKS.1));
    let n_layers = (0..).take_while(|number| block(*number, "x_block.attn.qkv.weight")).count();
    let dual: Vec<usize> =
        (0..n_layers).filter(|number| block(*number, "x_block.attn2.qkv.weight")).collect();
    let head = size(&format!("{}0.x_block.attn.ln_q.weight", BLOCKS.1), 0).unwrap_or(HEAD);
    Some(json!({
        "_class_name": "SD3Transformer2DModel",
        "sample_size": 128,
        "patch_size": patch,
        "in_channels": size("x_embedder.proj.weight", 1)?,
        "out_channels": size("final_layer.linear.weight", 0)? / (patch * patch).max(1),
        "num_layers": n_layers,
        "num_attention_heads": width / head.max(1),
        "attention_head_dim": head,
        "caption_projection_dim": width,
        "joint_attention_dim": size("context_embedder.weight", 1)?,
        "pooled_projection_dim": size("y_embedder.mlp.0.weight", 1)?,
        "pos_embed_max_size": size("pos_embed", 1)?.isqrt(),
        "dual_attention_layers": dual,
        "qk_norm": block(0, "x_block.attn.ln_q.weight").then_some("rms_norm"),
    }))
}
