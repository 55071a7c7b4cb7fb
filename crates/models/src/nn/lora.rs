//! Low-rank adapters: which layers get one, and the switch that turns them off for the reference pass.
//!
//! Source: arXiv 2106.09685; scale alpha / rank and name matching as in peft's `LoraConfig`. DoRA: arXiv 2402.09353, as in
//! `huggingface/peft:src/peft/tuners/lora/dora.py`.

use std::cell::Cell;
use std::rc::Rc;

use tastemaker_torch::tensors::Named;
use tch::{Kind, Tensor, no_grad};

use super::param::Param;
use super::ranks::Ranks;
use crate::names::ends_with;

/// True while adapters act as trained; while it is false, as they started. Shared by all adapted layers of a network.
pub type AdapterSwitch = Rc<Cell<bool>>;

/// Which layers are adapted, and how strongly.
#[derive(Debug)]
pub struct LoraSpec {
    /// Rank and alpha of each layer.
    pub ranks: Ranks,
    /// A layer is adapted if its name equals one of these or ends with a dot and one of these.
    pub target_modules: Vec<String>,
    /// Seed of fresh factors.
    pub seed: u64,
    /// Factors to start from, by `<layer>.lora_A.weight` and `<layer>.lora_B.weight`; fresh ones where `None`.
    pub tensors: Option<Named>,
    /// Whether the network keeps `tensors` as they are, for when its adapters are off; without that it is then bare.
    pub anchored: bool,
    /// DoRA, weight-decomposed LoRA: whether a magnitude per row of the adapted weight is trained too.
    pub use_dora: bool,
}

impl LoraSpec {
    /// Whether the layer of this name is adapted.
    pub fn targets(&self, layer: &str) -> bool {
        is_target(layer, &self.target_modules)
    }
}

/// Whether a layer's name equals one of these or ends with a dot and one of these.
pub fn is_target(layer: &str, target_modules: &[String]) -> bool {
    target_modules.iter().any(|target| ends_with(layer, target))
}

/// The adapter of one layer: `scale * up(down(x))` is added to the layer's output.
#[derive(Debug)]
pub struct Lora {
    /// The trained factors.
    pub(super) trained: Factors,
    /// What it started from, where that is more than nothing. It stays as it was given, whatever is read into `trained` later.
    pub(super) anchor: Option<Factors>,
    /// alpha / rank.
    pub(super) scale: f64,
    pub(super) switch: AdapterSwitch,
}

/// The two factors of an update, and DoRA's magnitudes.
#[derive(Debug)]
pub struct Factors {
    /// Down projection: `[rank, in]`, or `[rank, in, k, k]`.
    pub down: Param,
    /// Up projection: `[out, rank]`, or `[out, rank, 1, 1]`.
    pub up: Param,
    /// DoRA's magnitudes, always f32: `[out]`, or `[1, out, 1, 1]`.
    pub magnitude: Option<Param>,
}

impl Factors {
    /// Norm of each row of `weight + scale up down`, f32, a constant to the gradient as section 4.3 of the paper has it.
    ///
    /// Fresh factors add exact zeros, so that magnitudes that start as these norms give quotients of exactly 1.
    ///
    /// # Shapes
    /// `[out]`.
    pub(super) fn row_norms(&self, weight: &dyn Fn() -> Tensor, scale: f64) -> Tensor {
        no_grad(|| {
            let wide = |param: &Param| param.value().to_kind(Kind::Float);
            let (weight, down, up) = (weight().to_kind(Kind::Float), wide(&self.down), wide(&self.up));
            let (rows, rank) = (up.size()[0], up.size()[1]);
            let update = up.reshape([rows, rank]).matmul(&down.reshape([rank, -1])) * scale;
            let norms = (weight.reshape([rows, -1]) + update).norm_scalaropt_dim(2.0, [1i64], false);
            // A row of zeros has no direction; it stays what it is.
            norms.clamp_min(f64::from(f32::MIN_POSITIVE))
        })
    }
}

impl Lora {
    /// The factors that act now: the trained ones, the anchor, or none. All run the same numeric path, so that equal factors give
    /// equal outputs to the last bit.
    pub(super) fn acting(&self) -> Option<&Factors> {
        if self.switch.get() { Some(&self.trained) } else { self.anchor.as_ref() }
    }

    /// The layer's output `y` with DoRA's update: `y + (s - 1) (y - bias) + s scale update`, s being magnitude / row norm: exactly
    /// `y` while s is 1 and the update 0, as they start.
    pub(super) fn stretched(
        &self,
        y: &Tensor,
        (weight, bias): (&dyn Fn() -> Tensor, Option<&Param>),
        factors: &Factors,
        magnitude: &Param,
        update: Tensor,
    ) -> Tensor {
        let magnitude = magnitude.value();
        let norms = factors.row_norms(weight, self.scale).reshape(magnitude.size());
        let stretch = magnitude / norms; // s, f32
        let unbiased = match bias {
            Some(bias) => y - bias.value().reshape(stretch.size()),
            None => y.shallow_clone(),
        };
        let kind = y.kind();
        y + (&stretch - 1.0).to_kind(kind) * unbiased + stretch.to_kind(kind) * (update * self.scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_match_whole_name_parts_only() {
        let spec = LoraSpec {
            ranks: Ranks::uniform(4, 4.0),
            target_modules: vec!["to_q".into(), "to_out.0".into()],
            seed: 0,
            tensors: None,
            anchored: false,
            use_dora: false,
        };
        assert!(spec.targets("mid_block.attentions.0.transformer_blocks.0.attn1.to_q"));
        assert!(spec.targets("attn1.to_out.0"));
        assert!(spec.targets("to_q"));
        assert!(!spec.targets("attn1.not_to_q"));
        assert!(!spec.targets("attn1.to_k"));
    }
}
