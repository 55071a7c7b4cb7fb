//! Tables in parquet files: one, or a folder of shards.
//!
//! Only captions and labels are read when a set is opened. Images are read when they are asked for.

mod column;
mod honest;
mod images;
mod index;
mod shard;
mod source;
mod splits;
mod texts;

pub use index::read_parquet;
pub use splits::is_shard;
pub use texts::read_texts;
