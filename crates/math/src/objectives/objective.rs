//! A method with its settings and with the terms that any method takes: what a run trains by.

use super::beta::BetaConvention;
use super::corruption::Corruption;
use super::entry::{Entry, Published};
use super::inputs::{Image, ImageInputs, Label, Needs, Pair, PairInputs};
use super::method::{Loss, Method};
use super::settings::SettingsError;
use super::terms::Terms;
use crate::dual::Dual;
use serde_json::Value;

/// A preference method, as a function of the errors of one pair or one image.
#[derive(Debug)]
pub struct Objective {
    entry: &'static Entry,
    method: Method,
    terms: Terms,
    settings: Value,
}

impl Objective {
    /// Builds a method from a table of its settings; `null` gives the defaults. Besides the method's own settings the table may hold
    /// `sft_weight`, `safeguard_mu` and `anchor_weight`:
    ///
    /// * `sft_weight`, a positive number, adds that much of the winner's error to the loss;
    /// * `safeguard_mu`, between 0 and 1, multiplies the derivative in the loser's error by
    ///   `clip((1 - mu) |e_w|^2 / <e_l, e_w>, 0, 1)` where the product of the residuals is positive, so that the winner's error
    ///   does not rise to first order. The loss keeps its value, and the objective needs the residual product;
    /// * `anchor_weight`, a positive number, adds that much of the mean squared distance between the policy's and the reference's outputs
    ///   on the pair's images, and the objective needs the reference and the distances.
    ///
    /// # Errors
    /// [`SettingsError`]: an unknown key with its nearest match, or a value that cannot be.
    pub fn new(entry: &'static Entry, settings: &Value) -> Result<Self, SettingsError> {
        let (own, terms) = Terms::split(settings)?;
        let (method, mut settings) = (entry.build)(&own).map_err(Terms::also_known)?;
        terms.check(&method)?;
        terms.print_into(&mut settings);
        Ok(Self { entry, method, terms, settings })
    }

    /// The kebab-case name users type.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// What has to be measured for it.
    pub fn needs(&self) -> Needs {
        self.terms.needs(self.method.needs())
    }

    /// Whether it learns from single images with a [`Label`]; pairs then count as one of each.
    pub fn is_unpaired(&self) -> bool {
        matches!(self.method, Method::Unpaired(_))
    }

    /// How noisy latents and regression targets are made.
    pub fn corruption(&self) -> Corruption {
        match &self.method {
            Method::Paired(method) => method.corruption(),
            Method::Unpaired(_) => Corruption::Forward,
        }
    }

    /// The settings in full, defaults filled in; parsing them gives the same objective.
    pub fn settings(&self) -> &Value {
        &self.settings
    }

    /// Its `beta`, where it has one.
    pub fn beta(&self) -> Option<f64> {
        self.settings.get("beta").and_then(Value::as_f64)
    }

    /// The same method with another `beta`.
    ///
    /// # Errors
    /// [`SettingsError`] for a `beta` that cannot be, or a method without one.
    pub fn with_beta(&self, beta: f64) -> Result<Self, SettingsError> {
        let mut settings = self.settings.clone();
        if let Some(settings) = settings.as_object_mut() {
            settings.insert("beta".to_owned(), beta.into());
        }
        Self::new(self.entry, &settings)
    }

    /// Whether its loss is no measure of progress, since its derivative is not that of its value.
    pub fn is_detached(&self) -> bool {
        self.entry.detached.is_some()
    }

    /// In which conventions other programs count its `beta`, ours first; empty where that is no factor of a difference of errors.
    pub fn beta_conventions(&self) -> &'static [BetaConvention] {
        self.entry.beta_conventions
    }

    /// Settings that are allowed and probably mistaken, one sentence each.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = match &self.method {
            Method::Paired(method) => method.warnings(),
            Method::Unpaired(method) => method.warnings(),
        };
        warnings.extend(self.terms.warning());
        warnings
    }

    /// What was published for training every weight, or else a LoRA, of networks that predict a flow, or not, by this method and
    /// form.
    pub fn published(&self, full: bool, flow: bool) -> Option<&'static Published> {
        let form = self.settings.get("form").and_then(Value::as_str);
        self.entry.published.iter().find(|runs| (runs.full, runs.flow, runs.form) == (full, flow, form))
    }

    /// The loss of one pair, its derivatives and its logit.
    ///
    /// # Panics
    /// If something that the objective [needs](Objective::needs) was not measured.
    pub fn of_pair(&self, inputs: &PairInputs) -> Outcome {
        let needs = self.needs();
        let pair = Pair::new(needs, inputs);
        // A pair is the mean of two images to a method of single images, and only one of the two is liked
        let (Loss { mut value, logit }, liked_fraction) = match &self.method {
            Method::Paired(method) => (method.loss(&pair), 1.0),
            Method::Unpaired(method) => {
                let of = |label, image| method.loss(label, image, inputs.mean_gain);
                let (liked, disliked) = (of(Label::Liked, &pair.winner), of(Label::Disliked, &pair.loser));
                let logit = liked.logit.zip(disliked.logit).map(|(liked, disliked)| 0.5 * (liked + disliked));
                (Loss { value: (liked.value + disliked.value) * 0.5, logit }, 0.5)
            }
        };
        let residual_factor = self.terms.residual_factor(&pair);
        value.d[1] *= residual_factor.unwrap_or(1.0);
        if let Some(imitation) = self.terms.imitation(&pair.winner) {
            value = value + imitation * liked_fraction;
        }
        let outcome = Outcome::new(value, logit, residual_factor);
        let Some((winner, loser)) = needs.distance.then(|| given(inputs.distances)) else { return outcome };
        match needs.loser {
            true => outcome.anchored(winner + loser, self.terms.distance_weight(2)),
            false => outcome.anchored(winner, self.terms.distance_weight(1)),
        }
    }

    /// The loss of one labeled image, its derivative and its logit.
    ///
    /// # Panics
    /// If the objective is not [unpaired](Objective::is_unpaired), or the reference's error was not measured.
    pub fn of_image(&self, inputs: &ImageInputs) -> Outcome {
        let Method::Unpaired(method) = &self.method else {
            panic!("{} learns from pairs and was given a single image", self.name())
        };
        let needs = self.needs();
        let image = Image::new(needs, Dual::winner(inputs.error), inputs.reference);
        let Loss { mut value, logit } = method.loss(inputs.label, &image, inputs.mean_gain);
        if let (Label::Liked, Some(imitation)) = (inputs.label, self.terms.imitation(&image)) {
            value = value + imitation;
        }
        let outcome = Outcome::new(value, logit, None);
        match needs.distance {
            true => outcome.anchored(given(inputs.distance), self.terms.distance_weight(1)),
            false => outcome,
        }
    }
}

/// An objective at one pair or one image, as plain numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// The loss.
    pub loss: f64,
    /// Derivative of the loss with respect to the winner's error, or the only image's: its weight in back-propagation.
    pub d_winner: f64,
    /// Derivative of the loss with respect to the loser's error; 0 for a single image.
    pub d_loser: f64,
    /// Derivative of the loss with respect to the distance of the policy's output from the reference's, of each image that takes part;
    /// 0 without an anchor.
    pub d_distance: f64,
    /// The number inside the sigmoid, positive where the model sides with the label; `None` without such a number.
    pub logit: Option<f64>,
    /// What the derivative in the loser's error was multiplied with, 0 to 1, where a safeguard holds losers back.
    pub residual_factor: Option<f64>,
}

impl Outcome {
    fn new(loss: Dual, logit: Option<f64>, residual_factor: Option<f64>) -> Self {
        let Dual { value: loss, d: [d_winner, d_loser] } = loss;
        Self { loss, d_winner, d_loser, d_distance: 0.0, logit, residual_factor }
    }

    /// With an anchor: the sum of the distances that take part, and the weight of each.
    fn anchored(self, distances: f64, weight: f64) -> Self {
        Self { loss: self.loss + weight * distances, d_distance: weight, ..self }
    }
}

/// What was measured for an anchor.
fn given<T>(distances: Option<T>) -> T {
    distances.expect("the objective needs the outputs' distances, which were not measured")
}
