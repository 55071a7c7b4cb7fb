//! Names that other checkpoints use for a VAE's tensors.

use super::config::VaeConfig;
use crate::names::after;
use crate::place::{Change, Place};

/// (Old part of a name, the part diffusers uses today).
const RENAMED: [(&str, &str); 4] =
    [(".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")];

/// The name diffusers uses today for a tensor of an `AutoencoderKL` checkpoint.
pub fn modern_name(name: &str) -> Option<String> {
    if !name.contains(".attentions.") {
        return Some(name.to_owned());
    }
    Some(RENAMED.iter().fold(name.to_owned(), |name, (old, new)| name.replace(old, new)))
}

/// (Our name, original name) of the layers of the encoder or the decoder outside all blocks.
const OUTER: [(&str, &str); 3] =
    [("conv_in", "conv_in"), ("conv_norm_out", "norm_out"), ("conv_out", "conv_out")];

/// (Our name, original name) of the attention layers, 1x1 convolutions in the original but for the first.
const ATTENTION: [(&str, &str); 5] =
    [("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "proj_out")];

/// Where a tensor lies in an original Stable Diffusion checkpoint; `None` for names no such VAE has.
///
/// Source: names in `CompVis/stable-diffusion:ldm/modules/diffusionmodules/model.py`, whose decoder counts its levels from
/// the full resolution, as diffusers' does not.
pub fn original(config: &VaeConfig, name: &str) -> Option<Place> {
    if after(name, "quant_conv").or(after(name, "post_quant_conv")).is_some() {
        return Some(Place::same(name));
    }
    let (half, inner) = name.split_once('.')?;
    if half != "encoder" && half != "decoder" {
        return None;
    }
    let place = |inner: String, change| Some(Place { name: format!("{half}.{inner}"), change });
    if let Some((theirs, end)) = renamed(&OUTER, inner) {
        return place(format!("{theirs}{end}"), Change::None);
    }
    let (block, rest) = inner.split_once('.')?;
    if block == "mid_block" {
        if let Some(inner) = rest.strip_prefix("attentions.0.") {
            let (theirs, end) = renamed(&ATTENTION, inner)?;
            let linear = theirs != "norm" && end == ".weight";
            return place(
                format!("mid.attn_1.{theirs}{end}"),
                if linear { Change::Pixels } else { Change::None },
            );
        }
        let (index, inner) = rest.strip_prefix("resnets.")?.split_once('.')?;
        let index: usize = index.parse().ok()?;
        return place(format!("mid.block_{}.{}", index + 1, resnet(inner)), Change::None);
    }
    let n_levels = config.block_out_channels.len();
    let (number, rest) = rest.split_once('.')?;
    let number = number.parse::<usize>().ok().filter(|&n| n < n_levels)?;
    let (way, level) = match (half, block) {
        ("encoder", "down_blocks") => ("down", number),
        ("decoder", "up_blocks") => ("up", n_levels - 1 - number),
        _ => return None,
    };
    let (kind, rest) = rest.split_once('.')?;
    let (index, inner) = rest.split_once('.')?;
    match kind {
        "resnets" => place(format!("{way}.{level}.block.{index}.{}", resnet(inner)), Change::None),
        "downsamplers" => place(format!("{way}.{level}.downsample.{inner}"), Change::None),
        "upsamplers" => place(format!("{way}.{level}.upsample.{inner}"), Change::None),
        _ => None,
    }
}

fn renamed<'a>(table: &[(&str, &'static str)], name: &'a str) -> Option<(&'static str, &'a str)> {
    table.iter().find_map(|(ours, theirs)| Some((*theirs, after(name, ours)?)))
}

fn resnet(inner: &str) -> String {
    inner.replacen("conv_shortcut", "nin_shortcut", 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_attention_names_change() {
        assert_eq!(
            modern_name("encoder.mid_block.attentions.0.query.weight").as_deref(),
            Some("encoder.mid_block.attentions.0.to_q.weight")
        );
        assert_eq!(
            modern_name("decoder.mid_block.attentions.0.proj_attn.bias").as_deref(),
            Some("decoder.mid_block.attentions.0.to_out.0.bias")
        );
        assert_eq!(modern_name("encoder.conv_in.weight").as_deref(), Some("encoder.conv_in.weight"));
    }
}
