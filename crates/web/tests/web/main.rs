//! Studies over the network, as voters and strangers meet them.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod browser;
mod curating;
mod databases;
mod folders;
mod kills;
mod results;
mod secure;
mod strangers;
mod support;
mod voters;
mod voting;
mod watching;
