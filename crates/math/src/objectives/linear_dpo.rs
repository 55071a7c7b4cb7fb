//! Linear-DPO: a weight that falls in a straight line as the policy improves on a pair, instead of a sigmoid's slope.
//!
//! The weight is a constant of the step: the gradient is the weight itself on the winner's error and its negative on the loser's, and
//! the value of the loss is on the scale of the errors. In published runs the reference follows the policy, which is the trainer's part:
//! before every optimizer step `reference <- decay reference + (1 - decay) policy`. Nothing here knows of it.

use super::entry::{BETA_DPO, DPO_LORA, ERROR_BETA, Entry, FLOW_DPO_LORA, Published};
use super::inputs::{Needs, Pair};
use super::method::{Loss, Paired, paired};
use super::relative::{beta_warnings, relative_logit};
use super::settings::{self, Settings, SettingsError};
use serde::{Deserialize, Serialize};

/// How the list shows it.
pub static ENTRY: Entry = Entry {
    name: "linear-dpo",
    summary: "prefer the winner relative to a reference, by a weight linear in the margin",
    source: "Linear-DPO 2026 (arXiv 2605.21123); Whynot0101/Linear-DPO train_sd3_dpo.py --linear_dpo",
    build: paired::<LinearDpo>,
    not_monotone: Some("the weight falls with the margin, and with it the value of a loss that is below 0"),
    detached: Some("the weight is a constant of the step"),
    published: &[
        Published {
            form: None,
            full: true,
            flow: false,
            learning_rate: (5e-6, 1e-5),
            beta: Some((100.0, 5000.0)),
            source: "Whynot0101/Linear-DPO scripts for SD1.5 and SDXL",
        },
        DPO_LORA,
        Published {
            form: None,
            full: true,
            flow: true,
            learning_rate: (5e-6, 5e-6),
            beta: Some((1000.0, 5000.0)),
            source: "Whynot0101/Linear-DPO scripts for SD3",
        },
        FLOW_DPO_LORA,
    ],
    shorthands: &[BETA_DPO],
    beta_conventions: ERROR_BETA,
};

/// Slope of the weight in `beta` times the margin.
const SLOPE: f64 = 0.2;

/// With `M = (Lth_w - Lth_l) - (Lref_w - Lref_l)`: `loss = w (Lth_w - Lth_l)`, `w = clamp(0.2 beta M + 1/2, eta, 1 - eta)` a constant.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LinearDpo {
    /// Sharpness of the preference, per unit of mean squared error.
    beta: f64,
    /// Smallest weight of a pair, and what the largest lacks of 1.
    eta: f64,
}

impl Default for LinearDpo {
    fn default() -> Self {
        Self { beta: 5000.0, eta: 0.01 }
    }
}

impl Settings for LinearDpo {
    fn check(&self) -> Result<(), SettingsError> {
        settings::positive("beta", self.beta)?;
        let wanted = "at least 0 and below 0.5, where every pair would weigh the same";
        settings::in_range("eta", self.eta, wanted, |eta| (0.0..0.5).contains(&eta))
    }
}

impl Paired for LinearDpo {
    fn needs(&self) -> Needs {
        Needs::REFERENCE
    }

    fn loss(&self, pair: &Pair) -> Loss {
        // The logit is -0.5 beta M.
        let logit = relative_logit(pair, self.beta).value;
        let weight = (0.5 - 2.0 * SLOPE * logit).clamp(self.eta, 1.0 - self.eta);
        Loss { value: (pair.winner.error - pair.loser.error) * weight, logit: Some(logit) }
    }

    fn warnings(&self) -> Vec<String> {
        beta_warnings(self.beta, "100 (SD1.5), 500 (SDXL) and 5000 (SD3)")
    }
}
