//! Exit codes: what kind of thing went wrong, for scripts. `docs/reference/exit-codes.md` lists them.

use std::process::ExitCode;

use tastemaker_data::DataError;
use tastemaker_demo::DemoError;
use tastemaker_eval::EvalError;
use tastemaker_generate::GenerateError;
use tastemaker_hub::HubError;
use tastemaker_models::ModelError;
use tastemaker_run::RunError;
use tastemaker_store::StoreError;
use tastemaker_torch::TorchError;
use tastemaker_torch::distributed::Farewell;
use tastemaker_train::TrainError;
use tastemaker_web::WebError;

use crate::place::PlaceError;
use crate::signals::CODE;

/// What kind of thing went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something typed: a flag, a recipe, a prompt.
    Usage = 2,
    /// The pairs or prompts: missing, damaged, not UTF-8, or nothing left of them.
    Data = 3,
    /// The model's files: missing, damaged, not supported, or not fitting each other.
    Model = 4,
    /// Writing results.
    Output = 5,
    /// Training met a number that is not finite.
    Training = 6,
    /// The network: a hub or a storage that is unreachable, refuses, or sends something else than it announced.
    Hub = 7,
    /// Anything else: out of memory, or a defect of this program.
    Internal = 70,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// A complaint about what was typed, found outside the argument parser.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(pub String);

/// Findings that `--strict` does not let pass.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FindingsError(pub String);

/// Images or prompts that are not there or cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DataFault(pub String);

/// Whatever kept a model's or an adapter's files from being read.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ModelFault(anyhow::Error);

/// Says whose files could not be read, where the error itself does not.
pub trait Blame<T> {
    /// A model's or an adapter's.
    ///
    /// # Errors
    /// The same.
    fn of_model(self) -> anyhow::Result<T>;
}

impl<T> Blame<T> for anyhow::Result<T> {
    fn of_model(self) -> Self {
        self.map_err(|error| ModelFault(error).into())
    }
}

/// What another process of the run ended with.
#[derive(Debug, thiserror::Error)]
#[error("rank {} of this run has ended: {}", .0.rank, .0.words)]
pub struct OtherRank(pub Farewell);

/// A run that a signal ended; its state is saved.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct Interrupted {
    /// The signal's number.
    pub signal: i32,
    /// How far the run came.
    pub source: TrainError,
}

/// The code of an error: that of the signal behind it, of the process that ended first, or of the first cause of a known kind.
pub fn code_of(error: &anyhow::Error) -> u8 {
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        return u8::try_from(CODE + interrupted.signal).unwrap_or(u8::MAX);
    }
    error.downcast_ref().map_or_else(|| exit_of(error) as u8, |OtherRank(farewell)| farewell.code)
}

fn exit_of(error: &anyhow::Error) -> Exit {
    let (mut error, mut reader) = (error, Exit::Data);
    while let Some(ModelFault(inner)) = error.downcast_ref() {
        (error, reader) = (inner, Exit::Model);
    }
    error.chain().find_map(|cause| known(cause, reader)).unwrap_or(Exit::Internal)
}

/// Error enums pass causes through transparently, so each is taken apart here and not left to the chain. Files that nothing says
/// more about are those of `reader`.
fn known(cause: &(dyn std::error::Error + 'static), reader: Exit) -> Option<Exit> {
    None.or_else(|| cause.downcast_ref::<UsageError>().map(|_| Exit::Usage))
        .or_else(|| cause.downcast_ref::<FindingsError>().map(|_| Exit::Data))
        .or_else(|| cause.downcast_ref::<DataFault>().map(|_| Exit::Data))
        .or_else(|| cause.downcast_ref::<PlaceError>().map(|_| Exit::Output))
        .or_else(|| cause.downcast_ref().map(of_demo))
        .or_else(|| cause.downcast_ref().map(of_web))
        .or_else(|| cause.downcast_ref().map(of_train))
        .or_else(|| cause.downcast_ref().map(of_eval))
        .or_else(|| cause.downcast_ref().map(of_generate))
        .or_else(|| cause.downcast_ref().map(of_model))
        .or_else(|| cause.downcast_ref().map(of_data))
        .or_else(|| cause.downcast_ref().map(|error| of_run(error, reader)))
        .or_else(|| cause.downcast_ref().map(|error| of_hub(error, reader)))
        .or_else(|| cause.downcast_ref().map(|error| of_store(error, reader)))
        .or_else(|| cause.downcast_ref().map(|error| of_torch(error, Exit::Internal)))
}

fn of_demo(error: &DemoError) -> Exit {
    match error {
        DemoError::Usage(_) => Exit::Usage,
        DemoError::Config { .. } => Exit::Model,
        DemoError::Data(error) => of_data(error),
        DemoError::Eval(error) => of_eval(error),
        DemoError::Generate(error) => of_generate(error),
        DemoError::Model(error) => of_model(error),
        DemoError::Run(error) => of_run(error, Exit::Output),
        DemoError::Store(error) => of_store(error, Exit::Data),
        DemoError::Train(error) => of_train(error),
        DemoError::Torch(error) => of_torch(error, Exit::Internal),
        _ => Exit::Internal,
    }
}

fn of_web(error: &WebError) -> Exit {
    match error {
        WebError::Settings(_) | WebError::Bind { .. } | WebError::Tls { .. } => Exit::Usage,
        WebError::Study(_) => Exit::Data,
        WebError::Database { .. } | WebError::OtherStudy { .. } => Exit::Output,
        WebError::Data(error) => of_data(error),
        WebError::Store(error) => of_store(error, Exit::Data),
        _ => Exit::Internal,
    }
}

fn of_train(error: &TrainError) -> Exit {
    match error {
        TrainError::NonFinite { .. }
        | TrainError::NonFiniteState { .. }
        | TrainError::NonFinitePrediction { .. }
        | TrainError::EndedByAlarm { .. } => Exit::Training,
        TrainError::NoPairs { .. } | TrainError::NoSoftLabels { .. } => Exit::Data,
        TrainError::NothingTrainable { .. }
        | TrainError::NoCheckpoint { .. }
        | TrainError::RanksDiffer { .. }
        | TrainError::SharedDevice { .. }
        | TrainError::Nccl { .. } => Exit::Usage,
        TrainError::NonFiniteLatents { .. }
        | TrainError::NonFiniteMeasurement { .. }
        | TrainError::NotComparable { .. } => Exit::Model,
        TrainError::Generate(GenerateError::Store(error)) => of_store(error, Exit::Output),
        TrainError::Generate(GenerateError::NotFinite { .. }) => Exit::Training,
        TrainError::Generate(error) => of_generate(error),
        TrainError::ReadBack { .. }
        | TrainError::BeyondType { .. }
        | TrainError::NoBest { .. }
        | TrainError::OtherPrecomputed { .. }
        | TrainError::DamagedPrecomputed { .. }
        | TrainError::DamagedKey { .. }
        | TrainError::DamagedCheckpoint { .. }
        | TrainError::OtherCheckpoint { .. }
        | TrainError::Unfinished { .. } => Exit::Output,
        TrainError::Model(error) => of_model(error),
        TrainError::Run(error) => of_run(error, Exit::Output),
        TrainError::Store(error) => of_store(error, Exit::Output),
        TrainError::Data(error) => of_data(error),
        TrainError::Torch(error) => of_torch(error, Exit::Internal),
        _ => Exit::Internal,
    }
}

fn of_eval(error: &EvalError) -> Exit {
    match error {
        EvalError::Model(error) => of_model(error),
        EvalError::Store(error) => of_store(error, Exit::Data),
        EvalError::Weight { .. } => Exit::Usage,
        EvalError::Images { .. }
        | EvalError::Image(_)
        | EvalError::ImageShape { .. }
        | EvalError::UnknownPrompt { .. } => Exit::Data,
        EvalError::ImageScore { .. } => Exit::Model,
        EvalError::Compared { .. } => Exit::Output,
        _ => Exit::Internal,
    }
}

fn of_generate(error: &GenerateError) -> Exit {
    match error {
        GenerateError::Model(error) => of_model(error),
        GenerateError::Data(error) => of_data(error),
        GenerateError::Store(error) => of_store(error, Exit::Data),
        GenerateError::Torch(error) => of_torch(error, Exit::Internal),
        GenerateError::Schedule(_) | GenerateError::Size { .. } => Exit::Usage,
        GenerateError::Prompts { .. } | GenerateError::Image(_) => Exit::Data,
        GenerateError::NotFinite { .. } => Exit::Model,
        _ => Exit::Internal,
    }
}

fn of_model(error: &ModelError) -> Exit {
    match error {
        ModelError::Store(error) => of_store(error, Exit::Model),
        ModelError::Torch(error) => of_torch(error, Exit::Model),
        ModelError::UnknownPrediction | ModelError::Choice(_) => Exit::Usage,
        _ => Exit::Model,
    }
}

fn of_data(error: &DataError) -> Exit {
    match error {
        DataError::Store(error) => of_store(error, Exit::Data),
        DataError::NoSuchFormat { .. } => Exit::Usage,
        DataError::Output { .. } | DataError::NoCache { .. } => Exit::Output,
        _ => Exit::Data,
    }
}

/// The plan of a run is a result, unless the run stands for a model.
fn of_run(error: &RunError, reader: Exit) -> Exit {
    match error {
        RunError::DamagedPlan { .. } | RunError::Format { .. } if reader == Exit::Model => Exit::Model,
        RunError::Store(error) => of_store(error, Exit::Usage),
        RunError::Recipe { .. } | RunError::Invalid(_) | RunError::Method(_) => Exit::Usage,
        RunError::NotARun { .. }
        | RunError::InUse { .. }
        | RunError::OtherPlan { .. }
        | RunError::DamagedPlan { .. }
        | RunError::Format { .. } => Exit::Output,
        _ => Exit::Internal,
    }
}

/// A file that cannot be written is the output's fault, whoever wrote it; one that cannot be read is the reader's.
fn of_store(error: &StoreError, reader: Exit) -> Exit {
    match error {
        StoreError::Io { action, .. } if *action != "read" => Exit::Output,
        StoreError::Name { .. } => Exit::Usage,
        StoreError::Remote(error) => error.downcast_ref().map_or(Exit::Hub, |error| of_hub(error, reader)),
        _ => reader,
    }
}

/// What a hub does is its own fault.
fn of_hub(error: &HubError, reader: Exit) -> Exit {
    match error {
        HubError::Store(error) => of_store(error, reader),
        HubError::DiskFull { .. } => Exit::Output,
        HubError::Name { .. } => Exit::Usage,
        HubError::NotCached { repo, .. } | HubError::Incomplete { repo, .. } => {
            if repo.starts_with("dataset ") { Exit::Data } else { Exit::Model }
        }
        HubError::DamagedBlob { path, .. } if path.to_string_lossy().contains("datasets--") => Exit::Data,
        HubError::DamagedBlob { .. } => Exit::Model,
        _ => Exit::Hub,
    }
}

fn of_torch(error: &TorchError, reader: Exit) -> Exit {
    match error {
        TorchError::Store(error) => of_store(error, reader),
        TorchError::ElementType { .. } => reader,
        TorchError::Device { .. } => Exit::Usage,
        _ => Exit::Internal,
    }
}
