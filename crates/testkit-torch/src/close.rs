//! How far apart two tensors are.

use std::collections::BTreeMap;

use tch::{Kind, Tensor};

use crate::Golden;

/// The largest absolute difference over the largest absolute expected value.
///
/// 0 for equal tensors, also for empty and all-zero ones; infinite when only the expected one is all zero; NaN when
/// either holds a NaN, or both the same infinity.
///
/// # Panics
/// When the shapes differ.
pub fn relative_error(actual: &Tensor, expected: &Tensor) -> f64 {
    let (difference, largest) = difference(actual, expected);
    let worst = largest_in(&difference);
    if worst == 0.0 { 0.0 } else { worst / largest }
}

/// Fails unless [`relative_error`] is at most `rel_tol`; the message gives the worst place and both values there.
///
/// # Panics
/// When the tensors differ in shape, differ by more than `rel_tol`, or hold a NaN.
#[track_caller]
pub fn assert_close(actual: &Tensor, expected: &Tensor, rel_tol: f64, what: &str) {
    assert_eq!(actual.size(), expected.size(), "{what}: found the left shape, wanted the right one");
    let error = relative_error(actual, expected);
    if error <= rel_tol {
        return;
    }
    let (difference, largest) = difference(actual, expected);
    let flat = difference.flatten(0, -1).argmax(0, false).int64_value(&[]);
    let value = |tensor: &Tensor| tensor.to_kind(Kind::Double).flatten(0, -1).double_value(&[flat]);
    panic!(
        "{what}: relative error {error:.2e} is above {rel_tol:.1e}; worst at {:?}: found {:.9e}, wanted {:.9e}; \
         the largest wanted value is {largest:.3e}",
        place(flat, &actual.size()),
        value(actual),
        value(expected),
    );
}

/// Fails unless `actual` holds exactly the gradients recorded in `golden`, each within `rel_tol`.
///
/// A gradient that vanishes in exact arithmetic has no digits to compare: it must stay below `rel_tol` times the largest
/// gradient of the network.
///
/// # Panics
/// When names, shapes or values differ.
#[track_caller]
pub fn assert_gradients(actual: &BTreeMap<String, Tensor>, golden: &Golden, rel_tol: f64) {
    let expected = golden.gradients();
    let names = |gradients: &BTreeMap<String, Tensor>| gradients.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(actual), names(&expected), "found the gradients on the left, wanted those on the right");
    let largest = expected.values().map(|g| largest_in(&g.abs())).fold(0.0, f64::max);
    for (name, wanted) in &expected {
        let found = &actual[name];
        if golden.vanishes(name) {
            let size = largest_in(&found.abs());
            assert!(size <= rel_tol * largest, "{name}: found {size:.2e} where the exact gradient is zero");
        } else {
            assert_close(found, wanted, rel_tol, &format!("gradient of {name}"));
        }
    }
}

/// Absolute differences in f64 and the largest absolute expected value.
#[track_caller]
fn difference(actual: &Tensor, expected: &Tensor) -> (Tensor, f64) {
    assert_eq!(actual.size(), expected.size(), "found the left shape, wanted the right one");
    let [actual, expected] =
        [actual, expected].map(|t| t.detach().to_device(tch::Device::Cpu).to_kind(Kind::Double));
    let largest = largest_in(&expected.abs());
    ((actual - expected).abs(), largest)
}

/// The largest element, 0 for an empty tensor.
fn largest_in(tensor: &Tensor) -> f64 {
    if tensor.numel() == 0 { 0.0 } else { tensor.to_kind(Kind::Double).max().double_value(&[]) }
}

/// The coordinates of a flat index.
fn place(flat: i64, shape: &[i64]) -> Vec<i64> {
    let mut rest = flat;
    let mut coordinates: Vec<i64> = shape
        .iter()
        .rev()
        .map(|&n| {
            let here = rest % n;
            rest /= n;
            here
        })
        .collect();
    coordinates.reverse();
    coordinates
}
