//! Terms that any method takes besides its own settings, in the same table: one place for all methods.
//!
//! * `sft_weight`: imitation of the winner beside the preference;
//! * `safeguard_mu`: the loser never pushes so hard that the winner suffers, see [`safeguard`].

mod safeguard;

use super::contract::{Label, MeanGain, Objective, PairContext, PairErrors};
use super::corruption::Corruption;
use super::settings::{self, SettingsError};
use crate::dual::Dual;
use crate::nearest::nearest;
use serde::Serialize;
use serde_json::{Map, Value};

/// What can be set beside any method's own settings. Without any of it nothing changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Terms {
    /// Weight of the winner's error, or a liked image's, added to the loss.
    #[serde(skip_serializing_if = "Option::is_none")]
    sft_weight: Option<f64>,
    /// How much of the winner's own descent the loser has to leave alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    safeguard_mu: Option<f64>,
}

/// The keys of [`Terms`].
pub const KEYS: [&str; 2] = ["sft_weight", "safeguard_mu"];

/// Takes the terms out of a table of settings: what is left for the method, and the terms.
///
/// # Errors
/// [`SettingsError`]: a value that is no number or cannot be.
pub fn split(typed: &Value) -> Result<(Value, Terms), SettingsError> {
    let Value::Object(table) = typed else {
        return Ok((typed.clone(), Terms::default()));
    };
    let (terms, own): (Map<_, _>, Map<_, _>) =
        table.clone().into_iter().partition(|(key, _)| KEYS.contains(&key.as_str()));
    let terms = Terms::parse(&terms)?;
    Ok((Value::Object(own), terms))
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

impl Terms {
    fn parse(typed: &Map<String, Value>) -> Result<Self, SettingsError> {
        let number = |key: &str| {
            let parsed = typed.get(key).map(|value| serde_json::from_value::<Option<f64>>(value.clone()));
            parsed.transpose().map_err(|source| SettingsError::Value { key: key.into(), source })
        };
        let terms = Self {
            sft_weight: number("sft_weight")?.flatten(),
            safeguard_mu: number("safeguard_mu")?.flatten(),
        };
        terms.sft_weight.map_or(Ok(()), |weight| settings::positive("sft_weight", weight))?;
        terms.safeguard_mu.map_or(Ok(()), |mu| settings::share("safeguard_mu", mu))?;
        Ok(terms)
    }

    /// The method with the terms; the method itself without any.
    ///
    /// # Errors
    /// [`SettingsError::OutOfRange`] for a safeguard where no loser pushes.
    pub fn around(self, method: Box<dyn Objective>) -> Result<Box<dyn Objective>, SettingsError> {
        if let Some(mu) = self.safeguard_mu {
            let out_of_range = |wanted| {
                Err(SettingsError::OutOfRange { key: "safeguard_mu", wanted, found: mu.to_string() })
            };
            if !method.needs_loser() {
                return out_of_range("skipped with a method that uses no losers");
            }
            if method.is_unpaired() {
                return out_of_range(
                    "skipped with a method of single images, where no loser meets its winner",
                );
            }
        }
        if self == Self::default() { Ok(method) } else { Ok(Box::new(WithTerms { method, terms: self })) }
    }
}

/// `loss = method's loss + sft_weight L_w`, with the method's derivative in `L_l` cut down by the safeguard.
///
/// The safeguard's factor is a constant of the step: the value of the loss stays what it is.
#[derive(Debug)]
struct WithTerms {
    method: Box<dyn Objective>,
    terms: Terms,
}

impl Objective for WithTerms {
    fn name(&self) -> &'static str {
        self.method.name()
    }

    fn needs_reference(&self) -> bool {
        self.method.needs_reference()
    }

    fn needs_loser(&self) -> bool {
        self.method.needs_loser()
    }

    fn needs_residual_product(&self) -> bool {
        self.terms.safeguard_mu.is_some() || self.method.needs_residual_product()
    }

    fn needs_soft_label(&self) -> bool {
        self.method.needs_soft_label()
    }

    fn mean_gain(&self) -> MeanGain {
        self.method.mean_gain()
    }

    fn is_unpaired(&self) -> bool {
        self.method.is_unpaired()
    }

    fn corruption(&self) -> Corruption {
        self.method.corruption()
    }

    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual {
        let mut loss = self.method.loss(errors, context);
        if let Some(factor) = self.residual_factor(errors) {
            loss.d[1] *= factor;
        }
        // A pair is the mean of two images to a method of single images, and only one of the two is liked
        let share = if self.is_unpaired() { 0.5 } else { 1.0 };
        loss + errors.winner * (share * self.terms.sft_weight.unwrap_or(0.0))
    }

    fn logit(&self, errors: &PairErrors, context: &PairContext) -> Option<f64> {
        self.method.logit(errors, context)
    }

    fn residual_factor(&self, errors: &PairErrors) -> Option<f64> {
        let mu = self.terms.safeguard_mu?;
        Some(safeguard::factor(mu, errors.winner.value, errors.expect_residual_product()))
    }

    fn loss_of_one(&self, label: Label, error: Dual, reference: f64, context: &PairContext) -> Option<Dual> {
        let weight = match label {
            Label::Liked => self.terms.sft_weight.unwrap_or(0.0),
            Label::Disliked => 0.0,
        };
        Some(self.method.loss_of_one(label, error, reference, context)? + error * weight)
    }

    fn logit_of_one(&self, label: Label, error: f64, reference: f64, context: &PairContext) -> Option<f64> {
        self.method.logit_of_one(label, error, reference, context)
    }

    fn settings(&self) -> Value {
        let mut settings = self.method.settings();
        if let (Value::Object(all), Value::Object(terms)) = (&mut settings, settings::print(&self.terms)) {
            all.extend(terms);
        }
        settings
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.method.warnings();
        warnings.extend(self.terms.safeguard_mu.and_then(safeguard::warning));
        warnings
    }
}
