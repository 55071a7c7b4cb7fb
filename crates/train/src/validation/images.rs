//! Images of fixed prompts during training, from fixed noise: what metrics cannot show.

use std::path::PathBuf;

use tastemaker_diffusion::Denoiser;
use tastemaker_generate::{
    EncodedPrompts, GenerateSettings, Generator, Networks, PromptEncoder, SampleRequest, write_image,
};
use tastemaker_math::schedule::NoiseSchedule;
use tastemaker_models::pipeline::{Model, TextEncoders};
use tastemaker_run::{Plan, RunError};
use tastemaker_store::atomic;
use tastemaker_store::dtype::DType;
use tch::Device;

use crate::TrainError;
use crate::data::EncodeSettings;
use crate::distributed::ProcessGroup;

/// What images of a run are generated from.
pub(crate) struct ValidationImages<'a> {
    model: &'a Model,
    plan: &'a Plan,
    schedule: &'a NoiseSchedule,
    /// `None` where text encoders are trained.
    encoded: Option<EncodedPrompts>,
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
        let prompts = &plan.validation.validation_prompts;
        if prompts.is_empty() || plan.validation.validation_steps == 0 {
            return Ok(None);
        }
        let device = settings.device;
        let encoded = match settings.trains_text {
            true => None,
            false => {
                let text = model.text(settings.precision, device)?;
                let prompts = prompts.iter().map(String::as_str);
                Some(tch::no_grad(|| EncodedPrompts::new(&text, prompts, plan.data.resolution.into())))
            }
        };
        Ok(Some(Self { model, plan, schedule, encoded, device }))
    }

    /// Whether images are due after this step.
    pub(crate) fn are_due(&self, step: u64) -> bool {
        let (every, last) = (self.plan.validation.validation_steps, self.plan.train.max_train_steps);
        step.is_multiple_of(every.max(1)) || step == last
    }

    /// Whether every image of a step is on disk.
    pub(crate) fn are_there(&self, step: u64) -> bool {
        self.paths(step).iter().all(|path| self.plan.output_dir.join(path).is_file())
    }

    /// Where the images of a step go, below the folder of the run.
    fn paths(&self, step: u64) -> Vec<PathBuf> {
        let validation = &self.plan.validation;
        let n_images = validation.num_validation_images as usize;
        let folder = PathBuf::from(format!("images/step-{step:06}"));
        let name = |i: usize| format!("prompt-{}-{}.png", i / n_images, i % n_images);
        (0..validation.validation_prompts.len() * n_images).map(|i| folder.join(name(i))).collect()
    }

    /// Generates this rank's part of the images into a folder of the step. Returns the paths of all, below the folder of the
    /// run.
    ///
    /// # Errors
    /// [`TrainError::Generate`] for a number of steps that the schedule cannot serve, and if an image cannot be written.
    pub(crate) fn generate(
        &self,
        denoiser: &dyn Denoiser,
        text: Option<&TextEncoders>,
        step: u64,
        ranks: ProcessGroup<'_>,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let Self { model, plan, schedule, encoded, device } = self;
        let validation = &plan.validation;
        let n_images = validation.num_validation_images as usize;
        let paths = self.paths(step);
        let rank = ranks.rank();
        let mine: Vec<usize> = (rank.rank..paths.len()).step_by(rank.world_size).collect();
        let encoder = match (text, encoded) {
            (Some(text), _) => text as &dyn PromptEncoder,
            (None, Some(encoded)) => encoded,
            (None, None) => return Ok(Vec::new()),
        };
        if !mine.is_empty() {
            let folder = paths[0].parent().unwrap_or(&paths[0]);
            atomic::create_folder(plan.output_dir.join(folder)).map_err(RunError::from)?;
            let request = |&i: &usize| SampleRequest {
                prompt: validation.validation_prompts[i / n_images].clone(),
                seed: plan.train.seed,
                number: i as u64,
                ..SampleRequest::default()
            };
            let requests: Vec<SampleRequest> = mine.iter().map(request).collect();
            // One at a time, so that an image does not depend on the number of ranks.
            let own = own_settings(model, plan)?;
            let settings = GenerateSettings {
                n_steps: validation.num_inference_steps.map_or(own.n_steps, |n_steps| n_steps as usize),
                guidance_scale: validation.guidance_scale.unwrap_or(own.guidance_scale),
                batch_size: 1,
                size: Some((plan.data.resolution, plan.data.resolution)),
                ..own
            };
            let generator = Generator::with_encoder(model, encoder, DType::F32, *device)?;
            let generator = generator.on_schedule((*schedule).clone());
            let networks = Networks { denoiser, negative: None };
            tch::no_grad(|| {
                generator.generate_each(
                    networks,
                    &requests,
                    &settings,
                    |_| true,
                    |i, image| {
                        let path = plan.output_dir.join(&paths[mine[i]]);
                        write_image(&path, &image).map_err(TrainError::from)
                    },
                )
            })?;
        }
        ranks.barrier()?;
        Ok(paths)
    }
}

/// How images of the model are drawn: as its family's are, in half the steps. What is trained at a few timesteps is drawn in so many
/// steps.
fn own_settings(model: &Model, plan: &Plan) -> Result<GenerateSettings, TrainError> {
    let own = GenerateSettings::of(model)?;
    let is_distilled = own.guidance_scale <= 1.0;
    let train = &plan.train;
    let n_listed = train.timesteps.as_ref().map(Vec::len).or(train.sigmas.as_ref().map(Vec::len));
    Ok(match n_listed {
        Some(n_steps) if n_steps <= FEW => GenerateSettings::in_few_steps(n_steps, own.sampler),
        _ if is_distilled => own,
        _ => GenerateSettings { n_steps: 25, ..own },
    })
}

/// Timesteps that a model distilled to a few steps is trained at, at most.
const FEW: usize = 8;
