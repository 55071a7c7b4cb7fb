//! The products that networks are made of. bfloat16 operands meet in f32 on processors without bfloat16 instructions.
//!
//! There libtorch's own bfloat16 products are several times slower than its f32 ones (measured in `docs/log.md`). The
//! shim computes each product in f32 and rounds its result, and keeps operands for the backward pass in bfloat16, so memory
//! stays what bfloat16 makes it.

use std::ffi::c_char;
use std::sync::OnceLock;

use tch::{Device, Kind, Tensor};

use crate::shim::{Raw, call, maybe, raw};

/// `x W^T + b`.
///
/// # Shapes
/// x `[.., i]`, weight `[o, i]`, bias `[o]`; result `[.., o]`.
pub fn linear(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    if in_f32(x) { linear_in_f32(x, weight, bias) } else { x.linear(weight, bias) }
}

/// `y + scale x W^T` in one product, which is `y` to the last bit where W is 0.
///
/// # Shapes
/// y `[.., o]`, x `[.., i]`, weight `[o, i]`; result `[.., o]`.
pub fn add_linear(y: &Tensor, x: &Tensor, weight: &Tensor, scale: f64) -> Tensor {
    if in_f32(x) {
        return y + linear_in_f32(x, weight, None) * scale;
    }
    let rows = |of: &Tensor| of.flatten(0, -2);
    let x = if scale == 1.0 { rows(x) } else { rows(x) * scale };
    rows(y).addmm(&x, &weight.transpose(0, 1)).reshape(y.size())
}

/// Two-dimensional convolution with equal stride and padding on both axes.
///
/// # Shapes
/// x `[b, i, h, w]`, weight `[o, i, k, k]`, bias `[o]`; result `[b, o, h', w']`.
pub fn conv2d(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>, stride: i64, padding: i64) -> Tensor {
    let widens = in_f32(x);
    // Where nothing is kept for a backward pass, and where the weight's gradient needs all of it, libtorch's own does as well.
    let keeps_less = x.requires_grad() && !weight.requires_grad();
    if widens || keeps_less {
        return conv2d_by_shim(x, weight, bias, stride, padding, widens);
    }
    x.conv2d(weight, bias, [stride, stride], [padding, padding], [1, 1], 1)
}

/// softmax(q k^T / sqrt(e)) v by the fused kernel; `causal`: no position sees a later one.
///
/// # Shapes
/// q `[b, H, n, e]`, k and v `[b, H, m, e]`; result `[b, H, n, e]`.
pub fn attention(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    if in_f32(q) {
        return attention_in_f32(q, k, v, causal);
    }
    Tensor::scaled_dot_product_attention(q, k, v, None::<Tensor>, 0.0, causal, None, false)
}

/// Whether products of this tensor are better computed in f32.
pub(crate) fn in_f32(x: &Tensor) -> bool {
    x.device() == Device::Cpu
        && match x.kind() {
            Kind::BFloat16 => !multiplies_bf16(),
            // No processor in wide use multiplies fp16 fast.
            Kind::Half => true,
            _ => false,
        }
}

/// Whether this processor has bfloat16 products: on x86 they begin with AVX512-BF16, which AMX implies.
///
/// libtorch takes its bfloat16 kernels from plain AVX-512 on (`mkldnn_bf16_device_check` in
/// `pytorch/pytorch:aten/src/ATen/native/mkldnn/Utils.h`), where oneDNN converts each operand to f32 and back.
pub fn multiplies_bf16() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return std::arch::is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        return true;
    })
}

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_linear(x: Raw, weight: Raw, bias: Raw, error: *mut *mut c_char) -> Raw;
    fn tastemaker_conv2d(
        x: Raw,
        weight: Raw,
        bias: Raw,
        stride: i64,
        padding: i64,
        widens: bool,
        error: *mut *mut c_char,
    ) -> Raw;
    fn tastemaker_attention(q: Raw, k: Raw, v: Raw, causal: bool, error: *mut *mut c_char) -> Raw;
}

fn linear_in_f32(x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors, or null for the bias, which the shim allows.
    call(|error| unsafe { tastemaker_linear(raw(x), raw(weight), maybe(bias), error) })
}

/// Keeps the input for the backward pass only where the weight has a gradient.
fn conv2d_by_shim(
    x: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: i64,
    padding: i64,
    widens: bool,
) -> Tensor {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: as in `linear_in_f32`.
    call(|error| unsafe {
        tastemaker_conv2d(raw(x), raw(weight), maybe(bias), stride, padding, widens, error)
    })
}

fn attention_in_f32(q: &Tensor, k: &Tensor, v: &Tensor, causal: bool) -> Tensor {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: as in `linear_in_f32`.
    call(|error| unsafe { tastemaker_attention(raw(q), raw(k), raw(v), causal, error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of no pattern between -1 and 1.
    fn values(shape: &[i64], phase: f64) -> Tensor {
        let n: i64 = shape.iter().product();
        (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 12.9898 + phase).sin().reshape(shape)
    }

    /// The tensor in both types, trainable in both.
    fn twice(shape: &[i64], phase: f64) -> (Tensor, Tensor) {
        let narrow = values(shape, phase).to_kind(Kind::BFloat16);
        let wide = narrow.to_kind(Kind::Float);
        (narrow.set_requires_grad(true), wide.set_requires_grad(true))
    }

    /// Results and gradients of `narrow` are those of `wide` within bfloat16's rounding.
    fn agree(narrow: &Tensor, wide: &Tensor, operands: &[(Tensor, Tensor)]) {
        let within = |found: &Tensor, wanted: &Tensor| {
            let found = found.to_kind(Kind::Float);
            let error = (&found - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
            assert!(error < 8e-3, "{error}");
        };
        assert_eq!(narrow.kind(), Kind::BFloat16);
        within(narrow, wide);
        // A gradient that bfloat16 holds exactly.
        let weight = values(&wide.size(), 5.0).to_kind(Kind::BFloat16).to_kind(Kind::Float);
        (narrow.to_kind(Kind::Float) * &weight).sum(Kind::Float).backward();
        (wide * &weight).sum(Kind::Float).backward();
        for (narrow, wide) in operands {
            assert_eq!(narrow.grad().kind(), Kind::BFloat16);
            within(&narrow.grad(), &wide.grad());
        }
    }

    #[test]
    fn linear_agrees_with_f32() {
        let (x, x32) = twice(&[2, 5, 16], 0.0);
        let (w, w32) = twice(&[12, 16], 1.0);
        let (b, b32) = twice(&[12], 2.0);
        let (y, y32) = (linear_in_f32(&x, &w, Some(&b)), x32.linear(&w32, Some(&b32)));
        agree(&y, &y32, &[(x, x32), (w, w32), (b, b32)]);
    }

    #[test]
    fn a_product_that_is_added_agrees_with_one_that_is_added_later_and_of_zeros_changes_no_bit() {
        for shape in [vec![2, 5], vec![7]] {
            let of = |last: i64, phase| values(&[shape.as_slice(), &[last]].concat(), phase);
            let operands =
                || [of(12, 0.0), of(4, 1.0), values(&[12, 4], 2.0)].map(|t| t.set_requires_grad(true));
            for scale in [1.0, 0.3] {
                let (found, wanted) = (operands(), operands());
                let [y, x, w] = &found;
                let sum = add_linear(y, x, w, scale);
                let later = &wanted[0] + wanted[1].linear(&wanted[2], None::<Tensor>) * scale;
                assert!(sum.allclose(&later, 1e-6, 1e-6, false));
                let weight = of(12, 5.0);
                (&sum * &weight).sum(Kind::Float).backward();
                (&later * &weight).sum(Kind::Float).backward();
                for (found, wanted) in found.iter().zip(&wanted) {
                    assert!(found.grad().allclose(&wanted.grad(), 1e-6, 1e-6, false));
                }
                for kind in [Kind::Float, Kind::BFloat16] {
                    let [y, x, w] = found.each_ref().map(|t| t.detach().to_kind(kind));
                    assert!(add_linear(&y, &x, &(w * 0.0), scale).equal(&y), "{kind:?}");
                }
            }
        }
    }

    #[test]
    fn convolution_agrees_with_f32() {
        for (stride, padding, kernel) in [(1, 1, 3), (2, 1, 3), (1, 0, 1)] {
            let (x, x32) = twice(&[2, 6, 9, 8], 0.0);
            let (w, w32) = twice(&[10, 6, kernel, kernel], 1.0);
            let (b, b32) = twice(&[10], 2.0);
            let y = conv2d_by_shim(&x, &w, Some(&b), stride, padding, true);
            let y32 = x32.conv2d(&w32, Some(&b32), [stride, stride], [padding, padding], [1, 1], 1);
            agree(&y, &y32, &[(x, x32), (w, w32), (b, b32)]);
        }
    }

    #[test]
    fn attention_agrees_with_f32() {
        for causal in [false, true] {
            let (q, q32) = twice(&[2, 3, 7, 16], 0.0);
            let (k, k32) = twice(&[2, 3, 7, 16], 1.0);
            let (v, v32) = twice(&[2, 3, 7, 16], 2.0);
            let y = attention_in_f32(&q, &k, &v, causal);
            let y32 = attention(&q32, &k32, &v32, causal);
            agree(&y, &y32, &[(q, q32), (k, k32), (v, v32)]);
        }
    }

    #[test]
    fn frozen_operands_get_no_gradient_and_let_it_through() {
        let (x, x32) = twice(&[2, 6, 8, 8], 0.0);
        let frozen = |shape: &[i64]| values(shape, 1.0).to_kind(Kind::BFloat16);
        let (w, p) = (frozen(&[4, 6, 3, 3]), frozen(&[5, 8]));
        let y = linear_in_f32(&conv2d_by_shim(&x, &w, None, 1, 1, true), &p, None);
        let y32 = x32
            .conv2d(&w.to_kind(Kind::Float), None::<Tensor>, [1, 1], [1, 1], [1, 1], 1)
            .linear(&p.to_kind(Kind::Float), None::<Tensor>);
        agree(&y, &y32, &[(x, x32)]);
        assert!(!w.grad().defined() && !p.grad().defined());
    }

    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    #[test]
    fn bfloat16_is_left_to_processors_with_instructions_for_it() {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").expect("Linux has proc");
        assert_eq!(multiplies_bf16(), cpu.split_whitespace().any(|flag| flag == "avx512_bf16"));
    }

    #[test]
    fn a_refusal_of_libtorch_is_a_panic_with_its_words() {
        let (x, _) = twice(&[2, 3], 0.0);
        let message = crate::error::guard("multiplying", "", || linear_in_f32(&x, &x.transpose(0, 1), None));
        assert!(message.expect_err("shapes differ").to_string().contains("shapes cannot be multiplied"));
    }
}
