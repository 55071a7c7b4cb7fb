//! Kernels of optimizers, for whole tensors at once.
//!
//! Moments of 8 bits: arXiv 2110.02861, with the codes and blocks of `bitsandbytes-foundation/bitsandbytes:bitsandbytes/functional.py`.

use std::ffi::c_char;

use tch::{Device, Kind, Tensor};

use crate::shim::{Raw, attempt, call, raw};

/// One step of AdamW (arXiv 1711.05101, algorithm 2).
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct AdamWStep {
    /// Learning rate.
    pub learning_rate: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor on the gradients.
    pub gradient_scale: f64,
    /// Number of this step, from 1.
    pub number: i64,
}

/// A step of f32 AdamW over all `parameters` by libtorch's fused kernel.
///
/// With another factor than 1 the gradients are multiplied by it in place.
///
/// # Shapes
/// As many gradients, first and second moments as parameters, each shaped as its parameter; moments also lie in memory as it does.
///
/// # Panics
/// With libtorch's words if something does not fit.
pub fn fused_adamw(
    parameters: &mut [Tensor],
    gradients: &[Tensor],
    (first, second): (&mut [Tensor], &mut [Tensor]),
    step: &AdamWStep,
) {
    let n = parameters.len();
    assert!(
        gradients.len() == n && first.len() == n && second.len() == n,
        "{n} parameters, {} gradients, {} and {} moments",
        gradients.len(),
        first.len(),
        second.len()
    );
    let [parameters, gradients, first, second] = [parameters, gradients, first, second].map(raws);
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are `n` each, of live tensors; values of all but the gradients are ours to change.
    check(|error| unsafe {
        tastemaker_adamw(
            parameters.as_ptr(),
            gradients.as_ptr(),
            first.as_ptr(),
            second.as_ptr(),
            n,
            step,
            error,
        );
    });
}

/// Elements that share a scale.
const BLOCK: i64 = 256;

/// Numbers of 8 bits, in blocks of 256 with a scale each.
#[derive(Debug)]
pub struct Blockwise {
    /// For each element the number of its value in the code, `[n]` u8.
    pub codes: Tensor,
    /// The largest absolute value of each block, `[n / 256, rounded up]` f32.
    pub absmax: Tensor,
}

impl Blockwise {
    /// `n` zeros.
    pub fn zeros(n: i64, device: Device) -> Self {
        Self {
            codes: Tensor::zeros([n], (Kind::Uint8, device)),
            absmax: Tensor::zeros([(n + BLOCK - 1) / BLOCK], (Kind::Float, device)),
        }
    }

    /// Each of the f32 `values` as the nearest value of the code, scaled by the largest of its block.
    pub fn nearest(values: &Tensor, code: &Tensor) -> Self {
        let made = Self::zeros(values.numel() as i64, Device::Cpu);
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the pointers are those of live tensors; the shim checks their sizes, and types through `data_ptr`.
        check(|error| unsafe {
            tastemaker_quantize(raw(values), raw(&made.codes), raw(&made.absmax), raw(code), error);
        });
        made
    }

    /// The values, `[n]` f32.
    pub fn values(&self, code: &Tensor) -> Tensor {
        let n = self.codes.size()[0];
        let scales = self.absmax.repeat_interleave_self_int(BLOCK, 0, None).narrow(0, 0, n);
        code.index_select(0, &self.codes.to_kind(Kind::Int64)) * scales
    }
}

/// The moments of one parameter, in the order in which its elements lie in memory.
#[derive(Debug)]
pub struct Moments8bit {
    /// Mean of gradients, in the signed code.
    pub first: Blockwise,
    /// Mean of squared gradients, in the unsigned code.
    pub second: Blockwise,
}

impl Moments8bit {
    /// Those of a parameter of `n` elements before its first step.
    pub fn zeros(n: i64, device: Device) -> Self {
        Self { first: Blockwise::zeros(n, device), second: Blockwise::zeros(n, device) }
    }
}

/// The codes of both moments.
#[derive(Debug)]
pub struct Codes {
    /// From -0.993 to 1.
    pub signed: Tensor,
    /// From 0 to 1.
    pub unsigned: Tensor,
}

impl Codes {
    /// The dynamic codes: seven decades, each with twice as many values as the one below it.
    pub fn dynamic() -> Self {
        Self { signed: dynamic(true), unsigned: dynamic(false) }
    }

    /// The same on a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        Self { signed: self.signed.to_device(device), unsigned: self.unsigned.to_device(device) }
    }
}

/// Source: `create_dynamic_map`, with its roundings.
fn dynamic(signed: bool) -> Tensor {
    let mut values = vec![0.0, 1.0];
    for decade in 0..7 {
        let n = if signed { 1 << decade } else { 2 << decade };
        let bounds = Tensor::linspace(0.1, 1.0, n + 1, (Kind::Float, Device::Cpu));
        let middles = (bounds.narrow(0, 0, n) + bounds.narrow(0, 1, n)) / 2.0;
        let scaled = middles * 10f64.powi(decade - 6);
        let of = |i: i64| scaled.double_value(&[i]);
        values.extend((0..n).map(of));
        if signed {
            values.extend((0..n).map(|i| -of(i)));
        }
    }
    values.sort_by(f64::total_cmp);
    Tensor::from_slice(&values).to_kind(Kind::Float)
}

/// A step of AdamW over one f32 parameter with moments of 8 bits, all of it on one device. Nothing depends on the number of threads.
///
/// The order of operations is that of [`fused_adamw`], as on bitsandbytes' CPU side; moments are rounded to the nearest value
/// of their code after the parameter has moved. The host has a kernel of its own; elsewhere it is [`adamw_8bit_anywhere`].
///
/// # Panics
/// With libtorch's words if something does not fit.
pub fn adamw_8bit(
    parameter: &mut Tensor,
    gradient: &Tensor,
    moments: &mut Moments8bit,
    codes: &Codes,
    step: &AdamWStep,
) {
    let on_host = parameter.device() == Device::Cpu;
    let kernel = if on_host { tastemaker_adamw_8bit } else { tastemaker_adamw_8bit_anywhere };
    step_8bit(kernel, parameter, gradient, moments, codes, step);
}

/// [`adamw_8bit`] by operations that every device has, with the same codes as the host's kernel.
///
/// # Panics
/// As [`adamw_8bit`].
pub fn adamw_8bit_anywhere(
    parameter: &mut Tensor,
    gradient: &Tensor,
    moments: &mut Moments8bit,
    codes: &Codes,
    step: &AdamWStep,
) {
    step_8bit(tastemaker_adamw_8bit_anywhere, parameter, gradient, moments, codes, step);
}

type Step8bit = unsafe extern "C" fn(Raw, Raw, *const Raw, Raw, Raw, &AdamWStep, Message) -> bool;

fn step_8bit(
    kernel: Step8bit,
    parameter: &mut Tensor,
    gradient: &Tensor,
    moments: &mut Moments8bit,
    codes: &Codes,
    step: &AdamWStep,
) {
    let Moments8bit { first, second } = moments;
    let state = [&first.codes, &first.absmax, &second.codes, &second.absmax].map(raw);
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors; the shim checks their sizes, and types through `data_ptr`. Parameter
    // and moments are ours to change.
    check(|error| unsafe {
        kernel(
            raw(parameter),
            raw(gradient),
            state.as_ptr(),
            raw(&codes.signed),
            raw(&codes.unsigned),
            step,
            error,
        );
    });
}

/// Sum of squares of all elements of all tensors, in f64, on their device.
///
/// # Panics
/// With libtorch's words if there are none, or they are not on one device.
pub fn squared_length(all: &[Tensor]) -> Tensor {
    let pointers = raws(all);
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors.
    call(|error| unsafe { tastemaker_squared_length(pointers.as_ptr(), pointers.len(), error) })
}

/// Divides gradients by `scale` in place, and returns whether all of them are finite, in one pass.
///
/// # Panics
/// With libtorch's words if the tensors are not on one device.
pub fn unscale(gradients: &mut [Tensor], scale: f64) -> bool {
    let mut found = false;
    let pointers = raws(gradients);
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors, whose values are ours to change.
    check(|error| unsafe {
        tastemaker_unscale(pointers.as_ptr(), pointers.len(), scale.recip(), &raw mut found, error);
    });
    !found
}

/// Leaves a leaf without a gradient, whose memory is given back: the next backward pass makes a new one and adds to none.
///
/// # Panics
/// With libtorch's words if the tensor is no leaf.
pub fn take_away_gradient(leaf: &Tensor) {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the leaf is a live tensor.
    check(|error| unsafe {
        tastemaker_gradient_take_away(raw(leaf), error);
    });
}

fn raws(tensors: &[Tensor]) -> Vec<Raw> {
    tensors.iter().map(raw).collect()
}

fn check(function: impl FnOnce(*mut *mut c_char)) {
    if let Err(message) = attempt(function) {
        panic!("{message}");
    }
}

type Message = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_adamw(
        parameters: *const Raw,
        gradients: *const Raw,
        first: *const Raw,
        second: *const Raw,
        n: usize,
        step: &AdamWStep,
        error: Message,
    ) -> bool;
    fn tastemaker_adamw_8bit(
        parameter: Raw,
        gradient: Raw,
        state: *const Raw,
        signed: Raw,
        unsigned: Raw,
        step: &AdamWStep,
        error: Message,
    ) -> bool;
    fn tastemaker_adamw_8bit_anywhere(
        parameter: Raw,
        gradient: Raw,
        state: *const Raw,
        signed: Raw,
        unsigned: Raw,
        step: &AdamWStep,
        error: Message,
    ) -> bool;
    fn tastemaker_gradient_take_away(leaf: Raw, error: Message) -> bool;
    fn tastemaker_squared_length(all: *const Raw, n: usize, error: Message) -> Raw;
    fn tastemaker_quantize(values: Raw, codes: Raw, absmax: Raw, code: Raw, error: Message) -> bool;
    fn tastemaker_unscale(
        gradients: *const Raw,
        n: usize,
        inverse: f64,
        found: *mut bool,
        error: Message,
    ) -> bool;
}
