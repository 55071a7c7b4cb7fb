//! Terms that any method takes besides its own settings, in the same table: one place for all methods.
//!
//! * `sft_weight`: imitation of the winner beside the preference;
//! * `safeguard_mu`: Diffusion-SDPO's safeguard, which cuts the loser's push down to what leaves the winner unharmed;
//! * `anchor_weight`: SimpleTuner's anchor, which holds the policy's outputs near the reference's.
//!
//! Descending `L_w - lambda L_l` changes the winner's error, to first order and in the space of the network's outputs,
//! by `-|e_w|^2 + lambda <e_l, e_w>` times the step. Where the two residuals point the same way, `lambda` is held to what
//! keeps that at `-mu |e_w|^2` or below; elsewhere the loser's push helps the winner and stays as it is. It is a constant of the
//! step: the value of the loss stays what it is.

use super::inputs::{Image, Needs, Pair};
use super::method::Method;
use super::settings::{self, SettingsError};
use crate::dual::Dual;
use crate::nearest::nearest;
use crate::number;
use serde::Serialize;
use serde_json::{Map, Value};

/// What can be set beside any method's own settings. Without any of it nothing changes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Terms {
    /// Weight of the winner's error, or a liked image's, added to the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    sft_weight: Option<f64>,
    /// How much of the winner's own descent the loser has to leave alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    safeguard_mu: Option<f64>,
    /// Weight of the mean squared distance between the policy's and the reference's outputs, added to the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    anchor_weight: Option<f64>,
}

/// The settings that every method has beside its own.
pub const KEYS: [&str; 3] = ["sft_weight", "safeguard_mu", "anchor_weight"];

impl Terms {
    /// Takes the terms out of a table of settings: what is left for the method, and the terms.
    pub fn split(typed: &Value) -> Result<(Value, Self), SettingsError> {
        let mut own = typed.clone();
        let mut take = |key: &str| -> Result<Option<f64>, SettingsError> {
            let taken = own.as_object_mut().and_then(|table| table.remove(key));
            let number = taken.map(serde_json::from_value::<Option<f64>>).transpose();
            number.map(Option::flatten).map_err(|source| SettingsError::Value { key: key.into(), source })
        };
        let terms =
            Self { sft_weight: take(KEYS[0])?, safeguard_mu: take(KEYS[1])?, anchor_weight: take(KEYS[2])? };
        terms.sft_weight.map_or(Ok(()), |weight| settings::positive(KEYS[0], weight))?;
        terms.safeguard_mu.map_or(Ok(()), |mu| settings::fraction(KEYS[1], mu))?;
        terms.anchor_weight.map_or(Ok(()), |weight| settings::positive(KEYS[2], weight))?;
        Ok((own, terms))
    }

    /// Adds the terms' keys to what a message about an unknown key suggests and lists.
    pub fn also_known(error: SettingsError) -> SettingsError {
        match error {
            SettingsError::UnknownKey { key, mut known, .. } => {
                known.extend(KEYS.map(String::from));
                let nearest = nearest(&key, known.iter().map(String::as_str)).map(String::from);
                SettingsError::UnknownKey { key, nearest, known }
            }
            other => other,
        }
    }

    /// Whether they go with a method.
    pub fn check(&self, method: &Method) -> Result<(), SettingsError> {
        let (Some(mu), key) = (self.safeguard_mu, KEYS[1]) else { return Ok(()) };
        let wanted = match method {
            Method::Unpaired(_) => "skipped with a method of single images, where no loser meets its winner",
            Method::Paired(method) if !method.needs().loser => "skipped with a method that uses no losers",
            Method::Paired(_) => return Ok(()),
        };
        Err(SettingsError::OutOfRange { key, wanted, found: number(mu) })
    }

    /// Adds the terms that are set to a method's settings.
    pub fn print_into(&self, settings: &mut Value) {
        if let (Value::Object(all), Value::Object(terms)) = (settings, settings::print(self)) {
            all.extend::<Map<_, _>>(terms);
        }
    }

    /// What has to be measured for them and a method that needs as much.
    pub fn needs(&self, method: Needs) -> Needs {
        let anchored = self.anchor_weight.is_some();
        Needs {
            residual_product: method.residual_product || self.safeguard_mu.is_some(),
            reference: method.reference || anchored,
            distance: method.distance || anchored,
            ..method
        }
    }

    /// What each of `n_images` distances counts, so that their mean weighs as much as is set; 0 without an anchor.
    ///
    /// Source: `anchor_alpha` of `bghira/SimpleTuner:simpletuner/helpers/distillation/flow_dpo/distiller.py`.
    pub fn distance_weight(&self, n_images: usize) -> f64 {
        self.anchor_weight.map_or(0.0, |weight| weight / n_images as f64)
    }

    /// What an image that is liked adds to the loss.
    pub fn imitation(&self, liked: &Image) -> Option<Dual> {
        self.sft_weight.map(|weight| liked.error * weight)
    }

    /// What the derivative in the loser's error is multiplied with, 0 to 1.
    pub fn residual_factor(&self, pair: &Pair) -> Option<f64> {
        self.safeguard_mu.map(|mu| residual_factor(mu, pair.winner.error.value, pair.residual_product))
    }

    /// A warning where there is hardly a safeguard, or hardly a loser.
    pub fn warning(&self) -> Option<String> {
        self.safeguard_mu.filter(|mu| !(0.1..=0.95).contains(mu)).map(|mu| {
            format!(
                "safeguard_mu {} is outside 0.1..0.95: 0 lets the winner stand still and 1 silences most losers, and published runs use 0.9 (SD1.5) and 0.6 (SDXL)",
                number(mu)
            )
        })
    }
}

/// `clip((1 - mu) |e_w|^2 / <e_l, e_w>, 0, 1)` if the product is positive, else 1. NaN in, NaN out.
///
/// Source: Fu et al. 2025 (arXiv 2511.03317); AIDC-AI/Diffusion-SDPO train.py `get_adaptive_lose_l_scale`. There the two
/// numbers are sums over the micro-batch; here each pair has its own.
fn residual_factor(mu: f64, winner_error: f64, residual_product: f64) -> f64 {
    if residual_product <= 0.0 {
        return 1.0;
    }
    ((1.0 - mu) * winner_error / residual_product).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_losers_that_pull_the_winner_along_are_held_back() {
        for (mu, winner, product, expected) in [
            (0.9, 0.1, -0.05, 1.0),
            (0.9, 0.1, 0.0, 1.0),
            (0.9, 0.1, 0.1, 0.1),
            (0.6, 0.1, 0.08, 0.5),
            (0.9, 0.1, 0.005, 1.0),
            (0.0, 0.1, 0.1, 1.0),
            (1.0, 0.1, 0.1, 0.0),
        ] {
            assert!(
                (residual_factor(mu, winner, product) - expected).abs() < 1e-15,
                "{mu} {winner} {product}"
            );
        }
        assert!(residual_factor(0.9, 0.1, f64::NAN).is_nan() && residual_factor(0.9, f64::NAN, 0.1).is_nan());
    }
}
