//! A CLIP that several scorers may share.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use tastemaker_models::ModelError;
use tastemaker_models::clip::{Clip, ClipFiles};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_store::dtype::DType;
use tch::{Device, Tensor};

use super::Item;
use super::cache::ImageCache;
use super::pixels::{Fit, Transform};
use crate::EvalError;

/// Prompts in one forward pass.
const PROMPTS: usize = 32;

/// Both towers of a CLIP in memory, and the embeddings of prompts so far.
#[derive(Debug)]
pub struct Tower {
    clip: Clip,
    tokenizer: ClipTokenizer,
    files: ClipFiles,
    precision: DType,
    device: Device,
    /// What cosines are multiplied by.
    scale: f64,
    prompts: RefCell<HashMap<String, Tensor>>,
}

impl Tower {
    /// Loads the weights.
    ///
    /// # Errors
    /// As [`ClipFiles::load`].
    pub fn load(files: ClipFiles, precision: DType, device: Device) -> Result<Rc<Self>, ModelError> {
        let (clip, tokenizer) = files.load(precision, device)?;
        let scale = files.scale()?;
        let prompts = RefCell::default();
        Ok(Rc::new(Self { clip, tokenizer, files, precision, device, scale, prompts }))
    }

    /// What cosines are multiplied by in training.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Width of an embedding.
    pub fn width(&self) -> i64 {
        self.files.config().vision.projection_dim
    }

    /// Differs between sets of weights, and between precisions.
    ///
    /// # Errors
    /// As [`ClipFiles::fingerprint`].
    pub fn fingerprint(&self) -> Result<String, ModelError> {
        Ok(format!("{} {:?}", self.files.fingerprint()?, self.precision))
    }

    /// Unit vectors of the images of the items.
    ///
    /// # Shapes
    /// `[n, width]`, f32.
    ///
    /// # Errors
    /// As [`Transform::pixels`].
    pub fn embed_images(
        &self,
        items: &[Item<'_>],
        fit: Fit,
        cache: &mut ImageCache,
    ) -> Result<Tensor, EvalError> {
        let side = self.files.config().vision.image_size;
        let transform = Transform { fit, side: side as u32 };
        let network = std::ptr::from_ref(self) as usize;
        cache.embedded(items, network, transform, |pixels| {
            tch::no_grad(|| self.clip.embed_images(&pixels.to_device(self.device)).to_device(Device::Cpu))
        })
    }

    /// Unit vectors of prompts; a prompt that was embedded before costs nothing.
    ///
    /// # Shapes
    /// `[n, width]`, f32.
    pub fn embed_prompts(&self, prompts: &[String]) -> Tensor {
        let mut known = self.prompts.borrow_mut();
        let mut met = HashSet::new();
        let new: Vec<&String> =
            prompts.iter().filter(|prompt| !known.contains_key(*prompt) && met.insert(*prompt)).collect();
        for some in new.chunks(PROMPTS) {
            let ids = Tensor::from_slice(&self.tokenizer.encode_batch(some)).view([some.len() as i64, -1]);
            let embedded =
                tch::no_grad(|| self.clip.embed_text(&ids.to_device(self.device)).to_device(Device::Cpu));
            for (row, prompt) in (0..).zip(some) {
                known.insert((*prompt).clone(), embedded.select(0, row).copy());
            }
        }
        let rows: Vec<&Tensor> = prompts.iter().filter_map(|prompt| known.get(prompt)).collect();
        Tensor::stack(&rows, 0)
    }
}
