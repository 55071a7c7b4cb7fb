//! Reading pairs from disk, in the layouts that others write.

mod by_name;
mod folders;
mod found;
mod images;
mod listed_images;
mod lists;
mod metered;
mod one_trainer;
mod parquet;
mod refusal;
mod registry;
mod settings;
mod table;
mod webdataset;

pub use listed_images::{ImageList, ListedImage, read_image_list};
pub use parquet::read_texts;
pub use registry::{FORMATS, Format, open, open_at, open_with};
pub use settings::{Columns, OpenSettings};
pub use table::{CONVENTIONS, Convention, Shape};
