//! Names under which diffusers stores low-rank factors of a UNet.
//!
//! Source: `huggingface/diffusers:src/diffusers/utils/state_dict_utils.py`.

/// What stands before every layer's name.
pub(super) const UNET: &str = "unet.";

/// End of a down factor's name, ours and in files of today.
pub(super) const DOWN: &str = ".lora_A.weight";

/// End of an up factor's name, ours and in files of today.
pub(super) const UP: &str = ".lora_B.weight";

/// (End of a stored name, end of our name).
const ENDS: [(&str, &str); 4] =
    [(DOWN, DOWN), (UP, UP), (".lora.down.weight", DOWN), (".lora.up.weight", UP)];

/// Our name of a factor: `<layer>.lora_A.weight` or `<layer>.lora_B.weight`; `None` for any other tensor.
pub(super) fn ours(stored: &str) -> Option<String> {
    let name = stored.strip_prefix(UNET)?;
    ENDS.iter().find_map(|(theirs, ours)| Some(format!("{}{ours}", name.strip_suffix(theirs)?)))
}

/// The stored name of one of our factors.
pub(super) fn stored(ours: &str) -> String {
    format!("{UNET}{ours}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_become_one() {
        let wanted = "mid_block.attentions.0.proj_in.lora_A.weight";
        assert_eq!(ours("unet.mid_block.attentions.0.proj_in.lora.down.weight").as_deref(), Some(wanted));
        assert_eq!(ours("unet.mid_block.attentions.0.proj_in.lora_A.weight").as_deref(), Some(wanted));
        assert_eq!(ours(&stored(wanted)).as_deref(), Some(wanted));
    }

    #[test]
    fn what_is_no_factor_has_no_name_here() {
        for name in [
            "unet.mid_block.attentions.0.proj_in.alpha",
            "text_encoder.q_proj.lora_A.weight",
            "lora_unet_x.lora_down.weight",
        ] {
            assert_eq!(ours(name), None, "{name}");
        }
    }
}
