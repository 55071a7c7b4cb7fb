//! Rank and alpha of each layer of an adapter.

use std::collections::BTreeMap;

use crate::names::answers_to;

/// The rank and the alpha that most layers share, and those of the layers that differ.
///
/// Keys of the patterns are ends of names, or whole names after `^`; of several that fit a layer the first in alphabetical
/// order counts, which is the order diffusers stores them in.
///
/// Source: `rank_pattern` and `alpha_pattern` of `LoraConfig` in `huggingface/peft:src/peft/tuners/lora/config.py`.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranks {
    /// Rank of layers no pattern fits.
    pub rank: i64,
    /// Numerator of the scale alpha / rank, of layers no pattern fits.
    pub alpha: f64,
    /// Other ranks, by names of layers.
    pub rank_pattern: BTreeMap<String, i64>,
    /// Other alphas, by names of layers.
    pub alpha_pattern: BTreeMap<String, f64>,
}

/// The largest alpha that is believed, on either side of 0: those of published adapters are at most some hundred.
pub const MAX_ALPHA: f64 = 1e6;

impl Ranks {
    /// The same for all layers.
    pub fn uniform(rank: i64, alpha: f64) -> Self {
        Self { rank, alpha, rank_pattern: BTreeMap::new(), alpha_pattern: BTreeMap::new() }
    }

    /// From the rank and alpha of every layer: what is commonest, and whole names for the rest.
    pub fn of_layers<'a>(layers: impl Iterator<Item = (&'a str, i64, f64)> + Clone) -> Self {
        let rank = commonest(layers.clone().map(|(_, rank, _)| rank)).unwrap_or(1);
        let alpha = commonest(layers.clone().map(|(_, _, alpha)| alpha)).unwrap_or(1.0);
        let other_rank = layers.clone().filter(|(_, other, _)| *other != rank);
        let other_alpha = layers.filter(|(_, _, other)| *other != alpha);
        Self {
            rank,
            alpha,
            rank_pattern: other_rank.map(|(layer, rank, _)| (layer.to_owned(), rank)).collect(),
            alpha_pattern: other_alpha.map(|(layer, _, alpha)| (layer.to_owned(), alpha)).collect(),
        }
    }

    /// The rank of a layer.
    pub fn rank(&self, layer: &str) -> i64 {
        first(&self.rank_pattern, layer).unwrap_or(self.rank)
    }

    /// The alpha of a layer.
    pub fn alpha(&self, layer: &str) -> f64 {
        first(&self.alpha_pattern, layer).unwrap_or(self.alpha)
    }

    /// The scale of a layer's update, alpha / rank.
    pub fn scale(&self, layer: &str) -> f64 {
        self.alpha(layer) / self.rank(layer) as f64
    }

    /// Whether all layers are alike.
    pub fn is_uniform(&self) -> bool {
        self.rank_pattern.is_empty() && self.alpha_pattern.is_empty()
    }

    /// Keys of the patterns that none of the layers answers to.
    pub fn idle<'a>(&self, layers: impl Iterator<Item = &'a str> + Clone) -> Vec<String> {
        let keys = self.rank_pattern.keys().chain(self.alpha_pattern.keys());
        keys.filter(|key| !layers.clone().any(|layer| answers_to(layer, key))).cloned().collect()
    }
}

fn first<T: Copy>(pattern: &BTreeMap<String, T>, layer: &str) -> Option<T> {
    pattern.iter().find(|(key, _)| answers_to(layer, key)).map(|(_, value)| *value)
}

/// The value that occurs most often; of several the one that comes first.
fn commonest<T: Copy + PartialEq>(values: impl Iterator<Item = T>) -> Option<T> {
    let mut counts: Vec<(T, usize)> = Vec::new();
    for value in values {
        match counts.iter_mut().find(|(seen, _)| *seen == value) {
            Some((_, n)) => *n += 1,
            None => counts.push((value, 1)),
        }
    }
    let most = counts.iter().map(|(_, n)| *n).max()?;
    counts.into_iter().find(|(_, n)| *n == most).map(|(value, _)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_ends_of_names_and_after_a_caret_whole_names() {
        let ranks = Ranks {
            rank_pattern: [("conv1".to_owned(), 2), ("^conv_in".to_owned(), 3)].into(),
            alpha_pattern: [("resnets.0.conv1".to_owned(), 1.0)].into(),
            ..Ranks::uniform(8, 4.0)
        };
        for (layer, rank, alpha) in [
            ("mid_block.resnets.0.conv1", 2, 1.0),
            ("mid_block.resnets.1.conv1", 2, 4.0),
            ("mid_block.resnets.1.xconv1", 8, 4.0),
            ("conv_in", 3, 4.0),
            ("mid_block.conv_in", 8, 4.0),
        ] {
            assert_eq!((ranks.rank(layer), ranks.alpha(layer)), (rank, alpha), "{layer}");
        }
        assert_eq!(ranks.scale("mid_block.resnets.0.conv1"), 0.5);
        assert_eq!(ranks.idle(["x.conv1", "conv_in"].into_iter()), ["resnets.0.conv1"]);
    }

    #[test]
    fn what_layers_share_comes_first_and_exceptions_have_whole_names() {
        let layers = [("a.q", 4, 4.0), ("a.conv", 2, 1.0), ("b.q", 4, 1.0)];
        let ranks = Ranks::of_layers(layers.into_iter());
        assert_eq!((ranks.rank, ranks.alpha), (4, 1.0));
        assert!(
            layers
                .iter()
                .all(|&(layer, rank, alpha)| (ranks.rank(layer), ranks.alpha(layer)) == (rank, alpha))
        );
        assert_eq!(ranks.rank_pattern.len() + ranks.alpha_pattern.len(), 2);
        assert!(Ranks::of_layers([("a", 4, 2.0), ("b", 4, 2.0)].into_iter()).is_uniform());
    }
}
