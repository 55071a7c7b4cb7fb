//! What a method is: a loss of pairs, or a loss of single labeled images.

use super::corruption::Corruption;
use super::inputs::{Image, Label, MeanGain, Needs, Pair};
use super::settings::{self, Settings, SettingsError};
use crate::dual::Dual;
use serde_json::Value;
use std::fmt::Debug;

/// The loss of one pair or of one image, differentiable in the errors.
#[derive(Clone, Copy, Debug)]
pub struct Loss {
    /// The loss.
    pub value: Dual,
    /// The number inside the sigmoid, positive where the model sides with the label; `None` without such a number.
    pub logit: Option<f64>,
}

/// A method of pairs.
///
/// Loss of a batch: the mean of the pairs' losses. A link function applies once per pair, never to single elements
/// of an image and never to a batch mean; that is why a method sees one pair at a time.
pub trait Paired: Debug + Send + Sync {
    /// What it has to be given.
    fn needs(&self) -> Needs;

    /// How noisy latents and regression targets are made.
    fn corruption(&self) -> Corruption {
        Corruption::Forward
    }

    /// The loss of one pair.
    fn loss(&self, pair: &Pair) -> Loss;

    /// Settings that are allowed and probably mistaken, one sentence each.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A method of single images, each liked or disliked, relative to a frozen reference. A pair is one of each to it.
pub trait Unpaired: Debug + Send + Sync {
    /// Over which images the mean gain is taken.
    fn mean_gain(&self) -> MeanGain;

    /// The loss of one image.
    fn loss(&self, label: Label, image: &Image, mean_gain: f64) -> Loss;

    /// As [`Paired::warnings`].
    fn warnings(&self) -> Vec<String>;
}

/// A method of either kind, with its settings.
#[derive(Debug)]
pub enum Method {
    /// It learns from pairs.
    Paired(Box<dyn Paired>),
    /// It learns from single images.
    Unpaired(Box<dyn Unpaired>),
}

impl Method {
    /// What it has to be given.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Paired(method) => method.needs(),
            Self::Unpaired(method) => Needs { mean_gain: method.mean_gain(), ..Needs::REFERENCE },
        }
    }
}

/// A method, and its settings as they are printed: in full, defaults filled in.
pub type Built = (Method, Value);

/// Builds a method of pairs from a table of its settings, which are the method.
pub fn paired<M: Settings + Paired + 'static>(typed: &Value) -> Result<Built, SettingsError> {
    let method: M = settings::parse(typed)?;
    let printed = settings::print(&method);
    Ok((Method::Paired(Box::new(method)), printed))
}

/// As [`paired`], for a method of single images.
pub fn unpaired<M: Settings + Unpaired + 'static>(typed: &Value) -> Result<Built, SettingsError> {
    let method: M = settings::parse(typed)?;
    let printed = settings::print(&method);
    Ok((Method::Unpaired(Box::new(method)), printed))
}
