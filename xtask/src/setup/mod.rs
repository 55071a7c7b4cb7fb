//! Finding or installing the libtorch that builds link (`docs/decisions/0003-libtorch-setup.md`).

mod choose;
mod elf;
mod fit;
mod install;
mod link;
mod python;

pub use choose::{Options, named_by_user, run};
pub use install::user_cache;
pub use link::is_linked;
pub use python::{command as python_command, first_python};
