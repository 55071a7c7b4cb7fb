//! How original checkpoints name their parts, and how one is recognized by its names.
//!
//! Source: names in `CompVis/stable-diffusion` and `Stability-AI/generative-models`.

use tastemaker_math::schedule::Prediction;

use crate::clip_text::modern_name;
use crate::{ModelError, mmdit, zimage};

/// The layouts of original checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Stable Diffusion 1.x, text encoder as in transformers.
    Sd1,
    /// Stable Diffusion 2.x, text encoder of OpenCLIP.
    Sd2,
    /// SDXL, one text encoder of each kind.
    Sdxl,
    /// SD3 and SD3.5, with text encoders as in transformers or without any.
    Sd3,
    /// Z-Image, all of it or its transformer alone.
    ZImage,
}

/// How the text encoder's tensors are named below its prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextNames {
    Transformers,
    OpenClip,
}

/// Stands before the names of the UNet's tensors.
pub(crate) const UNET: &str = "model.diffusion_model.";

/// Stands before the numbers of SD3's blocks.
const JOINT: &str = "joint_blocks.";

/// Stands before the names of the VAE's tensors.
pub(crate) const VAE: &str = "first_stage_model.";

/// A name that SDXL's refiner has: a text tower where SDXL keeps its transformers encoder.
const FIRST_TOWER: &str = "conditioner.embedders.0.model.";

/// What SDXL and its refiner have, and SD1.x and SD2.x do not.
const SIZES: &str = "model.diffusion_model.label_emb.";

impl Layout {
    /// What the UNet predicts: `chosen`, else what all published models of the layout do.
    ///
    /// # Errors
    /// [`ModelError::UnknownPrediction`] for SD2.x, if nothing is chosen.
    pub fn prediction(self, chosen: Option<Prediction>) -> Result<Prediction, ModelError> {
        match (chosen, self) {
            (Some(prediction), _) => Ok(prediction),
            (None, Self::Sd1 | Self::Sdxl) => Ok(Prediction::Epsilon),
            (None, Self::Sd2) => Err(ModelError::UnknownPrediction),
            (None, Self::Sd3 | Self::ZImage) => Ok(Prediction::Flow),
        }
    }

    /// The name people know.
    pub fn title(self) -> &'static str {
        match self {
            Self::Sd1 => "SD1.x",
            Self::Sd2 => "SD2.x",
            Self::Sdxl => "SDXL",
            Self::Sd3 => "SD3",
            Self::ZImage => "Z-Image",
        }
    }

    /// Side of the images the base models were made for, in pixels.
    pub fn resolution(self) -> u32 {
        match self {
            Self::Sd1 => 512,
            Self::Sd2 => 768,
            Self::Sdxl | Self::Sd3 | Self::ZImage => 1024,
        }
    }

    /// Component, prefix and naming of each text encoder.
    pub(crate) fn text(self) -> &'static [(&'static str, &'static str, TextNames)] {
        match self {
            Self::Sd1 => &[("text_encoder", "cond_stage_model.transformer.", TextNames::Transformers)],
            Self::Sd2 => &[("text_encoder", "cond_stage_model.model.", TextNames::OpenClip)],
            Self::Sdxl => &[
                ("text_encoder", "conditioner.embedders.0.transformer.", TextNames::Transformers),
                ("text_encoder_2", "conditioner.embedders.1.model.", TextNames::OpenClip),
            ],
            Self::Sd3 => &[
                ("text_encoder", "text_encoders.clip_l.transformer.", TextNames::Transformers),
                ("text_encoder_2", "text_encoders.clip_g.transformer.", TextNames::Transformers),
            ],
            Self::ZImage => &[],
        }
    }

    /// Component and prefix of T5's encoder.
    pub(crate) fn t5(self) -> Option<(&'static str, &'static str)> {
        (self == Self::Sd3).then_some(("text_encoder_3", "text_encoders.t5xxl.transformer."))
    }

    /// Component and prefix of Qwen's encoder.
    pub(crate) fn qwen(self) -> Option<(&'static str, &'static str)> {
        (self == Self::ZImage).then_some(("text_encoder", "text_encoders.qwen3_4b.transformer.model."))
    }

    /// What stands before the names of the VAE's tensors.
    pub(crate) fn vae(self) -> &'static str {
        if self == Self::ZImage { "vae." } else { VAE }
    }

    /// Whether files come without text encoders or VAE, too.
    pub(crate) fn comes_in_parts(self) -> bool {
        matches!(self, Self::Sd3 | Self::ZImage)
    }

    /// Reads the layout off a checkpoint's names.
    ///
    /// # Errors
    /// What the names look like instead.
    pub fn of<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Result<Self, String> {
        let has = |prefix: &str| names.clone().any(|name| name.starts_with(prefix));
        if !has(UNET) {
            return Err(format!("no tensor named `{UNET}...`"));
        }
        if names.clone().filter_map(|name| name.strip_prefix(UNET)).any(|name| name.starts_with(JOINT)) {
            return Ok(Self::Sd3);
        }
        if names.clone().any(|name| name.strip_prefix(UNET) == Some(zimage::MARK)) {
            return Ok(Self::ZImage);
        }
        if has(FIRST_TOWER) {
            return Err("the text tower of SDXL's refiner".to_owned());
        }
        let layouts = [Self::Sdxl, Self::Sd2, Self::Sd1];
        layouts.into_iter().find(|layout| layout.text().iter().all(|(_, prefix, _)| has(prefix))).ok_or_else(
            || "no text encoder of SD1.x, SD2.x or SDXL, and no transformer of SD3 or Z-Image".to_owned(),
        )
    }
}

/// The usual name of a tensor that some files spell another way, beside `names`, those of all tensors.
///
/// Newer transformers releases leave `text_model.` out, as for instance kohya's scripts then write it. SD2-Turbo comes in the
/// layout of `Stability-AI/generative-models`. A1111 renames the same two (`modules/sd_models.py`). Files that hold a transformer of SD3
/// or Z-Image alone have nothing before its names.
pub(crate) fn usual_name<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
) -> impl Fn(&str) -> Option<String> {
    let is_turbo = !names.clone().any(|name| name.starts_with(SIZES));
    let is_sd3 = names.clone().any(|name| name.starts_with(JOINT));
    let is_zimage = names.clone().any(|name| name == zimage::MARK);
    let encoders = [Layout::Sd1, Layout::Sdxl, Layout::Sd3].map(|layout| layout.text()[0].1);
    move |name| {
        if is_sd3 && mmdit::is_original(name) || is_zimage && zimage::is_original(name) {
            return Some(format!("{UNET}{name}"));
        }
        if let Some(rest) = name.strip_prefix(FIRST_TOWER).filter(|_| is_turbo) {
            return Some(format!("{}{rest}", Layout::Sd2.text()[0].1));
        }
        encoders.iter().find_map(|prefix| {
            let rest = name.strip_prefix(prefix)?;
            let modern = modern_name(rest).filter(|modern| modern != rest)?;
            Some(format!("{prefix}{modern}"))
        })
    }
}

/// What original checkpoints carry besides the pipeline: schedules, averages, and the unused ends of text towers.
pub(crate) fn is_ballast(name: &str) -> bool {
    const BEGINNINGS: [&str; 3] = ["model_ema.", "first_stage_model.loss.", "denoiser."];
    const ENDS: [&str; 4] =
        [".logit_scale", "cond_stage_model.model.text_projection", ".attn_mask", ".position_ids"];
    /// The last block of SD2's tower, whose output nobody reads.
    const UNREAD: &str = "cond_stage_model.model.transformer.resblocks.23.";
    let is_unread = name.strip_prefix(UNET).unwrap_or(name) == zimage::UNREAD;
    !name.contains('.')
        || is_unread
        || BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || ENDS.iter().any(|end| name.ends_with(end))
        || name.starts_with(UNREAD)
}

/// The same for a file that holds a VAE alone, with or without what stands before its names in a checkpoint.
pub(crate) fn is_ballast_of_vae(name: &str) -> bool {
    is_ballast(name) || is_ballast(&format!("{VAE}{name}"))
}
