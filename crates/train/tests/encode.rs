//! Encoding a set of pairs: everything once, mirror images on request.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::cell::RefCell;
use std::sync::Arc;

use image::{Rgb, RgbImage};
use tastemaker_data::{InMemoryPairs, Ranking};
use tastemaker_diffusion::{LatentCodec, Posterior};
use tastemaker_models::pipeline::{Model, TextEncoders};
use tastemaker_run::TimeIds;
use tastemaker_testkit::{tiny_model, tiny_sdxl_model};
use tastemaker_torch::Precision;
use tastemaker_train::TrainError;
use tastemaker_train::batch::{EncodedPairs, Use};
use tastemaker_train::encode::{EncodeSettings, encode_pairs};
use tch::{Device, Tensor};

/// Takes pixels for latents, without deviation, and counts what it is given.
#[derive(Default)]
struct Plain {
    batches: RefCell<Vec<i64>>,
    spoils: bool,
}

impl LatentCodec for Plain {
    fn encode(&self, images: &Tensor) -> Posterior {
        self.batches.borrow_mut().push(images.size()[0]);
        // Spoils what is brightest, so that one image of a batch is hit and not the others.
        let mean =
            if self.spoils { images / images.lt(0.9).to_kind(tch::Kind::Float) } else { images.copy() };
        Posterior { deviation: mean.zeros_like(), mean }
    }

    fn decode(&self, latents: &Tensor) -> Tensor {
        latents.copy()
    }
}

/// Dark on the left, `shade` on the right.
fn image(shade: u8) -> Arc<RgbImage> {
    Arc::new(RgbImage::from_fn(16, 16, |x, _| Rgb(if x < 8 { [0; 3] } else { [shade; 3] })))
}

/// Three pairs over three images, the last a copy of the first under another name, and two captions.
fn source() -> InMemoryPairs {
    let images = vec![image(100), image(250), image(100)];
    let ranking = |winner, loser, caption: &str| Ranking { winner, loser, caption: caption.into() };
    let rankings = vec![ranking(0, 1, "a fox"), ranking(2, 1, "rain"), ranking(1, 0, "a fox")];
    InMemoryPairs::new(images, rankings).unwrap()
}

fn text() -> TextEncoders {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(folder.path());
    Model::open(folder.path()).unwrap().text(Precision::F32, Device::Cpu).unwrap()
}

fn encode(codec: &Plain, flips: bool, batch_size: usize) -> Result<EncodedPairs, TrainError> {
    let settings = EncodeSettings {
        resolution: 16,
        batch_size,
        flips,
        time_ids: TimeIds::Constant,
        keeps_tokens: false,
        device: Device::Cpu,
    };
    encode_pairs(&source(), codec, &text(), &settings, &mut |_| Ok(()))
}

/// Whether the bright side is where it was, for every row.
fn upright(latents: &Tensor) -> Vec<bool> {
    let columns = latents.mean_dim([1i64, 2].as_slice(), false, tch::Kind::Float); // [b, 16]
    Vec::try_from(columns.select(1, 0).lt_tensor(&columns.select(1, 15))).unwrap()
}

#[test]
fn an_image_and_a_caption_are_encoded_once_however_many_pairs_show_them() {
    let codec = Plain::default();
    let pairs = encode(&codec, false, 8).unwrap();
    assert_eq!(*codec.batches.borrow(), [2]);
    assert_eq!(pairs.images.mean.size(), [2, 3, 16, 16]);
    assert_eq!(pairs.captions.len(), 2);
    let indices: Vec<_> = pairs.pairs.iter().map(|p| (p.id, p.winner, p.loser, p.caption)).collect();
    assert_eq!(indices, [(0, 0, 1, 0), (1, 0, 1, 1), (2, 1, 0, 0)]);
}

#[test]
fn the_batch_size_changes_nothing() {
    let [one, many] =
        [1, 8].map(|batch_size| encode(&Plain::default(), true, batch_size).unwrap().images.mean);
    assert!(one.equal(&many));
}

#[test]
fn mirror_images_follow_the_images_in_their_order() {
    let mean = encode(&Plain::default(), true, 1).unwrap().images.mean;
    assert_eq!(mean.size(), [4, 3, 16, 16]);
    assert!(mean.narrow(0, 2, 2).equal(&mean.narrow(0, 0, 2).flip([3i64])));
}

#[test]
fn winner_and_loser_are_flipped_on_their_own_half_of_the_time() {
    let pairs = encode(&Plain::default(), true, 8).unwrap();
    let uses: Vec<_> = (0..400).map(|draw| Use { index: 0, draw, drop_caption: false }).collect();
    let upright = upright(&pairs.batch(&uses, 3, true, Device::Cpu).latents);
    let (winners, losers) = upright.split_at(uses.len());
    let both = |winner: bool, loser: bool| {
        winners.iter().zip(losers).filter(|&(&w, &l)| (w, l) == (winner, loser)).count()
    };
    for (winner, loser) in [(false, false), (false, true), (true, false), (true, true)] {
        let n = both(winner, loser);
        // 100 expected with a deviation of 9
        assert!((60..140).contains(&n), "{n} times {winner}, {loser}");
    }
}

#[test]
fn a_flip_does_not_depend_on_the_batch_it_is_in() {
    let pairs = encode(&Plain::default(), true, 8).unwrap();
    let uses: Vec<_> =
        (0..6).map(|draw| Use { index: draw as usize % 3, draw, drop_caption: false }).collect();
    let whole = pairs.batch(&uses, 3, true, Device::Cpu).latents;
    for (i, used) in uses.iter().enumerate() {
        let alone = pairs.batch(std::slice::from_ref(used), 3, true, Device::Cpu).latents;
        for half in 0..2 {
            assert!(alone.get(half).equal(&whole.get(half * 6 + i as i64)), "use {i}, half {half}");
        }
    }
}

#[test]
fn without_mirror_images_nothing_is_flipped() {
    let pairs = encode(&Plain::default(), false, 8).unwrap();
    let uses: Vec<_> = (0..50).map(|draw| Use { index: 0, draw, drop_caption: false }).collect();
    assert!(upright(&pairs.batch(&uses, 3, true, Device::Cpu).latents).into_iter().all(|upright| upright));
}

/// Sizes that SDXL is told for a tall winner and a wide loser, kept caption and dropped caption.
fn told(time_ids: TimeIds) -> Vec<Vec<f32>> {
    let image = |width, height| Arc::new(RgbImage::from_pixel(width, height, Rgb([90; 3])));
    let ranking = Ranking { winner: 0, loser: 1, caption: "a fox".into() };
    let source = InMemoryPairs::new(vec![image(20, 48), image(64, 32)], vec![ranking]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    tiny_sdxl_model(folder.path());
    let text = Model::open(folder.path()).unwrap().text(Precision::F32, Device::Cpu).unwrap();
    let settings = EncodeSettings {
        resolution: 16,
        batch_size: 8,
        flips: false,
        time_ids,
        keeps_tokens: false,
        device: Device::Cpu,
    };
    let pairs = encode_pairs(&source, &Plain::default(), &text, &settings, &mut |_| Ok(())).unwrap();
    let uses = [false, true].map(|drop_caption| Use { index: 0, draw: 0, drop_caption });
    let conditioning = pairs.batch(&uses, 3, true, Device::Cpu).conditioning;
    conditioning.time_ids.unwrap().unbind(0).iter().map(|row| Vec::try_from(row).unwrap()).collect()
}

#[test]
fn winner_and_loser_are_told_the_winners_size_and_crop() {
    // 20 x 48 becomes 16 x 38, of which 11 rows go at the top.
    assert_eq!(told(TimeIds::Real), vec![[48.0, 20.0, 11.0, 0.0, 16.0, 16.0]; 4]);
    assert_eq!(told(TimeIds::Constant), vec![[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]; 4]);
}

#[test]
fn a_latent_that_is_not_finite_names_its_pair() {
    let codec = Plain { spoils: true, ..Plain::default() };
    // Image 1 is the bright one; pair 0 shows it first.
    let error = encode(&codec, false, 8).unwrap_err();
    assert!(matches!(error, TrainError::NonFiniteLatents { pair: 0 }), "{error}");
}
