//! A small learned scorer: which of two images of one caption would whoever ranked the pairs prefer?
//!
//! Every image gets a score, and the difference of two scores is read as the log-odds that the first is preferred
//! (Bradley and Terry). The score is linear in fixed [`features`](super::features) of the image and, where a judge is
//! at hand, in how surely the judge sees the wanted caption in it:
//!
//! `score(image, caption) = weights . features(image) + weight * evidence(image, caption)`.
//!
//! The weights minimize the mean of `-ln sigmoid(score(winner) - score(loser))` over the training pairs plus
//! `L2 / 2 * |weights|^2`. No network under test has a say in it; how far the scorer can be trusted is measured by
//! [`check_preference`](super::check_preference), and belongs in every report that quotes it.

use super::features::{FEATURES, PALETTE, describe_with_palette};
use super::logistic::{dot, fit_differences};
use super::nearest_art::{Judge, Reading};
use super::self_check::Disturbance;
use crate::DemoError;
use image::RgbImage;
use std::collections::{BTreeSet, HashMap};
use tastemaker_math::{Keyed, Stream};

/// Weight of the penalty on large weights; accuracy on skipped training captions is flat from 1e-4 to 1e-3.
pub const L2: f64 = 3e-4;

/// Of so many ranked pairs, one is learned in a [degraded](degrade) copy as well.
const DEGRADED_EVERY: usize = 3;

/// Log probability of a caption, in nats, below which the evidence for it falls no further. It also stands for
/// captions without any artwork, whose log probability is minus infinity.
const LEAST_CAPTION_SCORE: f64 = -10.0;

/// What the score is linear in: the features of the image, its palette, the evidence for its caption.
const INPUTS: usize = FEATURES + PALETTE + 1;

/// Two images of one caption, the better one known.
#[derive(Clone, Copy, Debug)]
pub struct RankedImages<'a> {
    /// The image that was preferred.
    pub winner: &'a RgbImage,
    /// The other one, of the same size.
    pub loser: &'a RgbImage,
    /// Index of the caption both answer.
    pub caption: usize,
}

/// A linear preference scorer; see the [module](self).
#[derive(Clone, Debug)]
pub struct PreferenceScorer<'a> {
    weights: Vec<f64>, // [INPUTS]
    judge: Option<&'a Judge>,
    train_captions: BTreeSet<usize>,
    n_train_pairs: usize,
}

/// Name of the scorer.
pub const NAME: &str = "preference";

/// What its scores say.
pub const SUMMARY: &str = "how much likelier an image is to be preferred to another, by a small linear model that learned this from \
                           ranked pairs of real art and saw none of the held-out captions";

/// Unit of its scores.
pub const UNIT: &str = "nats of log-odds of being preferred";

impl<'a> PreferenceScorer<'a> {
    /// Learns from ranked pairs, a third of them also in a degraded copy drawn by `seed`.
    ///
    /// With a `judge`, the score also weighs whether the image shows its caption; it learns how much that matters only from
    /// pairs whose losers show something else.
    ///
    /// # Errors
    /// No pairs, a caption that is not one of `n_captions` or that the judge does not have, or two images of different sizes.
    pub fn fit(
        pairs: &[RankedImages<'_>],
        n_captions: usize,
        judge: Option<&'a Judge>,
        seed: u64,
    ) -> Result<Self, DemoError> {
        if pairs.is_empty() {
            return Err(DemoError::NoRankedPairs);
        }
        let n_captions = judge.map_or(n_captions, |judge| judge.n_captions().min(n_captions));
        for &RankedImages { winner, loser, caption } in pairs {
            let refuse = |what| Err(DemoError::RankedPair { caption, what });
            if caption >= n_captions {
                return refuse(format!("has none of the {n_captions} captions of the scorer"));
            }
            let ((w, h), (to_w, to_h)) = (winner.dimensions(), loser.dimensions());
            if (w, h) != (to_w, to_h) {
                return refuse(format!(
                    "has a winner of {w} x {h} and a loser of {to_w} x {to_h} pixels: both must be of one size"
                ));
            }
        }
        Ok(Self {
            weights: fit_differences(&differences(pairs, judge, seed)?, L2),
            judge,
            train_captions: pairs.iter().map(|pair| pair.caption).collect(),
            n_train_pairs: pairs.len(),
        })
    }

    /// The score of an image for a caption. Higher is better.
    ///
    /// # Units
    /// Nats, up to a constant: only differences between images of one caption mean something.
    ///
    /// # Panics
    /// If there is a judge and it does not know `caption`.
    pub fn score_image(&self, image: &RgbImage, caption: usize) -> f64 {
        let (features, palette) = describe_with_palette(image);
        let reading = self.judge.map(|judge| judge.read_described(&features));
        dot(&inputs(&features, &palette, reading.as_ref(), caption), &self.weights)
    }

    /// The score of an image together with a judge's reading of it, for callers that need both.
    pub(super) fn score_and_read(&self, image: &RgbImage, caption: usize, judge: &Judge) -> (f64, Reading) {
        let (features, palette) = describe_with_palette(image);
        let reading = judge.read_described(&features);
        let evidence = self.judge.is_some().then_some(&reading);
        (dot(&inputs(&features, &palette, evidence, caption), &self.weights), reading)
    }

    /// Number of ranked pairs it learned from, degraded copies not counted.
    pub fn n_train_pairs(&self) -> usize {
        self.n_train_pairs
    }

    /// Whether it learned from any pair of this caption.
    pub fn learned_from(&self, caption: usize) -> bool {
        self.train_captions.contains(&caption)
    }
}

/// `[INPUTS]`; the evidence runs from -1 (another motif) to 0 (this one for certain), and is 0 without a reading.
fn inputs(features: &[f32], palette: &[f32], reading: Option<&Reading>, caption: usize) -> Vec<f32> {
    let score = reading.map_or(0.0, |reading| reading.caption_score(caption));
    let evidence = score.max(LEAST_CAPTION_SCORE) / -LEAST_CAPTION_SCORE;
    let mut inputs = Vec::with_capacity(INPUTS);
    inputs.extend_from_slice(features);
    inputs.extend_from_slice(palette);
    inputs.push(evidence as f32);
    inputs
}

/// Inputs of winner minus loser: of every pair, then of the degraded copies. `[n][INPUTS]`.
fn differences(
    pairs: &[RankedImages<'_>],
    judge: Option<&Judge>,
    seed: u64,
) -> Result<Vec<Vec<f32>>, DemoError> {
    let degraded = pairs
        .iter()
        .zip(0..)
        .step_by(DEGRADED_EVERY)
        .map(|(pair, index)| Ok((degrade(pair, index, seed)?, pair.caption)))
        .collect::<Result<Vec<_>, DemoError>>()?;
    let copies =
        degraded.iter().map(|((winner, loser), caption)| RankedImages { winner, loser, caption: *caption });
    let all: Vec<RankedImages<'_>> = pairs.iter().copied().chain(copies).collect();

    // An image usually takes part in several pairs: for each caption it is described once.
    let mut jobs: Vec<(&RgbImage, usize)> = Vec::new();
    let mut places: HashMap<(*const RgbImage, usize), usize> = HashMap::new();
    for &RankedImages { winner, loser, caption } in &all {
        for image in [winner, loser] {
            places.entry((image, caption)).or_insert_with(|| {
                jobs.push((image, caption));
                jobs.len() - 1
            });
        }
    }
    let inputs = inputs_of_all(&jobs, judge);
    let difference = |&RankedImages { winner, loser, caption }: &RankedImages<'_>| {
        let of = |image: *const RgbImage| &inputs[places[&(image, caption)]];
        of(winner).iter().zip(of(loser)).map(|(winner, loser)| winner - loser).collect()
    };
    Ok(all.iter().map(difference).collect())
}

/// Inputs of every (image, caption), on all cores: describing is nearly all the work of a fit.
fn inputs_of_all(jobs: &[(&RgbImage, usize)], judge: Option<&Judge>) -> Vec<Vec<f32>> {
    let n_threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let parts: Vec<_> = jobs
            .chunks(jobs.len().div_ceil(n_threads))
            .map(|part| scope.spawn(move || inputs_of_part(part, judge)))
            .collect();
        let done = |part: std::thread::ScopedJoinHandle<'_, Vec<Vec<f32>>>| {
            part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        parts.into_iter().flat_map(done).collect()
    })
}

fn inputs_of_part(jobs: &[(&RgbImage, usize)], judge: Option<&Judge>) -> Vec<Vec<f32>> {
    const READ_AT_ONCE: usize = 8;
    let mut all = Vec::with_capacity(jobs.len());
    for jobs in jobs.chunks(READ_AT_ONCE) {
        let described: Vec<_> = jobs.iter().map(|(image, _)| describe_with_palette(image)).collect();
        let features: Vec<&[f32]> = described.iter().map(|(features, _)| features.as_slice()).collect();
        let readings = judge.map(|judge| judge.read_all_described(&features));
        for (place, (&(_, caption), (features, palette))) in jobs.iter().zip(&described).enumerate() {
            let reading = readings.as_ref().map(|readings| &readings[place]);
            all.push(inputs(features, palette, reading, caption));
        }
    }
    all
}

/// Both images in a worse state, the winner still the better one: disturbed in every way at once, or blended
/// with each other a quarter apart, sharp or blurred. Which of these is drawn by (`seed`, `index`).
///
/// A model generates neither crisp art nor one style at a time, so a scorer that knew nothing else would be asked about
/// images unlike any it has learned from.
fn degrade(pair: &RankedImages<'_>, index: u64, seed: u64) -> Result<(RgbImage, RgbImage), DemoError> {
    let &RankedImages { winner, loser, .. } = pair;
    let mut keyed = Keyed::new(seed, Stream::Data, index, 0);
    let how = keyed.below(3);
    let quarters = keyed.below(4) as f32;
    let disturb = |disturbance: Disturbance, better: &RgbImage, worse: &RgbImage| {
        Ok((disturbance.apply(better, index)?, disturbance.apply(worse, index)?))
    };
    let better = blend(loser, winner, (quarters + 1.0) / 4.0);
    let worse = blend(loser, winner, quarters / 4.0);
    match how {
        0 => disturb(Disturbance::Everything, winner, loser),
        1 => disturb(Disturbance::Blur { sigma: 1.5 }, &better, &worse),
        _ => Ok((better, worse)),
    }
}

/// The image that lies `fraction` of the way from one to the other, value by value; both are of one size.
pub(super) fn blend(from: &RgbImage, to: &RgbImage, fraction: f32) -> RgbImage {
    let mut blended = from.clone();
    for (value, &to) in blended.iter_mut().zip(to.iter()) {
        *value = (f32::from(*value) * (1.0 - fraction) + f32::from(to) * fraction).round() as u8;
    }
    blended
}

#[cfg(test)]
mod tests {
    use super::super::nearest_art::Artwork;
    use super::*;
    use image::Rgb;

    /// A disc at `x` on white.
    fn disc(x: f32, color: [u8; 3]) -> RgbImage {
        RgbImage::from_fn(64, 64, |to_x, to_y| {
            let inside = (to_x as f32 - x).hypot(to_y as f32 - 32.0) < 12.0;
            Rgb(if inside { color } else { [255; 3] })
        })
    }

    const RED: [u8; 3] = [220, 30, 30];
    const BLUE: [u8; 3] = [30, 60, 220];

    /// Left, middle, right.
    const N_CAPTIONS: usize = 3;

    /// Discs left and right, red and blue: the art a preference for red is learned from.
    fn discs() -> Vec<[RgbImage; 2]> {
        [16.0, 48.0].map(|x| [disc(x, RED), disc(x, BLUE)]).to_vec()
    }

    fn red_over_blue(discs: &[[RgbImage; 2]]) -> Vec<RankedImages<'_>> {
        let pair = |at: usize, caption| RankedImages { winner: &discs[at][0], loser: &discs[at][1], caption };
        vec![pair(0, 0), pair(1, 2)]
    }

    #[test]
    fn a_preference_carries_over_to_a_caption_never_ranked() {
        let art = discs();
        let scorer = PreferenceScorer::fit(&red_over_blue(&art), N_CAPTIONS, None, 0).unwrap();
        let (red, blue) = (disc(32.0, RED), disc(32.0, BLUE));
        assert!(scorer.score_image(&red, 1) > scorer.score_image(&blue, 1) + 0.5);
        assert!(scorer.learned_from(0) && !scorer.learned_from(1));
        assert_eq!(scorer.n_train_pairs(), 2);
    }

    #[test]
    fn turning_every_pair_round_turns_the_preference_round() {
        let art = discs();
        let pairs = red_over_blue(&art);
        let turned: Vec<_> = pairs
            .iter()
            .map(|pair| RankedImages { winner: pair.loser, loser: pair.winner, ..*pair })
            .collect();
        let scorer = PreferenceScorer::fit(&turned, N_CAPTIONS, None, 0).unwrap();
        for pair in &turned {
            let score = |image: &RgbImage| scorer.score_image(image, pair.caption);
            assert!(score(pair.winner) > score(pair.loser));
        }
    }

    #[test]
    fn only_with_a_judge_does_the_motif_count() {
        let art = discs();
        let gallery: Vec<Artwork> = art
            .iter()
            .zip([0, 2])
            .map(|([red, _], caption)| Artwork { caption, style: 0, image: red.clone() })
            .collect();
        let judge = Judge::new(&gallery, 3, 1).unwrap();
        // Each image wins for its own caption and loses for the other: no preference between the images themselves.
        let [left, right] = [&art[0][0], &art[1][0]];
        let pairs = [
            RankedImages { winner: left, loser: right, caption: 0 },
            RankedImages { winner: right, loser: left, caption: 2 },
        ];
        let margins = |judge| {
            let scorer = PreferenceScorer::fit(&pairs, N_CAPTIONS, judge, 0).unwrap();
            [0, 2].map(|caption| scorer.score_image(left, caption) - scorer.score_image(right, caption))
        };
        let [for_left, for_right] = margins(Some(&judge));
        assert!(for_left > 0.5 && for_right < -0.5, "{for_left} and {for_right}");
        let [for_left, for_right] = margins(None);
        assert_eq!(for_left, for_right);
    }

    #[test]
    fn equal_pairs_and_seeds_give_equal_scores_and_other_seeds_others() {
        let art = discs();
        let score = |seed| {
            let scorer = PreferenceScorer::fit(&red_over_blue(&art), N_CAPTIONS, None, seed).unwrap();
            scorer.score_image(&art[0][0], 0)
        };
        assert_eq!(score(3).to_bits(), score(3).to_bits());
        assert!((4..12).any(|seed| score(seed) != score(3)));
    }

    #[test]
    fn pairs_it_cannot_use_are_refused() {
        let art = discs();
        let refusal =
            |pairs: &[RankedImages<'_>]| PreferenceScorer::fit(pairs, 2, None, 0).unwrap_err().to_string();
        assert!(refusal(&[]).starts_with("no ranked pairs"));
        assert_eq!(
            refusal(&red_over_blue(&art)),
            "ranked pair of caption 2 has none of the 2 captions of the scorer"
        );
        let small = RgbImage::new(32, 64);
        let uneven = RankedImages { winner: &art[0][0], loser: &small, caption: 1 };
        assert_eq!(
            refusal(&[uneven]),
            "ranked pair of caption 1 has a winner of 64 x 64 and a loser of 32 x 64 pixels: \
             both must be of one size"
        );
    }
}
