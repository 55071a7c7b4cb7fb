//! Painting prompts: noise by key, sampler, codec, pictures.

use image::RgbImage;
use tastemaker_data::transform::to_rgb;
use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::noise::{NoiseKey, gaussian, gaussians};
use tastemaker_diffusion::samplers::ddim;
use tastemaker_diffusion::{Conditioning, Denoiser, LatentCodec};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::keyed::Stream;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, SchedulerConfig, TextAdapters, TextEncoders};
use tastemaker_models::vae::Vae;
use tastemaker_torch::Precision;
use tch::{Device, Kind, Tensor};

use crate::EvalError;

/// One picture to paint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// What it shall show.
    pub prompt: String,
    /// Its starting noise: the same (seed, number) gives the same noise to every model.
    pub seed: u64,
    /// Which of the prompts of this seed.
    pub number: u64,
}

/// How pictures are painted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PaintSettings {
    /// Sampler steps.
    pub n_steps: usize,
    /// Guidance as diffusers counts it: 1 is none.
    pub guidance_scale: f64,
    /// Pictures per forward pass.
    pub batch_size: usize,
    /// Share of posterior noise; 0 is deterministic DDIM.
    pub eta: f64,
}

/// Everything of a model but its denoiser, so that several denoisers can share it.
#[derive(Debug)]
pub struct Painter {
    codec: Vae,
    text: TextEncoders,
    scheduler: SchedulerConfig,
    latent_shape: [i64; 3],
    resolution: i64,
    device: Device,
}

impl Painter {
    /// Loads codec, text encoders and noise schedule of a model folder.
    ///
    /// # Errors
    /// [`EvalError::Model`] for whatever the folder lacks.
    pub fn open(folder: &Model, precision: Precision, device: Device) -> Result<Self, EvalError> {
        Self::adapted(folder, TextAdapters::new(), precision, device)
    }

    /// As [`Painter::open`], with adapters of text encoders.
    ///
    /// # Errors
    /// [`EvalError::Model`], also for an adapter that does not fit.
    pub fn adapted(
        folder: &Model,
        text: TextAdapters,
        precision: Precision,
        device: Device,
    ) -> Result<Self, EvalError> {
        let unet = folder.unet_config()?;
        let codec = folder.vae(Role::Frozen, precision, device)?.network;
        let resolution = unet.sample_size * codec.config().downsampling();
        Ok(Self {
            text: folder.adapted_text(text, precision, device)?,
            scheduler: folder.schedule()?,
            latent_shape: [unet.in_channels, unet.sample_size, unet.sample_size],
            resolution,
            codec,
            device,
        })
    }

    /// Side of a picture, in pixels.
    pub fn resolution(&self) -> i64 {
        self.resolution
    }

    /// Paints every job with this denoiser, in order. The same jobs give the same pictures.
    ///
    /// A picture does not depend on the batch it is painted in beyond float summation order.
    ///
    /// # Errors
    /// [`EvalError::Schedule`] for a step count the schedule cannot serve.
    pub fn paint(
        &self,
        denoiser: &dyn Denoiser,
        jobs: &[Job],
        settings: &PaintSettings,
    ) -> Result<Vec<RgbImage>, EvalError> {
        let sampling = Sampling { n_steps: settings.n_steps, eta: settings.eta, ..self.scheduler.sampling };
        let unconditional = self.text.unconditional(self.resolution);
        let guided = Guided { denoiser, unconditional: &unconditional, scale: settings.guidance_scale };
        let mut pictures = Vec::with_capacity(jobs.len());
        for chunk in jobs.chunks(settings.batch_size.max(1)) {
            let prompts: Vec<&str> = chunk.iter().map(|job| job.prompt.as_str()).collect();
            let conditioning = self.text.encode(&prompts, self.resolution);
            let latents = self.latents(&guided, chunk, &conditioning, &sampling)?;
            let decoded = tch::no_grad(|| self.codec.decode(&latents)).to_device(Device::Cpu);
            for i in 0..chunk.len() as i64 {
                let values: Vec<f32> = Vec::try_from(decoded.get(i).to_kind(Kind::Float).flatten(0, -1))?;
                pictures.push(to_rgb(&values, self.resolution as u32, self.resolution as u32)?);
            }
        }
        Ok(pictures)
    }

    fn latents(
        &self,
        denoiser: &dyn Denoiser,
        jobs: &[Job],
        conditioning: &Conditioning,
        sampling: &Sampling,
    ) -> Result<Tensor, EvalError> {
        let keys = |draw: u64| -> Vec<NoiseKey> {
            let key =
                |job: &Job| NoiseKey { seed: job.seed, stream: Stream::Sample, index: job.number, draw };
            jobs.iter().map(key).collect()
        };
        let noise = gaussian(&keys(0), &self.latent_shape).to_device(self.device);
        let noise_source = gaussians(&keys(1), &self.latent_shape);
        Ok(ddim(denoiser, &noise, conditioning, &self.scheduler.schedule, sampling, noise_source)?)
    }
}
