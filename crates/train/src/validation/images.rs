//! Images of fixed prompts during training, from fixed noise: what metrics cannot show.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::ImageFormat;
use tastemaker_data::transform::to_rgb;
use tastemaker_diffusion::guidance::Guided;
use tastemaker_diffusion::noise::{NoiseKey, gaussian};
use tastemaker_diffusion::samplers::ddim;
use tastemaker_diffusion::{Conditioning, Denoiser, Vae};
use tastemaker_math::ddim::Sampling;
use tastemaker_math::keyed::Stream;
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::nn::Role;
use tastemaker_models::pipeline::{Model, TextEncoders};
use tastemaker_run::{Plan, RunError};
use tastemaker_store::dtype::DType;
use tastemaker_store::{StoreError, atomic};
use tch::{Device, Kind, Tensor};

use crate::TrainError;
use crate::data::EncodeSettings;
use crate::distributed::ProcessGroup;

/// What images of a run are generated from.
pub(crate) struct ValidationImages<'a> {
    model: &'a Model,
    plan: &'a Plan,
    schedule: &'a NoiseSchedule,
    /// Of each image's prompt, and of the empty one; `None` where text encoders are trained.
    encoded: Option<(Conditioning, Conditioning)>,
    device: Device,
}

impl<'a> ValidationImages<'a> {
    /// Encodes the prompts of a plan; `None` if it has none. Text encoders are dropped afterwards.
    ///
    /// # Errors
    /// [`TrainError::Model`] if they cannot be read.
    pub(crate) fn new(
        model: &'a Model,
        plan: &'a Plan,
        schedule: &'a NoiseSchedule,
        settings: &EncodeSettings,
    ) -> Result<Option<Self>, TrainError> {
        if plan.validation.validation_prompts.is_empty() || plan.validation.validation_steps == 0 {
            return Ok(None);
        }
        let device = settings.device;
        let encoded = match settings.trains_text {
            true => None,
            false => Some(encode(&model.text(settings.precision, device)?, plan)),
        };
        Ok(Some(Self { model, plan, schedule, encoded, device }))
    }

    /// Generates this process's part of the images into a folder of the step. Returns the paths of all, below the folder of
    /// the run.
    ///
    /// # Errors
    /// [`TrainError::Schedule`] for a number of steps that the schedule cannot serve; [`TrainError::Run`] if a
    /// image cannot be written.
    pub(crate) fn generate(
        &self,
        denoiser: &dyn Denoiser,
        text: Option<&TextEncoders>,
        step: u64,
        ranks: ProcessGroup<'_>,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let validation = &self.plan.validation;
        let n_images = validation.num_validation_images as usize;
        let folder = PathBuf::from(format!("images/step-{step:06}"));
        let paths = (0..validation.validation_prompts.len() * n_images).map(|i| {
            let name = format!("prompt-{}-{}.png", i / n_images, i % n_images);
            folder.join(name)
        });
        let paths: Vec<PathBuf> = paths.collect();
        let rank = ranks.rank();
        let mine: Vec<usize> = (rank.rank..paths.len()).step_by(rank.world_size).collect();
        if !mine.is_empty() {
            atomic::create_folder(self.plan.output_dir.join(&folder)).map_err(RunError::from)?;
            let live = text.map(|text| encode(text, self.plan));
            let Some((prompts, empty)) = live.as_ref().or(self.encoded.as_ref()) else {
                return Ok(Vec::new());
            };
            let vae = self.model.vae(Role::Frozen, DType::F32, self.device)?.network;
            for &i in &mine {
                let latents = self.latents(denoiser, (prompts, empty), i, n_images)?;
                let pixels =
                    tch::no_grad(|| vae.decode(&latents)).to_device(Device::Cpu).to_kind(Kind::Float);
                let (_, _, height, width) = pixels.size4()?;
                let values = Vec::<f32>::try_from(pixels.flatten(0, -1))?;
                let image = to_rgb(&values, width as u32, height as u32)?;
                let path = self.plan.output_dir.join(&paths[i]);
                let mut png = Cursor::new(Vec::new());
                let written = image.write_to(&mut png, ImageFormat::Png);
                written.map_err(|error| unwritten(&path, std::io::Error::other(error)))?;
                atomic::write_bytes(&path, png.get_ref()).map_err(RunError::from)?;
            }
        }
        ranks.barrier()?;
        Ok(paths)
    }

    /// Latents `[1, c, h, w]` of image `i`.
    fn latents(
        &self,
        denoiser: &dyn Denoiser,
        (prompts, empty): (&Conditioning, &Conditioning),
        i: usize,
        n_images: usize,
    ) -> Result<Tensor, TrainError> {
        let validation = &self.plan.validation;
        let config = self.model.unet_config()?;
        let side = i64::from(self.plan.data.resolution) / self.model.vae_config()?.downsampling();
        let key = NoiseKey { seed: self.plan.train.seed, stream: Stream::Sample, index: i as u64, draw: 0 };
        let noise = gaussian(&[key], &[config.in_channels, side, side]).to_device(self.device);
        let n_steps = validation.num_inference_steps as usize;
        let sampling = Sampling { n_steps, eta: 0.0, ..self.model.schedule()?.sampling };
        let guided = Guided::new(denoiser, empty, validation.guidance_scale);
        let prompt = prompts.select(&Tensor::from_slice(&[(i / n_images) as i64]).to_device(self.device));
        Ok(ddim(&guided, &noise, &prompt, self.schedule, &sampling, || noise.zeros_like())?)
    }
}

fn encode(text: &TextEncoders, plan: &Plan) -> (Conditioning, Conditioning) {
    let prompts: Vec<&str> = plan.validation.validation_prompts.iter().map(String::as_str).collect();
    let resolution = i64::from(plan.data.resolution);
    tch::no_grad(|| (text.encode(&prompts, resolution), text.unconditional(resolution)))
}

fn unwritten(path: &Path, error: std::io::Error) -> TrainError {
    TrainError::Run(RunError::from(StoreError::io("write", path, error)))
}
