//! Folders of images that can be continued: what is there is not generated again.

use std::fs::File;
use std::io::{Cursor, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use tastemaker_data::set::{decode, read_encoded};
use tastemaker_store::{StoreError, atomic};
use tastemaker_torch::error::guard;

use crate::{GenerateError, GenerateSettings, Generator, Networks, SampleRequest, metadata};

/// An image file that is wanted.
#[derive(Debug, Clone)]
pub struct OutputFile {
    /// What it shows.
    pub request: SampleRequest,
    /// Where it goes.
    pub path: PathBuf,
    /// The text of its `parameters` chunk, which says how it was generated; `None` where the folder says so.
    pub parameters: Option<String>,
}

impl OutputFile {
    /// Whether it is there to its end, generated with the same parameters.
    pub fn is_there(&self) -> bool {
        match &self.parameters {
            None => is_whole(&self.path),
            wanted => metadata::read(&self.path) == *wanted && is_whole(&self.path),
        }
    }

    /// Whether something else is in its place.
    pub fn is_other(&self) -> bool {
        self.parameters.is_some() && self.path.exists() && metadata::read(&self.path) != self.parameters
    }

    fn write(&self, image: &RgbImage) -> Result<(), GenerateError> {
        match &self.parameters {
            None => write_image(&self.path, image),
            Some(text) => Ok(atomic::write_bytes(&self.path, &metadata::png(image, text)?)?),
        }
    }
}

/// Whether a file ends as a PNG file does.
fn is_whole(path: &Path) -> bool {
    const END: [u8; 12] = *b"\0\0\0\0IEND\xaeB`\x82";
    let end = File::open(path).and_then(|mut file| {
        let mut end = [0; 12];
        file.seek(SeekFrom::End(-12))?;
        file.read_exact(&mut end)?;
        Ok(end)
    });
    end.is_ok_and(|end| end == END)
}

/// Image files that are wanted, and which of them are missing.
#[derive(Debug)]
pub struct OutputFiles {
    files: Vec<OutputFile>,
    is_missing: Vec<bool>,
}

impl OutputFiles {
    /// Files of which those that are there are kept.
    pub fn keeping(files: Vec<OutputFile>) -> Self {
        let is_missing = files.iter().map(|file| !file.is_there()).collect();
        Self { files, is_missing }
    }

    /// Files that are generated whatever is there.
    pub fn anew(files: Vec<OutputFile>) -> Self {
        let is_missing = vec![true; files.len()];
        Self { files, is_missing }
    }

    /// How many there are in all.
    pub fn len(&self) -> usize {
        self.files.len()
    }

    /// Whether none is wanted.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// How many are missing.
    pub fn n_missing(&self) -> usize {
        self.is_missing.iter().filter(|missing| **missing).count()
    }

    /// Every prompt and negative prompt.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let requests = self.files.iter().map(|file| &file.request);
        requests.flat_map(|request| {
            [Some(request.prompt.as_str()), request.negative_prompt.as_deref()].into_iter().flatten()
        })
    }

    /// A file by its position.
    pub fn file(&self, index: usize) -> &OutputFile {
        &self.files[index]
    }

    /// The files that are kept, with their positions.
    pub fn kept(&self) -> impl Iterator<Item = (usize, &OutputFile)> {
        self.files.iter().enumerate().filter(|(index, _)| !self.is_missing[*index])
    }

    /// Generates the missing ones and writes each as soon as its batch is generated; `each` is given its position and its image.
    /// The bytes do not depend on which files are missing. Before the first of them is written, `ready` makes its place ready.
    ///
    /// # Errors
    /// As [`Generator::generate_each`]; [`GenerateError::Torch`] where memory ends; [`GenerateError::Store`] for a file that
    /// cannot be written.
    pub fn write<E: From<GenerateError>>(
        &self,
        generator: &Generator<'_>,
        networks: Networks<'_>,
        settings: &GenerateSettings,
        ready: impl FnOnce() -> Result<(), E>,
        mut each: impl FnMut(usize, &RgbImage) -> Result<(), E>,
    ) -> Result<(), E> {
        let requests: Vec<SampleRequest> = self.files.iter().map(|file| file.request.clone()).collect();
        let at_once = requests.len().min(settings.batch_size.max(1));
        let doing = format!("generating {at_once} images at once");
        let is_missing = |index: usize| self.is_missing[index];
        let work = || {
            let mut ready = Some(ready);
            generator.generate_each(networks, &requests, settings, is_missing, |index, image| {
                ready.take().map_or(Ok(()), |ready| ready())?;
                self.files[index].write(&image)?;
                each(index, &image)
            })
        };
        guard(&doing, "a smaller batch size needs less", || tch::no_grad(work))
            .map_err(GenerateError::from)?
    }
}

/// Writes a PNG file, whole or not at all.
///
/// # Errors
/// [`GenerateError::Image`], [`GenerateError::Store`].
pub fn write_image(path: &Path, image: &RgbImage) -> Result<(), GenerateError> {
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png)?;
    Ok(atomic::write_bytes(path, png.get_ref())?)
}

/// Reads an image.
///
/// # Errors
/// [`StoreError`] for a file that cannot be read or decoded.
pub fn read_image(path: &Path) -> Result<RgbImage, StoreError> {
    decode_file(path, &read_encoded(path)?)
}

/// Decodes the bytes of an image file.
///
/// # Errors
/// [`StoreError::Malformed`] for what does not decode.
pub fn decode_file(path: &Path, bytes: &[u8]) -> Result<RgbImage, StoreError> {
    decode(bytes).map_err(|error| StoreError::malformed(path, error.to_string(), "a PNG, JPEG or WebP image"))
}
