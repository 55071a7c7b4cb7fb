//! Caches of encoded pairs, and batches from them and from pixels.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod conditioning;
mod damaged;
mod opening;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use image::{Rgb, RgbImage};
use tastemaker_data::buckets::{BucketResolutions, BucketSettings};
use tastemaker_data::cache::{CacheFolder, Key, LatentKey, TextKey};
use tastemaker_data::{DataError, InMemoryPairs, Label, PairId, PairSource, Ranking, Side};
use tastemaker_diffusion::{Posterior, Vae};
use tastemaker_models::pipeline::{Model, TextEncoders};
use tastemaker_run::TimeIds;
use tastemaker_store::dtype::DType;
use tastemaker_testkit_torch::{tiny_model, tiny_sdxl_model};
use tastemaker_train::TrainError;
use tastemaker_train::data::encode::{
    CacheInput, Captions, cache_pairs, cache_text, missing_pairs, missing_text,
};
use tastemaker_train::data::{
    Augmentation, Batch, BatchOptions, CacheConditioning, CachedPairs, EncodeSettings, EncodedShapes,
    LivePairs, Pairs, Rank, Use,
};
use tch::{Device, Kind, Tensor};

/// Takes pixels for latents, with a standard deviation, and counts what it is given.
#[derive(Default)]
struct Plain {
    batches: Mutex<Vec<i64>>,
    spoils: bool,
}

impl Vae for Plain {
    fn encode(&self, images: &Tensor) -> Posterior {
        self.batches.lock().unwrap().push(images.size()[0]);
        // Spoils what is brightest, so that one image of a batch is hit and not the others.
        let mean = if self.spoils { images / images.lt(0.9).to_kind(Kind::Float) } else { images.copy() };
        Posterior { std: mean.abs() * 0.1, mean }
    }

    fn decode(&self, latents: &Tensor) -> Tensor {
        latents.copy()
    }
}

/// Dark on the left, `shade` on the right, with a gradient downwards.
fn image(width: u32, height: u32, shade: u8) -> Arc<RgbImage> {
    Arc::new(RgbImage::from_fn(width, height, |x, y| {
        Rgb(if 2 * x < width { [0, (y * 3 % 256) as u8, 0] } else { [shade, shade, (y * 5 % 256) as u8] })
    }))
}

/// Three pairs over three images, the last a copy of the first under another name, and two captions.
fn source() -> InMemoryPairs {
    let images = vec![image(16, 16, 100), image(16, 16, 250), image(16, 16, 100)];
    let ranking = |winner, loser, caption: &str| Ranking { winner, loser, caption: caption.into() };
    let rankings = vec![ranking(0, 1, "a fox"), ranking(2, 1, "rain"), ranking(1, 0, "a fox")];
    InMemoryPairs::new(images, rankings).unwrap()
}

/// Many pairs of many shapes, more than one shard.
fn many(n: usize) -> InMemoryPairs {
    let images = (0..40).map(|i| image(16 + i % 9, 20 + (i * 7) % 13, (i * 6) as u8)).collect();
    let ranking = |i: usize| Ranking {
        winner: i % 40,
        loser: (i * 3 + 1) % 40,
        caption: format!("caption {}", i % 300),
    };
    InMemoryPairs::new(images, (0..n).map(ranking).collect()).unwrap()
}

fn text(sdxl: bool) -> TextEncoders {
    let folder = tempfile::tempdir().unwrap();
    if sdxl {
        tiny_sdxl_model(folder.path())
    } else {
        tiny_model(folder.path())
    };
    Model::open(folder.path()).unwrap().text(DType::F32, Device::Cpu).unwrap()
}

fn key(source: &dyn PairSource, hflip: bool, batch_size: usize) -> Key {
    Key {
        format: Key::FORMAT,
        pairs: "00".repeat(32),
        n_pairs: source.len() as u64,
        images: BucketResolutions { resolution: 16, buckets: None },
        hflip,
        latents: LatentKey { vae: "11".repeat(32), batch_size, dtype: DType::F32, decoder: None },
        text: Some(TextKey { encoders: "22".repeat(32), dtype: DType::F32 }),
    }
}

/// Threads, and whose part is made.
type Workers = (usize, Rank);

fn settings(n_workers: usize, (rank, world_size): (usize, usize)) -> Workers {
    (n_workers, Rank { rank, world_size })
}

/// Makes a cache, or one rank's part of it, by this vae; the text encoders are given where captions are to be encoded.
fn make(
    path: &Path,
    key: &Key,
    source: &dyn PairSource,
    vae: &dyn Vae,
    text: Option<&TextEncoders>,
    (n_workers, rank): Workers,
) -> Result<CacheFolder, TrainError> {
    let captions = Captions::of(source);
    let mut folder = CacheFolder::open(path, key)?;
    let numbers = missing_pairs(&mut folder, source.len(), rank)?;
    let input = CacheInput { key, source, captions: &captions, n_workers, device: Device::Cpu };
    cache_pairs(&mut folder, &numbers, input, vae, &mut |_| Ok(()))?;
    let mut n_text = 0;
    if let Some(text) = text {
        let numbers = missing_text(&mut folder, captions.n_encoded(), rank)?;
        cache_text(&mut folder, &numbers, &captions, text, DType::F32)?;
        n_text = captions.n_encoded().div_ceil(256);
    }
    folder.finish(source.len().div_ceil(256), n_text, rank.world_size == 1)?;
    Ok(folder)
}

fn open(folder: &CacheFolder, key: &Key, source: &dyn PairSource, time_ids: Option<TimeIds>) -> CachedPairs {
    try_open(folder, key, source, time_ids).unwrap()
}

fn try_open(
    folder: &CacheFolder,
    key: &Key,
    source: &dyn PairSource,
    time_ids: Option<TimeIds>,
) -> Result<CachedPairs, TrainError> {
    let n_captions = Captions::of(source).texts.len();
    // Pixels are the latents; time ids go with SDXL's two text encoders.
    let encoded = text(time_ids.is_some()).encode(&["x"], 0);
    let width = |tensor: &Tensor| *tensor.size().last().unwrap() as usize;
    let (width, pooled) = (width(&encoded.hidden), encoded.pooled.as_ref().map(width));
    let shapes = EncodedShapes { channels: 3, downsampling: 1, width, has_lengths: false, pooled };
    let conditioning = CacheConditioning { time_ids, tokens: None };
    CachedPairs::open(folder, key, source, n_captions, shapes, conditioning)
}

fn live<'a>(
    source: &'a dyn PairSource,
    key: &Key,
    sdxl: bool,
    time_ids: Option<TimeIds>,
    n_workers: usize,
) -> LivePairs<'a, Plain> {
    let settings = EncodeSettings {
        resolutions: key.images.clone(),
        random_hflip: key.hflip,
        n_workers,
        ..EncodeSettings::square(16, "caches".into(), Device::Cpu)
    };
    LivePairs::new(source, Plain::default(), text(sdxl), settings, time_ids)
}

fn options(joint: bool) -> BatchOptions {
    BatchOptions { augmentation: Augmentation { seed: 3, joint }, with_losers: true, device: Device::Cpu }
}

fn batch(pairs: &dyn Pairs, uses: &[Use], joint: bool) -> Batch {
    let loaded = pairs.batch(uses, &options(joint)).unwrap();
    assert_eq!(loaded.skipped, []);
    loaded.batch.unwrap()
}

fn uses(draws: impl Iterator<Item = (usize, u64)>) -> Vec<Use> {
    draws.map(|(index, draw)| Use { index, draw, drop_caption: draw % 3 == 2 }).collect()
}

/// Every file of a folder by name.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

/// Whether the bright side is where it was, for every row.
fn upright(latents: &Tensor) -> Vec<bool> {
    let columns = latents.mean_dim([1i64, 2].as_slice(), false, Kind::Float); // [b, 16]
    Vec::try_from(columns.select(1, 0).lt_tensor(&columns.select(1, 15))).unwrap()
}

#[test]
fn an_image_is_encoded_once_however_many_pairs_of_a_shard_show_it() {
    let (folder, source, vae) = (tempfile::tempdir().unwrap(), source(), Plain::default());
    let key = key(&source, false, 8);
    let folder = make(folder.path(), &key, &source, &vae, Some(&text(false)), settings(1, (0, 1))).unwrap();
    assert_eq!(*vae.batches.lock().unwrap(), [2]);
    assert!(folder.is_whole());
    folder.verify(|_, _| {}).unwrap();
}

/// Rankings of an image with itself, said to be single images; counts what is decoded.
struct Singles {
    pairs: InMemoryPairs,
    n_decoded: AtomicUsize,
}

impl PairSource for Singles {
    fn len(&self) -> usize {
        self.pairs.len()
    }

    fn image(&self, position: usize, side: Side) -> Result<RgbImage, DataError> {
        self.n_decoded.fetch_add(1, Ordering::Relaxed);
        self.pairs.image(position, side)
    }

    fn caption(&self, position: usize) -> &str {
        self.pairs.caption(position)
    }

    fn id(&self, position: usize) -> PairId {
        self.pairs.id(position)
    }

    fn label(&self, position: usize) -> Option<Label> {
        Some(if position.is_multiple_of(3) { Label::Liked } else { Label::Disliked })
    }

    fn fingerprint(&self) -> [u8; 32] {
        self.pairs.fingerprint()
    }
}

#[test]
fn a_single_image_is_decoded_and_encoded_once_from_the_cache_and_from_pixels_alike() {
    let images = (0..10).map(|i| image(16 + i % 5, 20 + (i * 7) % 13, (i * 20) as u8)).collect();
    let ranking = |i: usize| Ranking { winner: i, loser: i, caption: format!("caption {i}") };
    let pairs = InMemoryPairs::new(images, (0..10).map(ranking).collect()).unwrap();
    let source = Singles { pairs, n_decoded: AtomicUsize::new(0) };
    let (folder, vae) = (tempfile::tempdir().unwrap(), Plain::default());
    let mut key = key(&source, true, 4);
    key.images.buckets = Some(BucketSettings { step: 4, min: 8, max: 32 });
    let cache = make(folder.path(), &key, &source, &vae, Some(&text(false)), settings(2, (0, 1))).unwrap();
    // As they are and flipped.
    assert_eq!(vae.batches.lock().unwrap().iter().sum::<i64>(), 2 * 10);
    assert_eq!(source.n_decoded.swap(0, Ordering::Relaxed), 10);
    let (cached, live) = (open(&cache, &key, &source, None), live(&source, &key, false, None, 1));
    for index in 0..10 {
        let uses = uses([(index, 0), (index, 1)].into_iter());
        let singles = BatchOptions { with_losers: false, ..options(false) };
        let [from_cache, from_pixels] =
            [&cached as &dyn Pairs, &live].map(|pairs| pairs.batch(&uses, &singles).unwrap().batch.unwrap());
        assert_eq!(from_cache.latents.size()[0], 2);
        assert!(from_cache.latents.equal(&from_pixels.latents), "{index}");
        assert_eq!(source.n_decoded.swap(0, Ordering::Relaxed), 2, "once for each use");
    }
}

#[test]
fn one_worker_and_four_ranks_and_stops_give_the_same_bytes() {
    let (source, text) = (many(600), text(false));
    let mut key = key(&source, true, 5);
    key.images.buckets = Some(BucketSettings { step: 4, min: 8, max: 32 });
    let whole = tempfile::tempdir().unwrap();
    make(whole.path(), &key, &source, &Plain::default(), Some(&text), settings(1, (0, 1))).unwrap();
    let wanted = files(whole.path());
    assert_eq!(wanted.len(), 3 + 2 + 2, "{:?}", wanted.keys());

    let four = tempfile::tempdir().unwrap();
    make(four.path(), &key, &source, &Plain::default(), Some(&text), settings(4, (0, 1))).unwrap();
    assert!(files(four.path()) == wanted, "other bytes with four workers");

    let shared = tempfile::tempdir().unwrap();
    for rank in [2, 0, 1] {
        make(shared.path(), &key, &source, &Plain::default(), Some(&text), settings(2, (rank, 3))).unwrap();
    }
    assert!(files(shared.path()) == wanted, "other bytes with three ranks");

    let stopped = tempfile::tempdir().unwrap();
    for (name, bytes) in wanted.iter().filter(|(name, _)| name.contains("key") || name.contains("00001")) {
        // A flipped bit in what an earlier build left behind is found and mended.
        let mut bytes = bytes.clone();
        if name.starts_with("pairs-00001") {
            let last = bytes.len() - 1;
            bytes[last] ^= 4;
        }
        fs::write(stopped.path().join(name), bytes).unwrap();
    }
    fs::write(stopped.path().join(".tmpAbCdEf"), b"half of a shard").unwrap();
    make(stopped.path(), &key, &source, &Plain::default(), Some(&text), settings(2, (0, 1))).unwrap();
    assert!(files(stopped.path()) == wanted, "other bytes after a stop");
}

#[test]
fn a_flipped_bit_in_any_shard_is_found_and_named() {
    let (folder, source, text) = (tempfile::tempdir().unwrap(), many(300), text(false));
    let key = key(&source, false, 8);
    make(folder.path(), &key, &source, &Plain::default(), Some(&text), settings(2, (0, 1))).unwrap();
    for (name, bytes) in files(folder.path()).iter().filter(|(name, _)| name.ends_with(".safetensors")) {
        let path = folder.path().join(name);
        for at in [9, bytes.len() / 2, bytes.len() - 3] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 16;
            fs::write(&path, &damaged).unwrap();
            let cache = CacheFolder::open(folder.path(), &key).unwrap();
            let error = cache.verify(|_, _| {}).unwrap_err();
            assert!(
                matches!(&error, DataError::DamagedCache { path: found, .. } if *found == path),
                "{error}"
            );
        }
        fs::write(&path, bytes).unwrap();
    }
    // The last bytes are numbers of the last row: using it finds the damage, too.
    let (name, mut bytes) =
        files(folder.path()).into_iter().find(|(name, _)| name.starts_with("pairs-00001")).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(folder.path().join(&name), bytes).unwrap();
    let cache = CacheFolder::open(folder.path(), &key).unwrap();
    let pairs = open(&cache, &key, &source, None);
    let errors: Vec<String> = (256..300)
        .filter_map(|index| pairs.batch(&uses([(index, 0)].into_iter()), &options(false)).err())
        .map(|error| error.to_string())
        .collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains(&name)), "{errors:?}");
}

#[test]
fn a_stale_cache_is_refused_with_the_reason() {
    let (folder, source) = (tempfile::tempdir().unwrap(), source());
    let key = key(&source, false, 8);
    make(folder.path(), &key, &source, &Plain::default(), Some(&text(false)), settings(1, (0, 1))).unwrap();
    let mut other = key.clone();
    other.images.resolution = 24;
    other.latents.vae = "33".repeat(32);
    let error = CacheFolder::open(folder.path(), &other).unwrap_err().to_string();
    assert!(error.contains("images.resolution is 16 there and 24 here"), "{error}");
    assert!(error.contains("latents.vae is"), "{error}");
    let error = CacheFolder::open(env!("CARGO_MANIFEST_DIR"), &key).unwrap_err().to_string();
    assert!(error.contains("an empty folder, or a cache with its key.json"), "{error}");
}

#[test]
fn the_cache_and_pixels_give_the_same_batches_whatever_the_number_of_workers() {
    for sdxl in [false, true] {
        let (folder, source) = (tempfile::tempdir().unwrap(), many(60));
        let mut key = key(&source, true, 4);
        key.images.buckets = Some(BucketSettings { step: 4, min: 8, max: 32 });
        let time_ids = sdxl.then_some(TimeIds::Real);
        let cache =
            make(folder.path(), &key, &source, &Plain::default(), Some(&text(sdxl)), settings(2, (0, 1)))
                .unwrap();
        let cached = open(&cache, &key, &source, time_ids);
        let [one, four] = [1, 4].map(|n_workers| live(&source, &key, sdxl, time_ids, n_workers));
        let mut buckets = std::collections::BTreeSet::new();
        for index in 0..60 {
            assert_eq!(cached.resolution(index), one.resolution(index));
            buckets.insert(cached.resolution(index));
            let same: Vec<usize> =
                (0..60).filter(|&i| cached.resolution(i) == cached.resolution(index)).take(5).collect();
            let uses = uses(same.iter().flat_map(|&i| [(i, index as u64), (i, 7)]));
            for joint in [false, true] {
                let [cached, one, four] =
                    [&cached as &dyn Pairs, &one, &four].map(|pairs| batch(pairs, &uses, joint));
                // This VAE does not round, so the two are equal and not only near.
                assert!(cached.latents.equal(&one.latents) && one.latents.equal(&four.latents));
                assert_eq!((&cached.keys, &one.keys), (&one.keys, &four.keys));
                let apart =
                    (&cached.conditioning.hidden - &one.conditioning.hidden).abs().max().double_value(&[]);
                assert!(apart < 1e-5, "{apart}");
                let time_ids = |batch: &Batch| {
                    batch
                        .conditioning
                        .time_ids
                        .as_ref()
                        .map(|ids| Vec::<f32>::try_from(ids.flatten(0, -1)).unwrap())
                };
                assert_eq!(time_ids(&cached), time_ids(&one));
                assert_eq!(time_ids(&cached).is_some(), sdxl);
            }
        }
        assert!(buckets.len() > 1, "{buckets:?}");
    }
}

#[test]
fn half_precision_costs_its_rounding_and_no_more() {
    let source = many(20);
    let latents = |dtype| {
        let folder = tempfile::tempdir().unwrap();
        let mut key = key(&source, false, 4);
        key.latents.dtype = dtype;
        let cache =
            make(folder.path(), &key, &source, &Plain::default(), Some(&text(false)), settings(1, (0, 1)))
                .unwrap();
        batch(&open(&cache, &key, &source, None), &uses((0..20).map(|i| (i, 0))), false).latents
    };
    let exact = latents(DType::F32);
    for (dtype, unit) in [(DType::F16, 2f64.powi(-11)), (DType::Bf16, 2f64.powi(-8))] {
        // Mean and standard deviation are rounded each; noise is at most five deviations, which are a tenth of the mean.
        let apart = ((latents(dtype) - &exact).abs() / exact.abs().clamp_min(0.02)).max().double_value(&[]);
        assert!(apart > 0.0 && apart < 3.0 * unit, "{dtype:?}: {apart}");
    }
}

#[test]
fn flips_are_independent_or_joint_half_of_the_time() {
    let (folder, source) = (tempfile::tempdir().unwrap(), source());
    let key = key(&source, true, 8);
    let cache =
        make(folder.path(), &key, &source, &Plain::default(), Some(&text(false)), settings(1, (0, 1)))
            .unwrap();
    let (pairs, uses) = (open(&cache, &key, &source, None), uses((0..400).map(|draw| (0, draw))));
    let counts = |joint| {
        let upright = upright(&batch(&pairs, &uses, joint).latents);
        let (winners, losers) = upright.split_at(uses.len());
        [(false, false), (false, true), (true, false), (true, true)].map(|wanted| {
            winners.iter().zip(losers).filter(|&(&winner, &loser)| (winner, loser) == wanted).count()
        })
    };
    // 100 expected with a std of 9, and 200 with one of 10
    assert!(counts(false).iter().all(|n| (60..140).contains(n)), "{:?}", counts(false));
    let [down, one, other, up] = counts(true);
    assert!(one == 0 && other == 0 && (150..250).contains(&down) && (150..250).contains(&up));
}

#[test]
fn a_draw_does_not_depend_on_the_batch_it_is_in() {
    let source = source();
    let key = key(&source, true, 8);
    let pairs = live(&source, &key, false, None, 2);
    let uses = uses((0..6).map(|draw| (draw as usize % 3, draw)));
    let whole = batch(&pairs, &uses, false).latents;
    for (i, used) in uses.iter().enumerate() {
        let alone = batch(&pairs, std::slice::from_ref(used), false).latents;
        for side in 0..2 {
            assert!(alone.get(side).equal(&whole.get(side * 6 + i as i64)), "use {i}, side {side}");
        }
    }
}

#[test]
fn random_crops_are_drawn_per_use_and_shared_where_that_is_asked_for() {
    let images = vec![image(16, 64, 100), image(16, 64, 100)];
    let source =
        InMemoryPairs::new(images, vec![Ranking { winner: 0, loser: 1, caption: "x".into() }]).unwrap();
    let square = EncodeSettings::square(16, "caches".into(), Device::Cpu);
    let settings = EncodeSettings { random_crop: true, n_workers: 1, ..square };
    let pairs = LivePairs::new(&source, Plain::default(), text(true), settings, Some(TimeIds::Real));
    let uses = uses((0..100).map(|draw| (0, draw)));
    for joint in [false, true] {
        let batch = batch(&pairs, &uses, joint);
        let tops: Vec<Vec<f32>> = batch
            .conditioning
            .time_ids
            .as_ref()
            .unwrap()
            .unbind(0)
            .iter()
            .map(|row| Vec::try_from(row).unwrap())
            .collect();
        assert!(tops.iter().all(|ids| ids[..2] == [64.0, 16.0] && ids[3..] == [0.0, 16.0, 16.0]));
        let different = tops.iter().map(|ids| ids[2] as u32).collect::<std::collections::BTreeSet<_>>();
        assert!(different.len() > 20 && different.iter().all(|&top| top <= 48), "{different:?}");
        // Both images are the same image, so what differs is the crop, and the draw from the posterior.
        let means = batch.latents.mean_dim([1i64, 2, 3].as_slice(), false, Kind::Float).chunk(2, 0);
        let apart = (&means[0] - &means[1]).abs();
        let near = i64::try_from(apart.lt(0.02).sum(Kind::Int64)).unwrap();
        assert!(if joint { near == 100 } else { near < 60 }, "{joint}: {near}");
    }
}

/// Micro-conditioning of SDXL for a tall winner and a wide loser, kept caption and dropped caption.
#[test]
fn a_latent_that_is_not_finite_names_its_pair() {
    let (folder, source) = (tempfile::tempdir().unwrap(), source());
    let vae = Plain { spoils: true, ..Plain::default() };
    // Image 1 is the bright one; pair 0 shows it first.
    let error =
        make(folder.path(), &key(&source, false, 8), &source, &vae, None, settings(1, (0, 1))).unwrap_err();
    assert!(matches!(error, TrainError::NonFiniteLatents { pair: 0 }), "{error}");
}
