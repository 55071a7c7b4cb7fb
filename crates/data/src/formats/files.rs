//! Pairs whose images are files: found when a set is opened, decoded when a pair is asked for.

use std::fs;
use std::path::{Path, PathBuf};

use image::{ImageReader, Limits, RgbImage};
use sha2::{Digest, Sha256};

use crate::{DataError, Pair, PairId, PairSource};

/// A pair whose images are still on disk.
#[derive(Debug, Clone)]
pub(super) struct FilePair {
    pub id: PairId,
    /// How its source names it, for errors.
    pub place: String,
    pub winner: PathBuf,
    pub loser: PathBuf,
    pub caption: String,
}

impl FilePair {
    pub fn load(&self) -> Result<Pair, DataError> {
        Ok(Pair {
            id: self.id,
            winner: self.decode("winner", &self.winner)?,
            loser: self.decode("loser", &self.loser)?,
            caption: self.caption.clone(),
        })
    }

    fn decode(&self, role: &'static str, path: &Path) -> Result<RgbImage, DataError> {
        decode(path).map_err(|source| DataError::Image {
            role,
            place: self.place.clone(),
            path: path.to_path_buf(),
            source: Box::new(source),
        })
    }
}

/// Decodes to RGB, whatever the file is called. An alpha channel is dropped, as Pillow's `convert("RGB")`
/// does.
fn decode(path: &Path) -> Result<RgbImage, image::ImageError> {
    let mut reader = ImageReader::open(path)?.with_guessed_format()?;
    // A few kilobytes can claim to be a picture of many gigabytes; no training image is this large.
    let mut limits = Limits::default();
    limits.max_image_width = Some(16_384);
    limits.max_image_height = Some(16_384);
    limits.max_alloc = Some(1 << 30);
    reader.limits(limits);
    Ok(reader.decode()?.to_rgb8())
}

/// A set of pairs on disk, whatever layout it was read from.
#[derive(Debug, Clone)]
pub struct FilePairs {
    pairs: Vec<FilePair>,
    n_ties: usize,
    fingerprint: [u8; 32],
}

impl FilePairs {
    /// Checks that there is at least one pair and that every image file exists.
    ///
    /// `list` is what names the pairs, for errors; `folder` is what their paths are relative to.
    pub(super) fn new(
        list: &Path,
        folder: &Path,
        pairs: Vec<FilePair>,
        n_ties: usize,
    ) -> Result<Self, DataError> {
        if pairs.is_empty() {
            let reason = match n_ties {
                0 => "it names none".into(),
                n => format!("all {n} of its rows are ties"),
            };
            return Err(DataError::Empty { path: list.to_path_buf(), reason });
        }
        let fingerprint = fingerprint(list, folder, &pairs)?;
        Ok(Self { pairs, n_ties, fingerprint })
    }
}

impl PairSource for FilePairs {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn pair(&self, position: usize) -> Result<Pair, DataError> {
        self.pairs[position].load()
    }

    fn caption(&self, position: usize) -> &str {
        &self.pairs[position].caption
    }

    fn id(&self, position: usize) -> PairId {
        self.pairs[position].id
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.fingerprint
    }

    fn n_ties(&self) -> usize {
        self.n_ties
    }
}

/// Checks that every image is there and hashes what can be known without reading them.
fn fingerprint(list: &Path, folder: &Path, pairs: &[FilePair]) -> Result<[u8; 32], DataError> {
    let mut hash = Sha256::new();
    let mut missing = Vec::new();
    for FilePair { id, place, winner, loser, caption } in pairs {
        hash.update(id.0.to_le_bytes());
        hash.update((caption.len() as u64).to_le_bytes());
        hash.update(caption);
        for path in [winner, loser] {
            match fs::metadata(path) {
                Ok(file) if file.is_file() => {
                    // The name relative to the set: moving the set does not make another set.
                    let name = path.strip_prefix(folder).unwrap_or(path).to_string_lossy();
                    hash.update((name.len() as u64).to_le_bytes());
                    hash.update(name.as_bytes());
                    hash.update(file.len().to_le_bytes());
                }
                _ => missing.push((place.clone(), path.clone())),
            }
        }
    }
    if missing.is_empty() {
        Ok(hash.finalize().into())
    } else {
        Err(DataError::MissingImages { path: list.to_path_buf(), missing })
    }
}
