//! Object storage and web servers, read through the crate `object_store`.
//!
//! Requests go through the one HTTP client of this crate, on the thread that asks; whatever `object_store` awaits besides
//! is its waits between attempts. So any number of threads may read at once, and no thread is started.

mod address;
mod blocks;
mod connector;
mod fault;
mod location;
mod object;
mod objects;
mod settings;
mod tree;

pub use location::locate;
pub use settings::Settings;
pub use tree::RemoteTree;
