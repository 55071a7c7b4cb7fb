//! This program's outputs beside those that another one recorded.
//!
//! The names in the reference are diffusers' own for arguments and results; `docs/guide/models.md` lists them. A part whose
//! inputs are not all in the reference is skipped.

use std::path::Path;

use tastemaker_diffusion::{Conditioning, Denoiser, Vae};
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_torch::tensors::Named;
use tch::{Device, Kind, Tensor, no_grad, with_grad};

use crate::ModelError;
use crate::adapters::LoraFile;
use crate::backbone::BackboneConfig;
use crate::nn::{LoraSpec, Role, Trainable};
use crate::pipeline::{Family, Model, TextAdapters};

/// Header entry with the prompts, a JSON list.
pub const PROMPTS: &str = "prompts";

/// What stands before a parameter's name in the name of its gradient.
const GRADIENT: &str = "gradient.";

/// One result beside its reference.
#[derive(Debug, Clone, PartialEq)]
pub struct Agreement {
    /// Name of the result in the reference.
    pub what: String,
    /// Largest absolute difference over the largest absolute reference value; for ids, the fraction that differs.
    pub error: f64,
}

/// Recomputes every result of a reference whose inputs are there too.
///
/// `path` is the reference's, for errors. Everything runs in f32 unless `precision` says otherwise.
///
/// # Errors
/// [`ModelError::Store`] for inputs of impossible shapes; the errors of loading a model.
pub fn verify(
    folder: &Model,
    path: &Path,
    reference: &Named,
    prompts: &[String],
    lora: Option<LoraFile>,
    precision: DType,
) -> Result<Vec<Agreement>, ModelError> {
    let (unet_lora, text_loras) = lora.map(LoraFile::into_specs).unwrap_or_default();
    let reference = Reference { path, tensors: reference };
    let mut found = Vec::new();
    no_grad(|| {
        text(folder, &reference, prompts, text_loras, precision, &mut found)?;
        backbone(folder, &reference, unet_lora, precision, &mut found)?;
        vae(folder, &reference, &mut found)
    })?;
    Ok(found)
}

struct Reference<'a> {
    path: &'a Path,
    tensors: &'a Named,
}

impl Reference<'_> {
    fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    fn fault(&self, found: String, wanted: String) -> ModelError {
        StoreError::malformed(self.path, found, wanted).into()
    }

    /// A tensor of the given shape, where -1 stands for any size.
    fn shaped(&self, name: &str, shape: &[i64]) -> Result<Option<Tensor>, ModelError> {
        let Some(tensor) = self.get(name) else { return Ok(None) };
        let size = tensor.size();
        let fits = size.len() == shape.len()
            && size.iter().zip(shape).all(|(n, wanted)| n == wanted || (*wanted == -1 && *n > 0));
        if fits {
            return Ok(Some(tensor.to_kind(Kind::Float)));
        }
        Err(self.fault(format!("`{name}` of shape {size:?}"), format!("{shape:?}, -1 for any size")))
    }

    fn check_size(&self, name: &str, theirs: &Tensor, ours: &Tensor) -> Result<(), ModelError> {
        if theirs.size() == ours.size() {
            return Ok(());
        }
        let wanted = format!("{:?}, as computed here", ours.size());
        Err(self.fault(format!("`{name}` of shape {:?}", theirs.size()), wanted))
    }

    /// Compares, if the reference has this result.
    fn compare(&self, what: &str, ours: &Tensor, found: &mut Vec<Agreement>) -> Result<(), ModelError> {
        let Some(theirs) = self.get(what) else { return Ok(()) };
        self.check_size(what, theirs, ours)?;
        let (ours, theirs) = (ours.to_kind(Kind::Double), theirs.to_kind(Kind::Double));
        let scale = theirs.abs().max().double_value(&[]).max(f64::MIN_POSITIVE);
        let error = (ours - theirs).abs().max().double_value(&[]) / scale;
        found.push(Agreement { what: what.to_owned(), error });
        Ok(())
    }
}

fn text(
    folder: &Model,
    reference: &Reference<'_>,
    prompts: &[String],
    adapters: TextAdapters,
    precision: DType,
    found: &mut Vec<Agreement>,
) -> Result<(), ModelError> {
    let results = ["input_ids", "input_ids_2", "prompt_embeds", "pooled_prompt_embeds"];
    let each_caption = (0..prompts.len()).map(|i| format!("prompt_embeds.{i}"));
    let mut wanted = results.map(str::to_owned).into_iter().chain(each_caption.clone());
    if prompts.is_empty() || wanted.all(|name| reference.get(&name).is_none()) {
        return Ok(());
    }
    let encoders = folder.adapted_text(adapters, precision, Device::Cpu)?;
    for (tokenizer, name) in encoders.tokenizers().zip(results) {
        let Some(theirs) = reference.get(name) else { continue };
        let ours = Tensor::from_slice(&tokenizer.encode_batch(prompts)).view([prompts.len() as i64, -1]);
        reference.check_size(name, theirs, &ours)?;
        let differ = theirs.to_kind(Kind::Int64).not_equal_tensor(&ours).to_kind(Kind::Double);
        found.push(Agreement { what: name.to_owned(), error: differ.mean(Kind::Double).double_value(&[]) });
    }
    let encoded = encoders.encode(prompts, 1024);
    match &encoded.lengths {
        Some(_) => each_caption
            .zip(encoded.captions())
            .try_for_each(|(name, caption)| reference.compare(&name, &caption, found))?,
        None => reference.compare("prompt_embeds", &encoded.hidden, found)?,
    }
    if let Some(pooled) = &encoded.pooled {
        reference.compare("pooled_prompt_embeds", pooled, found)?;
    }
    Ok(())
}

fn backbone(
    folder: &Model,
    reference: &Reference<'_>,
    lora: Option<LoraSpec>,
    precision: DType,
    found: &mut Vec<Agreement>,
) -> Result<(), ModelError> {
    if reference.get("noise_pred").is_none() {
        return Ok(());
    }
    let config = folder.backbone_config()?;
    let sample = reference.shaped("sample", &[-1, config.in_channels(), -1, -1])?;
    let Some(sample) = sample else { return Ok(()) };
    let (b, _, h, w) = sample.size4().map_err(tastemaker_torch::TorchError::from)?;
    let step = match &config {
        BackboneConfig::UNet(config) => 1 << (config.block_out_channels.len() - 1),
        BackboneConfig::Mmdit(_) | BackboneConfig::ZImage(_) => config.side_multiple(),
    };
    if h % step != 0 || w % step != 0 {
        return Err(reference.fault(format!("`sample` of {h} x {w}"), format!("multiples of {step}")));
    }
    if let Some(largest) = config.largest_side().filter(|largest| h.max(w) > *largest) {
        return Err(reference.fault(format!("`sample` of {h} x {w}"), format!("sides of at most {largest}")));
    }
    let Some(timestep) = reference.shaped("timestep", &[b])? else { return Ok(()) };
    let hidden = reference.shaped("encoder_hidden_states", &[b, -1, config.text_width()])?;
    let Some(hidden) = hidden else { return Ok(()) };
    let mut conditioning = Conditioning::text(hidden);
    if let Some(width) = config.pooled_width() {
        let is_xl = folder.family() == Family::StableDiffusionXl;
        let pooled = if is_xl { "text_embeds" } else { "pooled_projections" };
        let Some(pooled) = reference.shaped(pooled, &[b, width])? else { return Ok(()) };
        conditioning.pooled = Some(pooled);
        if is_xl {
            let Some(time_ids) = reference.shaped("time_ids", &[b, 6])? else { return Ok(()) };
            conditioning.time_ids = Some(time_ids);
        }
    }
    let loaded = folder.backbone(Role::Frozen, precision, Device::Cpu, lora)?;
    let predict = || loaded.network.predict(&sample, &timestep, &conditioning);
    let weights = reference.shaped("noise_pred_weights", &sample.size())?;
    let Some(weights) = weights.filter(|_| !loaded.trainable.is_empty()) else {
        return reference.compare("noise_pred", &predict(), found);
    };
    let (prediction, sum) = with_grad(|| {
        let prediction = predict();
        let sum = (&prediction * weights).sum(Kind::Float);
        (prediction, sum)
    });
    reference.compare("noise_pred", &prediction, found)?;
    sum.backward();
    gradients(reference, &loaded.trainable, found)
}

/// Gradients of trainable parameters: the largest error among all tensors, each relative to its own largest value.
fn gradients(
    reference: &Reference<'_>,
    trainable: &[Trainable],
    found: &mut Vec<Agreement>,
) -> Result<(), ModelError> {
    let mut each = Vec::new();
    for Trainable { name, tensor } in trainable {
        reference.compare(&format!("{GRADIENT}{name}"), &tensor.grad(), &mut each)?;
    }
    let names = reference.tensors.keys().filter_map(|name| name.strip_prefix(GRADIENT));
    if let Some(unknown) = names.into_iter().find(|name| !trainable.iter().any(|t| t.name == *name)) {
        let wanted = "gradients of the LoRA's factors by their names".to_owned();
        return Err(reference.fault(format!("`{GRADIENT}{unknown}`"), wanted));
    }
    let largest = each.iter().map(|agreement| agreement.error).reduce(f64::max);
    found.extend(largest.map(|error| Agreement { what: format!("{} gradients", each.len()), error }));
    Ok(())
}

fn vae(folder: &Model, reference: &Reference<'_>, found: &mut Vec<Agreement>) -> Result<(), ModelError> {
    if ["latent_mean", "decoded"].iter().all(|name| reference.get(name).is_none()) {
        return Ok(());
    }
    let config = folder.vae_config()?;
    let image = reference.shaped("image", &[-1, config.in_channels, -1, -1])?;
    let latents = reference.shaped("latents", &[-1, config.latent_channels, -1, -1])?;
    let side = config.downsampling();
    if let Some(size) = image.as_ref().map(Tensor::size)
        && (size[2] % side != 0 || size[3] % side != 0)
    {
        return Err(reference.fault(format!("`image` of shape {size:?}"), format!("multiples of {side}")));
    }
    let vae = folder.vae(Role::Frozen, DType::F32, Device::Cpu)?.network;
    if let Some(image) = image {
        reference.compare("latent_mean", &vae.encode(&image).mean, found)?;
    }
    if let Some(latents) = latents {
        reference.compare("decoded", &vae.decode(&latents), found)?;
    }
    Ok(())
}
