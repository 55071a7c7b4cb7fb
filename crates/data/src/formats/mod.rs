//! Reading pairs from disk, in the layouts that others write.

mod files;
mod folders;
mod jsonl;
mod registry;

pub use files::FilePairs;
pub use folders::read_folders;
pub use jsonl::read_jsonl;
pub use registry::{FORMATS, Format, open};
