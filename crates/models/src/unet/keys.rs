//! Names of a UNet's layers in original Stable Diffusion checkpoints.
//!
//! Original names count blocks through all levels: a level with n ResNet blocks takes n places on the way down, one more
//! for its downsampling, and n + 1 places on the way up.
//!
//! Source: names in `CompVis/stable-diffusion:ldm/modules/diffusionmodules/openaimodel.py`.

use super::config::{BlockKind, UNetConfig};
use crate::names::after;

/// (Our name, original name) of the layers outside all blocks.
const OUTER: [(&str, &str); 7] = [
    ("conv_in", "input_blocks.0.0"),
    ("time_embedding.linear_1", "time_embed.0"),
    ("time_embedding.linear_2", "time_embed.2"),
    ("add_embedding.linear_1", "label_emb.0.0"),
    ("add_embedding.linear_2", "label_emb.0.2"),
    ("conv_norm_out", "out.0"),
    ("conv_out", "out.2"),
];

/// (Our name, original name) of the layers of a ResNet block.
const RESNET: [(&str, &str); 6] = [
    ("norm1", "in_layers.0"),
    ("conv1", "in_layers.2"),
    ("time_emb_proj", "emb_layers.1"),
    ("norm2", "out_layers.0"),
    ("conv2", "out_layers.3"),
    ("conv_shortcut", "skip_connection"),
];

/// The original name of a layer, or of a tensor in it; `None` for names no such UNet has.
pub fn original(config: &UNetConfig, name: &str) -> Option<String> {
    let outer = OUTER.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", after(name, ours)?)));
    outer.or_else(|| in_blocks(config, name))
}

fn in_blocks(config: &UNetConfig, name: &str) -> Option<String> {
    if let Some(inner) = name.strip_prefix("mid_block.") {
        let (kind, index, inner) = layer(inner)?;
        return match kind {
            "resnets" => Some(format!("middle_block.{}.{}", 2 * index, resnet(inner)?)),
            "attentions" => Some(format!("middle_block.1.{inner}")),
            _ => None,
        };
    }
    let n_levels = config.block_out_channels.len();
    if let Some(inner) = name.strip_prefix("down_blocks.") {
        let (level, inner) = numbered(inner, n_levels)?;
        let start = 1 + config.layers_per_block[..level].iter().map(|n| n + 1).sum::<i64>();
        let (kind, index, inner) = layer(inner)?;
        return match kind {
            "resnets" => Some(format!("input_blocks.{}.0.{}", start + index, resnet(inner)?)),
            "attentions" => Some(format!("input_blocks.{}.1.{inner}", start + index)),
            "downsamplers" => {
                let end = start + config.layers_per_block[level];
                Some(format!("input_blocks.{end}.0.op{}", after(inner, "conv")?))
            }
            _ => None,
        };
    }
    let (place, inner) = numbered(name.strip_prefix("up_blocks.")?, n_levels)?;
    let n_layers = |place: usize| config.layers_per_block[n_levels - 1 - place] + 1;
    let start: i64 = (0..place).map(n_layers).sum();
    let (kind, index, inner) = layer(inner)?;
    match kind {
        "resnets" => Some(format!("output_blocks.{}.0.{}", start + index, resnet(inner)?)),
        "attentions" => Some(format!("output_blocks.{}.1.{inner}", start + index)),
        "upsamplers" => {
            let end = start + n_layers(place) - 1;
            let behind = if config.up_blocks[place] == BlockKind::CrossAttention { 2 } else { 1 };
            Some(format!("output_blocks.{end}.{behind}.{inner}"))
        }
        _ => None,
    }
}

/// `<n>.<rest>`, with n below `limit`.
fn numbered(name: &str, limit: usize) -> Option<(usize, &str)> {
    let (number, rest) = name.split_once('.')?;
    Some((number.parse().ok().filter(|&n| n < limit)?, rest))
}

/// `<kind>.<index>.<rest>`.
fn layer(name: &str) -> Option<(&str, i64, &str)> {
    let (kind, rest) = name.split_once('.')?;
    let (index, rest) = rest.split_once('.')?;
    Some((kind, index.parse().ok()?, rest))
}

fn resnet(inner: &str) -> Option<String> {
    RESNET.iter().find_map(|(ours, theirs)| Some(format!("{theirs}{}", after(inner, ours)?)))
}
