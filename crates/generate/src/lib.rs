//! Prompts to images: the generator, sets of prompts, output folders that can be continued, image grids, and what an image
//! says of itself.

mod encoder;
mod error;
mod generator;
pub mod grid;
mod layout;
pub mod metadata;
mod model;
mod output;
pub mod prompts;
mod request;

pub use encoder::{EncodedPrompts, PromptEncoder};
pub use error::GenerateError;
pub use generator::{Generator, Networks};
pub use layout::{Block, layout};
pub use model::LoadedModel;
pub use output::{OutputFile, OutputFiles, decode_file, read_image, write_image};
pub use request::{GenerateSettings, SampleRequest};
