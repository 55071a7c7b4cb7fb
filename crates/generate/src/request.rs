//! What to generate, and how.

use std::sync::Arc;

use image::RgbImage;
use tastemaker_data::transform::Size;
use tastemaker_math::samplers::Sampler;

/// One image to generate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SampleRequest {
    /// What it shall show.
    pub prompt: String,
    /// The negative prompt; `None` for the unconditional conditioning that the model was trained with.
    pub negative_prompt: Option<String>,
    /// Its starting noise: the same (seed, number) gives the same noise to every model.
    pub seed: u64,
    /// Which of the prompts of this seed.
    pub number: u64,
    /// An image to start from, cut and resized to the size generated; only the last part of the steps is then taken. A
    /// [`layout`](crate::layout()) of colored blocks will do.
    ///
    /// Source: SDEdit, arXiv 2108.01073.
    pub image: Option<Arc<RgbImage>>,
}

/// How images are generated.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GenerateSettings {
    /// How steps are taken.
    pub sampler: Sampler,
    /// Sampler steps.
    pub n_steps: usize,
    /// Classifier-free guidance; 1 and below is without.
    pub guidance_scale: f64,
    /// Fraction of the guided prediction that gets the standard deviation of the conditional one.
    pub guidance_rescale: f64,
    /// Images per forward pass.
    pub batch_size: usize,
    /// Fraction of posterior noise of DDIM; 0 is deterministic. The other samplers want 0.
    pub eta: f64,
    /// Width and height in pixels; `None` for the model's own square.
    pub size: Option<Size>,
    /// Fraction of the steps that an image to start from goes through.
    pub strength: f64,
}

impl Default for GenerateSettings {
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
