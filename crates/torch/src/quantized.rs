//! Frozen weights of few bits, and the product with them.
//!
//! Packing equals the published packages bit for bit (`golden/quantized`): NF4 with scales of 8 bits and int8 rows as bitsandbytes,
//! float8 rows as torchao. The product unpacks its weight again in the backward pass instead of keeping it.

use std::ffi::c_char;

use tastemaker_store::dtype::BasePrecision;
use tch::{Device, Kind, Tensor};

use crate::optimizers::{Blockwise, Codes};
use crate::products::in_f32;
use crate::shim::{Raw, attempt, call, maybe, raw};
use crate::tensors::is_finite;

/// Elements of a block of NF4.
const NF4_BLOCK: i64 = 64;
/// The largest float8 e4m3 number; libtorch's cast turns what is far beyond it into NaN.
const LARGEST_FLOAT8: f64 = 448.0;

/// A frozen weight `[rows, columns]` in few bits.
#[derive(Debug)]
pub struct Quantized {
    precision: BasePrecision,
    rows: i64,
    columns: i64,
    /// Codes and scales; of scales in 8 bits also their own scales, their code and what was subtracted from them.
    state: Vec<Tensor>,
}

impl Quantized {
    /// Packs a weight on the host.
    ///
    /// # Shapes
    /// `[rows, columns]`, of any floating-point type.
    ///
    /// # Panics
    /// If the weight has another number of dimensions.
    pub fn pack(weight: &Tensor, precision: BasePrecision) -> Self {
        let (rows, columns) = weight.size2().expect("a weight of a linear layer");
        let wide = weight.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        // A row of zeros has no scale, and any will do.
        let largest = || wide.abs().amax([1i64], true).clamp_min(f64::from(f32::MIN_POSITIVE));
        let state = match precision {
            BasePrecision::Bf16 => vec![wide.to_kind(Kind::BFloat16), Tensor::from(1.0f32)],
            BasePrecision::Int8 => {
                let largest = largest();
                let codes = (&wide * (largest.reciprocal() * 127.0)).round().to_kind(Kind::Int8);
                vec![codes, largest / 127.0]
            }
            BasePrecision::Fp8 => {
                let scales = largest() / LARGEST_FLOAT8;
                let codes = (&wide / &scales).clamp(-LARGEST_FLOAT8, LARGEST_FLOAT8);
                vec![codes.to_kind(Kind::Float8e4m3fn), scales]
            }
            BasePrecision::Nf4 => nested(nf4(&wide)),
        };
        Self { precision, rows, columns, state }
    }

    /// NF4 whose scales stay f32, as bitsandbytes has it without double quantization.
    ///
    /// # Panics
    /// As [`Quantized::pack`].
    pub fn nf4_with_f32_scales(weight: &Tensor) -> Self {
        let (rows, columns) = weight.size2().expect("a weight of a linear layer");
        let state = nf4(&weight.to_device(Device::Cpu).to_kind(Kind::Float).contiguous()).into();
        Self { precision: BasePrecision::Nf4, rows, columns, state }
    }

    /// As a file holds it: codes times scales.
    ///
    /// # Shapes
    /// `codes` `[rows, columns]`; `scales` f32 of one element, `[rows, 1]`, or `[rows, columns / k, 1]` for `k` columns each.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn scaled(codes: Tensor, scales: Tensor) -> Result<Self, String> {
        let precision = match codes.kind() {
            Kind::Int8 => BasePrecision::Int8,
            Kind::Float8e4m3fn | Kind::Float8e5m2 => BasePrecision::Fp8,
            Kind::BFloat16 => BasePrecision::Bf16,
            other => return Err(format!("codes of type {other:?}")),
        };
        let (rows, columns) = codes.size2().map_err(|_| format!("codes of shape {:?}", codes.size()))?;
        Self { precision, rows, columns, state: vec![codes, scales.to_kind(Kind::Float)] }.checked()
    }

    /// NF4 as a file of bitsandbytes holds it. `nested`, where scales are of 8 bits: their scales, their code, and the offset.
    ///
    /// # Shapes
    /// `codes` u8 `[rows * columns / 2]`, also with a dimension of one; `scales` `[rows * columns / 64]`.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn nf4(
        (rows, columns): (i64, i64),
        codes: &Tensor,
        scales: Tensor,
        nested: Option<[Tensor; 3]>,
    ) -> Result<Self, String> {
        let mut state = vec![codes.flatten(0, -1).contiguous(), scales];
        state.extend(nested.into_iter().flatten());
        Self { precision: BasePrecision::Nf4, rows, columns, state }.checked()
    }

    fn checked(self) -> Result<Self, String> {
        let state: Vec<Raw> = self.state.iter().map(raw).collect();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the pointers are those of live tensors.
        attempt(|error| unsafe {
            let (nf4, n) = (self.is_nf4(), state.len());
            tastemaker_check_quantized(nf4, self.rows, self.columns, state.as_ptr(), n, error)
        })
        .map(|_| self)
        // libtorch's words go on with where they come from.
        .map_err(|words| words.lines().next().unwrap_or_default().to_owned())
    }

    /// Whether every number that it stands for is finite.
    pub fn is_finite(&self) -> bool {
        is_finite(&self.value(Kind::Float))
    }

    /// The same on a device.
    #[must_use]
    pub fn to_device(&self, device: Device) -> Self {
        let state = self.state.iter().map(|tensor| tensor.to_device(device)).collect();
        Self { state, ..*self }
    }

    /// How it is held.
    pub fn precision(&self) -> BasePrecision {
        self.precision
    }

    /// `[rows, columns]`.
    pub fn size(&self) -> [i64; 2] {
        [self.rows, self.columns]
    }

    /// Codes and scales, as they lie in memory.
    pub fn state(&self) -> &[Tensor] {
        &self.state
    }

    /// The weight in this type: computed in f32 and rounded once.
    ///
    /// # Panics
    /// If the type is not f32, f16 or bf16.
    pub fn value(&self, kind: Kind) -> Tensor {
        call(|error| self.unpack(kind, false, error))
    }

    /// [`Quantized::value`] by the operations that every device has: what devices other than the host do.
    ///
    /// # Panics
    /// As [`Quantized::value`].
    pub fn value_anywhere(&self, kind: Kind) -> Tensor {
        call(|error| self.unpack(kind, true, error))
    }

    /// `x W^T + b`. The gradient goes to `x` alone.
    ///
    /// # Shapes
    /// x `[.., columns]`, bias `[rows]`; result `[.., rows]`.
    pub fn linear(&self, x: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let state: Vec<Raw> = self.state.iter().map(raw).collect();
        let (nf4, bias, widens) = (self.is_nf4(), maybe(bias), in_f32(x));
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the pointers are those of live tensors, or null for the bias, which the shim allows; it checks their sizes.
        call(|error| unsafe {
            tastemaker_quantized_linear(
                raw(x),
                nf4,
                self.rows,
                self.columns,
                state.as_ptr(),
                state.len(),
                bias,
                widens,
                error,
            )
        })
    }

    fn is_nf4(&self) -> bool {
        self.precision == BasePrecision::Nf4
    }

    /// `anywhere`: by the operations that every device has.
    fn unpack(&self, kind: Kind, anywhere: bool, error: *mut *mut c_char) -> Raw {
        let state: Vec<Raw> = self.state.iter().map(raw).collect();
        let kind = match kind {
            Kind::Half => 5,
            Kind::Float => 6,
            Kind::BFloat16 => 15,
            other => panic!("a weight is not computed with in {other:?}"),
        };
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: as in `linear`.
        unsafe {
            tastemaker_unpack(
                self.is_nf4(),
                self.rows,
                self.columns,
                state.as_ptr(),
                state.len(),
                kind,
                anywhere,
                error,
            )
        }
    }
}

/// Codes, and the largest absolute value of each block.
fn nf4(wide: &Tensor) -> [Tensor; 2] {
    let n = wide.numel() as i64;
    let codes = Tensor::zeros([(n + 1) / 2], (Kind::Uint8, Device::Cpu));
    let absmax = Tensor::zeros([(n + NF4_BLOCK - 1) / NF4_BLOCK], (Kind::Float, Device::Cpu));
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the pointers are those of live tensors; the shim checks their sizes, and types through `data_ptr`.
    let packed = attempt(|error| unsafe { tastemaker_pack_nf4(raw(wide), raw(&codes), raw(&absmax), error) });
    packed.expect("tensors of the sizes that the shim wants");
    [codes, absmax]
}

/// Scales in 8 bits around their mean.
fn nested([codes, absmax]: [Tensor; 2]) -> Vec<Tensor> {
    let code = Codes::dynamic().signed;
    let offset = absmax.mean(Kind::Float);
    let scales = Blockwise::nearest(&(absmax - &offset), &code);
    vec![codes, scales.codes, scales.absmax, code, offset]
}

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_pack_nf4(values: Raw, codes: Raw, absmax: Raw, error: *mut *mut c_char) -> bool;
    fn tastemaker_check_quantized(
        nf4: bool,
        rows: i64,
        columns: i64,
        state: *const Raw,
        n: usize,
        error: *mut *mut c_char,
    ) -> bool;
    fn tastemaker_unpack(
        nf4: bool,
        rows: i64,
        columns: i64,
        state: *const Raw,
        n: usize,
        kind: i8,
        anywhere: bool,
        error: *mut *mut c_char,
    ) -> Raw;
    fn tastemaker_quantized_linear(
        x: Raw,
        nf4: bool,
        rows: i64,
        columns: i64,
        state: *const Raw,
        n: usize,
        bias: Raw,
        widens: bool,
        error: *mut *mut c_char,
    ) -> Raw;
}
