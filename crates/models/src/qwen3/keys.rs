//! Names under which checkpoints hold the same tensors.

/// What stands before the names in files saved as `Qwen3ForCausalLM`.
const PREFIX: &str = "model.";

/// The name of a tensor of the encoder; `None` for those of the head.
pub fn modern_name(name: &str) -> Option<String> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    (!name.starts_with("lm_head.")).then(|| name.to_owned())
}

/// Whether a tensor is only read after the first `n_layers` layers.
pub fn is_after(name: &str, n_layers: i64) -> bool {
    let number = || name.strip_prefix("layers.")?.split_once('.')?.0.parse::<i64>().ok();
    name.starts_with("norm.") || number().is_some_and(|number| number >= n_layers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_become_one_and_what_nobody_reads_is_known() {
        for (stored, wanted, is_left_out) in [
            ("model.layers.3.mlp.up_proj.weight", Some("layers.3.mlp.up_proj.weight"), false),
            ("layers.3.mlp.up_proj.weight", Some("layers.3.mlp.up_proj.weight"), false),
            ("model.embed_tokens.weight", Some("embed_tokens.weight"), false),
            ("model.layers.4.mlp.up_proj.weight", Some("layers.4.mlp.up_proj.weight"), true),
            ("model.norm.weight", Some("norm.weight"), true),
            ("lm_head.weight", None, false),
        ] {
            let found = modern_name(stored);
            assert_eq!(found.as_deref(), wanted, "{stored}");
            assert_eq!(found.is_some_and(|name| is_after(&name, 4)), is_left_out, "{stored}");
        }
    }
}
