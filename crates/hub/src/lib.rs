//! The network: models and datasets of the Hugging Face hub, and files in object storage or on web servers.
//!
//! [`fetch`] brings files of a hub, or of any server that speaks like it, into the cache on this machine. The [`Cache`] has
//! the layout of the hub's own clients, so that a model fetched by any of them is there for all; looking something up opens
//! no connection. [`remote`] reads trees of files elsewhere.
//!
//! Source: the Hub documentation, "Understand caching" and "Hub API endpoints".

mod cache;
mod client;
mod download;
mod error;
mod event;
mod fetch;
mod glob;
mod http;
mod intact;
mod link;
mod listing;
mod mark;
mod names;
mod paced;
mod part;
pub mod remote;
mod select;
mod settings;
mod token;
mod url;
mod verify;
mod weight_name;

pub use cache::{Cache, Snapshot};
pub use error::HubError;
pub use event::Event;
pub use fetch::{Fetched, Hub, fetch};
pub use http::check_proxy;
pub use intact::Verified;
pub use names::{RepoId, RepoKind, Revision};
pub use part::part_of;
pub use select::Selection;
pub use settings::{Retry, Settings};
pub use token::Token;
