//! Scaled dot-product attention.

use tastemaker_store::dtype::DType;
use tastemaker_torch::products;
use tch::{Kind, Tensor};

/// softmax(q k^T / sqrt(e)) v; with `upcast` it is computed in f32, and rounded at the end.
///
/// # Shapes
/// q `[b, H, n, e]`, k and v `[b, H, m, e]`, result `[b, H, n, e]`.
pub(crate) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, upcast: bool) -> Tensor {
    attention(q, k, v, upcast, false)
}

/// As [`attend`], with every position seeing only itself and the ones before it.
///
/// # Shapes
/// q, k, v and result `[b, H, n, e]`.
pub(crate) fn attend_causally(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    attention(q, k, v, false, true)
}

/// Heads narrower than this are faster by the plain product in bf16 on CPU. The two widths measured are 8, where fused is slower, and
/// 40, where it is faster; the limit lies between by choice.
const NARROW: i64 = 32;

/// Whether the scores of attention by heads of this width are kept for the backward pass; the fused kernel keeps none.
pub(crate) fn keeps_scores(dtype: DType, head_width: i64, upcast: bool) -> bool {
    (dtype == DType::Bf16 && head_width < NARROW) || (upcast && dtype != DType::F32)
}

/// The fused kernel is used, except where [`keeps_scores`] says otherwise.
fn attention(q: &Tensor, k: &Tensor, v: &Tensor, upcast: bool, causal: bool) -> Tensor {
    let kind = q.kind();
    let e = q.size()[3];
    let mask = |scores: Tensor| {
        if !causal {
            return scores;
        }
        let n = scores.size()[3];
        let future = Tensor::ones([n, n], (Kind::Bool, scores.device())).triu(1); // [n, n]
        scores.masked_fill(&future, f64::NEG_INFINITY)
    };
    if upcast && kind != Kind::Float {
        let [q, k, v] = [q, k, v].map(|operand| operand.to_kind(Kind::Float));
        return products::attention(&q, &k, &v, causal).to_kind(kind);
    }
    if kind == Kind::BFloat16 && e < NARROW {
        let scores = q.matmul(&k.transpose(-2, -1)) / (e as f64).sqrt();
        return mask(scores).softmax(-1, Kind::Float).to_kind(kind).matmul(v);
    }
    products::attention(q, k, v, causal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_causal_position_does_not_see_later_ones() {
        for kind in [Kind::Float, Kind::BFloat16] {
            let x = Tensor::arange(2 * 5 * 4, (Kind::Float, tch::Device::Cpu))
                .sin()
                .view([1, 2, 5, 4])
                .to_kind(kind);
            let later = x.narrow(2, 3, 2) + 1.0;
            let changed = Tensor::cat(&[x.narrow(2, 0, 3), later], 2);
            let (y, z) = (attend_causally(&x, &x, &x), attend_causally(&changed, &changed, &changed));
            assert!(y.narrow(2, 0, 3).equal(&z.narrow(2, 0, 3)), "{kind:?}");
            assert!(!y.narrow(2, 3, 2).equal(&z.narrow(2, 3, 2)), "{kind:?}");
        }
    }

    #[test]
    fn computed_in_f32_it_is_exact_up_to_the_last_rounding() {
        let x = Tensor::arange(2 * 64 * 16, (Kind::Float, tch::Device::Cpu)).sin().view([1, 2, 64, 16]) * 8.0;
        for kind in [Kind::BFloat16, Kind::Half] {
            let rounded = x.to_kind(kind);
            let exact = rounded.to_kind(Kind::Double);
            let scores = exact.matmul(&exact.transpose(-2, -1)) / 4.0;
            let wanted = scores.softmax(-1, Kind::Double).matmul(&exact);
            let found = attend(&rounded, &rounded, &rounded, true);
            assert_eq!(found.kind(), kind);
            let step = if kind == Kind::Half { 1e-3 } else { 8e-3 };
            let apart = ((found.to_kind(Kind::Double) - &wanted).abs() / wanted.abs().clamp_min(1e-3)).max();
            assert!(apart.double_value(&[]) < step, "{kind:?}: {apart}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn computed_in_f32_it_takes_no_matrix_of_all_positions() {
        use tastemaker_torch::memory;
        let n = 8192;
        let x = Tensor::ones([1, 1, n, 32], (Kind::BFloat16, tch::Device::Cpu));
        let before = memory::read().expect("Linux has proc").resident;
        assert!(memory::reset_peak());
        drop(attend(&x, &x, &x, true));
        let grown = memory::read().expect("Linux has proc").peak.saturating_sub(before);
        assert!(grown < (4 * n * n) as u64 / 2, "{} MiB", grown >> 20);
    }

    #[test]
    fn the_last_causal_position_sees_everything() {
        let x = Tensor::arange(40, (Kind::Float, tch::Device::Cpu)).sin().view([1, 2, 5, 4]);
        let (some, all) = (attend_causally(&x, &x, &x), attend(&x, &x, &x, false));
        assert!(some.narrow(2, 4, 1).allclose(&all.narrow(2, 4, 1), 1e-6, 1e-6, false));
    }
}
