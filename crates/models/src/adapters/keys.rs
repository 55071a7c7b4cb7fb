//! Names under which diffusers and kohya's scripts store low-rank factors of a UNet.
//!
//! Source: `huggingface/diffusers:src/diffusers/utils/state_dict_utils.py`; `kohya-ss/sd-scripts:networks/lora.py`.

use crate::original::Layout;
use crate::unet::{UNetConfig, original_name};

/// What stands before every layer's name.
pub(super) const UNET: &str = "unet.";

/// End of a down factor's name, ours and in files of today.
pub(super) const DOWN: &str = ".lora_A.weight";

/// End of an up factor's name, ours and in files of today.
pub(super) const UP: &str = ".lora_B.weight";

/// End of the name of DoRA's magnitudes, ours and in files.
pub(super) const MAGNITUDE: &str = ".lora_magnitude_vector";

/// (End of a stored name, end of our name).
const ENDS: [(&str, &str); 14] = [
    (DOWN, DOWN),
    (UP, UP),
    (MAGNITUDE, MAGNITUDE),
    (".lora_magnitude_vector.weight", MAGNITUDE),
    (".lora.down.weight", DOWN),
    (".lora.up.weight", UP),
    // As attention processors held them, the only spelling in the `.bin` files of their time.
    ("to_q_lora.down.weight", "to_q.lora_A.weight"),
    ("to_q_lora.up.weight", "to_q.lora_B.weight"),
    ("to_k_lora.down.weight", "to_k.lora_A.weight"),
    ("to_k_lora.up.weight", "to_k.lora_B.weight"),
    ("to_v_lora.down.weight", "to_v.lora_A.weight"),
    ("to_v_lora.up.weight", "to_v.lora_B.weight"),
    ("to_out_lora.down.weight", "to_out.0.lora_A.weight"),
    ("to_out_lora.up.weight", "to_out.0.lora_B.weight"),
];

/// Part of the names that attention processors had, with or without [`UNET`] before them.
const PROCESSOR: &str = ".processor.";

/// Our name of a factor: `<layer>.lora_A.weight` or `<layer>.lora_B.weight`; `None` for any other tensor.
pub(super) fn ours(stored: &str) -> Option<String> {
    let name = stored.strip_prefix(UNET).or_else(|| stored.contains(PROCESSOR).then_some(stored))?;
    let name = name.replace(PROCESSOR, ".");
    ENDS.iter().find_map(|(theirs, ours)| Some(format!("{}{ours}", name.strip_suffix(theirs)?)))
}

/// The stored name of one of our factors.
pub(super) fn stored(ours: &str) -> String {
    format!("{UNET}{ours}")
}

/// What stands before a UNet layer's name in kohya's files.
const KOHYA_UNET: &str = "lora_unet_";

/// (End of our name, end of kohya's name).
pub(super) const KOHYA_ENDS: [(&str, &str); 3] =
    [(DOWN, ".lora_down.weight"), (UP, ".lora_up.weight"), (MAGNITUDE, ".dora_scale")];

/// End of the name of the scale's numerator in kohya's files.
pub(super) const KOHYA_ALPHA: &str = ".alpha";

/// Kohya's name of a layer: diffusers' own for SD1.x and SD2.x, the original one for SDXL. `None` for a layer that no
/// original checkpoint has.
pub(super) fn kohya(layout: Layout, config: &UNetConfig, layer: &str) -> Option<String> {
    match layout {
        Layout::Sd1 | Layout::Sd2 => Some(kohya_plain(layer)),
        Layout::Sdxl => Some(kohya_plain(&original_name(config, layer)?)),
    }
}

/// Whether this is the name of a UNet's factor in a kohya file.
pub(super) fn is_kohya(stored: &str) -> bool {
    stored.starts_with(KOHYA_UNET) && KOHYA_ENDS.iter().any(|(_, theirs)| stored.ends_with(theirs))
}

/// Any dotted name as kohya spells it.
pub(super) fn kohya_plain(layer: &str) -> String {
    format!("{KOHYA_UNET}{}", layer.replace('.', "_"))
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
        let old = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight";
        let wanted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight";
        assert_eq!(ours(old).as_deref(), Some(wanted));
        assert_eq!(ours(&format!("unet.{old}")).as_deref(), Some(wanted));
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
