//! Event files of TensorBoard, written while a run is trained.
//!
//! [`Writer`] appends records to `events.out.tfevents.*`; [`SCALARS`] lists every curve with the names that published
//! training scripts gave them. Steps on the board are optimizer steps made, so the first training step is at 1.
//!
//! Source: TensorBoard's `event.proto`, `summary.proto` and `record_writer.py`; what PyTorch's `SummaryWriter` writes.

mod message;
mod record;
mod scalars;
mod writer;

pub use scalars::{NamedAs, SCALARS, Scalar, scalars};
pub use writer::{FOLDER, Writer, image_tags};

#[cfg(test)]
mod tests;
