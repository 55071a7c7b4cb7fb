//! Pairs with an image that does not decode, which nobody can vote on.

use std::collections::BTreeMap;
use std::thread;

use tastemaker_data::DataError;
use tastemaker_data::ordered::in_order;
use tastemaker_data::set::decode;

use super::Study;
use crate::WebError;

/// Images that each thread may be ahead.
const AHEAD: usize = 4;

impl Study {
    /// Decodes every image of its pairs, and returns those that do not decode, with why. `on_image` is given how many are behind, and
    /// of how many.
    ///
    /// # Errors
    /// [`WebError`] if images cannot be had at all.
    pub fn unreadable(
        &self,
        on_image: &mut dyn FnMut(usize, usize),
    ) -> Result<BTreeMap<u32, String>, WebError> {
        let mut images: Vec<u32> = self.items.iter().flat_map(|item| item.images).collect();
        images.sort_unstable();
        images.dedup();
        let read = |number: usize| match self.images.read(images[number]) {
            Ok(bytes) => Ok(decode(&bytes)
                .err()
                .map(|error| format!("{} does not decode: {error}", self.images.name(images[number])))),
            Err(error) => skips(error).map(Some),
        };
        let n_workers = thread::available_parallelism().map_or(1, |n| n.get()).min(images.len());
        let mut found = BTreeMap::new();
        in_order(0..images.len(), n_workers, AHEAD * n_workers, read, |number, problem| {
            found.extend(problem?.map(|problem| (images[number], problem)));
            on_image(number + 1, images.len());
            Ok::<(), WebError>(())
        })?;
        Ok(found)
    }

    /// The study without the pairs that have one of these images, which are counted as skipped.
    ///
    /// # Errors
    /// [`WebError::Study`] if no pair is left.
    pub fn without(mut self, images: &BTreeMap<u32, String>) -> Result<Self, WebError> {
        self.items.retain(|item| !item.images.iter().any(|image| images.contains_key(image)));
        self.skipped.extend(images.values().cloned());
        match (self.items.iter().any(|item| item.known.is_none()), self.skipped.first()) {
            (false, Some(first)) => {
                Err(WebError::Study(format!("{} has no pair whose images can be read: {first}", self.name)))
            }
            _ => Ok(self),
        }
    }
}

/// Why an image is skipped, if an error is about that image alone.
pub fn skips(error: WebError) -> Result<String, WebError> {
    let error = match error {
        WebError::Data(error) => error,
        WebError::Store(error) => DataError::from(error),
        other => return Err(other),
    };
    Ok(error.skips().ok_or(error)?)
}
