//! Group normalization that is right whatever the layout of its input.

use std::ffi::c_char;

use tch::Tensor;

use crate::shim::{Raw, call, raw};

/// Normalizes groups of channels, then scales and shifts each channel. Mean and variance are right to f32's last digits on
/// nearly flat maps too, where libtorch's own kernel for channels that are innermost loses them.
///
/// # Shapes
/// x `[b, c, ..]`, weight and bias `[c]`; result as x.
///
/// # Panics
/// With libtorch's words if something does not fit.
pub fn group_norm(x: &Tensor, n_groups: i64, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors.
    call(|error| unsafe { tastemaker_group_norm(raw(x), n_groups, raw(weight), raw(bias), eps, error) })
}

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_group_norm(
        x: Raw,
        n_groups: i64,
        weight: Raw,
        bias: Raw,
        eps: f64,
        error: *mut *mut c_char,
    ) -> Raw;
}
