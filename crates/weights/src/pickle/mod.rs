//! PyTorch's legacy weight files (`.bin`, `.pt`, `.pth`, `.ckpt`), read without running anything.
//!
//! Such a file is a zip archive of uncompressed entries: a pickle, `data.pkl`, that says which tensors there
//! are, and one entry of raw bytes for each storage they lie in. A pickle is a program for a stack machine
//! that can call any function of the reader's process, so loading one from a stranger is running a stranger's
//! program. The machine here knows the opcodes that a state dict needs and a handful of functions, each
//! interpreted by this module; it has no way to look up or call anything else. The tensors come out as views
//! into the file, as those of [`safetensors`](crate::safetensors) do.
//!
//! What is refused, with the reason: every other opcode and call, the two formats from before torch 1.6,
//! archives that are compressed or encrypted or whose parts overlap, and tensors that are not row-major.
//! The archive's CRC sums are not checked.
//!
//! Source: `torch/serialization.py` and `torch/_utils.py` of torch 2.11; Python's `pickletools`; APPNOTE.TXT
//! 6.3.10 for the archive.

mod archive;
mod call;
mod file;
mod limits;
mod machine;
mod opcode;
mod refusal;
mod tensors;
mod value;

pub use file::LegacyFile;
pub use limits::{MAX_ENTRIES, MAX_ITEMS, MAX_MEMO, MAX_OBJECTS, MAX_PICKLE_BYTES, MAX_RANK, MAX_STACK};
