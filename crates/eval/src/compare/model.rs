//! What a comparison holds: plain values, filled in by whoever had the images generated and scored.

use tastemaker_math::intervals::mean;

use crate::EvalError;
use crate::report::Fact;
use tastemaker_generate::prompts::Prompt;

use super::exhibits::Exhibit;

/// Models, their samples, and the scores of these.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// What the set of prompts is called.
    pub prompts_name: String,
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// What every model generated, by prompt and seed.
    pub samples: Vec<Sample>,
    /// The models; the first is the baseline.
    pub models: Vec<ComparedModel>,
    /// The scorers.
    pub scorers: Vec<ScorerFacts>,
    /// Scores, `[scorers][models][samples]`. Higher is better.
    pub scores: Vec<Vec<Vec<f64>>>,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Settings, versions, hashes and counts, printed as given.
    pub settings: Vec<Fact>,
    /// The images to show.
    pub exhibits: Vec<Exhibit>,
}

/// One image that every model generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Index of the prompt.
    pub prompt: usize,
    /// Seed of the starting noise.
    pub seed: u64,
}

/// A model, or a folder of images that were there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComparedModel {
    /// Short name, unique.
    pub name: String,
    /// What it is, as typed.
    pub what: String,
    /// How it generated, what it is made of, and the hashes of that.
    pub settings: Vec<Fact>,
}

/// One scorer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScorerFacts {
    /// Its name, unique.
    pub name: String,
    /// Unit of a score.
    pub unit: String,
}

impl Comparison {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// [`EvalError::InconsistentReport`].
    pub fn validate(&self) -> Result<(), EvalError> {
        let refuse = |what: String| Err(EvalError::InconsistentReport { what });
        let (n_models, n_samples) = (self.models.len(), self.samples.len());
        if n_models < 2 || self.scorers.is_empty() || n_samples == 0 {
            return refuse(format!(
                "{n_models} models, {} scorers and {n_samples} images each; wanted two, one and one at least",
                self.scorers.len()
            ));
        }
        for (index, model) in self.models.iter().enumerate() {
            if self.models[..index].iter().any(|earlier| earlier.name == model.name) {
                return refuse(format!("two models are named {:?}", model.name));
            }
        }
        let shape_fits = self.scores.len() == self.scorers.len()
            && self.scores.iter().all(|scores| {
                scores.len() == n_models && scores.iter().all(|scores| scores.len() == n_samples)
            });
        if !shape_fits {
            return refuse("scores of other scorers, models or images than there are".to_owned());
        }
        match self.samples.iter().find(|sample| sample.prompt >= self.prompts.len()) {
            Some(sample) => refuse(format!("an image of prompt {} of {}", sample.prompt, self.prompts.len())),
            None => Ok(()),
        }
    }

    /// Decimals that show the spread of a scorer's scores with three digits.
    pub fn decimals(&self, scorer: usize) -> usize {
        let all: Vec<f64> = self.scores[scorer].iter().flatten().copied().collect();
        let center = mean(&all).unwrap_or_default();
        let squares: Vec<f64> = all.iter().map(|score| (score - center).powi(2)).collect();
        let std = mean(&squares).unwrap_or_default().sqrt();
        if std > 0.0 { (2.0 - std.log10().floor()).clamp(1.0, 6.0) as usize } else { 2 }
    }

    /// The category of a sample's prompt.
    pub(super) fn category(&self, sample: &Sample) -> Option<&str> {
        self.prompts[sample.prompt].category.as_deref()
    }

    /// The CSS class of a model's color: the first is gray, the others take the palette in order.
    pub(super) fn color(&self, model: usize) -> String {
        const PALETTE: usize = 6;
        match model {
            0 => "c0".to_owned(),
            other => format!("c{}", (other - 1) % PALETTE + 1),
        }
    }
}
