//! A run, from what was typed to what was logged.
//!
//! * [`Recipe`] is what was typed, every key optional; [`resolve`] makes it a [`Plan`], complete and checked.
//! * [`RunDir`] is the folder of a run; its [`EventLog`] holds one JSON line per [`Event`].
//! * [`schedule`] says how fast to learn at each step, [`health`] whether what is learned looks right.
//! * [`tensorboard`] writes events as curves.

mod error;
mod event;
mod event_log;
pub mod health;
mod keeping;
mod number;
mod plan;
mod plan_table;
mod recipe;
mod resolve;
mod run_dir;
pub mod schedule;
pub mod tensorboard;

pub use error::{Problem, RunError, Warning};
pub use event::{AlarmRaised, Banking, Encode, Event, Finish, Outcome, Probe, Skipped, Start, Step};
pub use event_log::{EventLog, RecordedEvents, read_events};
pub use keeping::{CheckpointPlan, LoggingPlan, Tracker};
pub use plan::{
    Adapter, Augment, BucketPlan, DataPlan, LoraPlan, MemoryEstimate, MethodPlan, MixedPrecision, ModelPlan,
    OptimizerKind, OptimizerPlan, OutputPlan, Plan, ReferenceKind, TimeIds, TrainPlan, ValidationPlan,
};
pub use recipe::{
    AdapterKind, AdapterSection, CheckpointSection, DataSection, LoggingSection, MethodSection, ModelSection,
    OneOrMore, OptimizerSection, OutputLayout, OutputSection, OutputType, Overrides, Recipe, TrainSection,
    ValidationSection,
};
pub use resolve::resolve;
pub use run_dir::{RunDir, changes};
pub use schedule::{LrScheduler, Schedule, lr_at};
