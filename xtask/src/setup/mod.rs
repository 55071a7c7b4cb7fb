//! Finding or installing the libtorch that builds link (`docs/decisions/0003-libtorch-setup.md`).

mod choose;
mod driver;
mod elf;
mod fit;
mod install;
mod link;
mod needs;
mod packages;
mod python;
mod wheels;

pub use choose::{Options, named_by_user, run};
pub use install::user_cache;
pub use link::is_linked;
pub use python::{command as python_command, first_python};
