//! How far a preference scorer can be trusted: it ranks real art of captions it has not learned from.

use super::nearest_art::{Artwork, Judge, Reading};
use super::preference::{self, PreferenceScorer, RankedImages, blend};
use super::self_check::Disturbance;
use crate::DemoError;
use image::RgbImage;
use serde::Serialize;
use std::collections::HashMap;
use tastemaker_math::intervals::WinCount;
use tastemaker_math::{Keyed, Stream};

/// What a preference scorer learned from, and how it fared on held-out captions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScorerCheck {
    /// Name of the scorer.
    pub name: String,
    /// Ranked pairs it learned from.
    pub n_train_pairs: usize,
    /// How it fared, one kind of held-out pairs after the other; the first is undisturbed real art.
    pub rows: Vec<ScorerCheckRow>,
}

/// How a preference scorer fared on one kind of ranked pairs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScorerCheckRow {
    /// The kind, as a reader sees it.
    pub pairs: String,
    /// Number of pairs.
    pub n: u64,
    /// Fraction whose winner it scores higher, ties counting half.
    pub accuracy: f64,
    /// Lower end of the 95% Wilson interval.
    pub wilson_low: f64,
    /// Upper end of the 95% Wilson interval.
    pub wilson_high: f64,
    /// Fraction whose winner the nearest-artwork judge scores higher, ties counting half.
    pub judge_accuracy: f64,
    /// Fraction that scorer and judge decide alike.
    pub agreement: f64,
}

/// A preference for one drawing style over others.
#[derive(Clone, Copy, Debug)]
pub struct StyleTaste<'a> {
    /// The preferred style.
    pub target: usize,
    /// The styles it is preferred to.
    pub others: &'a [usize],
}

/// Pairs that prefer a style: the artwork of each caption in the target style over that in every other style.
///
/// Equal images make no pair, since neither can be better.
pub fn style_pairs<'a>(
    gallery: &'a [Artwork],
    taste: StyleTaste<'_>,
    captions: &[usize],
) -> Vec<RankedImages<'a>> {
    let mut pairs = Vec::new();
    for &caption in captions {
        let of_caption = || gallery.iter().filter(move |artwork| artwork.caption == caption);
        for Artwork { image: winner, .. } in of_caption().filter(|artwork| artwork.style == taste.target) {
            for Artwork { image: loser, .. } in
                of_caption().filter(|artwork| taste.others.contains(&artwork.style))
            {
                if winner != loser {
                    pairs.push(RankedImages { winner, loser, caption });
                }
            }
        }
    }
    pairs
}

/// Pairs that prefer the right motif: the artwork of each caption in style `target` over that of another of the
/// `captions` in the same style, drawn by `seed`.
///
/// Equal images make no pair: some styles draw two captions alike.
pub fn motif_pairs<'a>(
    gallery: &'a [Artwork],
    target: usize,
    captions: &[usize],
    seed: u64,
) -> Vec<RankedImages<'a>> {
    let in_style: Vec<&Artwork> = gallery
        .iter()
        .filter(|artwork| artwork.style == target && captions.contains(&artwork.caption))
        .collect();
    let pair = |&Artwork { caption, image: ref winner, .. }: &'a Artwork| {
        let others: Vec<&RgbImage> = in_style
            .iter()
            .filter(|other| other.caption != caption && other.image != *winner)
            .map(|other| &other.image)
            .collect();
        let n_others = (!others.is_empty()).then_some(others.len() as u64)?;
        let drawn = Keyed::new(seed, Stream::Data, caption as u64, 1).below(n_others);
        Some(RankedImages { winner, loser: others[drawn as usize], caption })
    };
    in_style.iter().filter_map(|artwork| pair(artwork)).collect()
}

/// Lets a scorer rank held-out art of the target style against the rest: undisturbed, disturbed, blended with another
/// style in quarters (the scores must rise with the fraction of the target style), and against the wrong motif.
///
/// `judge` is the one the scorer asks, if it asks one.
///
/// # Errors
/// No pairs, a caption the scorer has learned from, or an image that cannot be disturbed.
pub fn check_preference(
    scorer: &PreferenceScorer<'_>,
    judge: &Judge,
    gallery: &[Artwork],
    taste: StyleTaste<'_>,
    held_out: &[usize],
    seed: u64,
) -> Result<ScorerCheck, DemoError> {
    let art = style_pairs(gallery, taste, held_out);
    let chosen = one_of_each_caption(&art, seed);
    let disturbed = chosen.iter().map(disturbed).collect::<Result<Vec<_>, _>>()?;
    let disturbed: Vec<RankedImages<'_>> =
        disturbed.iter().map(|(winner, loser, caption)| ranked(winner, loser, *caption)).collect();
    let blends: Vec<(Vec<RgbImage>, usize)> =
        chosen.iter().map(|pair| Ok((blends(pair)?, pair.caption))).collect::<Result<_, DemoError>>()?;
    let closer: Vec<RankedImages<'_>> = blends
        .iter()
        .flat_map(|(blends, caption)| {
            blends.iter().zip(&blends[1..]).map(|(loser, winner)| ranked(winner, loser, *caption))
        })
        .collect();
    let kinds = [
        ("target style over another", art),
        ("target style over another, both disturbed in every way at once", disturbed),
        ("two styles blended and blurred, a quarter more of the target over a quarter less", closer),
        (
            "right motif over a wrong one, both in the target style",
            motif_pairs(gallery, taste.target, held_out, seed),
        ),
    ];
    let judged = |reading: &Reading, caption: usize| reading.score(caption, taste.target);
    let rows = kinds.iter().map(|(name, pairs)| check_pairs(scorer, judge, judged, name, pairs));
    Ok(ScorerCheck {
        name: preference::NAME.to_owned(),
        n_train_pairs: scorer.n_train_pairs(),
        rows: rows.collect::<Result<_, _>>()?,
    })
}

/// Lets scorer and judge rank the same pairs. `judged` is the judge's score of what it reads, for a caption; `judge` is the
/// one the scorer asks, if it asks one.
///
/// # Errors
/// No pairs, or a caption the scorer has learned from.
pub fn check_pairs(
    scorer: &PreferenceScorer<'_>,
    judge: &Judge,
    judged: impl Fn(&Reading, usize) -> f64,
    name: &str,
    pairs: &[RankedImages<'_>],
) -> Result<ScorerCheckRow, DemoError> {
    if let Some(pair) = pairs.iter().find(|pair| scorer.learned_from(pair.caption)) {
        return Err(DemoError::CaptionNotHeldOut { caption: pair.caption });
    }
    // An image usually takes part in several pairs: it is read once.
    let mut known: HashMap<(*const RgbImage, usize), (f64, f64)> = HashMap::new();
    let mut scores = |image: &RgbImage, caption: usize| {
        *known.entry((image, caption)).or_insert_with(|| {
            let (score, reading) = scorer.score_and_read(image, caption, judge);
            (score, judged(&reading, caption))
        })
    };
    let (winners, losers): (Vec<_>, Vec<_>) = pairs
        .iter()
        .map(|pair| (scores(pair.winner, pair.caption), scores(pair.loser, pair.caption)))
        .unzip();
    let alike = winners
        .iter()
        .zip(&losers)
        .filter(|(winner, loser)| winner.0.partial_cmp(&loser.0) == winner.1.partial_cmp(&loser.1));
    let agreement = alike.count() as f64 / pairs.len() as f64;
    let count = |of: fn(&(f64, f64)) -> f64| {
        let [winners, losers] = [&winners, &losers].map(|scores| scores.iter().map(of).collect::<Vec<f64>>());
        WinCount::of_scores(&winners, &losers).wilson_95().ok_or(DemoError::NoRankedPairs)
    };
    let (accuracy, judge_accuracy) = (count(|scores| scores.0)?, count(|scores| scores.1)?);
    Ok(ScorerCheckRow {
        pairs: name.to_owned(),
        n: pairs.len() as u64,
        accuracy: accuracy.estimate,
        wilson_low: accuracy.low,
        wilson_high: accuracy.high,
        judge_accuracy: judge_accuracy.estimate,
        agreement,
    })
}

fn ranked<'a>(winner: &'a RgbImage, loser: &'a RgbImage, caption: usize) -> RankedImages<'a> {
    RankedImages { winner, loser, caption }
}

/// One pair of each caption, drawn by `seed`; pairs of one caption stand together.
fn one_of_each_caption<'a>(pairs: &[RankedImages<'a>], seed: u64) -> Vec<RankedImages<'a>> {
    let draw = |of_caption: &[RankedImages<'a>]| {
        let mut keyed = Keyed::new(seed, Stream::Data, of_caption[0].caption as u64, 2);
        of_caption[keyed.below(of_caption.len() as u64) as usize]
    };
    pairs.chunk_by(|one, next| one.caption == next.caption).map(draw).collect()
}

fn disturbed(pair: &RankedImages<'_>) -> Result<(RgbImage, RgbImage, usize), DemoError> {
    let disturb = |image| Disturbance::Everything.apply(image, pair.caption as u64);
    Ok((disturb(pair.winner)?, disturb(pair.loser)?, pair.caption))
}

/// From the loser to the winner in four steps, blurred as a small autoencoder blurs.
fn blends(pair: &RankedImages<'_>) -> Result<Vec<RgbImage>, DemoError> {
    let blur = Disturbance::Blur { sigma: 1.0 };
    (0..=4).map(|quarters| blur.apply(&blend(pair.loser, pair.winner, quarters as f32 / 4.0), 0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::art::{Art, Split};
    use image::Rgb;

    const FLUENT_FLAT: StyleTaste<'static> = StyleTaste { target: 2, others: &[0, 1] };

    #[test]
    fn held_out_art_is_ranked_rightly_crisp_disturbed_blended_and_by_motif() {
        let art = Art::open().unwrap();
        let (gallery, n_captions) = (art.gallery(), art.captions.len());
        let (train, held_out) = (art.on(Split::Train), art.on(Split::HeldOut));
        let judge = Judge::new(&gallery, n_captions, 4).unwrap();
        let mut pairs = style_pairs(&gallery, FLUENT_FLAT, &train);
        assert_eq!(pairs.len(), 2 * 367);
        pairs.extend(motif_pairs(&gallery, FLUENT_FLAT.target, &train, 0));
        let scorer = PreferenceScorer::fit(&pairs, n_captions, Some(&judge), 0).unwrap();

        let check = check_preference(&scorer, &judge, &gallery, FLUENT_FLAT, &held_out, 0).unwrap();
        assert_eq!(check.n_train_pairs, 3 * 367);
        let least = [(2 * 89, 0.95), (89, 0.87), (4 * 89, 0.87), (89, 0.98)];
        assert_eq!(check.rows.len(), least.len());
        for (row, (n, accuracy)) in check.rows.iter().zip(least) {
            assert_eq!(row.n, n);
            assert!(row.accuracy >= accuracy && row.wilson_low > 0.8, "{row:?}");
            assert!(row.judge_accuracy >= 0.95 && row.agreement >= accuracy - 0.02, "{row:?}");
        }

        // What it has learned from proves nothing about it.
        let caption = train[5];
        let error = check_preference(&scorer, &judge, &gallery, FLUENT_FLAT, &[held_out[0], caption], 0);
        assert_eq!(
            error.unwrap_err().to_string(),
            format!(
                "caption {caption} is not held out: the preference scorer learned from it, \
                 so it cannot be checked on it"
            )
        );
    }

    /// Three captions in two styles; captions 0 and 1 share their drawing in style 0.
    fn flat_gallery() -> Vec<Artwork> {
        [(0, 0, 10), (0, 1, 200), (1, 0, 10), (1, 1, 220), (2, 0, 90), (2, 1, 90)]
            .map(|(caption, style, gray)| Artwork {
                caption,
                style,
                image: RgbImage::from_pixel(64, 64, Rgb([gray; 3])),
            })
            .to_vec()
    }

    #[test]
    fn equal_images_make_no_pair() {
        let gallery = flat_gallery();
        let taste = StyleTaste { target: 0, others: &[1] };
        let grays = |pairs: Vec<RankedImages<'_>>| -> Vec<(u8, u8, usize)> {
            pairs.iter().map(|pair| (pair.winner[(0, 0)][0], pair.loser[(0, 0)][0], pair.caption)).collect()
        };
        assert_eq!(grays(style_pairs(&gallery, taste, &[0, 2])), [(10, 200, 0)]);
        assert_eq!(grays(motif_pairs(&gallery, 0, &[0, 1, 2], 7)), [(10, 90, 0), (10, 90, 1), (90, 10, 2)]);
        assert_eq!(grays(motif_pairs(&gallery, 0, &[0, 1], 7)), []);
    }

    #[test]
    fn agreement_counts_what_both_decide_alike_and_needs_pairs() {
        let gallery = flat_gallery();
        let judge = Judge::new(&gallery, 3, 2).unwrap();
        let [dark, light] = [&gallery[0].image, &gallery[1].image];
        let learned = [ranked(dark, light, 0)];
        let scorer = PreferenceScorer::fit(&learned, 3, None, 0).unwrap();
        let pairs = [ranked(dark, light, 1), ranked(light, dark, 2)];
        let row = |judged: fn(&Reading, usize) -> f64, pairs: &[RankedImages<'_>]| {
            check_pairs(&scorer, &judge, judged, "made up", pairs)
        };
        let dark_is_better = row(|reading, _| if reading.style == 0 { 1.0 } else { 0.0 }, &pairs).unwrap();
        assert_eq!((dark_is_better.accuracy, dark_is_better.judge_accuracy), (0.5, 0.5));
        assert_eq!(dark_is_better.agreement, 1.0);
        let caption_two_is_light =
            row(|reading, caption| if (caption == 2) == (reading.style == 1) { 1.0 } else { 0.0 }, &pairs);
        let caption_two_is_light = caption_two_is_light.unwrap();
        assert_eq!((caption_two_is_light.judge_accuracy, caption_two_is_light.agreement), (1.0, 0.5));
        assert_eq!(row(|_, _| 0.0, &pairs).unwrap().agreement, 0.0);
        assert!(row(|_, _| 0.0, &[]).unwrap_err().to_string().starts_with("no ranked pairs"));
    }
}
