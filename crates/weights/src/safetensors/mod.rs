//! The safetensors weight format: eight bytes of header length, a JSON header, the tensors' bytes.
//!
//! The `safetensors` crate supplies the element types. Reading the header is ours because the crate drops a
//! repeated name without a word and answers with errors that name neither the tensor nor the numbers; writing
//! it is ours because the crate orders the free-form metadata differently in every process, and equal runs
//! must give equal files.
//!
//! Source: the format's description in `huggingface/safetensors`, README.md.

mod file;
mod header;
mod write;

pub use ::safetensors::Dtype;
pub use file::{Bytes, SafeTensorsFile, TensorView};
pub use header::{Header, MAX_HEADER_BYTES, Metadata, TensorInfo};
pub use write::{Outline, stage, to_bytes, write};
