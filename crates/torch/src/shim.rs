//! How functions of the shim are called: tensors as pointers, exceptions as messages.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use tch::Tensor;

/// A tensor of libtorch, as the shim sees it.
pub(crate) type Raw = *mut c_void;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_free(message: *mut c_char);
}

/// The pointer of a tensor that stays ours.
pub(crate) fn raw(tensor: &Tensor) -> Raw {
    tensor.as_ptr().cast_mut().cast()
}

/// As [`raw`]; null where there is none.
pub(crate) fn maybe(tensor: Option<&Tensor>) -> Raw {
    tensor.map_or(ptr::null_mut(), raw)
}

/// A tensor that the shim hands over.
///
/// # Safety
/// `tensor` was allocated with `new at::Tensor`, as `tch` makes its own, and nobody else has it.
#[expect(unsafe_code, reason = "the shim hands over a tensor")]
pub(crate) unsafe fn taken(tensor: Raw) -> Tensor {
    // SAFETY: as the caller promises.
    unsafe { Tensor::from_ptr(tensor.cast()) }
}

/// Runs a function of the shim; where it left a message, gives that.
pub(crate) fn attempt<T>(function: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, String> {
    let mut error = ptr::null_mut();
    let result = function(&raw mut error);
    if error.is_null() {
        return Ok(result);
    }
    #[expect(unsafe_code, reason = "the shim hands over a C string")]
    // SAFETY: the message ends with a zero and is ours to free.
    Err(unsafe { freed(error) })
}

/// A string that the shim hands over.
///
/// # Safety
/// `text` ends with a zero, is of the C allocator, and nobody else has it.
#[expect(unsafe_code, reason = "the shim hands over a C string")]
pub(crate) unsafe fn freed(text: *mut c_char) -> String {
    // SAFETY: as the caller promises.
    unsafe {
        let words = CStr::from_ptr(text).to_string_lossy().into_owned();
        tastemaker_free(text);
        words
    }
}

/// Runs a function of the shim that makes a tensor.
///
/// # Panics
/// With libtorch's words, as every operation of `tch` does.
pub(crate) fn call(function: impl FnOnce(*mut *mut c_char) -> Raw) -> Tensor {
    match attempt(function) {
        #[expect(unsafe_code, reason = "the shim hands over a tensor")]
        // SAFETY: without a message the result is a new tensor, and nobody else has it.
        Ok(result) => unsafe { taken(result) },
        Err(message) => panic!("{message}"),
    }
}
