//! MaPO: margin-aware preference without any reference model. The paper and the released code are different
//! objectives; both are here, by name, and a setting of one is refused by the other.

use super::entry::{Entry, Published, Shorthand};
use super::inputs::{Needs, Pair};
use super::method::{Built, Loss, Method, Paired};
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use crate::number;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "mapo",
    summary: "prefer the winner without a reference model, while imitating it",
    source: "Hong et al. 2024 (arXiv 2406.06424; AAAI 2026) for form paper; mapo-t2i/mapo utils.py for form release",
    build,
    not_monotone: None,
    detached: None,
    published: &[
        published("release", true, (1e-7, 1e-5), (0.1, 0.1), "arXiv 2406.06424, mapo-t2i/mapo README"),
        published("release", false, (1e-5, 5e-5), (0.1, 0.1), "arXiv 2406.06424, mapo-t2i/mapo README"),
        published("paper", true, (1e-7, 1e-5), (8.0, 1024.0), "arXiv 2406.06424, table 4"),
        published("paper", false, (1e-5, 5e-5), (8.0, 1024.0), "arXiv 2406.06424, table 4"),
    ],
    shorthands: &[
        Shorthand { flag: "beta_mapo", key: "beta" },
        Shorthand { flag: "mapo_beta", key: "beta" },
        Shorthand { flag: "snr_value", key: "snr_value" },
    ],
    beta_conventions: &[],
};

const fn published(
    form: &'static str,
    full: bool,
    learning_rate: (f64, f64),
    beta: (f64, f64),
    source: &'static str,
) -> Published {
    Published { form: Some(form), full, flow: false, learning_rate, beta: Some(beta), source }
}

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

/// Which error stands for an image's likelihood in the score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ScoredError {
    /// Of the network's output. Published where that is the noise; of a velocity or a flow it is ours.
    #[default]
    Output,
    /// Of the noise that the output implies, `(1 - s)^2` of a flow's: the published quantity on any path. Ours where the network predicts
    /// something else; near pure noise it says nothing, so that such levels hardly train the margin.
    Noise,
}

/// What can be set. Defaults of the numbers depend on the form, so they are filled in by [`build`].
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Typed {
    /// Which of the two objectives.
    form: Form,
    /// `release`: weight of the margin term, 0.1. `paper`: power of the score and inverse weight, 8.
    beta: Option<f64>,
    /// `release` only: scale of the error inside the score, 0.5.
    snr_value: Option<f64>,
    /// Which error the score takes.
    scored_error: ScoredError,
}

impl Settings for Typed {
    fn check(&self) -> Result<(), SettingsError> {
        if let (Form::Paper, Some(found)) = (self.form, self.snr_value) {
            let wanted = "skipped with form paper, whose score has no such scale";
            return Err(SettingsError::OutOfRange { key: "snr_value", wanted, found: number(found) });
        }
        self.beta.map_or(Ok(()), |beta| settings::positive("beta", beta))?;
        self.snr_value.map_or(Ok(()), |snr_value| settings::positive("snr_value", snr_value))
    }
}

fn build(typed: &Value) -> Result<Built, SettingsError> {
    let Typed { form, beta, snr_value, scored_error } = settings::parse(typed)?;
    let (beta, snr_value) = match form {
        Form::Release => (beta.unwrap_or(0.1), Some(snr_value.unwrap_or(0.5))),
        Form::Paper => (beta.unwrap_or(8.0), None),
    };
    let printed = settings::print(&Typed { form, beta: Some(beta), snr_value, scored_error });
    Ok((Method::Paired(Box::new(Mapo { beta, snr_value, scored_error })), printed))
}

/// `loss = L_w - weight log sigmoid(scale (score(L_w) - score(L_l)))`, with
/// `score(L) = g(a L)^power` and `g(x) = x / (e^x - 1)`.
#[derive(Debug)]
struct Mapo {
    beta: f64,
    /// Of form release; `None` is form paper.
    snr_value: Option<f64>,
    scored_error: ScoredError,
}

impl Paired for Mapo {
    fn needs(&self) -> Needs {
        Needs::PAIR
    }

    fn loss(&self, pair: &Pair) -> Loss {
        let scored = |error: Dual| match self.scored_error {
            ScoredError::Output => error,
            ScoredError::Noise => error * pair.level.noise_gain(),
        };
        let score = |error: Dual| match self.snr_value {
            Some(snr_value) => bernoulli(scored(error) * snr_value) * pair.level.n_train_timesteps as f64,
            None => bernoulli(scored(error)).powf(self.beta),
        };
        let margin = score(pair.winner.error) - score(pair.loser.error);
        let weight = if self.snr_value.is_some() { self.beta } else { 1.0 / self.beta };
        let value = pair.winner.error - margin.log_sigmoid() * weight;
        Loss { value, logit: Some(margin.value) }
    }

    fn warnings(&self) -> Vec<String> {
        let beta = number(self.beta);
        let warning = match self.snr_value {
            Some(_) if self.beta >= 2.0 => {
                format!(
                    "beta {beta} weighs the margin of form release (0.1 as released); form paper uses 8 to 1024"
                )
            }
            None if self.beta < 1.0 => {
                format!(
                    "beta {beta} is the power of form paper (8 to 1024 as published); form release uses 0.1"
                )
            }
            _ => return Vec::new(),
        };
        vec![warning]
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
