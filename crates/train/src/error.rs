//! The one error type of this crate.

use std::path::PathBuf;

use serde_json::Value;
use tastemaker_generate::GenerateError;
use tastemaker_math::objectives::{OBJECTIVES, objective};
use tastemaker_models::ModelError;
use tastemaker_run::RunError;
use tastemaker_store::StoreError;
use tastemaker_store::dtype::DType;
use tastemaker_torch::TorchError;

/// What can stop training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// An error, a loss or a gradient was infinite or not a number.
    #[error(
        "step {step}: the loss{} or its gradient is not finite; nothing was changed by this step. Lower the learning \
         rate or beta, or exclude such data", of(.pairs)
    )]
    NonFinite {
        /// The optimizer step, from 0.
        step: u64,
        /// The pairs whose errors or loss are not finite; all pairs of the step if only their gradient is not; none
        /// where training is not about pairs.
        pairs: Vec<u64>,
    },

    /// The state of a run holds a number that is infinite or none.
    #[error(
        "step {step}: `{tensor}` is not finite after the update, and nothing of it was written; lower the learning rate, and \
         resume from an earlier checkpoint or start again"
    )]
    NonFiniteState {
        /// Optimizer steps made.
        step: u64,
        /// The first such tensor of the state.
        tensor: String,
    },

    /// What a network predicts after an update is infinite or not a number, though its weights are finite.
    #[error(
        "step {step}: the network predicts nothing finite after the update, and nothing of it was written; lower the learning \
         rate, and resume from an earlier checkpoint or start again"
    )]
    NonFinitePrediction {
        /// Optimizer steps made.
        step: u64,
    },

    /// A trained number is beyond what the type that it is written in holds.
    #[error("`{tensor}` has values beyond what {dtype} holds; choose another save_precision")]
    BeyondType {
        /// The tensor.
        tensor: String,
        /// The type.
        dtype: DType,
    },

    /// A model's error on a pair is infinite or not a number.
    #[error(
        "the model's error on pair {pair} is not finite: its weights are damaged, or it needs another precision than this; \
         nothing can be said about what it prefers"
    )]
    NonFiniteMeasurement {
        /// The first such pair.
        pair: u64,
    },

    /// A saved state is that of another network.
    #[error("{path}: this state belongs to a network of other parameters; move it away to start again")]
    OtherState {
        /// The file.
        path: PathBuf,
    },

    /// Errors of two models that are errors of different things.
    #[error("the model and its reference differ in their {part}: their errors cannot be compared")]
    NotComparable {
        /// What differs.
        part: &'static str,
    },

    /// A folder holds a precomputed reference that this run cannot use.
    #[error("{} holds the precomputed reference of another run ({differs} differ); choose another reference_dir", .path.display())]
    OtherPrecomputed {
        /// The folder.
        path: PathBuf,
        /// Which parts of the key.
        differs: String,
    },

    /// What a precomputed reference is of cannot be read.
    #[error(
        "{} is damaged: {found}; remove the folder {}, and it is computed again, or choose another reference_dir",
        .path.display(), .path.parent().unwrap_or(.path).display()
    )]
    DamagedKey {
        /// The file.
        path: PathBuf,
        /// What is there instead.
        found: String,
    },

    /// A shard of a precomputed reference is not what was written.
    #[error("{} is damaged or of other draws; remove it, and it is computed again", .path.display())]
    DamagedPrecomputed {
        /// The file.
        path: PathBuf,
    },

    /// A checkpoint is not what was written.
    #[error("{}: {found}; resume from an earlier checkpoint", .path.display())]
    DamagedCheckpoint {
        /// The folder.
        path: PathBuf,
        /// What was found.
        found: String,
    },

    /// There is no checkpoint to resume from.
    #[error("{} is no checkpoint; {} holds {}", .path.display(), .output_dir.display(), match there.as_slice() {
        [] => "none: give the path of a checkpoint-N folder, or latest to begin".to_owned(),
        some => format!("{}: give latest or one of them", some.join(", ")),
    })]
    NoCheckpoint {
        /// What was named.
        path: PathBuf,
        /// The output folder.
        output_dir: PathBuf,
        /// Names of the checkpoints that are there, oldest first.
        there: Vec<String>,
    },

    /// A checkpoint is of a run that differs.
    #[error("{} is of another run ({}); it cannot be resumed as this one", .path.display(), .differences.join("; "))]
    OtherCheckpoint {
        /// The folder.
        path: PathBuf,
        /// Each key that differs.
        differences: Vec<String>,
    },

    /// The output folder holds checkpoints that a new run would mix with its own.
    #[error(
        "{} holds {}: add --resume_from_checkpoint latest to resume from there, or choose another output_dir",
        .path.display(), .checkpoint
    )]
    Unfinished {
        /// The output folder.
        path: PathBuf,
        /// The newest.
        checkpoint: String,
    },

    /// The run was asked to stop, and can be resumed.
    #[error(
        "stopped {}", match step {
            Some(step) => format!("after step {step}; resume with --resume_from_checkpoint latest"),
            None => "before the first step; what is encoded stays, and the same command continues".to_owned(),
        }
    )]
    Stopped {
        /// Optimizer steps done; `None` if training never began.
        step: Option<u64>,
        /// The signal that asked, to this process or to another rank.
        signal: Option<i32>,
    },

    /// An alarm ended the run, as its rule wants.
    #[error("ended after step {step} by an alarm: {alarm}")]
    EndedByAlarm {
        /// Optimizer steps done; the state is saved.
        step: u64,
        /// The alarm.
        alarm: String,
    },

    /// The best weights of a run are not where they were put.
    #[error("{} does not hold the weights of step {step}, the best of this run; the last checkpoint is whole", .path.display())]
    NoBest {
        /// The file.
        path: PathBuf,
        /// Which step it should be of.
        step: u64,
    },

    /// The processes of a run would do different things.
    #[error(
        "the ranks of this run differ from rank 0, so that none has begun: {}; start each of them with the same command",
        .differences.join("; ")
    )]
    RanksDiffer {
        /// Each rank and key that differs, with both values.
        differences: Vec<String>,
    },

    /// Two ranks would compute on one device.
    #[error(
        "ranks {first} and {second} of this run are on one device ({device}): start at most one process for each device, and \
         set LOCAL_RANK, or show each process its own"
    )]
    SharedDevice {
        /// One of them.
        first: usize,
        /// Another.
        second: usize,
        /// The device's identity.
        device: String,
    },

    /// Ranks on devices have nothing to exchange gradients by.
    #[error("{why}; several processes on CUDA devices need it, and --device cpu does not")]
    Nccl {
        /// What is wrong with it.
        why: String,
    },

    /// There is nothing to train on.
    #[error(
        "no pairs to train on: {n_pairs} in the data, {n_held_out} of them held out, {n_skipped} skipped; {}",
        if *n_skipped > 0 { "check those" } else { "lower `held_out_fraction`" }
    )]
    NoPairs {
        /// Pairs in all.
        n_pairs: usize,
        /// Held out of training.
        n_held_out: usize,
        /// Skipped since an image of theirs cannot be read.
        n_skipped: usize,
    },

    /// A method needs what the pairs do not have.
    #[error(
        "{method} needs the probability that winners are better, and no pair has scores: give columns with them, see \
         docs/guide/data.md"
    )]
    NoSoftLabels {
        /// The method.
        method: &'static str,
    },

    /// A method of pairs is given single images.
    #[error(
        "these are single images, liked or disliked, and {method} learns from pairs: take {}, which learns from single \
         images, or a set of pairs",
        methods_of_single_images()
    )]
    SingleImages {
        /// The method.
        method: &'static str,
    },

    /// Not one pair of a step, or of a validation, can be read.
    #[error(
        "step {step}: not one of its pairs can be read any more, though all could when the run began; put their images back and \
         resume from a checkpoint"
    )]
    EmptyStep {
        /// The optimizer step, from 0.
        step: u64,
    },

    /// Batches ended before the run did; a defect.
    #[error("the thread that makes batches ended before the run did")]
    EndOfPairs,

    /// Nothing is trainable: no layer's name matches the adapter's targets.
    #[error("nothing to train: no layer's name ends with one of {target_modules:?}")]
    NothingTrainable {
        /// The targets.
        target_modules: Vec<String>,
    },

    /// The image VAE gave NaN or infinity.
    #[error(
        "the image VAE gives values that are not finite for pair {pair}: look at its images, or take a VAE that computes \
         in this range"
    )]
    NonFiniteLatents {
        /// The first such pair.
        pair: u64,
    },

    /// A result was written and reads back as something else.
    #[error("{} does not hold what was written: `{tensor}` differs; is the disk sound?", .path.display())]
    ReadBack {
        /// The file or folder.
        path: PathBuf,
        /// The first tensor that differs.
        tensor: String,
    },

    /// The model could not be read or written.
    #[error(transparent)]
    Model(#[from] ModelError),

    /// A file or folder.
    #[error(transparent)]
    Store(#[from] StoreError),

    /// The plan or the run directory.
    #[error(transparent)]
    Run(#[from] RunError),

    /// Data.
    #[error(transparent)]
    Data(#[from] tastemaker_data::DataError),

    /// Images could not be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),

    /// libtorch.
    #[error(transparent)]
    Torch(#[from] TorchError),

    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),
}

/// The names of the methods that learn from single images.
fn methods_of_single_images() -> String {
    let is_unpaired = |name: &&str| objective(name, &Value::Null).is_ok_and(|method| method.is_unpaired());
    OBJECTIVES.iter().map(|entry| entry.name).filter(is_unpaired).collect::<Vec<_>>().join(" or ")
}

fn of(pairs: &[u64]) -> String {
    if pairs.is_empty() { String::new() } else { format!(" of pairs {pairs:?}") }
}
