//! What is read when a cache is opened, and when a build that was stopped goes on.

use std::time::{Duration, SystemTime};

use tastemaker_data::cache::{CachedPair, PairShardDraft, ShardKind};

use tastemaker_run::{Recipe, resolve};
use tastemaker_train::data::{FeedItem, Order, feed};

use super::*;

const N_PAIRS: usize = 600;

/// A cache of pairs of two resolutions, some of them skipped.
fn made() -> (tempfile::TempDir, InMemoryPairs, Key) {
    let (folder, source) = (tempfile::tempdir().unwrap(), many(N_PAIRS));
    let mut key = key(&source, true, 5);
    key.images.buckets = Some(BucketSettings { step: 4, min: 8, max: 32 });
    make(folder.path(), &key, &source, &Plain::default(), Some(&text(false)), settings(2, (0, 1))).unwrap();
    (folder, source, key)
}

fn shards(folder: &Path) -> Vec<std::path::PathBuf> {
    let shards = files(folder).into_keys().filter(|name| name.ends_with(".safetensors"));
    shards.map(|name| folder.join(name)).collect()
}

#[test]
fn opening_a_cache_reads_no_byte_of_a_shard_and_the_first_use_of_one_checks_it() {
    let (folder, source, key) = made();
    let cache = CacheFolder::open(folder.path(), &key).unwrap();
    let pairs = open(&cache, &key, &source, None);
    let wanted: Vec<_> = (0..N_PAIRS).map(|index| pairs.resolution(index)).collect();
    assert!(wanted.iter().any(|resolution| *resolution != wanted[0]), "{wanted:?}");
    let shards = shards(folder.path());
    assert_eq!(shards.len(), 5);
    // As long as before, and nothing in them.
    for path in &shards {
        let length = fs::metadata(path).unwrap().len();
        fs::File::create(path).unwrap().set_len(length).unwrap();
    }
    let cache = CacheFolder::open(folder.path(), &key).unwrap();
    let pairs = open(&cache, &key, &source, None);
    let found: Vec<_> = (0..N_PAIRS).map(|index| pairs.resolution(index)).collect();
    assert!(found == wanted && (0..N_PAIRS).all(|index| pairs.has(index)));
    assert_eq!(pairs.skipped(&source).count(), 0);
    for (index, shard) in [(0, &shards[0]), (300, &shards[1]), (599, &shards[2])] {
        pairs.read_ahead(&uses([(index, 0)].into_iter()), &options(false));
        let error = pairs.batch(&uses([(index, 0)].into_iter()), &options(false)).unwrap_err().to_string();
        assert!(error.contains(shard.to_str().unwrap()) && error.contains("is damaged"), "{error}");
    }
}

#[test]
fn a_build_that_goes_on_reads_again_only_what_was_touched_since_and_damage_elsewhere_shows_when_it_is_used() {
    let (folder, source, text) = (tempfile::tempdir().unwrap(), many(N_PAIRS), text(false));
    let key = key(&source, false, 8);
    let make = |rank| {
        make(folder.path(), &key, &source, &Plain::default(), Some(&text), settings(2, (rank, 2))).unwrap()
    };
    assert!(!make(0).is_whole());
    let path = shards(folder.path())
        .into_iter()
        .find(|path| path.to_str().unwrap().contains("pairs-00000"))
        .unwrap();
    assert!(path.with_extension("json").is_file(), "what it is stands beside it");
    let whole = fs::read(&path).unwrap();
    let spoil = |touched: SystemTime| {
        let mut bytes = whole.clone();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&path, bytes).unwrap();
        fs::File::options().append(true).open(&path).unwrap().set_modified(touched).unwrap();
    };
    let keeps = || CacheFolder::open(folder.path(), &key).unwrap().keeps(ShardKind::Pairs, 0).unwrap();
    let (before, later) =
        (SystemTime::now() - Duration::from_secs(60), SystemTime::now() + Duration::from_secs(60));
    spoil(later);
    assert!(!keeps(), "it was touched, and is read and found to be damaged");
    fs::write(&path, &whole).unwrap();
    assert!(keeps());
    make(0);
    spoil(before);
    assert!(keeps(), "nobody has touched it");
    let cache = make(1);
    assert!(cache.is_whole());
    assert!(!path.with_extension("json").exists(), "the index says it from here on");
    let pairs = open(&cache, &key, &source, None);
    let errors =
        (0..256).filter_map(|index| pairs.batch(&uses([(index, 0)].into_iter()), &options(false)).err());
    let errors: Vec<String> = errors.map(|error| error.to_string()).collect();
    assert!(
        !errors.is_empty() && errors.iter().all(|error| error.contains(path.to_str().unwrap())),
        "{errors:?}"
    );
}

#[test]
fn drawn_by_bucket_every_micro_batch_is_full_where_drawn_one_by_one_hardly_one_is() {
    let (folder, source, key) = made();
    let cache = CacheFolder::open(folder.path(), &key).unwrap();
    let pairs = open(&cache, &key, &source, None);
    let text = "output_dir = \"o\"\n[method]\nname = \"sft\"\n[model]\npretrained_model_name_or_path = \"m\"\n[data]\n\
                train_data_dir = \"d\"\n[train]\nmax_train_steps = 20\ntrain_batch_size = 4\n\
                gradient_accumulation_steps = 2\n";
    let plan = resolve(Recipe::parse(Path::new("run.toml"), text).unwrap(), Default::default()).unwrap();
    let order = Order::new(&plan, (0..N_PAIRS).collect(), Vec::new(), true);
    let sizes = |order: Order| -> Vec<usize> {
        let items = feed(&pairs, order, options(false)).map(Result::unwrap);
        items
            .filter_map(|item| if let FeedItem::Batch(batch) = item { Some(batch.n_pairs()) } else { None })
            .collect()
    };
    let one_by_one = sizes(order.clone());
    assert!(one_by_one.iter().filter(|n| **n < 4).count() > 20, "{one_by_one:?}");
    let by_bucket = order.clone().by_bucket(4, |index| pairs.resolution(index));
    assert_eq!(by_bucket.drawn_in(), Some(4));
    assert_eq!(sizes(by_bucket), [4; 40]);
    // Of one resolution they are drawn as before.
    let alike = order.clone().by_bucket(4, |_| (16, 16));
    assert_eq!((alike.drawn_in(), sizes(alike)), (None, one_by_one));
}

/// For measurements: `cargo test --workspace --test caching -- --ignored --nocapture million`.
#[test]
#[ignore = "takes minutes to make; prints how long a cache of a million pairs takes to open"]
fn a_cache_of_a_million_pairs_opens() {
    let n: usize = 1_000_000;
    let image = image(8, 8, 100);
    let rankings = (0..n).map(|i| Ranking { winner: 0, loser: 0, caption: format!("caption {i}") }).collect();
    let source = InMemoryPairs::new(vec![image], rankings).unwrap();
    let mut key = key(&source, true, 5);
    (key.images, key.text) = (BucketResolutions { resolution: 8, buckets: None }, None);
    let folder = std::env::var("CACHE_DIR").map_or_else(|_| std::env::temp_dir().join("million"), Into::into);
    let mut cache = CacheFolder::open(&folder, &key).unwrap();
    let is_whole = cache.is_whole();
    for number in (0..n.div_ceil(256)).filter(|_| !is_whole) {
        let mut draft = PairShardDraft::new(DType::F32);
        let numbers = number * 256..(number * 256 + 256).min(n);
        for i in numbers {
            let row = (i % 256) as u32;
            draft.push(Ok(CachedPair {
                resolution: (8, 8),
                winner: row,
                loser: row,
                caption: i as u32,
                sizes: [8, 8, 0, 0],
            }));
            let posterior = (i as f32).to_le_bytes().repeat(2 * 3);
            draft.image((8, 8), [2, 3, 1, 1], &posterior, &posterior);
        }
        cache.add(ShardKind::Pairs, number, &draft.into_bytes().unwrap()).unwrap();
    }
    if !is_whole {
        assert!(cache.finish(n.div_ceil(256), 0, true).unwrap());
    }
    let began = std::time::Instant::now();
    let cache = CacheFolder::open(&folder, &key).unwrap();
    let opened = began.elapsed();
    let shapes = EncodedShapes { channels: 3, downsampling: 8, width: 8, has_lengths: false, pooled: None };
    let conditioning = CacheConditioning { time_ids: None, tokens: None };
    let pairs = CachedPairs::open(&cache, &key, &source, n, shapes, conditioning).unwrap();
    let ready = began.elapsed();
    let made = pairs.batch(&uses((0..8).map(|i| (i * 100_003, 0))), &options(false)).unwrap();
    println!("folder {opened:?}, pairs {ready:?}, first batch {:?}", began.elapsed());
    assert_eq!(made.batch.unwrap().n_pairs(), 8);
}
