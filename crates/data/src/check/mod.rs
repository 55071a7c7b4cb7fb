//! Checking every row of a set before training on it.
//!
//! One pass decodes every image once, on all cores, and keeps 8 bytes per image; what needs the whole set at once works on
//! those. What is found does not depend on the number of workers.

mod across;
mod checks;
mod finding;
mod inspect;
mod output;
mod page;
mod pass;
mod row;
mod settings;
mod summary;
mod worst;

pub use checks::{CHECKS, Check, Fix, Kind, Severity, fixed_by};
pub use finding::{Finding, Subject};
pub use output::{CHECK_FORMAT, Written, check_folder, write};
pub use pass::{Event, check};
pub use settings::{CaptionTokens, Settings};
pub use summary::{LabelCounts, SIZE_BINS, Summary, Timing};
