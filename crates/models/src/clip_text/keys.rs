//! Names under which CLIP checkpoints hold the same tensors.

use tastemaker_torch::tensors::Named;

/// First parts of the names below `text_model.`, which newer transformers releases write without that prefix.
const PARTS: [&str; 3] = ["embeddings.", "encoder.", "final_layer_norm."];

/// Buffers of older transformers releases: the numbers from 0, never a parameter.
const POSITION_IDS: &str = "embeddings.position_ids";

/// A text encoder's tensors under the names of a published SD1.x checkpoint: `text_model.` and no position ids.
pub fn modern_names(tensors: Named) -> Named {
    under_prefix(tensors, "text_model.", &PARTS)
}

/// Puts names that begin with one of `parts` under `prefix`, and drops position ids.
///
/// A name whose place is already taken stays as it is, to be reported as unexpected.
pub(crate) fn under_prefix(tensors: Named, prefix: &str, parts: &[&str]) -> Named {
    let taken = |name: &String| tensors.contains_key(name);
    tensors
        .iter()
        .filter(|(name, _)| !name.ends_with(POSITION_IDS))
        .map(|(name, tensor)| {
            let moved = Some(format!("{prefix}{name}"))
                .filter(|moved| parts.iter().any(|part| name.starts_with(part)) && !taken(moved));
            (moved.unwrap_or_else(|| name.clone()), tensor.shallow_clone())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renamed(names: &[&str]) -> Vec<String> {
        let tensor = || tch::Tensor::zeros([1], (tch::Kind::Float, tch::Device::Cpu));
        modern_names(names.iter().map(|name| ((*name).to_owned(), tensor())).collect()).into_keys().collect()
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
