//! What can go wrong while generating.

use std::path::PathBuf;

use tastemaker_math::number;

/// Everything `tastemaker-generate` can refuse.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Something that should hold prompts.
    #[error("{} is no set of prompts: {what}", .path.display())]
    Prompts {
        /// The file or folder.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// A prompt that was not encoded before the text encoders went.
    #[error("prompt {prompt:?} was not encoded beforehand")]
    UnknownPrompt {
        /// The prompt.
        prompt: String,
    },
    /// Sides that the image VAE cannot have.
    #[error("images of {width} x {height} pixels: both sides must be multiples of {multiple} for this model")]
    Size {
        /// Width as given.
        width: u32,
        /// Height as given.
        height: u32,
        /// Pixels for each of the VAE's.
        multiple: u32,
    },
    /// What a network or the image VAE made is infinite or not a number.
    #[error(
        "the model gives pixels that are not finite for {prompt:?} at guidance scale {}: its weights are damaged, or the scale or the \
         precision is too much for it; lower --guidance_scale, or give --mixed_precision no",
        number(*.scale)
    )]
    NotFinite {
        /// The prompt.
        prompt: String,
        /// The scale of guidance.
        scale: f64,
    },
    /// A side that the network has no positions for.
    #[error("images of {width} x {height} pixels: sides of at most {largest} for this model")]
    TooLarge {
        /// Width as given.
        width: u32,
        /// Height as given.
        height: u32,
        /// Pixels of the largest side.
        largest: u32,
    },
    /// An image grid with rows of different lengths or images of different sizes.
    #[error("image grid is ragged: {what}")]
    RaggedGrid {
        /// What was found and what was wanted.
        what: String,
    },
    /// An image could not be encoded or decoded.
    #[error("image could not be coded")]
    Image(#[from] image::ImageError),
    /// An image could not be written as PNG with its text.
    #[error("image could not be encoded as PNG")]
    Png(#[from] png::EncodingError),
    /// A file could not be read or written.
    #[error(transparent)]
    Store(#[from] tastemaker_store::StoreError),
    /// A model could not be read.
    #[error(transparent)]
    Model(#[from] tastemaker_models::ModelError),
    /// The noise schedule cannot serve the sampler's settings.
    #[error(transparent)]
    Schedule(#[from] tastemaker_math::ScheduleError),
    /// An image and its pixels do not fit.
    #[error(transparent)]
    Data(#[from] tastemaker_data::DataError),
    /// libtorch, such as for want of memory.
    #[error(transparent)]
    Torch(#[from] tastemaker_torch::TorchError),
    /// A tensor that is not what it should be.
    #[error("libtorch refused")]
    Tch(#[from] tch::TchError),
}
