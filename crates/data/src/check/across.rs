//! What only the whole set shows, from 8 bytes per image and per caption.

use super::checks::Kind;
use super::finding::Finding;
use super::inspect::caption_key;
use super::settings::Settings;
use crate::set::PairSet;
use crate::split::{HeldOut, is_drawn};
use crate::{DataError, PairSource, Side};

/// No position, no number.
const NONE: u32 = u32::MAX;

/// Called with the findings of one kind in one row.
type OnFindings<'a> = &'a mut dyn FnMut(&[Finding]) -> Result<(), DataError>;

/// A caption: its key, its side of the split, and the first pair that uses it.
struct Caption {
    key: u64,
    held_out: bool,
    first: u32,
}

/// Finds pairs that come twice and what is on both sides of the split; `pixels` are the hashes of winners and losers
/// by position. `on_findings` gets those of one kind in one row. Returns how many pairs are held out.
///
/// # Errors
/// Those of `on_findings`.
pub fn across(
    set: &PairSet,
    pixels: &[[u64; 2]],
    settings: &Settings,
    on_findings: OnFindings<'_>,
) -> Result<u64, DataError> {
    let captions = captions(set, settings);
    repeated(set, pixels, &captions, on_findings)?;
    let is_held_out = |position: usize| captions[set.text_number(position) as usize].held_out;
    let n_held_out = (0..set.len()).filter(|&position| is_held_out(position)).count();
    if n_held_out > 0 {
        leaked_captions(set, &captions, on_findings)?;
        leaked_images(set, pixels, &is_held_out, on_findings)?;
    }
    Ok(n_held_out as u64)
}

fn captions(set: &PairSet, settings: &Settings) -> Vec<Caption> {
    let Settings { held_out_fraction, seed, is_drawn: drawn, .. } = *settings;
    let of_pairs = (0..set.len()).map(|position| set.caption(position));
    let chosen = HeldOut::of(of_pairs, if drawn { 0.0 } else { held_out_fraction }, seed);
    let held_out =
        |text: &str| if drawn { is_drawn(text, held_out_fraction, seed) } else { chosen.has(text) };
    let mut captions: Vec<Caption> = set
        .texts()
        .iter()
        .map(|text| Caption { key: caption_key(text), held_out: held_out(text), first: NONE })
        .collect();
    for position in (0..set.len()).rev() {
        captions[set.text_number(position) as usize].first = position as u32;
    }
    captions
}

/// Pairs of the same two images and caption: the first stands, later ones repeat or contradict it.
fn repeated(
    set: &PairSet,
    pixels: &[[u64; 2]],
    captions: &[Caption],
    on_findings: OnFindings<'_>,
) -> Result<(), DataError> {
    let key = |position: u32| {
        let [winner, loser] = pixels[position as usize];
        (captions[set.text_number(position as usize) as usize].key, winner.min(loser), winner.max(loser))
    };
    let is_pair = |[winner, loser]: [u64; 2]| winner != 0 && loser != 0 && winner != loser;
    let mut order: Vec<u32> =
        (0..set.len() as u32).filter(|&position| is_pair(pixels[position as usize])).collect();
    order.sort_unstable_by_key(|&position| (key(position), position));
    let mut later: Vec<(u32, u32)> = Vec::new();
    for group in order.chunk_by(|&a, &b| key(a) == key(b)) {
        later.extend(group[1..].iter().map(|&position| (position, group[0])));
    }
    later.sort_unstable();
    for (position, first) in later {
        let (position, first) = (position as usize, first as usize);
        let earlier = set.place(set.id(first));
        let (kind, detail) = if pixels[position] == pixels[first] {
            (Kind::DuplicatePair, format!("the same as {earlier}"))
        } else {
            (Kind::Contradiction, format!("the other image won in {earlier}"))
        };
        on_findings(&[Finding::of_pair(set, position, kind, None, detail, 0.0)])?;
    }
    Ok(())
}

/// Held-out captions that are trained on but for punctuation, case or spaces.
fn leaked_captions(
    set: &PairSet,
    captions: &[Caption],
    on_findings: OnFindings<'_>,
) -> Result<(), DataError> {
    let used = |number: &u32| captions[*number as usize].first != NONE && captions[*number as usize].key != 0;
    let mut order: Vec<u32> = (0..captions.len() as u32).filter(used).collect();
    order.sort_unstable_by_key(|&number| (captions[number as usize].key, captions[number as usize].first));
    // The caption trained on that each held-out caption is equal to.
    let mut trained = vec![NONE; captions.len()];
    for group in order.chunk_by(|&a, &b| captions[a as usize].key == captions[b as usize].key) {
        let Some(&other) = group.iter().find(|&&number| !captions[number as usize].held_out) else {
            continue;
        };
        for &number in group.iter().filter(|&&number| captions[number as usize].held_out) {
            trained[number as usize] = other;
        }
    }
    for position in 0..set.len() {
        let other = trained[set.text_number(position) as usize];
        if other == NONE {
            continue;
        }
        let place = set.place(set.id(captions[other as usize].first as usize));
        let detail = format!(
            "{place} is trained on, with the caption {:?}",
            shortened(set.texts().get(other as usize))
        );
        on_findings(&[Finding::of_pair(set, position, Kind::LeakedCaption, None, detail, 0.0)])?;
    }
    Ok(())
}

/// Held-out images that are trained on.
fn leaked_images(
    set: &PairSet,
    pixels: &[[u64; 2]],
    is_held_out: &dyn Fn(usize) -> bool,
    on_findings: OnFindings<'_>,
) -> Result<(), DataError> {
    let mut trained: Vec<(u64, u32)> = (0..set.len())
        .filter(|&position| !is_held_out(position))
        .flat_map(|position| pixels[position].map(|hash| (hash, position as u32)))
        .filter(|(hash, _)| *hash != 0)
        .collect();
    trained.sort_unstable();
    trained.dedup_by_key(|(hash, _)| *hash);
    for position in (0..set.len()).filter(|&position| is_held_out(position)) {
        let mut found = Vec::new();
        for (side, hash) in Side::BOTH.into_iter().zip(pixels[position]) {
            if let Ok(at) = trained.binary_search_by_key(&hash, |(hash, _)| *hash) {
                let place = set.place(set.id(trained[at].1 as usize));
                let detail = format!("{place} is trained on, with the same image");
                found.push(Finding::of_pair(set, position, Kind::LeakedImage, Some(side), detail, 0.0));
            }
        }
        on_findings(&found)?;
    }
    Ok(())
}

fn shortened(caption: &str) -> String {
    const LONGEST: usize = 120;
    match caption.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &caption[..end]),
        None => caption.to_owned(),
    }
}
