//! Sets of pairs as what people vote on.

use std::sync::Arc;

use tastemaker_data::set::PairSet;
use tastemaker_data::{PairSource, Side};

use super::{ImageSource, Item, Study, StudyPrompt};
use crate::WebError;

/// The images of a set: the winner's and the loser's of each pair.
struct PairImages(Arc<PairSet>);

impl PairImages {
    fn place(image: u32) -> (usize, Side) {
        (image as usize / 2, Side::BOTH[image as usize % 2])
    }
}

impl ImageSource for PairImages {
    fn len(&self) -> usize {
        2 * self.0.len()
    }

    fn read(&self, image: u32) -> Result<Vec<u8>, WebError> {
        let (position, side) = Self::place(image);
        Ok(self.0.encoded(position, side)?)
    }

    fn name(&self, image: u32) -> String {
        let (position, side) = Self::place(image);
        let file = self.0.file(position, side);
        // Images of a bucket or within a table are nowhere on this machine.
        let file = if file.is_file() { std::path::absolute(&file).unwrap_or(file) } else { file };
        file.display().to_string()
    }
}

/// Pairs to be labeled: of a set that nobody ranked, as its images are listed; of any other, its winners against its losers, so
/// that results say how far people agree with its labels.
///
/// # Errors
/// [`WebError::Study`] for a set of single images.
pub fn of_pairs(name: &str, set: Arc<PairSet>) -> Result<Study, WebError> {
    if set.label(0).is_some() {
        let what = format!("{name} has single images; wanted pairs, for people compare two");
        return Err(WebError::Study(what));
    }
    let ranked = (0..set.len()).any(|position| !set.is_tie(position));
    let models = if ranked { ["winner", "loser"] } else { ["first", "second"] };
    let prompts =
        set.texts().iter().map(|text| StudyPrompt { text: text.to_owned(), category: None }).collect();
    let item = |position: usize| Item {
        prompt: set.text_number(position),
        models: [0, 1],
        images: [2 * position as u32, 2 * position as u32 + 1],
        seed: set.id(position).0,
        known: None,
    };
    let items = (0..set.len()).map(item).collect();
    let models = models.map(str::to_owned).to_vec();
    let images = Arc::new(PairImages(set));
    Ok(Study { name: name.to_owned(), prompts, models, items, images, skipped: Vec::new() })
}

/// The same with the answers known, to measure voters by.
///
/// # Errors
/// As [`of_pairs`]; [`WebError::Study`] for a set with pairs that nobody ranked.
pub fn gold(name: &str, set: Arc<PairSet>) -> Result<Study, WebError> {
    if let Some(tie) = (0..set.len()).find(|&position| set.is_tie(position)) {
        let place = set.place(set.id(tie));
        return Err(WebError::Study(format!(
            "{place} of {name} has no winner; wanted pairs whose answer is known"
        )));
    }
    let mut study = of_pairs(name, set)?;
    study.items.iter_mut().for_each(|item| item.known = Some(0));
    Ok(study)
}
