//! Names of one component, there and back.

use std::collections::BTreeMap;

use tastemaker_store::dtype::DType;
use tastemaker_weights::safetensors::TensorView;

use super::keys::{Layout, TextNames, UNET, VAE};
use crate::backbone::BackboneConfig;
use crate::clip_text::{self, ClipText, ClipTextConfig};
use crate::mmdit;
use crate::nn::{Scope, Weights};
use crate::place::{Moved, Place, Shapes, restore, store};
use crate::qwen3::{Qwen3, Qwen3Config};
use crate::t5::{T5Config, T5Encoder};
use crate::unet::{self, UNet, UNetConfig};
use crate::vae::{self, AutoencoderKl, VaeConfig};
use crate::zimage;

/// Where each tensor of one component lies in a single-file checkpoint.
#[derive(Debug, Clone)]
pub struct ComponentMap {
    /// Our name to our shape and the place.
    entries: BTreeMap<String, (Vec<usize>, Place)>,
}

/// What did not fit between a component and a checkpoint, in words.
pub type Problems = Vec<String>;

impl ComponentMap {
    /// The map of a UNet.
    ///
    /// # Errors
    /// The names that original checkpoints have no place for.
    pub fn unet(config: &UNetConfig) -> Result<Self, Problems> {
        Self::new(unet_shapes(config), |name| {
            Some(Place::same(&unet::original_name(config, name)?).under(UNET))
        })
    }

    /// The map of the network that predicts.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub fn backbone(config: &BackboneConfig) -> Result<Self, Problems> {
        match config {
            BackboneConfig::UNet(config) => Self::unet(config),
            BackboneConfig::Mmdit(mmdit) => {
                Self::new(config.shapes(), |name| Some(mmdit::original_place(mmdit, name)?.under(UNET)))
            }
            BackboneConfig::ZImage(zimage) => {
                Self::new(config.shapes(), |name| Some(zimage::original_place(zimage, name)?.under(UNET)))
            }
        }
    }

    /// The map of a network that predicts whose tensors have diffusers' names, with what stands before them in a checkpoint.
    ///
    /// # Errors
    /// None.
    pub(crate) fn split_backbone(config: &BackboneConfig) -> Result<Self, Problems> {
        Self::new(config.shapes(), |name| Some(Place::same(name).under(UNET)))
    }

    /// The map of T5's encoder, whose names have this before them.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub fn t5(config: &T5Config, prefix: &str) -> Result<Self, Problems> {
        Self::new(t5_shapes(config), |name| Some(Place::same(name).under(prefix)))
    }

    /// The map of Qwen's encoder, whose names have this before them.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub fn qwen(config: &Qwen3Config, prefix: &str) -> Result<Self, Problems> {
        Self::new(qwen_shapes(config), |name| Some(Place::same(name).under(prefix)))
    }

    /// The map of a VAE.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub fn vae(config: &VaeConfig) -> Result<Self, Problems> {
        Self::vae_under(config, VAE)
    }

    /// The map of a VAE whose names have something else before them.
    pub(crate) fn vae_under(config: &VaeConfig, prefix: &str) -> Result<Self, Problems> {
        let shapes = shapes(|scope| drop(AutoencoderKl::new(scope, config.clone(), DType::F32)));
        Self::new(shapes, |name| Some(vae::original_place(config, name)?.under(prefix)))
    }

    /// The map of the `index`-th text encoder of a layout.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub fn text(layout: Layout, index: usize, config: &ClipTextConfig) -> Result<Self, Problems> {
        let shapes = text_shapes(config);
        let (_, prefix, names) = layout.text()[index];
        let place = |name: &str| match names {
            TextNames::Transformers => Some(Place::same(name)),
            TextNames::OpenClip => clip_text::open_clip_place(name),
        };
        Self::new(shapes, |name| Some(place(name)?.under(prefix)))
    }

    /// The map of anything: where each of the shapes lies.
    ///
    /// # Errors
    /// As [`ComponentMap::unet`].
    pub(crate) fn new(shapes: Shapes, place: impl Fn(&str) -> Option<Place>) -> Result<Self, Problems> {
        let mut unplaced = Vec::new();
        let mut entries = BTreeMap::new();
        for (name, shape) in shapes {
            match place(&name) {
                Some(place) => drop(entries.insert(name, (shape, place))),
                None => unplaced.push(format!("original checkpoints have no place for `{name}`")),
            }
        }
        if unplaced.is_empty() { Ok(Self { entries }) } else { Err(unplaced) }
    }

    /// Our names with shape and place.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &[usize], &Place)> {
        self.entries.iter().map(|(name, (shape, place))| (name.as_str(), shape.as_slice(), place))
    }

    /// Where the tensor of our name lies.
    pub(crate) fn get(&self, name: &str) -> Option<&Place> {
        self.entries.get(name).map(|(_, place)| place)
    }

    /// The names in the checkpoint.
    pub(crate) fn stored_names(&self) -> impl Iterator<Item = &str> {
        self.entries.values().map(|(_, place)| place.name.as_str())
    }

    /// Every tensor of the component out of a checkpoint.
    ///
    /// # Errors
    /// Every tensor that is missing or has another shape.
    pub fn restore<'a>(
        &self,
        stored: impl Fn(&str) -> Option<TensorView<'a>>,
    ) -> Result<Vec<Moved<'a>>, Problems> {
        let mut problems = Vec::new();
        let mut found = Vec::with_capacity(self.entries.len());
        for (name, shape, place) in self.entries() {
            match stored(&place.name).map(|view| restore(name, shape, place.change, &view)) {
                Some(Ok(tensor)) => found.push(tensor),
                Some(Err(shape)) => problems.push(format!("`{}` has shape {shape:?}", place.name)),
                None => problems.push(format!("`{}` is missing", place.name)),
            }
        }
        if problems.is_empty() { Ok(found) } else { Err(problems) }
    }

    /// Every tensor of the component as the checkpoint holds it.
    ///
    /// # Errors
    /// Every tensor that is missing or has another shape.
    pub fn store<'a>(
        &self,
        ours: impl Fn(&str) -> Option<TensorView<'a>>,
    ) -> Result<Vec<Moved<'a>>, Problems> {
        let mut problems = Vec::new();
        let mut places: BTreeMap<&str, Vec<(Place, TensorView<'a>)>> = BTreeMap::new();
        for (name, shape, place) in self.entries() {
            match ours(name) {
                Some(view) if view.shape == shape => {
                    places.entry(&place.name).or_default().push((place.clone(), view));
                }
                Some(view) => problems.push(format!("`{name}` has shape {:?}, wanted {shape:?}", view.shape)),
                None => problems.push(format!("`{name}` is missing")),
            }
        }
        let mut moved = Vec::with_capacity(places.len());
        for parts in places.values() {
            match store(parts) {
                Ok(tensor) => moved.push(tensor),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.is_empty() { Ok(moved) } else { Err(problems) }
    }
}

/// Names and shapes of a UNet's parameters.
pub fn unet_shapes(config: &UNetConfig) -> Shapes {
    shapes(|scope| drop(UNet::new(scope, config.clone(), DType::F32)))
}

/// Names and shapes of a text encoder's parameters.
pub fn text_shapes(config: &ClipTextConfig) -> Shapes {
    shapes(|scope| drop(ClipText::new(scope, config.clone())))
}

/// Names and shapes of the parameters of T5's encoder.
pub fn t5_shapes(config: &T5Config) -> Shapes {
    shapes(|scope| drop(T5Encoder::new(scope, config.clone())))
}

/// Names and shapes of the parameters of Qwen's encoder, all layers.
pub fn qwen_shapes(config: &Qwen3Config) -> Shapes {
    shapes(|scope| drop(Qwen3::new(scope, config.clone(), config.num_hidden_layers)))
}

/// Names and shapes of a VAE's parameters.
pub fn vae_shapes(config: &VaeConfig) -> Shapes {
    shapes(|scope| drop(AutoencoderKl::new(scope, config.clone(), DType::F32)))
}

/// How many numbers all parameters together hold.
pub fn n_numbers(shapes: &Shapes) -> u64 {
    shapes.values().map(|shape| shape.iter().map(|&n| n as u64).product::<u64>()).sum()
}

/// Names and shapes of what a constructor asks for.
pub(crate) fn shapes(construct: impl FnOnce(Scope<'_>)) -> Shapes {
    let weights = Weights::shapes();
    construct(weights.root());
    let (_, parameters) = weights.finish().unwrap_or_default();
    parameters
        .into_iter()
        .map(|(name, tensor)| (name, tensor.size().iter().map(|&n| n as usize).collect()))
        .collect()
}
