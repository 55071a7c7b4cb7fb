//! A plan against the settings that papers and their code used, which stand in the list of objectives.

use super::Alarm;
use crate::{Adapter, Plan};

/// Published rates were found on networks of 860 million weights and more; a smaller one takes larger rates.
const FEWEST_WEIGHTS: u64 = 500_000_000;

/// A value beyond the range by this factor is far from it.
const FAR: f64 = 3.0;

/// What of a plan is beyond the published range by more than a factor of three, for a network of `n_weights` that predicts a flow or
/// not; nothing for a method without published settings, or a network much smaller than theirs.
pub fn outside_published(plan: &Plan, n_weights: u64, flow: bool) -> Vec<Alarm> {
    let Ok(objective) = plan.method.objective() else { return Vec::new() };
    let full = matches!(plan.adapter, Adapter::Full {});
    let Some(published) = objective.published(full, flow) else { return Vec::new() };
    if n_weights < FEWEST_WEIGHTS {
        return Vec::new();
    }
    let is_far = |found: f64, (low, high): (f64, f64)| found * FAR < low || found > high * FAR;
    let (found, source) = (plan.effective_learning_rate(), published.source);
    let rate = is_far(found, published.learning_rate).then_some(Alarm::LearningRate {
        found,
        published: published.learning_rate,
        source,
    });
    let beta = objective.settings().get("beta").and_then(|beta| beta.as_f64()).zip(published.beta);
    let beta = beta
        .filter(|&(found, published)| is_far(found, published))
        .map(|(found, published)| Alarm::Beta { found, published, source });
    rate.into_iter().chain(beta).collect()
}
