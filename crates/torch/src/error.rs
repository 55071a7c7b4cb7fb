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

    /// Memory ended inside a guarded call.
    #[error("out of memory while {doing}: {message}{}{relief}", if relief.is_empty() { "" } else { "; " })]
    OutOfMemory {
        /// What was being run.
        doing: String,
        /// libtorch's words, first line.
        message: String,
        /// What would need less; may be empty.
        relief: String,
    },

    /// libtorch or the program itself panicked inside a guarded call: a bug of ours.
    #[error("stopped while {doing}: {message}; this is a defect of the program, please report it")]
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

/// Runs `work`, turning a panic, of libtorch's or ours, into an error that says what was being done, and where it was memory
/// that ended, what would need less.
///
/// # Errors
/// [`TorchError::OutOfMemory`] and [`TorchError::Panic`] with the first line of the panic message.
pub fn guard<T>(doing: &str, relief: &str, work: impl FnOnce() -> T) -> Result<T, TorchError> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).map_err(|cause| {
        let (doing, message) = (doing.to_owned(), first_line(words(cause.as_ref())));
        match is_memory(&message) {
            true => TorchError::OutOfMemory { doing, message, relief: relief.to_owned() },
            false => TorchError::Panic { doing, message },
        }
    })
}

/// The first line of a panic's words; those of libtorch's errors without the bindings' around them.
fn first_line(words: &str) -> String {
    let error = words.split_once("an `Err` value: ").map_or(words, |(_, error)| error);
    let error = error.strip_prefix("Torch(\"").unwrap_or(error);
    let end = error.find(['\n', '\r']).into_iter().chain(error.find("\\n")).min();
    error[..end.unwrap_or(error.len())].trim_end_matches("\")").to_owned()
}

/// Whether libtorch, the allocator of the host or a device say that there is no memory left.
///
/// Source: `c10/core/impl/alloc_cpu.cpp`, `c10/cuda/CUDACachingAllocator.cpp`, the status names of cuBLAS and cuDNN.
fn is_memory(message: &str) -> bool {
    let words = [
        "can't allocate memory",
        "cannot allocate memory",
        "not enough memory",
        "out of memory",
        "bad_alloc",
        "alloc_failed",
        "failed to allocate",
    ];
    let message = message.to_lowercase();
    words.iter().any(|word| message.contains(word))
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
        let error = guard("adding a to its transpose", "", || &a + a.tr()).expect_err("shapes differ");
        assert!(error.to_string().contains("adding a to its transpose"), "{error}");
    }

    #[test]
    fn memory_is_said_only_where_it_was_memory() {
        let relief = "a smaller batch needs less memory";
        let said = |work: fn()| guard("training", relief, work).expect_err("it panics").to_string();
        let memory: [fn(); 3] = [
            || drop(tch::Tensor::zeros([1i64 << 50], (tch::Kind::Float, tch::Device::Cpu))),
            || {
                panic!(
                    "called `Result::unwrap()` on an `Err` value: Torch(\"CUDA out of memory. Tried\\nframe\")"
                )
            },
            || panic!("std::bad_alloc"),
        ];
        for work in memory {
            let said = said(work);
            assert!(said.starts_with("out of memory while training: ") && said.ends_with(relief), "{said}");
            assert!(!said.contains("frame"), "{said}");
        }
        let others: [fn(); 3] = [
            || panic!("failed printing to stderr: Broken pipe (os error 32)"),
            || panic!("index out of bounds: the len is 0 but the index is 0"),
            || drop(tch::Tensor::zeros([2, 3], (tch::Kind::Float, tch::Device::Cpu)).view([7])),
        ];
        for work in others {
            let said = said(work);
            assert!(!said.contains("memory") && said.contains("a defect"), "{said}");
        }
    }
}
