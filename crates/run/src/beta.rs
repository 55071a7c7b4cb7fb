//! A plan's beta: in other programs' conventions, and adapted to the margins of its run.

use std::mem;

use tastemaker_math::number;
use tastemaker_math::objectives::{AutoBeta, BetaConvention, Objective, logit_of};

use crate::plan::Plan;
use crate::settings::TrainPlan;
use crate::{Problem, RunError, Warning};

/// What of a plan's settings about beta cannot be. `is_typed` says whether somebody said the method's beta.
pub(crate) fn problem(train: &TrainPlan, objective: &Objective, is_typed: bool) -> Option<Problem> {
    let (convention, known) = (train.beta_convention, objective.beta_conventions());
    let problem = |key, found: String, wanted| Some(Problem::Value { key, found, wanted });
    if convention != BetaConvention::Mean {
        let found = convention.name().to_owned();
        if known.is_empty() {
            return problem(
                "train.beta_convention",
                found,
                "mean: this method's beta multiplies no difference of errors",
            );
        }
        if !known.contains(&convention) {
            return problem(
                "train.beta_convention",
                found,
                "mean or sum: the formula of this method has no half to leave out",
            );
        }
        if !is_typed {
            let wanted = "a beta of that convention beside it (--set beta=0.001): the default of the method counts as mean";
            return problem("train.beta_convention", found, wanted);
        }
    }
    if !train.auto_beta {
        return None;
    }
    if !known.contains(&BetaConvention::NoHalf) {
        let wanted = "false: a beta follows margins where it multiplies them in Diffusion-DPO's logit, and not in this method";
        return problem("train.auto_beta", "true".to_owned(), wanted);
    }
    match (train.auto_beta_min, train.auto_beta_max) {
        (Some(least), Some(most)) if least > most => {
            problem("train.auto_beta_min", number(least), "at most auto_beta_max")
        }
        _ => None,
    }
}

impl Plan {
    /// The plan, knowing how many numbers there are in the latent of an image: its betas are then in this program's convention.
    ///
    /// # Errors
    /// [`RunError::Method`] for a beta that cannot be; [`RunError::Invalid`] for bounds of an adapted one that exclude each other.
    pub fn with_latents(self, n_elements: u64) -> Result<Self, RunError> {
        let mut plan = Self { n_elements: Some(n_elements), ..self };
        let train = &mut plan.train;
        let convention = mem::take(&mut train.beta_convention);
        if convention != BetaConvention::Mean {
            let ours = |beta: f64| convention.to_ours(beta, n_elements as usize);
            train.auto_beta_min = train.auto_beta_min.map(ours);
            train.auto_beta_max = train.auto_beta_max.map(ours);
            let objective = plan.method.objective()?;
            if let Some(beta) = objective.beta() {
                let converted = objective.with_beta(ours(beta))?;
                plan.warnings.extend(converted.warnings().into_iter().map(Warning::Method));
                plan.method.settings = converted.settings().clone();
            }
        }
        match plan.auto_beta() {
            Some(AutoBeta { range: (least, most), .. }) if least > most => {
                let (key, found) = ("train.auto_beta_min", number(least));
                let wanted =
                    "at most auto_beta_max, which is the number of a latent's elements where nothing is said";
                Err(RunError::Invalid(vec![Problem::Value { key, found, wanted }]))
            }
            _ => Ok(plan),
        }
    }

    /// The rule by which beta follows the margins of pairs, where it does and the size of latents is known.
    pub fn auto_beta(&self) -> Option<AutoBeta> {
        let TrainPlan { auto_beta, auto_beta_target_gf, auto_beta_decay, .. } = self.train;
        let n_elements = self.n_elements.filter(|_| auto_beta)?;
        let usual = AutoBeta::simple_tuner(n_elements as usize);
        let (least, most) = usual.range;
        Some(AutoBeta {
            target_logit: logit_of(auto_beta_target_gf),
            decay: auto_beta_decay,
            range: (self.train.auto_beta_min.unwrap_or(least), self.train.auto_beta_max.unwrap_or(most)),
            start: self.method.objective().ok()?.beta()?,
        })
    }

    /// What the method's beta is in each convention that other programs count it in, ours first; those of sums once the size of
    /// latents is known.
    pub fn betas(&self) -> Vec<(BetaConvention, f64)> {
        let Ok(objective) = self.method.objective() else { return Vec::new() };
        let Some(beta) = objective.beta().filter(|_| self.train.beta_convention == BetaConvention::Mean)
        else {
            return Vec::new();
        };
        let known = objective.beta_conventions().iter();
        known
            .filter(|convention| self.n_elements.is_some() || !convention.is_of_sums())
            .map(|&convention| (convention, convention.of_ours(beta, self.n_elements.unwrap_or(1) as usize)))
            .collect()
    }
}
