//! How the C allocator treats memory that libtorch frees, by the size of the network.
//!
//! A small network's step is a third faster if freed blocks are kept. One of SD1.5's size is slower so, and its peak a fifth
//! higher, because large blocks of many sizes no longer fit each other's places (`docs/log.md`).

use anyhow::Result;
use tastemaker_models::original::n_numbers;
use tastemaker_models::pipeline::Model;
use tastemaker_torch::memory;

/// Networks with more numbers than this are large. The demo's has 4.5 million, the smallest published one 860.
const LARGE: u64 = 100_000_000;

/// Sets the allocator up for work with a model. Call it before its weights are read.
///
/// # Errors
/// Those of [`Model::backbone_config`].
pub fn suit(model: &Model) -> Result<()> {
    if n_numbers(&model.backbone_config()?.shapes()) < LARGE {
        memory::keep_freed();
    }
    Ok(())
}
