//! Pages that a server on this machine keeps: to vote on, to curate pairs with, and to watch runs by.
//!
//! * [`study`] is what people vote on, whatever it was made from, and how;
//! * [`vote`] deals pairs of images to voters and keeps what they say in one SQLite file;
//! * [`curate`] walks through a set of pairs and keeps what is wrong with it in a list;
//! * [`results`] is what votes come to, as text, JSON and a page, and in layouts of others;
//! * [`watch`] shows runs as they go;
//! * [`server`] is the one server, with the checks that every request passes.
//!
//! Nothing is asked of any other machine: styles and scripts are carried by the program.

mod assets;
pub mod curate;
mod error;
mod page;
pub mod results;
pub mod server;
pub mod study;
pub mod vote;
pub mod watch;

pub use error::WebError;
