//! A run, from what was typed to what was logged.
//!
//! * [`Recipe`] is what was typed, every key optional; [`resolve`] makes it a [`Plan`], complete and checked.
//! * [`RunDir`] is the folder of a run; its [`EventLog`] holds one JSON line per [`Event`].
//! * [`schedule`] is the learning rate of each step, [`health`] judges whether training goes well.
//! * [`tensorboard`] writes events as curves.

mod beta;
mod error;
mod event;
mod event_log;
mod folders;
pub mod health;
mod idle;
mod number;
mod plan;
mod plan_table;
mod recipe;
mod resolve;
mod run_dir;
pub mod schedule;
mod settings;
pub mod tensorboard;

pub use error::{Problem, RunError, Warning};
pub use event::{AlarmRaised, Encode, Event, Finish, Outcome, Probe, Read, Reference, Skipped, Start, Step};
pub use event_log::{EventLog, RecordedEvents, read_events};
pub use idle::Surroundings;
pub use plan::{Adapter, BucketPlan, MANY_PAIRS, MemoryEstimate, MethodPlan, Phase, Plan, Relief};
pub use recipe::{MethodSection, Overrides, Recipe};
pub use resolve::{resolve, resolve_over};
pub use run_dir::{Difference, RunDir, changes, differences, split_changes};
pub use schedule::{LrScheduler, Schedule, lr_at};
pub use settings::{
    AdapterKind, AdapterSection, Augment, Check, CheckpointPlan, CheckpointSection, DataPlan, DataSection,
    HeldOutChoice, Key, LoggingPlan, LoggingSection, LoraPlan, ModelPlan, ModelSection, OptimizerKind,
    OptimizerPlan, OptimizerSection, OutputLayout, OutputPlan, OutputSection, ReferenceKind, Shape, TimeIds,
    Tracker, TrainPlan, TrainSection, ValidationPlan, ValidationSection, keys, words,
};
