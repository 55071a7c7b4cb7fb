//! Group normalization beside the same in f64, in both layouts of memory.

use tastemaker_torch::norm::group_norm;
use tch::{Device, Kind, Tensor};

/// Values of no pattern around 1, one row of channels in an odd place.
fn maps(shape: [i64; 4], spread: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    let values = (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 12.9898).sin() * spread + 1.0;
    values.reshape(shape).to_kind(Kind::Float)
}

fn innermost(x: &Tensor) -> Tensor {
    x.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Result and gradients with respect to x, weight and bias.
fn all(x: &Tensor, by: impl Fn(&Tensor, &Tensor, &Tensor) -> Tensor) -> Vec<Tensor> {
    let c = x.size()[1];
    let line = |phase: f64| {
        (Tensor::arange(c, (Kind::Double, Device::Cpu)) + phase)
            .cos()
            .to_kind(x.kind())
            .set_requires_grad(true)
    };
    let (x, weight, bias) = (x.detach().set_requires_grad(true), line(0.5), line(2.0));
    let y = by(&x, &weight, &bias);
    let n: i64 = x.size().iter().product();
    let g = ((Tensor::arange(n, (Kind::Double, Device::Cpu)) * 0.7).cos() + 1.0)
        .reshape(x.size())
        .to_kind(y.kind());
    (&y * g).sum(Kind::Double).backward();
    vec![y.detach(), x.grad(), weight.grad(), bias.grad()]
}

fn away(found: &Tensor, wanted: &Tensor) -> f64 {
    let found = found.to_kind(Kind::Double);
    (&found - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[])
}

#[test]
fn nearly_flat_maps_are_normalized_to_the_last_digits_in_both_layouts() {
    for (shape, groups) in [([2, 32, 40, 24], 8), ([1, 64, 7, 9], 32), ([3, 6, 1, 5], 2)] {
        for spread in [1.0, 5e-2, 1e-3] {
            let x = maps(shape, spread);
            let wanted =
                all(&x.to_kind(Kind::Double), |x, w, b| x.group_norm(groups, Some(w), Some(b), 1e-6, false));
            for x in [x.shallow_clone(), innermost(&x)] {
                let found = all(&x, |x, w, b| group_norm(x, groups, w, b, 1e-6));
                for (what, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
                    let error = away(found, wanted);
                    // A mean of 1 in f32 leaves so much of a value that is `spread` away from it. Gradients of weight and bias are
                    // sums in which much cancels.
                    let limit = match what {
                        0 | 1 => 3e-6 + 3e-7 / spread,
                        2 => 3e-4 + 5e-5 / spread,
                        _ => 3e-4,
                    };
                    assert!(error < limit, "{shape:?}, spread {spread}, result {what}: {error:e}");
                }
            }
        }
    }
}

#[test]
fn narrow_types_agree_with_f32_within_their_rounding() {
    let x = maps([2, 32, 20, 12], 0.3);
    for (kind, limit) in [(Kind::BFloat16, 1e-2), (Kind::Half, 2e-3)] {
        let narrow = innermost(&x.to_kind(kind));
        let wanted =
            all(&narrow.to_kind(Kind::Double), |x, w, b| x.group_norm(8, Some(w), Some(b), 1e-6, false));
        for (found, wanted) in all(&narrow, |x, w, b| group_norm(x, 8, w, b, 1e-6)).iter().zip(&wanted) {
            assert_eq!(found.kind(), kind);
            assert!(away(found, wanted) < limit, "{kind:?}: {:e}", away(found, wanted));
        }
    }
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let x = innermost(&maps([2, 32, 64, 64], 0.2));
    let before = tch::get_num_threads();
    let by = |threads: i32| {
        tch::set_num_threads(threads);
        all(&x, |x, w, b| group_norm(x, 8, w, b, 1e-6))
    };
    let (one, two) = (by(1), by(2));
    tch::set_num_threads(before);
    assert!(one.iter().zip(&two).all(|(one, two)| one.equal(two)));
}

#[test]
fn a_flat_map_becomes_its_bias() {
    for value in [0.0, 1.0, -3.5, 1000.1] {
        let x = innermost(&Tensor::full([1, 8, 16, 16], value, (Kind::Float, Device::Cpu)));
        let (w, b) = (
            Tensor::ones([8], (Kind::Float, Device::Cpu)),
            Tensor::full([8], 0.25, (Kind::Float, Device::Cpu)),
        );
        let error = (group_norm(&x, 2, &w, &b, 1e-6) - 0.25).abs().max().double_value(&[]);
        assert!(error < 1e-6, "{value}: {error:e}");
    }
}
