//! The embedded default: real art, a small model in diffusers layout made from it, scorers for it, and the demo that shows every
//! method on them.

mod art;
pub mod base;
mod error;
mod evaluation;
mod methods;
mod pairs;
pub mod pretrain;
pub mod prompts;
pub mod report;
mod run;
pub mod scorers;
mod task;

pub use error::DemoError;
pub use evaluation::{BATCH_SIZE, GUIDANCE_SCALE, N_STEPS};
pub use methods::MethodName;
pub use run::{Settings, run};
pub use task::TaskName;

use std::path::Path;

/// Removes a folder with all that is in it, if it is there.
fn clear(folder: &Path) -> Result<(), DemoError> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(DemoError::io("clear", folder, error))
        }
        _ => Ok(()),
    }
}
