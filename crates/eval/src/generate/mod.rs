//! Painting prompts: noise by key, sampler, codec, pictures.

mod layout;
mod painter;

pub use layout::{Block, layout};
pub use painter::{Networks, Painter};

use std::sync::Arc;

use image::RgbImage;
use tastemaker_data::transform::Size;
use tastemaker_math::samplers::Sampler;

/// One picture to paint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Job {
    /// What it shall show.
    pub prompt: String,
    /// What guidance leads away from; `None` for what the model is led away from by itself, nothing in words.
    pub negative_prompt: Option<String>,
    /// Its starting noise: the same (seed, number) gives the same noise to every model.
    pub seed: u64,
    /// Which of the prompts of this seed.
    pub number: u64,
    /// A picture to start from, cut and resized to the size painted; only the last part of the steps is then taken. A
    /// [`layout`] of coloured blocks will do.
    ///
    /// Source: SDEdit, arXiv 2108.01073.
    pub picture: Option<Arc<RgbImage>>,
}

/// How pictures are painted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaintSettings {
    /// How steps are taken.
    pub sampler: Sampler,
    /// Sampler steps.
    pub n_steps: usize,
    /// Guidance as diffusers counts it: 1 is none.
    pub guidance_scale: f64,
    /// How much of the guided prediction gets the deviation of the conditional one, from 0 to 1.
    pub guidance_rescale: f64,
    /// Pictures per forward pass.
    pub batch_size: usize,
    /// Share of posterior noise of DDIM; 0 is deterministic. The other samplers want 0.
    pub eta: f64,
    /// Width and height in pixels; `None` for the model's own square.
    pub size: Option<Size>,
    /// Share of the steps that a picture to start from goes through.
    pub strength: f64,
}

impl Default for PaintSettings {
    /// Those of diffusers' pipelines, with DDIM.
    fn default() -> Self {
        Self {
            sampler: Sampler::Ddim,
            n_steps: 50,
            guidance_scale: 7.5,
            guidance_rescale: 0.0,
            batch_size: 4,
            eta: 0.0,
            size: None,
            strength: 0.8,
        }
    }
}
