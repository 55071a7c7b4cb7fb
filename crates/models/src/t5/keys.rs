//! Names under which checkpoints hold the same tensors.

/// The embeddings of tokens.
pub const EMBEDDINGS: &str = "shared.weight";

/// A second name of them, which some files have as well and some instead.
pub const TWIN: &str = "encoder.embed_tokens.weight";

/// The name of a tensor in today's checkpoints; `None` for those of a decoder.
pub fn modern_name(name: &str) -> Option<String> {
    let is_of_decoder = name.starts_with("decoder.") || name.starts_with("lm_head.");
    (!is_of_decoder).then(|| name.to_owned())
}
