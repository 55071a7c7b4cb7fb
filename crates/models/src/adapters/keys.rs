//! Names under which diffusers and kohya's scripts store low-rank factors.
//!
//! Source: `huggingface/diffusers:src/diffusers/utils/state_dict_utils.py`; `kohya-ss/sd-scripts:networks/lora.py`.

use crate::backbone::BackboneConfig;
use crate::clip_text::modern_name;
use crate::mmdit;
use crate::original::Layout;
use crate::place::Change;
use crate::unet::original_name;
use crate::zimage;

/// The component that is the UNet; its name and a dot stand before its layers' names.
pub(super) const UNET: &str = "unet";

/// The component that is a transformer in its place.
pub(super) const TRANSFORMER: &str = "transformer";

/// What else stands before the names of a transformer's layers, where these are diffusers' own: as ComfyUI and trainers for it write them,
/// and as peft does.
const OF_TRANSFORMERS: [&str; 2] =
    ["diffusion_model.transformer_blocks.", "base_model.model.transformer_blocks."];

/// The components that are text encoders.
pub(super) const TEXT: [&str; 2] = ["text_encoder", "text_encoder_2"];

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

/// (End of a stored name, end of our name) in text encoders.
const TEXT_ENDS: [(&str, &str); 16] = [
    (DOWN, DOWN),
    (UP, UP),
    (MAGNITUDE, MAGNITUDE),
    (".lora_magnitude_vector.weight", MAGNITUDE),
    (".lora_linear_layer.down.weight", DOWN),
    (".lora_linear_layer.up.weight", UP),
    (".lora.down.weight", DOWN),
    (".lora.up.weight", UP),
    (".to_q_lora.down.weight", ".q_proj.lora_A.weight"),
    (".to_q_lora.up.weight", ".q_proj.lora_B.weight"),
    (".to_k_lora.down.weight", ".k_proj.lora_A.weight"),
    (".to_k_lora.up.weight", ".k_proj.lora_B.weight"),
    (".to_v_lora.down.weight", ".v_proj.lora_A.weight"),
    (".to_v_lora.up.weight", ".v_proj.lora_B.weight"),
    (".to_out_lora.down.weight", ".out_proj.lora_A.weight"),
    (".to_out_lora.up.weight", ".out_proj.lora_B.weight"),
];

/// Part of the names that attention processors had, with or without [`UNET`] before them.
const PROCESSOR: &str = ".processor.";

/// Component and our name of a factor: `<layer>.lora_A.weight` or `<layer>.lora_B.weight`; `None` for any other tensor.
pub(super) fn ours(stored: &str) -> Option<(&'static str, String)> {
    let below = |component: &str| stored.strip_prefix(component)?.strip_prefix('.');
    if let Some((component, name)) = TEXT.into_iter().find_map(|text| Some((text, below(text)?))) {
        let found = |(theirs, ours): &(&str, &str)| {
            Some(format!("{}{ours}", modern_name(name.strip_suffix(theirs)?)?))
        };
        return Some((component, TEXT_ENDS.iter().find_map(found)?));
    }
    let in_transformer = || {
        let start = OF_TRANSFORMERS.iter().find(|start| stored.starts_with(**start))?;
        let (_, block) =
            start.rsplit_once("transformer_blocks.").map(|(before, _)| stored.split_at(before.len()))?;
        Some(block)
    };
    if let Some(name) = below(TRANSFORMER).or_else(in_transformer) {
        let found = |(theirs, ours): &(&str, &str)| Some(format!("{}{ours}", name.strip_suffix(theirs)?));
        return Some((TRANSFORMER, ENDS.iter().find_map(found)?));
    }
    let name = below(UNET).or_else(|| stored.contains(PROCESSOR).then_some(stored))?;
    let name = name.replace(PROCESSOR, ".");
    let found = |(theirs, ours): &(&str, &str)| Some(format!("{}{ours}", name.strip_suffix(theirs)?));
    Some((UNET, ENDS.iter().find_map(found)?))
}

/// A key of peft's patterns under our names: newer transformers releases leave a prefix out.
pub(super) fn pattern(component: &str, key: String) -> String {
    match key.strip_prefix('^').filter(|_| TEXT.contains(&component)).and_then(modern_name) {
        Some(whole) => format!("^{whole}"),
        None => key,
    }
}

/// The stored name of one of a component's factors, or of one of its settings.
pub(super) fn stored(component: &str, ours: &str) -> String {
    format!("{component}.{ours}")
}

/// What stands before a UNet layer's name in kohya's files.
const KOHYA_UNET: &str = "lora_unet_";

/// What stands before a layer's name of a transformer of SD3, as ComfyUI reads it: kohya's own names are of queries, keys and values in
/// one, which factors of each cannot be brought to without growing.
///
/// Source: `model_lora_keys_unet`, `Comfy-Org/ComfyUI:comfy/lora.py`.
const KOHYA_TRANSFORMER: &str = "lora_transformer_";

/// What stands before diffusers' name of a layer of Z-Image, as ComfyUI and diffusers both read it, and before the original name of one
/// of SD3, as ComfyUI does.
///
/// Source: `model_lora_keys_unet`, `Comfy-Org/ComfyUI:comfy/lora.py`; `_convert_non_diffusers_z_image_lora_to_diffusers`,
/// `huggingface/diffusers:src/diffusers/loaders/lora_conversion_utils.py`.
const COMFY: &str = "diffusion_model.";

/// Whose names in the files of others are dotted paths, with or without one of these before them.
const DOTTED: [&str; 4] = [COMFY, "transformer.", "base_model.model.", ""];

/// (End of our name, end of kohya's name).
const KOHYA_ENDS: [(&str, &str); 3] =
    [(DOWN, ".lora_down.weight"), (UP, ".lora_up.weight"), (MAGNITUDE, ".dora_scale")];

/// The same in dotted names: factors are called as in diffusers' files.
const DOTTED_ENDS: [(&str, &str); 3] = [(DOWN, DOWN), (UP, UP), (MAGNITUDE, ".dora_scale")];

/// (End of our name, end of the name in a layout's file for other programs).
pub(super) fn kohya_ends(layout: Layout) -> [(&'static str, &'static str); 3] {
    if layout == Layout::ZImage { DOTTED_ENDS } else { KOHYA_ENDS }
}

/// The name of a layer in a kohya file, and the end of our name of what the tensor is, empty for the numerator of its scale.
pub(super) fn parted_kohya(stored: &str) -> Option<(&str, &'static str)> {
    let ends = KOHYA_ENDS.iter().chain(&DOTTED_ENDS).copied().chain([("", KOHYA_ALPHA)]);
    ends.into_iter().find_map(|(ours, theirs)| Some((stored.strip_suffix(theirs)?, ours)))
}

/// End of the name of the scale's numerator in kohya's files.
pub(super) const KOHYA_ALPHA: &str = ".alpha";

/// Kohya's name of a layer: diffusers' own for SD1.x, SD2.x and SD3, the original one for SDXL. `None` for a layer that no
/// original checkpoint has.
pub(super) fn kohya(layout: Layout, config: &BackboneConfig, layer: &str) -> Option<String> {
    match config {
        BackboneConfig::UNet(config) if layout == Layout::Sdxl => {
            Some(kohya_plain(layout, &original_name(config, layer)?))
        }
        BackboneConfig::ZImage(_) => Some(format!("{COMFY}{layer}")),
        _ => Some(kohya_plain(layout, layer)),
    }
}

/// Every name that a layer has in kohya's files, and which rows of what stands there are its own.
pub(super) fn kohya_spellings(layout: Layout, config: &BackboneConfig, layer: &str) -> Vec<(String, Change)> {
    let ours = [kohya(layout, config, layer), Some(kohya_plain(layout, layer))].into_iter().flatten();
    let mut spellings: Vec<_> = ours.map(|spelled| (spelled, Change::None)).collect();
    if let BackboneConfig::Mmdit(config) = config
        && let Some(place) = mmdit::original_place(config, &format!("{layer}.weight"))
    {
        let name = place.name.trim_end_matches(".weight");
        spellings.push((format!("{KOHYA_UNET}{}", name.replace('.', "_")), place.change));
        spellings.push((format!("{COMFY}{name}"), place.change));
    }
    if let BackboneConfig::ZImage(config) = config {
        let place = zimage::original_place(config, &format!("{layer}.weight"));
        let native = place.map(|place| (place.name.trim_end_matches(".weight").to_owned(), place.change));
        for (name, change) in native.into_iter().chain([(layer.to_owned(), Change::None)]) {
            let flat = name.replace('.', "_");
            spellings.extend(DOTTED.map(|start| (format!("{start}{name}"), change)));
            spellings.extend(FLAT.map(|start| (format!("{start}{flat}"), change)));
        }
    }
    spellings
}

/// What stands before names whose dots are written as underscores.
const FLAT: [&str; 3] = [KOHYA_UNET, KOHYA_TRANSFORMER, "lycoris_"];

/// (Component, what stands before its layers' names in kohya's files).
fn kohya_text(layout: Layout) -> &'static [(&'static str, &'static str)] {
    match layout {
        Layout::Sd1 | Layout::Sd2 => &[(TEXT[0], "lora_te_")],
        Layout::Sdxl | Layout::Sd3 => &[(TEXT[0], "lora_te1_"), (TEXT[1], "lora_te2_")],
        Layout::ZImage => &[],
    }
}

/// What stands before the number of a text encoder's block.
const TEXT_BLOCK: &str = "text_model.encoder.layers.";

/// The layers of such a block.
const TEXT_LAYERS: [&str; 6] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2"];

/// The one layer outside.
const TEXT_PROJECTION: &str = "text_projection";

/// Kohya's name of a text encoder's layer; `None` for a component the layout lacks.
pub(super) fn kohya_of_text(layout: Layout, component: &str, layer: &str) -> Option<String> {
    let (_, prefix) = kohya_text(layout).iter().find(|(own, _)| *own == component)?;
    Some(format!("{prefix}{}", layer.replace('.', "_")))
}

/// The text encoder's layer of this name in a kohya file, with its component.
pub(super) fn text_of_kohya(layout: Layout, spelled: &str) -> Option<(&'static str, String)> {
    let (component, name) = kohya_text(layout)
        .iter()
        .find_map(|(component, prefix)| Some((*component, spelled.strip_prefix(prefix)?)))?;
    if name == TEXT_PROJECTION {
        return Some((component, name.to_owned()));
    }
    let (number, inner) = name.strip_prefix(&TEXT_BLOCK.replace('.', "_"))?.split_once('_')?;
    number.parse::<u32>().ok()?;
    let inner = TEXT_LAYERS.into_iter().find(|layer| layer.replace('.', "_") == inner)?;
    Some((component, format!("{TEXT_BLOCK}{number}.{inner}")))
}

/// Whether this is the name of a factor in a kohya file, or in one with dotted names that diffusers' own files do not have.
pub(super) fn is_kohya(stored: &str) -> bool {
    let of_zimage = |start: &str| {
        let rest = stored.strip_prefix(start);
        rest.is_some_and(|rest| zimage::BLOCKS.iter().any(|blocks| rest.starts_with(blocks)))
    };
    if DOTTED.into_iter().any(of_zimage) {
        let is_diffusers = stored.starts_with("transformer.") && ours(stored).is_some();
        return !is_diffusers && parted_kohya(stored).is_some();
    }
    if stored.strip_prefix(COMFY).is_some_and(mmdit::is_original) {
        return parted_kohya(stored).is_some();
    }
    let mut prefixes = FLAT.into_iter().chain(["lora_te_", "lora_te1_", "lora_te2_"]);
    prefixes.any(|prefix| stored.starts_with(prefix))
        && KOHYA_ENDS.iter().any(|(_, theirs)| stored.ends_with(theirs))
}

/// Any dotted name as kohya spells it.
pub(super) fn kohya_plain(layout: Layout, layer: &str) -> String {
    let prefix = if layout == Layout::Sd3 { KOHYA_TRANSFORMER } else { KOHYA_UNET };
    format!("{prefix}{}", layer.replace('.', "_"))
}

/// (Part of a name, a dot after it, that only adapters of another kind have, what these are called).
///
/// Source: `KohakuBlueleaf/LyCORIS:lycoris/modules/`.
const OTHER_KINDS: [(&str, &str); 8] = [
    (".hada_w", "LoHa"),
    (".lokr_w", "LoKr"),
    (".oft_", "OFT"),
    (".on_input.", "IA3"),
    (".a1.weight.", "GLoRA"),
    (".lora_mid.weight.", "LoCon with Tucker decomposition"),
    (".diff.", "full differences"),
    (".w_norm.", "norm differences"),
];

/// (Beginning of a name that adapters of a family have, that family). Flux before SD3, whose names it also has.
///
/// Source: `kohya-ss/sd-scripts:networks/lora_flux.py`, `lora_sd3.py`, `sdxl`'s in `lora.py`; diffusers' pipelines.
const FAMILIES: [(&str, &str); 16] = [
    ("lora_unet_double_blocks_", "Flux"),
    ("lora_unet_single_blocks_", "Flux"),
    ("transformer.single_transformer_blocks.", "Flux"),
    ("lora_transformer_single_transformer_blocks_", "Flux"),
    ("diffusion_model.double_blocks.", "Flux"),
    ("diffusion_model.single_blocks.", "Flux"),
    ("lora_unet_joint_blocks_", "SD3"),
    ("diffusion_model.joint_blocks.", "SD3"),
    ("transformer.transformer_blocks.", "SD3"),
    ("lora_transformer_transformer_blocks_", "SD3"),
    ("diffusion_model.layers.", "Z-Image"),
    ("transformer.layers.", "Z-Image"),
    ("lora_unet_layers_", "Z-Image"),
    ("lora_te2_", "SDXL"),
    ("lora_unet_input_blocks_", "SDXL"),
    ("text_encoder_2.", "SDXL"),
];

/// (Beginning of what the header of an adapter says about its model, that family).
///
/// Source: `kohya-ss/sd-scripts:library/train_util.py` (`ss_base_model_version`), `library/sai_model_spec.py`
/// (`modelspec.architecture`).
const STATED: [(&str, &str); 15] = [
    ("sd_v1", "SD1.x"),
    ("sd_v2", "SD2.x"),
    ("sdxl", "SDXL"),
    ("sd3", "SD3"),
    ("flux", "Flux"),
    ("lumina", "Lumina"),
    ("hunyuan", "HunyuanImage"),
    ("stable-diffusion-v1", "SD1.x"),
    ("stable-diffusion-v2", "SD2.x"),
    ("stable-diffusion-xl", "SDXL"),
    ("stable-diffusion-3", "SD3"),
    ("stable-diffusion-v3", "SD3"),
    ("stable-cascade", "Stable Cascade"),
    ("z-image", "Z-Image"),
    ("zimage", "Z-Image"),
];

/// What an adapter of another kind than LoRA is called that has a tensor of this name.
pub(super) fn other_kind(stored: &str) -> Option<&'static str> {
    let whole = format!("{stored}.");
    OTHER_KINDS.iter().find(|(part, _)| whole.contains(part)).map(|(_, kind)| *kind)
}

/// The family that names of an adapter's tensors speak of.
pub(super) fn family_of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<&'static str> {
    FAMILIES
        .iter()
        .find(|(start, _)| names.clone().any(|name| name.starts_with(start)))
        .map(|(_, family)| *family)
}

/// The family that an adapter's header speaks of, given its entries by key.
pub(super) fn stated_family<'a>(entry: impl Fn(&str) -> Option<&'a String>) -> Option<&'static str> {
    ["ss_base_model_version", "modelspec.architecture"].into_iter().find_map(|key| {
        let text = entry(key)?.trim().to_ascii_lowercase();
        STATED.iter().find(|(start, _)| text.starts_with(start)).map(|(_, family)| *family)
    })
}

/// Whether this is the down factor of a layer that sees text, whose width tells families apart.
pub(super) fn sees_text(stored: &str) -> bool {
    let is_down = [".lora_down.weight", DOWN, "lora.down.weight"].iter().any(|end| stored.ends_with(end));
    is_down
        && ["attn2_to_k", "attn2_to_v", "attn2.to_k", "attn2.to_v", "attn2.processor.to_k"]
            .iter()
            .any(|at| stored.contains(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_becomes_one() {
        let unet = |name: &str| Some((UNET, name.to_owned()));
        let wanted = "mid_block.attentions.0.proj_in.lora_A.weight";
        assert_eq!(ours("unet.mid_block.attentions.0.proj_in.lora.down.weight"), unet(wanted));
        assert_eq!(ours("unet.mid_block.attentions.0.proj_in.lora_A.weight"), unet(wanted));
        assert_eq!(ours(&stored(UNET, wanted)), unet(wanted));
        let old = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight";
        let wanted = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0.lora_B.weight";
        assert_eq!(ours(old), unet(wanted));
        assert_eq!(ours(&format!("unet.{old}")), unet(wanted));

        let text = Some((TEXT[1], "text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight".to_owned()));
        for name in [
            "text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.down.weight",
            "text_model.encoder.layers.0.self_attn.to_q_lora.down.weight",
            "encoder.layers.0.self_attn.q_proj.lora_A.weight",
        ] {
            assert_eq!(ours(&format!("text_encoder_2.{name}")), text, "{name}");
        }
    }

    #[test]
    fn layers_of_text_encoders_go_there_and_back() {
        for (layout, component) in [(Layout::Sd2, TEXT[0]), (Layout::Sdxl, TEXT[0]), (Layout::Sdxl, TEXT[1])]
        {
            for layer in [
                "text_model.encoder.layers.11.self_attn.out_proj",
                "text_model.encoder.layers.0.mlp.fc2",
                TEXT_PROJECTION,
            ] {
                let spelled = kohya_of_text(layout, component, layer).unwrap();
                assert_eq!(text_of_kohya(layout, &spelled), Some((component, layer.to_owned())), "{spelled}");
            }
        }
        assert_eq!(kohya_of_text(Layout::Sd1, TEXT[1], TEXT_PROJECTION), None);
        assert_eq!(text_of_kohya(Layout::Sd1, "lora_te_text_model_encoder_layers_x_mlp_fc1"), None);
        assert_eq!(text_of_kohya(Layout::Sd1, "lora_te1_text_model_encoder_layers_0_mlp_fc1"), None);
    }

    #[test]
    fn what_is_no_factor_has_no_name_here() {
        for name in [
            "unet.mid_block.attentions.0.proj_in.alpha",
            "text_encoder.text_model.embeddings.lora_A.bias",
            "lora_unet_x.lora_down.weight",
        ] {
            assert_eq!(ours(name), None, "{name}");
        }
    }
}
