//! The table of positions of image patches.

use tch::{Device, Kind, Tensor};

use super::config::MmditConfig;

/// The table that diffusers stores with the parameters: sines and cosines of a patch's column, then of its row.
///
/// # Shapes
/// `[1, m^2, c]` f32 for m patches a side.
///
/// Source: `get_2d_sincos_pos_embed`, `huggingface/diffusers:src/diffusers/models/embeddings.py`.
pub(super) fn table(config: &MmditConfig) -> Tensor {
    let (m, width) = (config.pos_embed_max_size, config.width());
    let options = (Kind::Double, Device::Cpu);
    let base = config.sample_size / config.patch_size;
    let places = Tensor::arange(m, options) * (base as f64 / m as f64);
    let k = Tensor::arange(width / 4, options);
    let frequencies = (k * (-(10_000f64.ln()) / (width / 4) as f64)).exp();
    let angles = places.unsqueeze(1) * frequencies.unsqueeze(0); // [m, c / 4]
    let waves = Tensor::cat(&[angles.sin(), angles.cos()], 1); // [m, c / 2]
    let columns = waves.unsqueeze(0).expand([m, m, width / 2], false);
    let rows = waves.unsqueeze(1).expand([m, m, width / 2], false);
    Tensor::cat(&[columns, rows], 2).view([1, m * m, width]).to_kind(Kind::Float)
}

/// The middle of the table, for an image of `h` by `w` patches.
///
/// # Shapes
/// `[1, m^2, c]` to `[1, h w, c]`.
pub(super) fn cropped(table: &Tensor, m: i64, h: i64, w: i64) -> Tensor {
    let (top, left) = ((m - h) / 2, (m - w) / 2);
    table.view([m, m, -1]).narrow(0, top, h).narrow(1, left, w).reshape([1, h * w, -1])
}
