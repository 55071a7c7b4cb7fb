//! Studies over the network, as voters and strangers meet them.

mod browser;
mod curating;
mod folders;
mod kills;
mod results;
mod secure;
mod strangers;
mod support;
mod voters;
mod voting;
mod watching;
