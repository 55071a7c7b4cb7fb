//! Voting: who sees which two images when, and what they say, on disk before the page moves on.

mod answer;
mod booth;
mod database;
mod dealer;
mod pages;
mod routes;

pub use answer::{Answer, Task};
pub use booth::{Booth, Refusal, Voter, voter_names};
pub use database::{Ballot, Database, Record};
pub use dealer::Progress;
pub use routes::{Access, router};
