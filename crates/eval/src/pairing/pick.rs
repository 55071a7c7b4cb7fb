//! Which images of a prompt become pairs.

use serde::{Deserialize, Serialize};
use tastemaker_math::keyed::Keyed;

/// Which images of a prompt are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pick {
    /// The best with the worst.
    BestWorst,
    /// The best with one of the others, drawn.
    BestRandom,
    /// Every two.
    All,
    /// Each with the next worse one.
    Adjacent,
}

/// Two images of a prompt.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice {
    /// Number of the better one; of two that score the same, the first.
    pub winner: usize,
    /// Number of the other one.
    pub loser: usize,
    /// Score of the better one minus that of the other, at least 0.
    pub gap: f64,
}

impl Choice {
    /// Whether nobody won: the scores are equal, or nearer than this.
    pub fn is_tie(&self, min_gap: f64) -> bool {
        self.gap == 0.0 || self.gap < min_gap
    }
}

/// The pairs of a prompt by the scores of its images; none of fewer than two images.
///
/// Images of equal scores keep their order. `keyed` draws for [`Pick::BestRandom`].
pub fn choose(scores: &[f64], pick: Pick, keyed: &mut Keyed) -> Vec<Choice> {
    let mut ranked: Vec<usize> = (0..scores.len()).collect();
    ranked.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
    let last = match ranked.len().checked_sub(1) {
        None | Some(0) => return Vec::new(),
        Some(last) => last,
    };
    let places: Vec<(usize, usize)> = match pick {
        Pick::BestWorst => vec![(0, last)],
        Pick::BestRandom => vec![(0, 1 + keyed.below(last as u64) as usize)],
        Pick::All => {
            (0..last).flat_map(|better| (better + 1..=last).map(move |other| (better, other))).collect()
        }
        Pick::Adjacent => (0..last).map(|better| (better, better + 1)).collect(),
    };
    let choice = |(better, other): (usize, usize)| {
        let (winner, loser) = (ranked[better], ranked[other]);
        Choice { winner, loser, gap: scores[winner] - scores[loser] }
    };
    places.into_iter().map(choice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tastemaker_math::keyed::Stream;

    fn pairs(scores: &[f64], pick: Pick) -> Vec<(usize, usize)> {
        let chosen = choose(scores, pick, &mut Keyed::new(1, Stream::Data, 0, 0));
        chosen.iter().map(|choice| (choice.winner, choice.loser)).collect()
    }

    #[test]
    fn the_better_image_wins_in_every_way_of_picking() {
        let scores = [0.2, 0.9, -1.0, 0.5];
        assert_eq!(pairs(&scores, Pick::BestWorst), [(1, 2)]);
        assert_eq!(pairs(&scores, Pick::Adjacent), [(1, 3), (3, 0), (0, 2)]);
        assert_eq!(pairs(&scores, Pick::All), [(1, 3), (1, 0), (1, 2), (3, 0), (3, 2), (0, 2)]);
    }

    #[test]
    fn the_best_meets_every_other_one_alike() {
        let mut met = [0; 4];
        for index in 0..3000 {
            let mut keyed = Keyed::new(1, Stream::Data, index, 0);
            let chosen = choose(&[0.0, 3.0, 1.0, 2.0], Pick::BestRandom, &mut keyed);
            assert_eq!((chosen.len(), chosen[0].winner), (1, 1));
            met[chosen[0].loser] += 1;
        }
        assert!(met[1] == 0 && [met[0], met[2], met[3]].iter().all(|n| (900..1100).contains(n)), "{met:?}");
    }

    #[test]
    fn equal_scores_are_ties_and_so_are_gaps_below_the_least() {
        let chosen =
            |scores: &[f64]| choose(scores, Pick::BestWorst, &mut Keyed::new(1, Stream::Data, 0, 0))[0];
        assert!(chosen(&[1.0, 1.0]).is_tie(0.0));
        assert!(!chosen(&[1.0, 1.5]).is_tie(0.5));
        assert!(chosen(&[1.0, 1.5]).is_tie(0.6));
        assert_eq!((chosen(&[1.0, 1.0]).winner, chosen(&[1.0, 1.0]).loser), (0, 1));
    }

    #[test]
    fn one_image_is_no_pair() {
        for pick in [Pick::BestWorst, Pick::BestRandom, Pick::All, Pick::Adjacent] {
            assert!(pairs(&[1.0], pick).is_empty() && pairs(&[], pick).is_empty());
        }
    }
}
