//! How the C allocator treats memory that libtorch frees, by the size of the network.
//!
//! A small network's step is a third faster if freed blocks are kept. One of SD1.5's size is slower so, and its peak a sixth
//! higher, because large blocks of many sizes no longer fit each other's places (`docs/log.md`).

use anyhow::Result;
use tastemaker_models::original::unet_shapes;
use tastemaker_models::pipeline::Model;
use tastemaker_torch::memory;

/// Networks with more numbers than this are large. The demo's has 4.5 million, the smallest published one 860.
const LARGE: usize = 100_000_000;

/// Sets the allocator up for work with a model. Call it before its weights are read.
///
/// # Errors
/// Those of [`Model::unet_config`].
pub fn suit(model: &Model) -> Result<()> {
    let shapes = unet_shapes(&model.unet_config()?);
    let n_weights: usize = shapes.values().map(|shape| shape.iter().product::<usize>()).sum();
    if n_weights < LARGE {
        memory::keep_freed();
    }
    Ok(())
}
