//! Names of the tensors in ComfyUI's files.
//!
//! Source: `convert_z_image_transformer_checkpoint_to_diffusers`,
//! `huggingface/diffusers:src/diffusers/loaders/single_file_utils.py`; `z_image_to_diffusers`, `Comfy-Org/ComfyUI:comfy/utils.py`.

use super::config::ZImageConfig;
use crate::names::after;
use crate::place::{Change, Place};

/// What stands before the number of a block, in our names and in the original.
pub(crate) const BLOCKS: [&str; 3] = ["layers.", "noise_refiner.", "context_refiner."];

/// (Our name, original name) of the layers of a block that have another one.
const BLOCK: [(&str, &str); 3] = [
    ("attention.to_out.0", "attention.out"),
    ("attention.norm_q", "attention.q_norm"),
    ("attention.norm_k", "attention.k_norm"),
];

/// Queries, keys and values in the order in which their rows are stacked, and the original name.
const STACKED: ([&str; 3], &str) = (["attention.to_q", "attention.to_k", "attention.to_v"], "attention.qkv");

/// (Our name up to the size of a patch, original name) of the layers outside all blocks that have another one.
const OF_PATCHES: [(&str, &str); 2] = [("all_x_embedder", "x_embedder"), ("all_final_layer", "final_layer")];

/// What else is outside all blocks.
const OUTER: [&str; 4] = ["t_embedder", "cap_embedder", "x_pad_token", "cap_pad_token"];

/// A layer's tensor that tells these files from all others.
pub(crate) const MARK: &str = "cap_embedder.1.weight";

/// A tensor of files that have diffusers' names, as trainers write them.
pub(crate) const SPLIT: &str = "layers.0.attention.to_q.weight";

/// The last normalization of the family that the code was made for, which Z-Image does not have.
pub(crate) const UNREAD: &str = "norm_final.weight";

/// Where a tensor lies in an original checkpoint; `None` for names no such transformer has.
pub fn original(config: &ZImageConfig, name: &str) -> Option<Place> {
    let place = |ours: &str, theirs: &str, name: &str, change: Change| {
        Some(Place { name: format!("{theirs}{}", after(name, ours)?), change })
    };
    if let Some((blocks, rest)) = BLOCKS.iter().find_map(|blocks| Some((blocks, name.strip_prefix(blocks)?)))
    {
        let (number, inner) = rest.split_once('.')?;
        let (parts, theirs) = STACKED;
        let stacked = |part: usize| place(parts[part], theirs, inner, Change::Rows { part, of: parts.len() });
        let renamed = BLOCK.iter().find_map(|(ours, theirs)| place(ours, theirs, inner, Change::None));
        let found = renamed.or_else(|| (0..parts.len()).find_map(stacked));
        return Some(found.unwrap_or_else(|| Place::same(inner)).under(&format!("{blocks}{number}.")));
    }
    let patch = config.patch_size;
    let of_patch =
        |(ours, theirs): &(&str, &str)| place(&format!("{ours}.{patch}-1"), theirs, name, Change::None);
    let same = || OUTER.iter().any(|ours| after(name, ours).is_some()).then(|| Place::same(name));
    OF_PATCHES.iter().find_map(of_patch).or_else(same)
}

/// Whether a transformer has a tensor of this name, original or diffusers'.
pub(crate) fn is_original(name: &str) -> bool {
    let of_patches = OF_PATCHES.iter().flat_map(|(ours, theirs)| [ours, theirs]);
    BLOCKS.iter().any(|blocks| name.starts_with(blocks))
        || of_patches.chain(&OUTER).any(|theirs| after(name, theirs).is_some())
}
