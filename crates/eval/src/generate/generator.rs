//! The generator: a model but its denoiser.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use image::RgbImage;
use tastemaker_data::transform::{Size, to_chw, to_rgb};
use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::noise::{NoiseKey, gaussian, gaussians};
use tastemaker_diffusion::samplers::{sample, start};
use tastemaker_diffusion::{Conditioning, Denoiser, LatentVae};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::keyed::Stream;
use tastemaker_math::samplers::{Plan, skipped_steps};
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, SchedulerConfig, TextAdapters, TextEncoders};
use tastemaker_models::vae::Vae;
use tastemaker_torch::Precision;
use tch::{Device, Kind, Tensor};

use super::layout::fitted;
use super::{GenerateSettings, Job};
use crate::EvalError;

/// Pixels decoded at once: one image of 512 x 512, or several smaller ones. Maps of the last level are 32 times as large.
const DECODED_AT_ONCE: i64 = 512 * 512;

/// Everything of a model but its denoiser, so that several denoisers can share it.
#[derive(Debug)]
pub struct Generator {
    vae: Vae,
    text: TextEncoders,
    scheduler: SchedulerConfig,
    latent_shape: [i64; 3],
    resolution: i64,
    device: Device,
}

/// The networks that predict.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// Follows the prompt.
    pub denoiser: &'a dyn Denoiser,
    /// Predicts in its place what guidance leads away from.
    pub negative: Option<&'a dyn Denoiser>,
}

/// What the batches of one run share.
#[derive(Default)]
struct Shared<'a> {
    /// By negative prompt, one sample each.
    unconditional: BTreeMap<Option<&'a str>, Conditioning>,
    /// Latents of images to start from, one sample each, by where the image lies in memory.
    images: BTreeMap<*const RgbImage, Tensor>,
}

impl Generator {
    /// Loads vae, text encoders and noise schedule of a model folder.
    ///
    /// # Errors
    /// [`EvalError::Model`] for whatever the folder lacks.
    pub fn open(folder: &Model, precision: Precision, device: Device) -> Result<Self, EvalError> {
        Self::adapted(folder, TextAdapters::new(), precision, device)
    }

    /// As [`Generator::open`], with adapters of text encoders.
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
        let vae = folder.vae(Role::Frozen, precision, device)?.network;
        let resolution = unet.sample_size * vae.config().downsampling();
        Ok(Self {
            text: folder.adapted_text(text, precision, device)?,
            scheduler: folder.schedule()?,
            latent_shape: [unet.in_channels, unet.sample_size, unet.sample_size],
            resolution,
            vae,
            device,
        })
    }

    /// Side of the model's own square, in pixels.
    pub fn resolution(&self) -> i64 {
        self.resolution
    }

    /// Width and height that these settings generate, in pixels.
    pub fn size(&self, settings: &GenerateSettings) -> Size {
        settings.size.unwrap_or((self.resolution as u32, self.resolution as u32))
    }

    /// Generates every job with this denoiser, in order. The same jobs give the same images.
    ///
    /// An image does not depend on the batch it is generated in beyond float summation order.
    ///
    /// # Errors
    /// As [`Generator::generate_each`].
    pub fn generate(
        &self,
        denoiser: &dyn Denoiser,
        jobs: &[Job],
        settings: &GenerateSettings,
    ) -> Result<Vec<RgbImage>, EvalError> {
        let mut images = Vec::with_capacity(jobs.len());
        self.generate_each(Networks { denoiser, negative: None }, jobs, settings, |_, image| {
            images.push(image);
            Ok::<_, EvalError>(())
        })?;
        Ok(images)
    }

    /// As [`Generator::generate`]; hands over each image with the position of its job as soon as its batch is generated.
    ///
    /// # Errors
    /// [`EvalError::Size`] for sides that the VAE cannot have, [`EvalError::Schedule`] for settings that the schedule or the
    /// sampler cannot serve, and those of `each`, which end the run.
    pub fn generate_each<E: From<EvalError>>(
        &self,
        networks: Networks<'_>,
        jobs: &[Job],
        settings: &GenerateSettings,
        mut each: impl FnMut(usize, RgbImage) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.checked(settings)?;
        let (from_noise, from_image) = self.plans(jobs, settings)?;
        let mut shared = Shared::default();
        let mut done = 0;
        for alike in jobs.chunk_by(|one, other| one.image.is_some() == other.image.is_some()) {
            for batch in alike.chunks(settings.batch_size.max(1)) {
                let image = self.start_images(batch, size, &mut shared)?;
                let plan = if image.is_some() { &from_image } else { &from_noise };
                let latents = self.latents(networks, batch, plan, image.as_ref(), settings, &mut shared);
                for image in self.decode(&latents)? {
                    each(done, image)?;
                    done += 1;
                }
            }
        }
        Ok(())
    }

    fn checked(&self, settings: &GenerateSettings) -> Result<Size, EvalError> {
        let (width, height) = self.size(settings);
        let multiple = self.vae.config().downsampling() as u32;
        let fits = |side: u32| side > 0 && side.is_multiple_of(multiple);
        if fits(width) && fits(height) {
            Ok((width, height))
        } else {
            Err(EvalError::Size { width, height, multiple })
        }
    }

    /// The whole plan, and the part of it for jobs with an image to start from.
    fn plans(&self, jobs: &[Job], settings: &GenerateSettings) -> Result<(Plan, Plan), EvalError> {
        let GenerateSettings { sampler, n_steps, eta, strength, .. } = *settings;
        let sampling = Sampling { n_steps, eta, ..self.scheduler.sampling_by(sampler) };
        let plan = |skipped| sampler.plan(&self.scheduler.schedule, &sampling, skipped);
        let has_images = jobs.iter().any(|job| job.image.is_some());
        let skipped = if has_images { skipped_steps(n_steps, strength)? } else { 0 };
        Ok((plan(0)?, plan(skipped)?))
    }

    /// Latents of the images that jobs start from, `[n, c, h, w]`; `None` where they start from noise.
    fn start_images(
        &self,
        jobs: &[Job],
        size: Size,
        shared: &mut Shared<'_>,
    ) -> Result<Option<Tensor>, EvalError> {
        let (width, height) = size;
        let mut latents = Vec::with_capacity(jobs.len());
        for image in jobs.iter().filter_map(|job| job.image.as_ref()) {
            let known = match shared.images.entry(Arc::as_ptr(image)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let pixels = Tensor::from_slice(&to_chw(&fitted(image, size)))
                        .view([1, 3, i64::from(height), i64::from(width)])
                        .to_device(self.device);
                    place.insert(tch::no_grad(|| self.vae.encode(&pixels)).mean)
                }
            };
            latents.push(known.shallow_clone());
        }
        Ok((!latents.is_empty()).then(|| Tensor::cat(&latents, 0)))
    }

    /// # Shapes
    /// `image` and result `[n, c, h, w]`.
    fn latents<'a>(
        &self,
        networks: Networks<'_>,
        jobs: &'a [Job],
        plan: &Plan,
        image: Option<&Tensor>,
        settings: &GenerateSettings,
        shared: &mut Shared<'a>,
    ) -> Tensor {
        let (width, height) = self.size(settings);
        let (width, height) = (i64::from(width), i64::from(height));
        let of_size = |conditioning: Conditioning| conditioning.of_size(height, width);
        let prompts: Vec<&str> = jobs.iter().map(|job| job.prompt.as_str()).collect();
        let conditioning = of_size(self.text.encode(&prompts, self.resolution));
        // Without guidance nothing reads it.
        let unconditional = if settings.guidance_scale > 1.0 {
            self.unconditional(jobs, shared, &of_size)
        } else {
            conditioning.share()
        };
        let guided = Guided {
            denoiser: networks.denoiser,
            unconditional: &unconditional,
            scale: settings.guidance_scale,
            rescale: settings.guidance_rescale,
            negative: networks.negative,
        };
        let keys = |draw: u64| -> Vec<NoiseKey> {
            let key =
                |job: &Job| NoiseKey { seed: job.seed, stream: Stream::Sample, index: job.number, draw };
            jobs.iter().map(key).collect()
        };
        let down = self.vae.config().downsampling();
        let shape = [self.latent_shape[0], height / down, width / down];
        let noise = gaussian(&keys(0), &shape).to_device(self.device);
        sample(&guided, &start(plan, &noise, image), &conditioning, plan, gaussians(&keys(1), &shape))
    }

    /// What these jobs are led away from: one sample where they agree, else one for each. Each negative prompt is encoded once.
    fn unconditional<'a>(
        &self,
        jobs: &'a [Job],
        shared: &mut Shared<'a>,
        of_size: &dyn Fn(Conditioning) -> Conditioning,
    ) -> Conditioning {
        for job in jobs {
            shared.unconditional.entry(job.negative_prompt.as_deref()).or_insert_with_key(|negative| {
                of_size(match negative {
                    Some(negative) => self.text.encode(&[negative], self.resolution),
                    None => self.text.unconditional(self.resolution),
                })
            });
        }
        let of = |job: &Job| shared.unconditional[&job.negative_prompt.as_deref()].share();
        let agree = jobs.iter().all(|job| job.negative_prompt == jobs[0].negative_prompt);
        let different = if agree { &jobs[..1] } else { jobs };
        let joined = different.iter().map(of).reduce(|all, one| all.followed_by(&one));
        joined.expect("a batch has a job")
    }

    /// Images of latents, in pieces that fit in memory.
    fn decode(&self, latents: &Tensor) -> Result<Vec<RgbImage>, EvalError> {
        let (n, _, h, w) = latents.size4()?;
        let down = self.vae.config().downsampling();
        let (width, height) = (w * down, h * down);
        let mut images = Vec::with_capacity(n as usize);
        for part in latents.split((DECODED_AT_ONCE / (width * height)).max(1), 0) {
            let decoded = tch::no_grad(|| self.vae.decode(&part)).to_device(Device::Cpu);
            for i in 0..decoded.size()[0] {
                let values: Vec<f32> = Vec::try_from(decoded.get(i).to_kind(Kind::Float).flatten(0, -1))?;
                images.push(to_rgb(&values, width as u32, height as u32)?);
            }
        }
        Ok(images)
    }
}
