//! The adapter of one network: its factors, checked.

use std::collections::{BTreeMap, BTreeSet};

use tastemaker_torch::tensors::Named;
use tch::Tensor;

use super::keys::{DOWN, MAGNITUDE, UP};
use crate::nn::{LoraSpec, MAX_ALPHA, Ranks};

/// The largest change of a weight that is believed; weights themselves are below a thousand.
const MAX_UPDATE: f64 = 1e9;

/// The low-rank adapter of one network.
#[derive(Debug)]
pub struct LoraPart {
    /// Rank and alpha of each layer.
    pub ranks: Ranks,
    /// Ends of the names of the adapted layers.
    pub target_modules: Vec<String>,
    /// Factors by `<layer>.lora_A.weight` and `<layer>.lora_B.weight`; for DoRA also `<layer>.lora_magnitude_vector`, of shape
    /// `[out]`, for convolutions `[1, out, 1, 1]`.
    pub tensors: Named,
}

impl LoraPart {
    /// What makes no sense of numbers that are numbers: an alpha beyond all use, or factors whose product is.
    pub(super) fn check(&self) -> Result<(), String> {
        for layer in self.layers() {
            let alpha = self.ranks.alpha(&layer);
            if !(-MAX_ALPHA..=MAX_ALPHA).contains(&alpha) {
                return Err(format!(
                    "`{layer}` with alpha {alpha:.2e}; wanted a number from -{MAX_ALPHA:e} to {MAX_ALPHA:e}"
                ));
            }
            let factors =
                [DOWN, UP].map(|end| self.tensors.get(&format!("{layer}{end}")).map_or(0.0, largest));
            // Each element of the update is a sum of `rank` products, times alpha / rank.
            let [down, up] = factors;
            if alpha.abs() * down * up > MAX_UPDATE {
                return Err(format!(
                    "`{layer}` with factors up to {down:.1e} and {up:.1e} at alpha {alpha}; wanted a product that weights can hold, at \
                     most {MAX_UPDATE:e}"
                ));
            }
        }
        Ok(())
    }

    /// Of no layer.
    pub(super) fn empty() -> Self {
        Self { ranks: Ranks::uniform(1, 1.0), target_modules: Vec::new(), tensors: Named::new() }
    }

    /// The same with updates of this many times the size: `alpha` is multiplied. DoRA's magnitudes stay as they are, as in
    /// peft.
    pub fn scaled(mut self, weight: f64) -> Self {
        self.ranks.alpha *= weight;
        self.ranks.alpha_pattern.values_mut().for_each(|alpha| *alpha *= weight);
        self
    }

    /// Whether this is DoRA, weight-decomposed LoRA.
    pub fn is_dora(&self) -> bool {
        self.tensors.keys().any(|name| name.ends_with(MAGNITUDE))
    }

    /// Names of the adapted layers.
    pub fn layers(&self) -> BTreeSet<String> {
        layers(&self.tensors)
    }

    /// What a network needs to be built with this adapter: it goes to exactly the layers the file has factors for.
    pub fn into_spec(self) -> LoraSpec {
        LoraSpec {
            use_dora: self.is_dora(),
            ranks: self.ranks,
            target_modules: layers(&self.tensors).into_iter().collect(),
            seed: 0,
            tensors: Some(self.tensors),
            anchored: false,
        }
    }

    /// As [`LoraPart::into_spec`], for a network whose reference has this adapter too: it stays the network's anchor.
    pub fn into_start(self) -> LoraSpec {
        LoraSpec { anchored: true, ..self.into_spec() }
    }
}

/// The largest element of a tensor, whatever its sign.
fn largest(tensor: &Tensor) -> f64 {
    if tensor.numel() == 0 { 0.0 } else { tensor.detach().abs().max().double_value(&[]) }
}

/// Names of the adapted layers.
pub(super) fn layers(factors: &Named) -> BTreeSet<String> {
    let layer = |name: &String| {
        [DOWN, UP, MAGNITUDE].iter().find_map(|end| name.strip_suffix(end)).map(str::to_owned)
    };
    factors.keys().filter_map(layer).collect()
}

/// The factors with magnitudes in our shapes, or what is wrong with them: all layers have one or none has. `fits` judges the
/// shape a file has one in, given the number of rows.
pub(super) fn with_magnitudes(
    mut factors: Named,
    layers: &BTreeSet<String>,
    fits: impl Fn(&[i64], i64) -> bool,
) -> Result<Named, String> {
    if !factors.keys().any(|name| name.ends_with(MAGNITUDE)) {
        return Ok(factors);
    }
    for layer in layers {
        let up = factors.get(&format!("{layer}{UP}")).map_or_else(Vec::new, Tensor::size);
        let rows = up.first().copied().unwrap_or_default();
        let ours = if up.len() == 4 { vec![1, rows, 1, 1] } else { vec![rows] };
        let Some(magnitude) = factors.get_mut(&format!("{layer}{MAGNITUDE}")) else {
            return Err(format!("`{layer}` without magnitudes, which other layers have"));
        };
        let found = magnitude.size();
        if magnitude.numel() as i64 != rows || !fits(&found, rows) {
            return Err(format!("`{layer}` with magnitudes {found:?} for {rows} rows"));
        }
        *magnitude = magnitude.reshape(ours);
    }
    Ok(factors)
}

/// The rank of each layer's factors, or what is wrong with them.
pub(super) fn found_ranks(
    factors: &Named,
    layers: &BTreeSet<String>,
) -> Result<BTreeMap<String, i64>, String> {
    if layers.is_empty() {
        return Err("no factors".to_owned());
    }
    let rank = |layer: &String| {
        let shape = |end: &str| factors.get(&format!("{layer}{end}")).map(Tensor::size);
        let (Some(down), Some(up)) = (shape(DOWN), shape(UP)) else {
            return Err(format!("`{layer}` with one factor of two"));
        };
        match (down.first(), up.get(1)) {
            (Some(rank), Some(same)) if rank == same && *rank > 0 => Ok((layer.clone(), *rank)),
            _ => Err(format!("`{layer}` with factors {down:?} and {up:?}")),
        }
    };
    layers.iter().map(rank).collect()
}
