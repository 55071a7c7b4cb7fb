//! The settings that papers and their code used.

use tastemaker_math::objectives::Objective;

use super::Alarm;
use crate::{Adapter, Plan};

/// Published rates were found on networks of 860 million weights and more; a smaller one takes larger rates.
const FEWEST_WEIGHTS: u64 = 500_000_000;

/// A value beyond the range by this factor is far from it.
const FAR: f64 = 3.0;

/// What was published for a method and a way to train it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// The method.
    pub method: &'static str,
    /// Which form of it, where it has several.
    pub form: Option<&'static str>,
    /// Whether every weight learns, or a LoRA.
    pub full: bool,
    /// Lowest and highest learning rate, with what `scale_lr` multiplies it by.
    pub learning_rate: (f64, f64),
    /// Lowest and highest beta, where the method has one.
    pub beta: Option<(f64, f64)>,
    /// Where.
    pub source: &'static str,
}

const fn row(
    method: &'static str,
    form: Option<&'static str>,
    full: bool,
    learning_rate: (f64, f64),
    beta: Option<(f64, f64)>,
    source: &'static str,
) -> Published {
    Published { method, form, full, learning_rate, beta, source }
}

const DPO: &str = "diffusion-dpo";
const INPO: &str = "ddim-inpo";
const RELEASE: Option<&str> = Some("release");
const PAPER: Option<&str> = Some("paper");

/// What was published. Rates that their own authors or others found not to train are skipped: the Diffusion-DPO paper's 2e-8, which
/// its code multiplies by 1000, and the scripts' defaults of 5e-4. For DDIM-InPO and SFT no LoRA was published; those of
/// Diffusion-DPO stand in.
pub static PUBLISHED: &[Published] = &[
    row(
        DPO,
        None,
        true,
        (1e-6, 2.048e-5),
        Some((2000.0, 5000.0)),
        "arXiv 2311.12908, its launchers, arXiv 2406.06424",
    ),
    row(DPO, None, false, (1e-5, 1e-5), Some((2000.0, 5000.0)), "diffusers' research project diffusion_dpo"),
    row(INPO, None, true, (1.024e-5, 1.024e-5), Some((2000.0, 5000.0)), "JaydenLyh/InPO examples"),
    row(INPO, None, false, (1e-5, 1e-5), Some((2000.0, 5000.0)), "diffusers' research project diffusion_dpo"),
    row("mapo", RELEASE, true, (1e-7, 1e-5), Some((0.1, 0.1)), "arXiv 2406.06424, mapo-t2i/mapo README"),
    row("mapo", RELEASE, false, (1e-5, 5e-5), Some((0.1, 0.1)), "arXiv 2406.06424, mapo-t2i/mapo README"),
    row("mapo", PAPER, true, (1e-7, 1e-5), Some((8.0, 1024.0)), "arXiv 2406.06424, table 4"),
    row("mapo", PAPER, false, (1e-5, 5e-5), Some((8.0, 1024.0)), "arXiv 2406.06424, table 4"),
    row(
        "sft",
        None,
        true,
        (2.048e-6, 2.048e-5),
        None,
        "arXiv 2311.12908, SalesforceAIResearch/DiffusionDPO train.py",
    ),
    row("sft", None, false, (1e-5, 1e-5), None, "diffusers' research project diffusion_dpo"),
];

/// What was published for this method with its settings.
pub fn published_range(objective: &dyn Objective, full: bool) -> Option<&'static Published> {
    let settings = objective.settings();
    let form = settings.get("form").and_then(|form| form.as_str());
    PUBLISHED.iter().find(|row| row.method == objective.name() && row.full == full && row.form == form)
}

/// What of a plan is beyond the published range by more than a factor of three, for a network of `n_weights`; nothing for a method
/// without published settings, or a network much smaller than theirs.
pub fn outside_published(plan: &Plan, n_weights: u64) -> Vec<Alarm> {
    let Ok(objective) = plan.method.objective() else { return Vec::new() };
    let full = matches!(plan.adapter, Adapter::Full {});
    let Some(row) = published_range(objective.as_ref(), full) else { return Vec::new() };
    if n_weights < FEWEST_WEIGHTS {
        return Vec::new();
    }
    let is_far = |found: f64, (low, high): (f64, f64)| found * FAR < low || found > high * FAR;
    let (found, source) = (plan.effective_learning_rate(), row.source);
    let rate = is_far(found, row.learning_rate).then_some(Alarm::LearningRate {
        found,
        published: row.learning_rate,
        source,
    });
    let settings = objective.settings();
    let beta = settings.get("beta").and_then(|beta| beta.as_f64()).zip(row.beta);
    let beta = beta
        .filter(|&(found, published)| is_far(found, published))
        .map(|(found, published)| Alarm::Beta { found, published, source });
    rate.into_iter().chain(beta).collect()
}
