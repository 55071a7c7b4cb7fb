//! What a comparison holds: plain values, filled in by whoever had the images generated and scored.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use tastemaker_math::intervals::mean;
use tastemaker_pages::{Fact, Markup, Section, Thumbnail, color};

use crate::EvalError;
use tastemaker_generate::prompts::Prompt;

/// Models, what they generated, and how scorers score it.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison {
    /// Name of the set of prompts.
    pub prompts_name: String,
    /// The prompts.
    pub prompts: Vec<Prompt>,
    /// What every model generated, by prompt and seed.
    pub samples: Vec<Sample>,
    /// The models; the first is the baseline.
    pub models: Vec<ComparedModel>,
    /// The scorers.
    pub scorers: Vec<ScorerInfo>,
    /// Scores, `[scorers][models][samples]`. Higher is better.
    pub scores: Vec<Vec<Vec<f64>>>,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Settings, versions, hashes and counts, printed as given.
    pub settings: Vec<Fact>,
    /// The images to show.
    pub shown: Vec<ShownSample>,
    /// The category that overall results are about; `None` for all prompts.
    pub focus: Option<String>,
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

/// A scorer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScorerInfo {
    /// Its name, unique.
    pub name: String,
    /// Unit of a score.
    pub unit: String,
    /// What a score says, without a period at the end; empty where nothing is to be said.
    pub about: String,
}

/// A sample with the images of every model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownSample {
    /// Index of the sample.
    pub sample: usize,
    /// Why it is shown.
    pub choice: Choice,
    /// A real image of the prompt, where there is one.
    pub real: Option<Thumbnail>,
    /// The images, by model.
    pub images: Vec<Thumbnail>,
}

/// Why a sample is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// One of every so many, whatever it looks like.
    Spread,
    /// One of those where the last model gains most on the baseline.
    Gain,
    /// One of those where it loses most.
    Loss,
}

/// What a report has beyond the comparison.
#[derive(Clone, Debug)]
pub struct Extras {
    /// The command: `compare`, `demo`.
    pub command: &'static str,
    /// The heading, in place of the names of the models.
    pub heading: Option<String>,
    /// Sentences for the lede, after the headline.
    pub lede: String,
    /// A line for the card of each model, by its index.
    pub cards: Vec<String>,
    /// Paragraphs for "How to read this page".
    pub reading: Markup,
    /// Sections before the win rates.
    pub before: Vec<Section>,
    /// Sections before the settings.
    pub after: Vec<Section>,
    /// Fields of the summary.
    pub summary: Map<String, Value>,
}

impl Extras {
    /// None.
    pub fn none(command: &'static str) -> Self {
        Self {
            command,
            heading: None,
            lede: String::new(),
            cards: Vec::new(),
            reading: Markup::default(),
            before: Vec::new(),
            after: Vec::new(),
            summary: Map::new(),
        }
    }
}

impl Comparison {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// [`EvalError::InconsistentReport`].
    pub fn validate(&self) -> Result<(), EvalError> {
        let refuse = |what: String| Err(EvalError::InconsistentReport { what });
        let (n_models, n_samples) = (self.models.len(), self.samples.len());
        if n_models == 0 || self.scorers.is_empty() || n_samples == 0 {
            let n_scorers = self.scorers.len();
            return refuse(format!(
                "{n_models} models, {n_scorers} scorers and {n_samples} images each; wanted one of each at least"
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
        if let Some(sample) = self.samples.iter().find(|sample| sample.prompt >= self.prompts.len()) {
            return refuse(format!("an image of prompt {} of {}", sample.prompt, self.prompts.len()));
        }
        match &self.focus {
            Some(focus) if self.focused().is_empty() => refuse(format!("no prompt of category {focus:?}")),
            _ => Ok(()),
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

    /// Number of prompts among the samples.
    pub fn n_prompts(&self) -> usize {
        self.samples.iter().map(|sample| sample.prompt).collect::<BTreeSet<_>>().len()
    }

    /// Name of the baseline.
    pub fn baseline(&self) -> &str {
        &self.models[0].name
    }

    /// The category of a sample's prompt.
    pub(super) fn category(&self, sample: &Sample) -> Option<&str> {
        self.prompts[sample.prompt].category.as_deref()
    }

    /// The samples of a category, `None` being all.
    pub(super) fn within(&self, category: Option<&str>) -> Vec<usize> {
        let is_within = |&index: &usize| {
            category.is_none_or(|category| self.category(&self.samples[index]) == Some(category))
        };
        (0..self.samples.len()).filter(is_within).collect()
    }

    /// The samples that overall results are about.
    pub(super) fn focused(&self) -> Vec<usize> {
        self.within(self.focus.as_deref())
    }

    /// Score minus that of the baseline for the same sample.
    pub(super) fn gain(&self, scorer: usize, model: usize, sample: usize) -> f64 {
        self.scores[scorer][model][sample] - self.scores[scorer][0][sample]
    }

    /// A model's name after a dot of its color: the baseline is gray, the others take the palette in order.
    pub(super) fn label(&self, model: usize) -> Markup {
        tastemaker_pages::named(&color(model), &self.models[model].name)
    }
}
