//! Pairs over images that are in memory already.

use std::path::PathBuf;
use std::sync::Arc;

use image::RgbImage;
use sha2::{Digest, Sha256};

use crate::{DataError, PairId, PairSource, Side};

/// One human judgment over a table of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Index of the preferred image.
    pub winner: usize,
    /// Index of the other image.
    pub loser: usize,
    /// What both shall show.
    pub caption: String,
}

/// A table of images and the rankings over it; one image may serve many pairs.
#[derive(Debug, Clone)]
pub struct InMemoryPairs {
    images: Vec<Arc<RgbImage>>,
    rankings: Vec<Ranking>,
    fingerprint: [u8; 32],
}

impl InMemoryPairs {
    /// Checks and wraps.
    ///
    /// # Errors
    /// [`DataError::ImageIndex`] if a ranking points beyond the images, [`DataError::Empty`] without a single
    /// ranking.
    pub fn new(images: Vec<Arc<RgbImage>>, rankings: Vec<Ranking>) -> Result<Self, DataError> {
        if rankings.is_empty() {
            let path = PathBuf::from("the set in memory");
            return Err(DataError::Empty { path, reason: "it was given no rankings".into() });
        }
        for (pair, Ranking { winner, loser, .. }) in rankings.iter().enumerate() {
            if let Some(&index) = [winner, loser].into_iter().find(|&&index| index >= images.len()) {
                return Err(DataError::ImageIndex { pair, index, n_images: images.len() });
            }
        }
        let fingerprint = fingerprint(&images, &rankings);
        Ok(Self { images, rankings, fingerprint })
    }
}

impl PairSource for InMemoryPairs {
    fn len(&self) -> usize {
        self.rankings.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        let Ranking { winner, loser, .. } = self.rankings[position];
        let index = match side {
            Side::Winner => winner,
            Side::Loser => loser,
        };
        Ok(self.images[index].as_ref().clone())
    }

    fn caption(&self, position: usize) -> &str {
        &self.rankings[position].caption
    }

    fn id(&self, position: usize) -> PairId {
        PairId(position as u64)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }
}

fn fingerprint(images: &[Arc<RgbImage>], rankings: &[Ranking]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((images.len() as u64).to_le_bytes());
    for image in images {
        hash.update(image.width().to_le_bytes());
        hash.update(image.height().to_le_bytes());
        hash.update(image.as_raw());
    }
    for Ranking { winner, loser, caption } in rankings {
        for number in [*winner, *loser, caption.len()] {
            hash.update((number as u64).to_le_bytes());
        }
        hash.update(caption);
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    fn images(n: u8) -> Vec<Arc<RgbImage>> {
        (0..n).map(|shade| Arc::new(RgbImage::from_pixel(2, 2, Rgb([shade; 3])))).collect()
    }

    fn ranking(winner: usize, loser: usize) -> Ranking {
        Ranking { winner, loser, caption: "a fox".into() }
    }

    #[test]
    fn a_pair_is_the_two_images_its_ranking_names() {
        let pairs = InMemoryPairs::new(images(3), vec![ranking(0, 1), ranking(2, 0)]).unwrap();
        let shades = Side::BOTH.map(|side| pairs.image(1, side).unwrap().get_pixel(0, 0).0);
        assert_eq!((pairs.id(1), shades, pairs.caption(1)), (PairId(1), [[2; 3], [0; 3]], "a fox"));
    }

    #[test]
    fn a_ranking_beyond_the_table_is_refused() {
        let error = InMemoryPairs::new(images(2), vec![ranking(0, 1), ranking(0, 2)]).unwrap_err();
        assert_eq!(error.to_string(), "pair 1 names image 2 of 2");
    }

    #[test]
    fn no_rankings_are_refused() {
        assert!(matches!(InMemoryPairs::new(images(2), vec![]), Err(DataError::Empty { .. })));
    }

    #[test]
    fn swapping_winner_and_loser_changes_the_fingerprint() {
        let print = |ranking| InMemoryPairs::new(images(2), vec![ranking]).unwrap().fingerprint();
        assert_eq!(print(ranking(0, 1)), print(ranking(0, 1)));
        assert_ne!(print(ranking(0, 1)), print(ranking(1, 0)));
    }

    #[test]
    fn one_pixel_changes_the_fingerprint() {
        let mut other = images(2);
        Arc::make_mut(&mut other[0]).put_pixel(1, 1, Rgb([9; 3]));
        let print = |images| InMemoryPairs::new(images, vec![ranking(0, 1)]).unwrap().fingerprint();
        assert_ne!(print(images(2)), print(other));
    }
}
