//! What a run keeps on its way: checkpoints to go on from, and who is told how it goes.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::health::Rule;
use crate::recipe::CheckpointSection;

/// See [`CheckpointSection`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointPlan {
    /// Optimizer steps between checkpoints; 0 is never but when the run is stopped.
    pub checkpointing_steps: u64,
    /// Checkpoints to keep; 0 is all.
    pub checkpoints_total_limit: u32,
}

impl Default for CheckpointPlan {
    fn default() -> Self {
        Self { checkpointing_steps: 500, checkpoints_total_limit: 2 }
    }
}

impl From<CheckpointSection> for CheckpointPlan {
    fn from(typed: CheckpointSection) -> Self {
        let usual = Self::default();
        Self {
            checkpointing_steps: typed.checkpointing_steps.unwrap_or(usual.checkpointing_steps),
            checkpoints_total_limit: typed.checkpoints_total_limit.unwrap_or(usual.checkpoints_total_limit),
        }
    }
}

impl CheckpointPlan {
    /// Whether a checkpoint is written when this many steps are made.
    pub fn is_due(&self, steps: u64) -> bool {
        self.checkpointing_steps > 0 && steps > 0 && steps.is_multiple_of(self.checkpointing_steps)
    }
}

/// See [`LoggingSection`](crate::LoggingSection).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoggingPlan {
    /// Who is told beside `events.jsonl`.
    pub report_to: Tracker,
    /// Where event files go.
    pub logging_dir: PathBuf,
    /// The folder of this run in it.
    pub tracker_name: String,
    /// What a danger does.
    pub rule: Rule,
}

impl Default for LoggingPlan {
    fn default() -> Self {
        Self {
            report_to: Tracker::default(),
            logging_dir: PathBuf::from("logs"),
            tracker_name: "tastemaker".to_owned(),
            rule: Rule::default(),
        }
    }
}

/// Who is told how a run goes, beside `events.jsonl`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tracker {
    /// TensorBoard, by its event files.
    #[default]
    Tensorboard,
    /// Nobody.
    None,
}
