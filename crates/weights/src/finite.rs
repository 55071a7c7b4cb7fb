//! Numbers that no weight can be.

use std::path::Path;

use safetensors::Dtype;

use crate::safetensors::TensorView;
use tastemaker_store::StoreError;

/// Elements looked at between two decisions to go on: the loop over them has no branch.
const PIECE: usize = 4096;

/// Checks that every element of a tensor of floating-point numbers is finite; others pass.
///
/// # Errors
/// [`StoreError::Malformed`] naming the tensor and the first element that is NaN or infinite; `path` is the file's.
pub fn check_finite(path: &Path, view: &TensorView<'_>) -> Result<(), StoreError> {
    let found = match view.dtype {
        Dtype::F64 => first(view.bytes, |b: [u8; 8]| u64::from_le_bytes(b), 0x7ff0 << 48, 0xf_ffff_ffff_ffff),
        Dtype::F32 => {
            first(view.bytes, |b: [u8; 4]| u64::from(u32::from_le_bytes(b)), 0x7f80_0000, 0x7f_ffff)
        }
        Dtype::BF16 => first(view.bytes, |b: [u8; 2]| u64::from(u16::from_le_bytes(b)), 0x7f80, 0x7f),
        Dtype::F16 => first(view.bytes, |b: [u8; 2]| u64::from(u16::from_le_bytes(b)), 0x7c00, 0x3ff),
        // This type has no infinite numbers: its largest exponent is used, and only all ones are NaN.
        Dtype::F8_E4M3 => first(view.bytes, |[b]: [u8; 1]| u64::from(b), 0x7f, 0x7f),
        Dtype::F8_E5M2 => first(view.bytes, |[b]: [u8; 1]| u64::from(b), 0x7c, 0x3),
        _ => None,
    };
    let Some((element, what)) = found else { return Ok(()) };
    Err(StoreError::malformed(
        path,
        format!("tensor `{}` with {what} at element {element}", view.name),
        "finite numbers: whatever wrote the file had failed before, or ran over in a narrow type",
    ))
}

/// The first element whose exponent is all ones, and what it is.
fn first<const N: usize>(
    bytes: &[u8],
    bits: impl Fn([u8; N]) -> u64,
    exponent: u64,
    mantissa: u64,
) -> Option<(usize, &'static str)> {
    let elements = |piece: &[u8]| -> Vec<u64> {
        let (whole, _) = piece.as_chunks::<N>();
        whole.iter().map(|element| bits(*element)).collect()
    };
    for (piece, some) in bytes.chunks(PIECE * N).enumerate() {
        let (whole, _) = some.as_chunks::<N>();
        let hits = whole.iter().fold(false, |hit, element| hit | (bits(*element) & exponent == exponent));
        if hits {
            let elements = elements(some);
            let at = elements.iter().position(|bits| bits & exponent == exponent)?;
            let what = if elements[at] & mantissa == 0 { "an infinite number" } else { "NaN" };
            return Some((piece * PIECE + at, what));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    fn found(dtype: Dtype, bytes: &[u8]) -> Option<String> {
        let shape = [bytes.len()];
        let view = TensorView { name: "x", dtype, shape: &shape, bytes };
        check_finite(Path::new("f"), &view).err().map(|error| error.to_string())
    }

    #[test]
    fn what_is_no_finite_number_is_found_in_every_type_and_place() {
        for at in [0, 1, 4095, 4096, 9000] {
            let put = |value: f64| {
                let mut values = vec![f64::MAX; 9001];
                values[at] = value;
                values
            };
            for (value, what) in
                [(f64::NAN, "NaN"), (f64::INFINITY, "infinite"), (f64::NEG_INFINITY, "infinite")]
            {
                let values = put(value);
                let wide: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let singles: Vec<u8> = values
                    .iter()
                    .flat_map(|v| if v.is_finite() { f32::MAX } else { *v as f32 }.to_le_bytes())
                    .collect();
                let halves: Vec<u8> = values
                    .iter()
                    .flat_map(|v| if v.is_finite() { f16::MAX } else { f16::from_f64(*v) }.to_le_bytes())
                    .collect();
                let brains: Vec<u8> = values
                    .iter()
                    .flat_map(|v| if v.is_finite() { bf16::MIN } else { bf16::from_f64(*v) }.to_le_bytes())
                    .collect();
                for (dtype, bytes) in
                    [(Dtype::F64, wide), (Dtype::F32, singles), (Dtype::F16, halves), (Dtype::BF16, brains)]
                {
                    let text = found(dtype, &bytes).unwrap_or_default();
                    let element = format!("element {at};");
                    assert!(text.contains(what) && text.contains("`x`"), "{dtype:?}: {text}");
                    assert!(text.contains(&element), "{dtype:?}: {text}");
                }
            }
        }
        assert_eq!(found(Dtype::F8_E4M3, &[0x7e, 0xfe, 0x00]), None);
        assert_eq!(found(Dtype::F8_E5M2, &[0x7b, 0xfb, 0x00]), None);
        for (dtype, byte, what) in
            [(Dtype::F8_E4M3, 0xff, "NaN"), (Dtype::F8_E5M2, 0x7d, "NaN"), (Dtype::F8_E5M2, 0xfc, "infinite")]
        {
            let text = found(dtype, &[0x7b, byte]).unwrap_or_default();
            assert!(text.contains(what) && text.contains("element 1;"), "{dtype:?}: {text}");
        }
        assert_eq!(found(Dtype::F32, &f32::MAX.to_le_bytes()), None);
        assert_eq!(found(Dtype::I32, &[255; 8]), None);
    }
}
