//! The generator: a model but its denoiser.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::iter;
use std::sync::Arc;

use image::RgbImage;
use tastemaker_data::DataError;
use tastemaker_data::transform::{Size, to_rgb};
use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::noise::{NoiseKey, gaussian, gaussians};
use tastemaker_diffusion::samplers::{sample, start};
use tastemaker_diffusion::{Conditioning, Denoiser, Vae};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::keyed::Stream;
use tastemaker_math::samplers::{Plan, skipped_steps_on};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, SchedulerConfig, TextAdapters, TextEncoders};
use tastemaker_models::vae::AutoencoderKl;
use tastemaker_store::dtype::DType;
use tastemaker_torch::memory;
use tastemaker_torch::tensors::{pixels, upload};
use tch::{Device, Kind, Tensor};

use crate::layout::fitted;
use crate::{EncodedPrompts, GenerateError, GenerateSettings, PromptEncoder, SampleRequest};

/// Pixels decoded at once on the host: one image of 512 x 512, or several smaller ones, whose maps stay near the processor.
const DECODED_AT_ONCE: i64 = 512 * 512;

/// How much of a device's free memory may go into decoding.
const OF_FREE: f64 = 0.5;

/// Everything of a model but its denoiser, so that several denoisers can share it.
pub struct Generator<'a> {
    vae: AutoencoderKl,
    text: Text<'a>,
    scheduler: SchedulerConfig,
    latent_shape: [i64; 3],
    resolution: i64,
    /// What sides of latents must be multiples of.
    patch: i64,
    /// The largest side of a latent.
    largest: Option<i64>,
    device: Device,
}

enum Text<'a> {
    Own(Box<TextEncoders>),
    Encoded(EncodedPrompts),
    Borrowed(&'a dyn PromptEncoder),
}

impl Text<'_> {
    fn encoder(&self) -> &dyn PromptEncoder {
        match self {
            Self::Own(text) => text.as_ref(),
            Self::Encoded(prompts) => prompts,
            Self::Borrowed(text) => *text,
        }
    }
}

/// The networks that predict.
#[derive(Clone, Copy)]
pub struct Networks<'a> {
    /// Follows the prompt.
    pub denoiser: &'a dyn Denoiser,
    /// Predicts the unconditional branch of guidance in its place.
    pub negative: Option<&'a dyn Denoiser>,
}

/// What the batches of one call share.
#[derive(Default)]
struct Shared<'a> {
    /// By negative prompt, one sample each.
    unconditional: BTreeMap<Option<&'a str>, Conditioning>,
    /// Latents of images to start from, one sample each, by where the image lies in memory.
    images: BTreeMap<*const RgbImage, Tensor>,
}

impl Generator<'static> {
    /// Loads VAE, text encoders and noise schedule of a model folder.
    ///
    /// # Errors
    /// [`GenerateError::Model`] for whatever the folder lacks.
    pub fn open(folder: &Model, precision: DType, device: Device) -> Result<Self, GenerateError> {
        Self::adapted(folder, TextAdapters::new(), precision, device)
    }

    /// As [`Generator::open`], with adapters of text encoders.
    ///
    /// # Errors
    /// [`GenerateError::Model`], also for an adapter that does not fit.
    pub fn adapted(
        folder: &Model,
        text: TextAdapters,
        precision: DType,
        device: Device,
    ) -> Result<Self, GenerateError> {
        let text = folder.adapted_text(text, precision, device)?;
        Self::new(folder, Text::Own(Box::new(text)), precision, device)
    }

    /// As [`Generator::adapted`], for these prompts and negative prompts alone; text encoders that are large beside the network that
    /// predicts are gone when this returns.
    ///
    /// # Errors
    /// As [`Generator::adapted`].
    pub fn of_texts<'t>(
        folder: &Model,
        text: TextAdapters,
        texts: impl IntoIterator<Item = &'t str>,
        precision: DType,
        device: Device,
    ) -> Result<Self, GenerateError> {
        if !folder.family().has_large_encoder() {
            return Self::adapted(folder, text, precision, device);
        }
        let encoders = folder.adapted_text(text, precision, device)?;
        let resolution = folder.made_for()?.into();
        let encoded = tch::no_grad(|| EncodedPrompts::new(&encoders, texts, resolution));
        drop(encoders);
        Self::new(folder, Text::Encoded(encoded), precision, device)
    }
}

impl<'a> Generator<'a> {
    /// As [`Generator::open`], with prompts encoded elsewhere: by text encoders in training, or before they went.
    ///
    /// # Errors
    /// [`GenerateError::Model`] for whatever the folder lacks.
    pub fn with_encoder(
        folder: &Model,
        text: &'a dyn PromptEncoder,
        precision: DType,
        device: Device,
    ) -> Result<Self, GenerateError> {
        Self::new(folder, Text::Borrowed(text), precision, device)
    }

    fn new(folder: &Model, text: Text<'a>, precision: DType, device: Device) -> Result<Self, GenerateError> {
        let backbone = folder.backbone_config()?;
        let vae = folder.vae(Role::Frozen, precision, device)?.network;
        let resolution = backbone.sample_size() * vae.config().downsampling();
        Ok(Self {
            text,
            scheduler: folder.schedule()?,
            latent_shape: [backbone.in_channels(), backbone.sample_size(), backbone.sample_size()],
            resolution,
            patch: backbone.side_multiple(),
            largest: backbone.largest_side(),
            vae,
            device,
        })
    }

    /// The same on another noise schedule than the model folder's.
    #[must_use]
    pub fn on_schedule(mut self, schedule: NoiseSchedule) -> Self {
        self.scheduler.schedule = schedule;
        self
    }

    /// Side of the model's own square, in pixels.
    pub fn resolution(&self) -> i64 {
        self.resolution
    }

    /// Width and height that these settings generate, in pixels.
    pub fn size(&self, settings: &GenerateSettings) -> Size {
        settings.size.unwrap_or((self.resolution as u32, self.resolution as u32))
    }

    /// Generates every request with this denoiser, in order. The same requests give the same images.
    ///
    /// An image does not depend on the batch it is generated in beyond float summation order.
    ///
    /// # Errors
    /// As [`Generator::generate_each`].
    pub fn generate(
        &self,
        denoiser: &dyn Denoiser,
        requests: &[SampleRequest],
        settings: &GenerateSettings,
    ) -> Result<Vec<RgbImage>, GenerateError> {
        let mut images = Vec::with_capacity(requests.len());
        let networks = Networks { denoiser, negative: None };
        self.generate_each(
            networks,
            requests,
            settings,
            |_| true,
            |_, image| {
                images.push(image);
                Ok::<_, GenerateError>(())
            },
        )?;
        Ok(images)
    }

    /// As [`Generator::generate`]; hands over each image with the position of its request as soon as its batch is generated.
    ///
    /// Only images that are `wanted` are handed over, and batches without one are skipped. Batches are the same whatever is
    /// wanted, and so is an image, to the last bit.
    ///
    /// # Errors
    /// [`GenerateError::Size`] for sides that the VAE cannot have, [`GenerateError::Schedule`] for settings that the schedule or
    /// the sampler cannot serve, and those of `each`, which end the run.
    pub fn generate_each<E: From<GenerateError>>(
        &self,
        networks: Networks<'_>,
        requests: &[SampleRequest],
        settings: &GenerateSettings,
        wanted: impl Fn(usize) -> bool,
        mut each: impl FnMut(usize, RgbImage) -> Result<(), E>,
    ) -> Result<(), E> {
        let size = self.checked(settings)?;
        let (from_noise, from_image) = self.plans(requests, settings)?;
        let mut shared = Shared::default();
        let mut end = 0;
        for alike in requests.chunk_by(|one, other| one.image.is_some() == other.image.is_some()) {
            for batch in alike.chunks(settings.batch_size.max(1)) {
                let begin = end;
                end += batch.len();
                if !(begin..end).any(&wanted) {
                    continue;
                }
                let image = self.start_images(batch, size, &mut shared)?;
                let plan = if image.is_some() { &from_image } else { &from_noise };
                let latents = self.latents(networks, batch, plan, image.as_ref(), settings, &mut shared)?;
                for (index, image) in (begin..).zip(self.decode(&latents, batch, settings)?) {
                    if wanted(index) {
                        each(index, image)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn checked(&self, settings: &GenerateSettings) -> Result<Size, GenerateError> {
        let (width, height) = self.size(settings);
        let down = self.vae.config().downsampling();
        let multiple = (down * self.patch) as u32;
        let fits = |side: u32| side > 0 && side.is_multiple_of(multiple);
        if !(fits(width) && fits(height)) {
            return Err(GenerateError::Size { width, height, multiple });
        }
        match self.largest.map(|side| (side * down) as u32).filter(|largest| width.max(height) > *largest) {
            Some(largest) => Err(GenerateError::TooLarge { width, height, largest }),
            None => Ok((width, height)),
        }
    }

    /// The whole plan, and the part of it for requests with an image to start from.
    fn plans(
        &self,
        requests: &[SampleRequest],
        settings: &GenerateSettings,
    ) -> Result<(Plan, Plan), GenerateError> {
        let GenerateSettings { sampler, n_steps, eta, strength, .. } = *settings;
        let image_tokens = Some(image_tokens(self.size(settings)));
        let sampling = Sampling { n_steps, eta, image_tokens, ..self.scheduler.sampling_by(sampler) };
        let plan = |skipped| sampler.plan(&self.scheduler.schedule, &sampling, skipped);
        let has_images = requests.iter().any(|request| request.image.is_some());
        let skipped =
            if has_images { skipped_steps_on(&self.scheduler.schedule, n_steps, strength)? } else { 0 };
        Ok((plan(0)?, plan(skipped)?))
    }

    /// Latents of the images that requests start from, `[n, c, h, w]`; `None` where they start from noise.
    fn start_images(
        &self,
        requests: &[SampleRequest],
        size: Size,
        shared: &mut Shared<'_>,
    ) -> Result<Option<Tensor>, GenerateError> {
        let mut latents = Vec::with_capacity(requests.len());
        for image in requests.iter().filter_map(|request| request.image.as_ref()) {
            let known = match shared.images.entry(Arc::as_ptr(image)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => {
                    let fitted = fitted(image, size);
                    let pixels = pixels(iter::once(fitted.as_raw().as_slice()), size, self.device);
                    place.insert(tch::no_grad(|| self.vae.encode(&pixels)).mean)
                }
            };
            latents.push(known.shallow_clone());
        }
        Ok((!latents.is_empty()).then(|| Tensor::cat(&latents, 0)))
    }

    /// # Shapes
    /// `image` and result `[n, c, h, w]`.
    fn latents<'r>(
        &self,
        networks: Networks<'_>,
        requests: &'r [SampleRequest],
        plan: &Plan,
        image: Option<&Tensor>,
        settings: &GenerateSettings,
        shared: &mut Shared<'r>,
    ) -> Result<Tensor, GenerateError> {
        let (width, height) = self.size(settings);
        let (width, height) = (i64::from(width), i64::from(height));
        let of_size = |conditioning: Conditioning| conditioning.of_size(height, width);
        let prompts: Vec<&str> = requests.iter().map(|request| request.prompt.as_str()).collect();
        let conditioning = of_size(self.text.encoder().encode(&prompts, self.resolution)?);
        // Without guidance nothing reads it.
        let unconditional = if settings.guidance_scale > 1.0 {
            self.unconditional(requests, shared, &of_size)?
        } else {
            conditioning.shallow_clone()
        };
        let guided = Guided {
            denoiser: networks.denoiser,
            unconditional: &unconditional,
            scale: settings.guidance_scale,
            rescale: settings.guidance_rescale,
            negative: networks.negative,
        };
        let keys = |draw: u64| -> Vec<NoiseKey> {
            let key = |request: &SampleRequest| NoiseKey {
                seed: request.seed,
                stream: Stream::Sample,
                index: request.number,
                draw,
            };
            requests.iter().map(key).collect()
        };
        let down = self.vae.config().downsampling();
        let shape = [self.latent_shape[0], height / down, width / down];
        let noise = upload(&gaussian(&keys(0), &shape), self.device);
        let fresh = gaussians(&keys(1), &shape);
        Ok(sample(&guided, &start(plan, &noise, image), &conditioning, plan, fresh))
    }

    /// Conditioning of the negative prompts: one sample where they agree, else one for each. Each is encoded once.
    fn unconditional<'r>(
        &self,
        requests: &'r [SampleRequest],
        shared: &mut Shared<'r>,
        of_size: &dyn Fn(Conditioning) -> Conditioning,
    ) -> Result<Conditioning, GenerateError> {
        let text = self.text.encoder();
        for request in requests {
            let negative = request.negative_prompt.as_deref();
            if let Entry::Vacant(place) = shared.unconditional.entry(negative) {
                place.insert(of_size(match negative {
                    Some(negative) => text.encode(&[negative], self.resolution)?,
                    None => text.unconditional(self.resolution),
                }));
            }
        }
        let of = |request: &SampleRequest| {
            shared.unconditional[&request.negative_prompt.as_deref()].shallow_clone()
        };
        let agree = requests.iter().all(|request| request.negative_prompt == requests[0].negative_prompt);
        let different = if agree { &requests[..1] } else { requests };
        let joined = different.iter().map(of).reduce(|all, one| all.followed_by(&one));
        Ok(joined.expect("a batch has a request"))
    }

    /// Images of this size that are decoded at once, at least one.
    fn decoded_at_once(&self, (width, height): (i64, i64)) -> i64 {
        let fit = match self.device {
            Device::Cpu => DECODED_AT_ONCE / (width * height),
            device => {
                let held = 4 * self.vae.config().held_to_decode((height as u64, width as u64));
                memory::free_on(device).map_or(1, |free| (OF_FREE * free as f64 / held as f64) as i64)
            }
        };
        fit.max(1)
    }

    /// Images of latents, in pieces that fit in memory.
    fn decode(
        &self,
        latents: &Tensor,
        requests: &[SampleRequest],
        settings: &GenerateSettings,
    ) -> Result<Vec<RgbImage>, GenerateError> {
        let (n, _, h, w) = latents.size4()?;
        let down = self.vae.config().downsampling();
        let (width, height) = (w * down, h * down);
        let mut images = Vec::with_capacity(n as usize);
        for part in latents.split(self.decoded_at_once((width, height)), 0) {
            let decoded = tch::no_grad(|| self.vae.decode(&part)).to_device(Device::Cpu);
            for i in 0..decoded.size()[0] {
                let values: Vec<f32> = Vec::try_from(decoded.get(i).to_kind(Kind::Float).flatten(0, -1))?;
                let image = to_rgb(&values, width as u32, height as u32).map_err(|error| match error {
                    DataError::NonFinitePixel { .. } => GenerateError::NotFinite {
                        prompt: requests[images.len()].prompt.clone(),
                        scale: settings.guidance_scale,
                    },
                    error => error.into(),
                });
                images.push(image?);
            }
        }
        Ok(images)
    }
}

/// Tokens of an image of this size in pixels: one for 16 x 16, in every family whose shift depends on them.
fn image_tokens((width, height): Size) -> usize {
    (width / 16) as usize * (height / 16) as usize
}
