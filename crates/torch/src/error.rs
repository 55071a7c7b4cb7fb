//! The one error type of this crate.

use std::any::Any;
use std::path::PathBuf;

/// What can go wrong between files, memory and libtorch.
#[derive(Debug, thiserror::Error)]
pub enum TorchError {
    /// A file could not be opened or is not well-formed.
    #[error(transparent)]
    Store(#[from] tastemaker_store::StoreError),

    /// A tensor in a file has an element type that networks here do not use.
    #[error(
        "{path}: tensor `{name}` has element type {dtype}; wanted F32, F16, BF16, F64 or an integer type"
    )]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// What the file says.
        dtype: String,
    },

    /// A device that was asked for is not there or cannot be used.
    #[error("{wanted} cannot be used: {why}; --device cpu always can")]
    Device {
        /// As typed.
        wanted: String,
        /// The reason.
        why: String,
    },

    /// libtorch refused an operation.
    #[error("libtorch: {0}")]
    Tch(#[from] tch::TchError),

    /// libtorch panicked inside a guarded call: out of memory, or a bug of ours.
    #[error("libtorch stopped while {doing}: {message}")]
    Panic {
        /// What was being run.
        doing: String,
        /// The panic's own words, first line.
        message: String,
    },

    /// An operation that several processes do together failed.
    #[error("rank {rank} of {world_size} failed while {doing}: {message}")]
    Group {
        /// Which process this is.
        rank: usize,
        /// How many there are.
        world_size: usize,
        /// What was being done.
        doing: String,
        /// libtorch's words, first line, and what to do.
        message: String,
    },
}

/// Runs `work`, turning a panic of libtorch's into an error that says what was being done.
///
/// # Errors
/// [`TorchError::Panic`] with the first line of the panic message.
pub fn guard<T>(doing: &str, work: impl FnOnce() -> T) -> Result<T, TorchError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|cause| {
        let message = words(cause.as_ref()).lines().next().unwrap_or("").to_owned();
        TorchError::Panic { doing: doing.to_owned(), message }
    })
}

/// What a panic says.
pub(crate) fn words(cause: &(dyn Any + Send)) -> &str {
    let text = cause.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| cause.downcast_ref::<&str>().copied()).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_mismatch_becomes_an_error_that_says_what_ran() {
        let a = tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu));
        let error = guard("adding a to its transpose", || &a + a.tr()).expect_err("shapes differ");
        assert!(error.to_string().contains("adding a to its transpose"), "{error}");
    }
}
