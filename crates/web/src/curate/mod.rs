//! Curating: walking through a set of pairs and saying what is wrong with it. The set is never written to; a list says what to
//! exclude and to correct, which training and `data` take.

mod desk;
mod findings;
mod margins;
mod pages;
mod routes;

pub use desk::Desk;
pub use findings::{Findings, read_findings};
pub use margins::{Margins, read_margins};
pub use routes::router;
