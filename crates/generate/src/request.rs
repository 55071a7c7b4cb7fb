//! What to generate, and how.

use std::sync::Arc;

use image::RgbImage;
use tastemaker_data::transform::Size;
use tastemaker_math::ddim::Spacing;
use tastemaker_math::flow::Shift;
use tastemaker_math::samplers::Sampler;
use tastemaker_math::schedule::{NoiseSchedule, Prediction};
use tastemaker_models::pipeline::{Family, Model, SchedulerConfig};

use crate::GenerateError;

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

impl GenerateSettings {
    /// Those that images of a model's family are drawn with: the sampler of its own scheduler, 50 steps, guidance 7.5 and for
    /// SDXL 5, SD3 7 in 28 steps, Z-Image 6. Models distilled to a few steps, as SDXL-Turbo, get four without guidance, Z-Image-Turbo
    /// eight.
    ///
    /// Source: diffusers' pipelines; `log_validation` of its `research_projects/diffusion_dpo`.
    ///
    /// # Errors
    /// [`GenerateError::Model`] for a configuration that cannot be read.
    pub fn of(model: &Model) -> Result<Self, GenerateError> {
        let scheduler = model.schedule()?;
        let sampler = own_sampler(&scheduler);
        if model.family() == Family::ZImage && is_turbo(&scheduler.schedule) {
            return Ok(Self::in_few_steps(8, sampler));
        }
        if draws_in_few_steps(model, &scheduler)? {
            return Ok(Self::in_few_steps(4, sampler));
        }
        let default = Self::default();
        let (guidance_scale, n_steps) = match model.family() {
            Family::StableDiffusion => (7.5, default.n_steps),
            Family::StableDiffusionXl => (5.0, default.n_steps),
            Family::StableDiffusion3 => (7.0, 28),
            // Its pipeline counts one less, `c + g (c - u)`.
            Family::ZImage => (6.0, default.n_steps),
        };
        Ok(Self { sampler, guidance_scale, n_steps, ..default })
    }

    /// Those of a model distilled to so many steps.
    pub fn in_few_steps(n_steps: usize, sampler: Sampler) -> Self {
        // DDIM keeps what is left of the noise, of which there is much after so few steps.
        let sampler = if sampler == Sampler::Ddim { Sampler::EulerAncestral } else { sampler };
        Self { sampler, n_steps, guidance_scale: 0.0, ..Self::default() }
    }
}

/// The sampler of a model's scheduler; DDIM, which methods of this program train on, for those that are not here.
fn own_sampler(scheduler: &SchedulerConfig) -> Sampler {
    let named = scheduler.class.parse().unwrap_or_default();
    let from_nothing = scheduler.schedule.ends_in_noise()
        && scheduler.schedule.prediction() == Prediction::Epsilon
        && scheduler.sampling_by(Sampler::Ddim).spacing != Spacing::Leading;
    if named == Sampler::Ddim && from_nothing { Sampler::EulerAncestral } else { named }
}

/// Whether levels are those of Z-Image-Turbo, which is made like Z-Image and shifts them by 3, not by 6.
fn is_turbo(schedule: &NoiseSchedule) -> bool {
    schedule.as_flow().is_some_and(|flow| matches!(flow.shift, Shift::Static(factor) if factor <= 3.0))
}

/// Whether a model was distilled to a few steps. Its configuration shows it by a scheduler that starts at the last timestep though
/// the network predicts noise, which others cannot do; SDXL-Turbo is besides the one SDXL of 512 pixels.
fn draws_in_few_steps(model: &Model, scheduler: &SchedulerConfig) -> Result<bool, GenerateError> {
    if matches!(scheduler.class, "LCMScheduler" | "TCDScheduler") {
        return Ok(true);
    }
    let is_euler = matches!(scheduler.class, "EulerDiscreteScheduler" | "EulerAncestralDiscreteScheduler");
    let trailing = scheduler.stated_spacing == Some(Spacing::Trailing)
        && scheduler.schedule.prediction() == Prediction::Epsilon;
    let is_small = model.family() == Family::StableDiffusion || model.backbone_config()?.sample_size() <= 64;
    Ok(is_euler && trailing && is_small)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_distilled_model_is_drawn_by_its_own_sampler() {
        for (class, sampler, few) in [
            ("LCMScheduler", Sampler::Lcm, Sampler::Lcm),
            ("TCDScheduler", Sampler::Tcd, Sampler::Tcd),
            ("EulerAncestralDiscreteScheduler", Sampler::EulerAncestral, Sampler::EulerAncestral),
            ("DDIMScheduler", Sampler::Ddim, Sampler::EulerAncestral),
            ("UniPCMultistepScheduler", Sampler::Ddim, Sampler::EulerAncestral),
        ] {
            let config = json!({"_class_name": class, "clip_sample": false});
            let scheduler = SchedulerConfig::from_json(&config).unwrap();
            let own = own_sampler(&scheduler);
            assert_eq!((own, GenerateSettings::in_few_steps(4, own).sampler), (sampler, few), "{class}");
        }
    }
}
