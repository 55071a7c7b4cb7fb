//! Is it learning? Judgments on the metrics of a run, in words.
//!
//! A loss curve of these methods says little: it starts at ln 2 and moves by percents while a model is made or ruined. What
//! says something is where the errors go, against the reference, on pairs that are trained on and on pairs that are not.
//!
//! * [`Watch`] takes every step and probe and raises an [`Alarm`]; its memory does not grow with the run.
//! * [`ALARMS`] lists them all; a [`Rule`] says what follows from one.
//! * [`quality`] says which of a run's states is the one to keep.
//! * [`outside_published`] compares a plan with the ranges the papers used.

mod alarm;
mod limits;
mod published;
mod quality;
mod watch;
mod window;

pub use alarm::{ALARMS, Alarm, AlarmEntry, Rule, Severity};
pub use limits::{Limits, WINDOW};
pub use published::outside_published;
pub use quality::quality;
pub use watch::{Best, Watch};

#[cfg(test)]
mod tests;
