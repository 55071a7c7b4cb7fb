//! An adapter added to the weights it adapts.

use tastemaker_torch::tensors::Named;
use tch::{Kind, Tensor, no_grad};

use super::keys::{DOWN, MAGNITUDE, UP};
use super::part::{LoraPart, layers};
use crate::nn::TensorSource;

impl LoraPart {
    /// Every tensor of `weights`, those of adapted layers with `strength * alpha / rank * up down` added; with DoRA,
    /// `strength` of the way from the weight to the adapted one.
    ///
    /// The sum is taken in f32 and rounded to the element type of the weight.
    ///
    /// # Errors
    /// The adapted layers that `weights` does not have in the factors' sizes.
    pub fn merged(&self, weights: &dyn TensorSource, strength: f64) -> Result<Named, Vec<String>> {
        let mut merged = Named::new();
        let mut strangers = Vec::new();
        let adapted = layers(&self.tensors);
        for name in weights.names() {
            let Some(weight) = weights.read(&name) else { continue };
            let update = name
                .strip_suffix(".weight")
                .filter(|layer| adapted.contains(*layer))
                .and_then(|layer| Some((layer, self.update(layer)?)));
            let weight = match update {
                Some((layer, update)) if update.size() == weight.size() => no_grad(|| {
                    let wide = weight.to_kind(Kind::Float);
                    let update = match self.tensors.get(&format!("{layer}{MAGNITUDE}")) {
                        None => update,
                        Some(magnitude) => stretched(&wide + update, magnitude) - &wide,
                    };
                    (wide + update * strength).to_kind(weight.kind())
                }),
                Some((layer, _)) => {
                    strangers.push(layer.to_owned());
                    weight
                }
                None => weight,
            };
            merged.insert(name, weight);
        }
        strangers
            .extend(adapted.into_iter().filter(|layer| !merged.contains_key(&format!("{layer}.weight"))));
        if strangers.is_empty() { Ok(merged) } else { Err(strangers) }
    }

    /// `alpha / rank * up down` of one layer, f32, in the shape of its weight.
    fn update(&self, layer: &str) -> Option<Tensor> {
        let factor =
            |end: &str| Some(self.tensors.get(&format!("{layer}{end}"))?.detach().to_kind(Kind::Float));
        let (down, up) = (factor(DOWN)?, factor(UP)?);
        let (down_shape, rows) = (down.size(), up.size()[0]);
        let shape = [&[rows], &down_shape[1..]].concat();
        let rank = down_shape[0];
        let product = up.reshape([rows, rank]).matmul(&down.reshape([rank, -1]));
        Some(product.reshape(shape) * (self.ranks.alpha(layer) / rank as f64))
    }
}

/// A weight with its rows brought to these norms.
fn stretched(weight: Tensor, norms: &Tensor) -> Tensor {
    let shape = weight.size();
    let rows = weight.reshape([shape[0], -1]);
    let found = rows.norm_scalaropt_dim(2.0, [1i64], true).clamp_min(f64::from(f32::MIN_POSITIVE));
    (rows * (norms.detach().to_kind(Kind::Float).reshape([-1, 1]) / found)).reshape(shape)
}
