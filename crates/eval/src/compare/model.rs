//! What a comparison holds: plain values, filled in by whoever had the images generated and scored.

use tastemaker_math::intervals::mean;

use crate::EvalError;
use crate::prompts::Prompt;
use crate::report::Fact;

use super::exhibits::Exhibit;

/// Contestants, what they were asked, and what scorers say about their answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Contest {
    /// What the set of prompts is called.
    pub prompts_name: String,
    /// The prompts asked.
    pub prompts: Vec<Prompt>,
    /// What everybody generated, by prompt and seed.
    pub questions: Vec<Question>,
    /// Who generated; the first is the one that the others are measured by.
    pub contestants: Vec<Contestant>,
    /// Who scored.
    pub scorers: Vec<ScorerFacts>,
    /// Scores, `[scorers][contestants][questions]`. Higher is better.
    pub scores: Vec<Vec<Vec<f64>>>,
    /// Seed of the bootstrap.
    pub seed: u64,
    /// Settings, versions, hashes and counts, printed as given.
    pub settings: Vec<Fact>,
    /// The images to show.
    pub exhibits: Vec<Exhibit>,
}

/// One image that everybody generated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Index of the prompt.
    pub prompt: usize,
    /// Seed of the starting noise.
    pub seed: u64,
}

/// One that generated, or whose images were there already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contestant {
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

impl Contest {
    /// Checks that the parts belong together.
    ///
    /// # Errors
    /// [`EvalError::InconsistentReport`].
    pub fn validate(&self) -> Result<(), EvalError> {
        let refuse = |what: String| Err(EvalError::InconsistentReport { what });
        let (n_contestants, n_questions) = (self.contestants.len(), self.questions.len());
        if n_contestants < 2 || self.scorers.is_empty() || n_questions == 0 {
            return refuse(format!(
                "{n_contestants} contestants, {} scorers and {n_questions} images each; wanted two, one and one at least",
                self.scorers.len()
            ));
        }
        for (index, contestant) in self.contestants.iter().enumerate() {
            if self.contestants[..index].iter().any(|earlier| earlier.name == contestant.name) {
                return refuse(format!("two contestants are named {:?}", contestant.name));
            }
        }
        let shape_fits = self.scores.len() == self.scorers.len()
            && self.scores.iter().all(|scores| {
                scores.len() == n_contestants && scores.iter().all(|scores| scores.len() == n_questions)
            });
        if !shape_fits {
            return refuse("scores of other scorers, contestants or images than there are".to_owned());
        }
        match self.questions.iter().find(|question| question.prompt >= self.prompts.len()) {
            Some(question) => {
                refuse(format!("an image of prompt {} of {}", question.prompt, self.prompts.len()))
            }
            None => Ok(()),
        }
    }

    /// Decimals that show the spread of a scorer's scores with three digits.
    pub fn decimals(&self, scorer: usize) -> usize {
        let all: Vec<f64> = self.scores[scorer].iter().flatten().copied().collect();
        let center = mean(&all).unwrap_or_default();
        let squares: Vec<f64> = all.iter().map(|score| (score - center).powi(2)).collect();
        let deviation = mean(&squares).unwrap_or_default().sqrt();
        if deviation > 0.0 { (2.0 - deviation.log10().floor()).clamp(1.0, 6.0) as usize } else { 2 }
    }

    /// The category of a question's prompt.
    pub(super) fn category(&self, question: &Question) -> Option<&str> {
        self.prompts[question.prompt].category.as_deref()
    }

    /// The CSS class of a contestant's color: the first is gray, the others take the palette in order.
    pub(super) fn color(&self, contestant: usize) -> String {
        const PALETTE: usize = 6;
        match contestant {
            0 => "c0".to_owned(),
            other => format!("c{}", (other - 1) % PALETTE + 1),
        }
    }
}
