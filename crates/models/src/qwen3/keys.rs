//! Names under which checkpoints hold the same tensors.

/// What stands before the names in files saved as `Qwen3ForCausalLM`.
const PREFIX: &str = "model.";

/// The name of a tensor in a network of so many layers; `None` for those after it and for the head.
pub fn modern_name(name: &str, n_layers: i64) -> Option<String> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name);
    let is_beyond = name
        .strip_prefix("layers.")
        .and_then(|rest| rest.split_once('.'))
        .is_some_and(|(number, _)| number.parse::<i64>().is_ok_and(|number| number >= n_layers));
    (!is_beyond && !name.starts_with("lm_head.")).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_become_one_and_what_nobody_reads_goes() {
        for (stored, wanted) in [
            ("model.layers.3.mlp.up_proj.weight", Some("layers.3.mlp.up_proj.weight")),
            ("layers.3.mlp.up_proj.weight", Some("layers.3.mlp.up_proj.weight")),
            ("model.embed_tokens.weight", Some("embed_tokens.weight")),
            ("model.layers.4.mlp.up_proj.weight", None),
            ("lm_head.weight", None),
        ] {
            assert_eq!(modern_name(stored, 4).as_deref(), wanted, "{stored}");
        }
    }
}
