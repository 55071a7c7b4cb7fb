//! What kind of adapter a file holds, and for which family.

use std::path::Path;

use tastemaker_math::Prediction;
use tastemaker_weights::safetensors::Header;
use tch::Tensor;

use super::file::{LoraFile, PREDICTION_KEY, stored};
use super::keys::{self, DOWN, MAGNITUDE, UP};
use super::nature::Nature;
use crate::ModelError;
use crate::backbone::BackboneConfig;
use crate::original::{Layout, parsed};
use crate::pipeline::Model;

/// How an adapter file names its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoraNames {
    /// As diffusers and peft do.
    Diffusers,
    /// As kohya's scripts do.
    Kohya,
}

impl LoraNames {
    /// Reads the naming off a file's header; `None` if the file holds no adapter.
    pub fn of(header: &Header) -> Option<Self> {
        Self::of_names(header.tensors.iter().map(|tensor| tensor.name.as_str()))
    }

    fn of_names<'a>(names: impl Iterator<Item = &'a str> + Clone) -> Option<Self> {
        let any = |test: fn(&str) -> bool| names.clone().any(test);
        if any(keys::is_kohya) {
            Some(Self::Kohya)
        } else if any(|name| keys::ours(name).is_some()) {
            Some(Self::Diffusers)
        } else {
            None
        }
    }
}

impl LoraFile {
    /// Reads an adapter in either naming; families are tried until one has all its layers in their sizes.
    ///
    /// The layout is `None` for a network that is none of the published ones. SD1.x stands for SD2.x too where nothing but the
    /// text's width would tell them apart and no layer sees text.
    ///
    /// # Errors
    /// As [`LoraFile::read`] and [`LoraFile::read_kohya`]; [`ModelError::OtherAdapter`] for one of a family or kind that is not
    /// supported.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, LoraNames, Option<Layout>), ModelError> {
        let path = path.as_ref();
        let header = Header::read(path)?;
        Self::open_any(path, LoraNames::of(&header))
            .map_err(|error| Nature::of(&header).refusal(path, None).unwrap_or(error))
    }

    fn open_any(
        path: &Path,
        names: Option<LoraNames>,
    ) -> Result<(Self, LoraNames, Option<Layout>), ModelError> {
        if names != Some(LoraNames::Kohya) {
            let file = Self::read(path)?;
            let layout = PUBLISHED.into_iter().find(|layout| file.fits(&layout.published_backbone()));
            let file = match layout {
                Some(layout) => file.shaped_for(&layout.published_backbone()),
                None => file,
            };
            return Ok((file, LoraNames::Diffusers, layout));
        }
        let mut refusal = None;
        for layout in PUBLISHED {
            let config = layout.published_backbone();
            match Self::read_kohya(path, layout, &config) {
                Ok(file) if file.fits(&config) => return Ok((file, LoraNames::Kohya, Some(layout))),
                Ok(_) => {}
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        let wanted = "an adapter of SD1.x, SD2.x, SDXL, SD3 or Z-Image";
        let unfit = || tastemaker_store::StoreError::malformed(path, "factors of other sizes", wanted).into();
        Err(refusal.unwrap_or_else(unfit))
    }

    /// What the model that an adapter was trained on predicts, as the file's header says it; `None` where it says nothing.
    ///
    /// Source: kohya's scripts, `library/sai_model_spec.py` and the `ss_` entries of `train_network.py`.
    pub fn stated_prediction(path: impl AsRef<Path>) -> Option<Prediction> {
        let metadata = Header::read(path.as_ref()).ok()?.metadata;
        let entry = |key: &str| metadata.get(key).map(|text| text.trim().to_ascii_lowercase());
        let of_truth = |text: String| match text.as_str() {
            "true" => Some(Prediction::VPrediction),
            "false" => Some(Prediction::Epsilon),
            _ => None,
        };
        let stated = entry(PREDICTION_KEY).and_then(|text| parsed(&text));
        stated.or_else(|| entry("ss_v_parameterization").and_then(of_truth)).or_else(|| {
            let version = entry("ss_base_model_version")?;
            (version == "sd_v2_v").then_some(Prediction::VPrediction)
        })
    }

    /// Reads an adapter of a model, in either naming and any kind of file.
    ///
    /// # Errors
    /// As [`LoraFile::read`] and [`LoraFile::read_kohya`]; [`ModelError::OtherAdapter`] for one of another family or kind.
    pub fn read_for(path: impl AsRef<Path>, model: &Model) -> Result<Self, ModelError> {
        let path = path.as_ref();
        let (stored, metadata) = stored(path)?;
        let config = model.backbone_config()?;
        let widths =
            stored.iter().map(|(name, tensor)| (name.as_str(), tensor.size().get(1).map(|&n| n as usize)));
        let nature = Nature::of_tensors(&widths.collect::<Vec<_>>(), &metadata);
        let read = match LoraNames::of_names(stored.keys().map(String::as_str)) {
            Some(LoraNames::Kohya) => {
                Self::of_kohya(path, stored, &metadata, Layout::of_folder(model)?, &config)
            }
            _ => Self::of_stored(path, stored, &metadata).map(|file| file.shaped_for(&config)),
        };
        match read {
            Ok(file) if file.fits(&config) => Ok(file),
            other => nature.refusal(path, Layout::of_folder(model).ok()).map_or(other, Err),
        }
    }

    /// The same factors with as many dimensions as the layers they belong to: kernels of 1x1 convolutions become matrices where a
    /// network has linear layers, as SD2.x and SDXL have before and after their transformers, and the other way round.
    pub(super) fn shaped_for(mut self, config: &BackboneConfig) -> Self {
        let shapes = config.shapes();
        let dims = |layer: &str| shapes.get(&format!("{layer}.weight")).map(Vec::len);
        self.unet.tensors.iter_mut().for_each(|(name, factor)| reshape(name, factor, dims));
        for part in self.text.values_mut() {
            part.tensors.iter_mut().for_each(|(name, factor)| reshape(name, factor, |_| Some(2)));
        }
        self
    }

    /// Whether a network has every adapted layer, in the factors' sizes, and the text encoders there are adapters for.
    pub fn fits(&self, config: &BackboneConfig) -> bool {
        let shapes = config.shapes();
        let known = |component: &&str| keys::TEXT[..config.n_text_encoders()].contains(component);
        self.text.keys().all(known)
            && (self.unet.tensors.is_empty() || self.component == config.component())
            && self.unet.layers().iter().all(|layer| {
                let Some(weight) = shapes.get(&format!("{layer}.weight")) else { return false };
                let size = |end: &str, axis: usize| {
                    let tensor = self.unet.tensors.get(&format!("{layer}{end}"))?;
                    tensor.size().get(axis).map(|&n| n as usize)
                };
                size(UP, 0) == weight.first().copied() && size(DOWN, 1) == weight.get(1).copied()
            })
    }
}

/// Gives a factor, or DoRA's magnitudes, the form that it has in a layer of so many dimensions.
fn reshape(name: &str, factor: &mut Tensor, dims: impl Fn(&str) -> Option<usize>) {
    let of_layer = |end: &str| dims(name.strip_suffix(end)?);
    let size = factor.size();
    let (matrix, kernel) = match of_layer(MAGNITUDE) {
        Some(wanted) => ((wanted == 2).then(|| vec![-1]), (wanted == 4).then(|| vec![1, -1, 1, 1])),
        None => match of_layer(DOWN).or_else(|| of_layer(UP)) {
            Some(2) if matches!(size[..], [_, _, 1, 1]) => (Some(size[..2].to_vec()), None),
            Some(4) if size.len() == 2 => (None, Some(vec![size[0], size[1], 1, 1])),
            _ => (None, None),
        },
    };
    if let Some(shape) = matrix.or(kernel) {
        *factor = factor.reshape(shape);
    }
}

const PUBLISHED: [Layout; 5] = [Layout::Sd1, Layout::Sd2, Layout::Sdxl, Layout::Sd3, Layout::ZImage];
