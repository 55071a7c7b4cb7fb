//! Pixels and embeddings of a batch of images, so that scorers which preprocess alike compute them once.

use std::collections::BTreeMap;

use image::RgbImage;
use tch::Tensor;

use super::Item;
use super::pixels::Transform;
use crate::EvalError;

/// Pixels and embeddings of one list of items. It belongs to that list alone.
#[derive(Debug, Default)]
pub struct ImageCache {
    pixels: BTreeMap<Transform, Tensor>,
    embedded: BTreeMap<(usize, Transform), Tensor>,
}

impl ImageCache {
    /// The images of the items as input of a network; made once for each transform.
    ///
    /// # Shapes
    /// `[n, 3, side, side]`, f32.
    ///
    /// # Errors
    /// As [`Transform::pixels`].
    pub fn pixels(&mut self, items: &[Item<'_>], transform: Transform) -> Result<Tensor, EvalError> {
        if let Some(pixels) = self.pixels.get(&transform) {
            return Ok(pixels.shallow_clone());
        }
        let images: Vec<&RgbImage> = items.iter().map(|item| item.image).collect();
        let pixels = transform.pixels(&images)?;
        self.pixels.insert(transform, pixels.shallow_clone());
        Ok(pixels)
    }

    /// Embeddings of the images; computed once for each network and transform. `network` is a number of each network in memory.
    ///
    /// # Errors
    /// As [`Transform::pixels`].
    pub fn embedded(
        &mut self,
        items: &[Item<'_>],
        network: usize,
        transform: Transform,
        embed: impl FnOnce(&Tensor) -> Tensor,
    ) -> Result<Tensor, EvalError> {
        if let Some(embedded) = self.embedded.get(&(network, transform)) {
            return Ok(embedded.shallow_clone());
        }
        let embedded = embed(&self.pixels(items, transform)?);
        self.embedded.insert((network, transform), embedded.shallow_clone());
        Ok(embedded)
    }
}
