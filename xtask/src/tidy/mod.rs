//! The invariants of `docs/architecture.md` section 5 as checks on the tree and on cargo's view of it.

mod edges;
mod links;
mod metadata;
mod run;
mod source;
mod style;
mod table;
mod tree;
mod words;

pub use run::{run, run_words};
