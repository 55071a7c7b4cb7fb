//! MaPO: margin-aware preference without any reference model. The paper and the released code are different
//! objectives; both are here, by name, and a setting of one is refused by the other.

use super::contract::{Objective, PairContext, PairErrors};
use super::corruption::Corruption;
use super::registry::Entry;
use super::settings::{self, SettingsError};
use crate::dual::Dual;
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "mapo",
    summary: "prefer the winner without a reference model, while imitating it",
    source: "Hong et al. 2024 (arXiv 2406.06424; AAAI 2026) for form paper; mapo-t2i/mapo utils.py for form release",
    build: |settings| Ok(Box::new(Mapo::new(settings::parse(settings)?)?)),
    not_monotone: None,
};

/// Which of the two objectives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// As released: a margin of 1000 timesteps' worth, weighted 0.1.
    #[default]
    Release,
    /// As published: a bounded score to the power `beta`, weighted `1 / beta`.
    Paper,
}

/// What can be set. Defaults of the numbers depend on the form, so they are filled in by [`Mapo::new`].
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Which of the two objectives.
    form: Form,
    /// `release`: weight of the margin term, 0.1. `paper`: power of the score and inverse weight, 8.
    beta: Option<f64>,
    /// `release` only: scale of the error inside the score, 0.5.
    snr_value: Option<f64>,
}

/// `loss = L_w - weight log sigmoid(scale (score(L_w) - score(L_l)))`, with
/// `score(L) = g(a L)^power` and `g(x) = x / (e^x - 1)`.
#[derive(Debug)]
struct Mapo {
    form: Form,
    beta: f64,
    snr_value: f64,
}

impl Mapo {
    fn new(settings: Settings) -> Result<Self, SettingsError> {
        let (default_beta, default_snr_value) = match settings.form {
            Form::Release => (0.1, 0.5),
            Form::Paper => (8.0, 1.0),
        };
        if let (Form::Paper, Some(found)) = (settings.form, settings.snr_value) {
            let wanted = "skipped with form paper, whose score has no such scale";
            return Err(SettingsError::OutOfRange { key: "snr_value", wanted, found: found.to_string() });
        }
        let beta = settings.beta.unwrap_or(default_beta);
        let snr_value = settings.snr_value.unwrap_or(default_snr_value);
        settings::positive("beta", beta)?;
        settings::positive("snr_value", snr_value)?;
        Ok(Self { form: settings.form, beta, snr_value })
    }

    /// The number inside the sigmoid.
    fn margin(&self, errors: &PairErrors, context: &PairContext) -> Dual {
        let score = |error: Dual| match self.form {
            Form::Release => bernoulli(error * self.snr_value) * context.n_train_timesteps as f64,
            Form::Paper => bernoulli(error).powf(self.beta),
        };
        score(errors.winner) - score(errors.loser)
    }
}

impl Objective for Mapo {
    fn name(&self) -> &'static str {
        ENTRY.name
    }

    fn needs_reference(&self) -> bool {
        false
    }

    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    fn loss(&self, errors: &PairErrors, context: &PairContext) -> Dual {
        let weight = match self.form {
            Form::Release => self.beta,
            Form::Paper => 1.0 / self.beta,
        };
        errors.winner - self.margin(errors, context).log_sigmoid() * weight
    }

    fn logit(&self, errors: &PairErrors, context: &PairContext) -> Option<f64> {
        Some(self.margin(errors, context).value)
    }

    fn settings(&self) -> serde_json::Value {
        let snr_value = (self.form == Form::Release).then_some(self.snr_value);
        settings::print(&Settings { form: self.form, beta: Some(self.beta), snr_value })
    }

    fn warnings(&self) -> Vec<String> {
        match self.form {
            Form::Release if self.beta >= 2.0 => {
                vec![format!(
                    "beta {} weighs the margin of form release (0.1 as released); form paper uses 8 to 1024",
                    self.beta
                )]
            }
            Form::Paper if self.beta < 1.0 => {
                vec![format!(
                    "beta {} is the power of form paper (8 to 1024 as published); form release uses 0.1",
                    self.beta
                )]
            }
            _ => Vec::new(),
        }
    }
}

/// `g(x) = x / (e^x - 1)`: 1 at 0 and falling, with slope -1/2 there.
///
/// The quotient and its slope lose digits near 0, where training lives, and a factor of 1000 multiplies what is left.
/// Below 0.1 the series with Bernoulli numbers takes over; its first dropped term is 1e-14.
fn bernoulli(x: Dual) -> Dual {
    let u = x.value;
    if u.abs() < 0.1 {
        let u2 = u * u;
        let value =
            1.0 - u / 2.0 + u2 * (1.0 / 12.0 - u2 * (1.0 / 720.0 - u2 * (1.0 / 30_240.0 - u2 / 1_209_600.0)));
        let slope = -0.5 + u * (1.0 / 6.0 - u2 * (1.0 / 180.0 - u2 * (1.0 / 5_040.0 - u2 / 151_200.0)));
        return x.chain(value, slope);
    }
    // ln g = ln x - ln(e^x - 1), so g' = g ((1 - g) / x - 1)
    let value = u / u.exp_m1();
    x.chain(value, value * ((1.0 - value) / u - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_series_meets_the_quotient() {
        for sign in [-1.0, 1.0] {
            let (below, above) =
                (bernoulli(Dual::winner(sign * 0.099_999_999_999)), bernoulli(Dual::winner(sign * 0.1)));
            let step = sign * 1e-12;
            assert!((above.value - below.value - step * below.d[0]).abs() < 4e-16, "{below:?} {above:?}");
            assert!((above.d[0] - below.d[0]).abs() < 5e-13, "{below:?} {above:?}");
        }
    }

    #[test]
    fn the_score_is_exact_where_a_plain_exponential_is_not() {
        for x in [1e-8, 1e-5, 1e-4] {
            let exact = 1.0 - x / 2.0 + x * x / 12.0;
            assert!((bernoulli(Dual::winner(x)).value - exact).abs() < 1e-15);
        }
        assert_eq!(bernoulli(Dual::winner(0.0)), Dual { value: 1.0, d: [-0.5, 0.0] });
        // What single precision makes of it, times 1000: off by more than 0.01 at a typical error of 0.002
        let naive = |x: f32| x / (x.exp() - 1.0);
        let worst = (1..=100)
            .map(|i| 0.002 + f64::from(i) * 1e-6)
            .map(|x| 1000.0 * (f64::from(naive(x as f32)) - bernoulli(Dual::constant(x)).value).abs());
        assert!(worst.fold(0.0, f64::max) > 0.01);
        assert!(naive(0.0).is_nan());
    }
}
