//! How much a file may make the reader hold.
//!
//! Together with the file's own bytes, reading takes at most 256 bytes for each byte of `data.pkl`, 256 for
//! each archive entry, and a megabyte; the limits keep the first below 1 GiB whatever the file says. A
//! checkpoint of a large diffusion model with its optimizer's state stays under a tenth of each.

/// The longest `data.pkl` accepted.
pub const MAX_PICKLE_BYTES: usize = 64 << 20;

/// The most entries an archive may have.
pub const MAX_ENTRIES: usize = 1 << 18;

/// The most values on the stack, and the most marks.
pub const MAX_STACK: usize = 1 << 16;

/// The most remembered values.
pub const MAX_MEMO: usize = 1 << 20;

/// The most dicts, lists, tuples, tensors and other compound values.
pub const MAX_OBJECTS: usize = 1 << 20;

/// The most items in all dicts, lists and tuples together; a dict's entry counts as two.
pub const MAX_ITEMS: usize = 1 << 21;

/// The most dimensions of a tensor.
pub const MAX_RANK: usize = 16;
