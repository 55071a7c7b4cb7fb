//! Training on single images, each liked or disliked.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;

use common::{Pairing, assert_identical, pairs, plan, train_labeled, weights};
use image::RgbImage;
use serde_json::Value;
use tastemaker_data::split::Split;
use tastemaker_data::{self as data, DataError, InMemoryPairs, PairId, PairSource, Ranking, Side};
use tastemaker_math::objectives::Label;
use tastemaker_run::{Event, Probe, Step};
use tastemaker_store::dtype::DType;
use tastemaker_train::TrainError;
use tastemaker_train::reference::PrecomputedReference;
use tastemaker_train::session::{self, Options};

const ALL: [usize; 6] = [0, 1, 2, 3, 4, 5];
const BATCHES: &str = "train_batch_size = 3\ngradient_accumulation_steps = 2\n";

/// Labels of the six entries of [`pairs`], by identity.
fn labels(of: impl Fn(usize) -> Label) -> HashMap<u64, Label> {
    pairs().pairs.iter().enumerate().map(|(index, pair)| (pair.id, of(index))).collect()
}

fn alternating(index: usize) -> Label {
    if index.is_multiple_of(2) { Label::Liked } else { Label::Disliked }
}

/// Runs `kto` over all six, validating on them as well.
fn run(n_steps: u64, more: &str, labels: &HashMap<u64, Label>) -> (Vec<Step>, Vec<Probe>) {
    let plan = plan("kto", n_steps, &format!("{BATCHES}{more}"));
    let pairing = Pairing::adapted(DType::F32);
    let (result, events) = train_labeled(&pairing, (&pairs(), Some(labels)), &plan, &ALL, &ALL, None);
    result.unwrap();
    let steps =
        events.iter().filter_map(|e| if let Event::Step(step) = e { Some(step.clone()) } else { None });
    let probes =
        events.iter().filter_map(|e| if let Event::Probe(probe) = e { Some(probe.clone()) } else { None });
    (steps.collect(), probes.collect())
}

const VALIDATION: &str = "[validation]\nvalidation_steps = 100\n";

#[test]
fn liked_images_become_more_likely_and_disliked_ones_less() {
    let (steps, probes) = run(16, VALIDATION, &labels(alternating));
    let first = &steps[0];
    assert_eq!((first.loss, first.logit_mean), (0.5, Some(0.0)));
    assert_eq!((first.implicit_accuracy, first.margin), (Some(0.5), Some(0.0)));
    assert_eq!((Some(first.winner_error), first.loser_error), (first.ref_winner, first.ref_loser));
    let last = steps[12..].iter().map(|step| step.loss).sum::<f64>() / 4.0;
    assert!(last < 0.45, "{last}");
    let margin = steps[12..].iter().map(|step| step.margin.unwrap()).sum::<f64>() / 4.0;
    assert!(margin > 0.0, "{:?}", steps.iter().map(|step| (step.loss, step.margin)).collect::<Vec<_>>());
    let (before, after) = (&probes[0], &probes[1]);
    assert_eq!((before.n_pairs, before.margin, before.implicit_accuracy), (6, Some(0.0), Some(0.5)));
    assert!(after.margin.unwrap() > 0.0 && after.implicit_accuracy.unwrap() > 0.5, "{after:?}");
    assert_eq!((after.ref_winner, after.ref_loser), (Some(before.winner_error), before.loser_error));
}

#[test]
fn sets_of_one_label_are_learned_from() {
    for (label, wanted) in [(Label::Liked, -1.0), (Label::Disliked, 1.0)] {
        let (steps, probes) = run(12, VALIDATION, &labels(|_| label));
        assert_eq!(steps[0].loss, 0.5);
        let (before, after) = (&probes[0], &probes[1]);
        let drift = after.winner_error - before.winner_error;
        assert!(drift * wanted > 0.0, "{label:?}: {drift}");
        assert_eq!(after.margin, None);
        let is_liked = label == Label::Liked;
        assert_eq!((after.ref_winner.is_some(), after.ref_loser.is_some()), (is_liked, !is_liked));
        assert!(steps.iter().all(|step| step.loser_error.is_none() == is_liked && step.margin.is_none()));
    }
}

#[test]
fn micro_batches_do_not_matter() {
    let labels = labels(alternating);
    let weights_of = |batches: &str| {
        let pairing = Pairing::adapted(DType::F32);
        let plan = plan("kto", 2, batches);
        train_labeled(&pairing, (&pairs(), Some(&labels)), &plan, &ALL, &[], None).0.unwrap();
        weights(&pairing.policy.trainable)
    };
    let whole = weights_of("train_batch_size = 6\n");
    let ones = weights_of("train_batch_size = 1\ngradient_accumulation_steps = 6\n");
    assert!(common::distance(&ones, &whole) < 1e-5);
}

#[test]
fn a_precomputed_reference_of_single_images_makes_the_same_run() {
    let (labels, folder) = (labels(alternating), tempfile::tempdir().unwrap());
    let precomputed =
        PrecomputedReference::open(folder.path(), &common::reference_key(Value::Null), 6).unwrap();
    let plan = plan("kto", 3, BATCHES);
    let run = |precomputed: Option<&PrecomputedReference>| {
        let pairing = Pairing::adapted(DType::F32);
        train_labeled(&pairing, (&pairs(), Some(&labels)), &plan, &ALL, &[], precomputed).0.unwrap();
        weights(&pairing.policy.trainable)
    };
    assert_identical(&run(Some(&precomputed)), &run(None));
}

/// Pairs over one image, said to be single images.
struct Singles(InMemoryPairs);

impl PairSource for Singles {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        self.0.image(position, side)
    }

    fn caption(&self, position: usize) -> &str {
        self.0.caption(position)
    }

    fn id(&self, position: usize) -> PairId {
        self.0.id(position)
    }

    fn label(&self, _: usize) -> Option<data::Label> {
        Some(data::Label::Liked)
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint()
    }
}

#[test]
fn a_method_of_pairs_refuses_single_images_before_anything_is_read() {
    let ranking = Ranking { winner: 0, loser: 0, caption: "a".into() };
    let source = Singles(InMemoryPairs::new(vec![Arc::new(RgbImage::new(8, 8))], vec![ranking]).unwrap());
    let split = Split { train: vec![0], held_out: vec![] };
    let plan = plan("diffusion-dpo", 1, "");
    let error = session::train(&plan, &source, &split, Options::default(), &mut |_| Ok(())).unwrap_err();
    assert!(matches!(error, TrainError::SingleImages { method: "diffusion-dpo" }), "{error}");
    assert_eq!(
        error.to_string(),
        "these are single images, liked or disliked, and diffusion-dpo learns from pairs: take kto, which learns from \
         single images, or a set of pairs"
    );
}
