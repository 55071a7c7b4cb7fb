//! What people vote on: prompts, models, and pairs of images.

mod folders;
mod pairs;
mod readable;
mod settings;

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tastemaker_store::checksum::hex;

use crate::WebError;
pub use folders::{FolderOfImages, of_folders, of_places};
pub use pairs::{gold, of_pairs};
pub use settings::{AskedQuestion, QUESTIONS, StudySettings};

/// Images by number, wherever they are.
pub trait ImageSource: Send + Sync {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// An image as it is stored: encoded.
    ///
    /// # Errors
    /// [`WebError`] if it cannot be read.
    fn read(&self, image: u32) -> Result<Vec<u8>, WebError>;

    /// What tells it from others, for people: a path.
    fn name(&self, image: u32) -> String;
}

/// A prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StudyPrompt {
    /// What to generate.
    pub text: String,
    /// What it is about, where that is known.
    pub category: Option<String>,
}

/// Two images of one prompt, one of each model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Index of the prompt.
    pub prompt: u32,
    /// Indices of the models that are compared: A and B.
    pub models: [u32; 2],
    /// Numbers of their images.
    pub images: [u32; 2],
    /// Seed of both images, or how many of this prompt came before.
    pub seed: u64,
    /// The answer that is known, 0 for A and 1 for B: then it measures voters, not models.
    pub known: Option<u8>,
}

/// What people vote on.
#[derive(Clone)]
pub struct Study {
    /// What users call it.
    pub name: String,
    /// Prompts.
    pub prompts: Vec<StudyPrompt>,
    /// Names of the models.
    pub models: Vec<String>,
    /// The pairs of images.
    pub items: Vec<Item>,
    /// The images.
    pub images: Arc<dyn ImageSource>,
    /// What was found that is no part of it, in words.
    pub skipped: Vec<String>,
}

impl Study {
    /// SHA-256 over prompts, models and pairs, hexadecimal. Where images lie does not matter, and what they are called does not.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        let mut text = |text: &str| {
            hash.update((text.len() as u64).to_le_bytes());
            hash.update(text);
        };
        for StudyPrompt { text: prompt, category } in &self.prompts {
            text(prompt);
            text(category.as_deref().unwrap_or_default());
        }
        self.models.iter().for_each(|model| text(model));
        for Item { prompt, models: [a, b], images: [image_a, image_b], seed, known } in &self.items {
            for number in [*prompt, *a, *b, *image_a, *image_b, known.map_or(2, u32::from)] {
                hash.update(number.to_le_bytes());
            }
            hash.update(seed.to_le_bytes());
        }
        hex(&hash.finalize())
    }

    /// Adds pairs whose answer is known.
    #[must_use]
    pub fn with_gold(mut self, gold: Self) -> Self {
        let (prompts, models) = (self.prompts.len() as u32, self.models.len() as u32);
        let images = self.images.len() as u32;
        self.prompts.extend(gold.prompts);
        self.skipped.extend(gold.skipped);
        self.models.extend(gold.models.into_iter().map(|name| format!("gold {name}")));
        self.items.extend(gold.items.into_iter().map(|item| Item {
            prompt: item.prompt + prompts,
            models: item.models.map(|model| model + models),
            images: item.images.map(|image| image + images),
            ..item
        }));
        self.images = Arc::new(Both(self.images, gold.images));
        self
    }
}

/// One source after the other.
struct Both(Arc<dyn ImageSource>, Arc<dyn ImageSource>);

impl Both {
    fn of(&self, image: u32) -> (&dyn ImageSource, u32) {
        match image.checked_sub(self.0.len() as u32) {
            None => (self.0.as_ref(), image),
            Some(rest) => (self.1.as_ref(), rest),
        }
    }
}

impl ImageSource for Both {
    fn len(&self) -> usize {
        self.0.len() + self.1.len()
    }

    fn read(&self, image: u32) -> Result<Vec<u8>, WebError> {
        let (source, image) = self.of(image);
        source.read(image)
    }

    fn name(&self, image: u32) -> String {
        let (source, image) = self.of(image);
        source.name(image)
    }
}
