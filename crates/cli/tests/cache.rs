//! Caches through the real program: made beforehand or on the way, stopped and resumed, stale and damaged ones.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::{Bench, Said};
use tastemaker_data::cache::Key;
use tastemaker_run::{Event, read_events};
use tastemaker_testkit::TINY_RESOLUTION;
use tastemaker_torch::tensors;

const LORA: &str = "pytorch_lora_weights.safetensors";

/// The line that makes a cache in `to`.
fn line(to: &str, more: &str) -> String {
    format!(
        "data cache --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
         --cache_to {to} {more}"
    )
}

fn cache(bench: &Bench, to: &str, more: &str) -> Said {
    let line = line(to, more);
    bench.run(&line.split_whitespace().collect::<Vec<_>>())
}

/// Every file of a folder by name; none if it is not there yet.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap()))
        .collect()
}

/// Figures of a run and its result: what must not depend on how its pairs came to it.
fn outcome(bench: &Bench, output: &str) -> (Vec<f64>, tensors::Named) {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    let losses = events.iter().filter_map(|event| match event {
        Event::Step(step) => Some(step.loss),
        _ => None,
    });
    (losses.collect(), tensors::read(&bench.path(output).join(LORA)).unwrap())
}

fn train(bench: &Bench, output: &str, more: &str) -> Said {
    let more: Vec<&str> = more.split_whitespace().collect();
    let said = bench.train(output, &more);
    assert_eq!(said.code, 0, "{}", said.stderr);
    said
}

#[test]
fn a_run_uses_what_was_cached_before_and_gives_the_same_result() {
    let bench = Bench::new();
    let said = cache(&bench, "cached", "");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(said.stdout.contains("cached holds 6 pairs in"), "{}", said.stdout);
    let before = files(&bench.path("cached"));
    let said = train(&bench, "one", "--method diffusion-dpo --cache_to cached");
    assert!(!said.stderr.contains("encoded 6 pairs"), "{}", said.stderr);
    assert!(files(&bench.path("cached")) == before, "a run changes the cache");
    let said = train(&bench, "two", "--method diffusion-dpo");
    assert!(said.stderr.contains("encoded 6 pairs"), "{}", said.stderr);
    let [one, two] = ["one", "two"].map(|output| outcome(&bench, output));
    assert_eq!(one.0, two.0);
    assert!(one.1.iter().all(|(name, tensor)| tensor.equal(&two.1[name])));
    let said = cache(&bench, "cached", "--verify");
    assert!(said.stdout.contains("all checksums match"), "{}{}", said.stdout, said.stderr);
}

/// Makes a cache one of an earlier version, whose key did not say how images are decoded; returns the name it then has by default.
fn age(folder: &Path) -> String {
    let key = fs::read_to_string(folder.join("key.json")).unwrap();
    let key = Key::parse(serde_json::from_str(&key).unwrap()).unwrap();
    assert_eq!(key.latents.decoder, Some(tastemaker_data::set::DECODER));
    fs::write(folder.join("key.json"), key.without_decoder().json()).unwrap();
    key.without_decoder().digest()[..16].to_owned()
}

#[test]
fn a_cache_whose_jpeg_was_decoded_otherwise_is_not_used_and_one_without_jpeg_is() {
    for is_jpeg in [false, true] {
        let bench = Bench::new();
        if is_jpeg {
            // Under a name that says something else, as it happens.
            let path = bench.path("pairs/cold5.png");
            image::open(&path).unwrap().save_with_format(&path, image::ImageFormat::Jpeg).unwrap();
        }
        let run = |output: &str, more: &[&str]| {
            let line = line("", "").replace("data cache", "train").replace("--cache_to ", "--method mapo");
            let line = format!("{line} --held_out_fraction 0 --max_train_steps 1 --output_dir {output}");
            let args: Vec<&str> = line.split_whitespace().chain(more.iter().copied()).collect();
            let home = bench.path("home").to_str().unwrap().to_owned();
            bench.run_in(&args, &[("OMP_NUM_THREADS", "1"), ("XDG_CACHE_HOME", &home)])
        };
        // Where the run names the folder.
        assert_eq!(cache(&bench, "cached", "").code, 0);
        age(&bench.path("cached"));
        for output in ["one", "again"] {
            let said = run(output, &["--cache_to", "cached"]);
            assert!(!said.stderr.contains("encoded 6 pairs"), "{}", said.stderr);
            assert_eq!(said.code == 0, !is_jpeg, "{}", said.stderr);
            let why = "its images were decoded by another version, to other pixels where they are JPEG; name another folder";
            assert_eq!(said.stderr.contains(why), is_jpeg, "{}", said.stderr);
        }
        // Where it is found by its key.
        let said = run("first", &[]);
        assert!(said.code == 0 && said.stderr.contains("encoded 6 pairs"), "{}", said.stderr);
        let mut keys = Vec::new();
        let mut open = vec![bench.path("home")];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    open.push(entry);
                } else if entry.ends_with("key.json") {
                    keys.push(entry);
                }
            }
        }
        assert_eq!(keys.len(), 1, "{keys:?}");
        let folder = keys[0].parent().unwrap();
        let before = folder.with_file_name(age(folder));
        fs::rename(folder, &before).unwrap();
        let said = run("second", &[]);
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert_eq!(said.stderr.contains("encoded 6 pairs"), is_jpeg, "{}", said.stderr);
        let note = "an earlier version, which decoded JPEG to other pixels";
        assert_eq!(said.stderr.contains(note), is_jpeg, "{}", said.stderr);
        let said = run("third", &[]);
        assert!(said.code == 0 && !said.stderr.contains("encoded 6 pairs"), "{}", said.stderr);
    }
}

#[test]
fn training_from_the_cache_is_training_from_pixels() {
    for (bench, method) in [(Bench::new(), "diffusion-dpo"), (Bench::sdxl(), "mapo")] {
        let more = format!(
            "--method {method} --proportion_empty_prompts 0.4 --max_train_steps 4 --enable_bucket \
             --bucket_reso_steps 16 --time_ids real --dataloader_num_workers"
        );
        let of = |output: &str, rest: &str| {
            train(&bench, output, &format!("{more} {rest}"));
            outcome(&bench, output)
        };
        let (cached, one, four) = (of("cached", "2"), of("one", "1 --no_cache"), of("four", "4 --no_cache"));
        assert_eq!(one.0, four.0, "{method}: the number of workers matters");
        assert!(one.1.iter().all(|(name, tensor)| tensor.equal(&four.1[name])), "{method}");
        for (cached, live) in cached.0.iter().zip(&one.0) {
            assert!((cached - live).abs() <= 2e-4 * live.abs(), "{method}: {:?} {:?}", cached, live);
        }
        assert_eq!(cached.0.len(), 4);
    }
}

#[test]
fn rows_that_cannot_be_read_are_skipped_by_name_and_the_rest_is_trained_on() {
    for more in ["", "--no_cache"] {
        let bench = Bench::new();
        fs::remove_file(bench.path("pairs/warm1.png")).unwrap();
        let whole = fs::read(bench.path("pairs/cold4.png")).unwrap();
        fs::write(bench.path("pairs/cold4.png"), &whole[..whole.len() / 2]).unwrap();
        let said = train(&bench, "out", &format!("--method diffusion-dpo --max_train_steps 6 {more}"));
        assert!(
            said.stderr
                .contains("skipped 1 row: 1 with an image that is not there\nnote: row 1: pairs/warm1.png"),
            "{}",
            said.stderr
        );
        assert!(
            said.stderr.contains("skipped: pair 4 (row 4): its loser does not decode"),
            "{}",
            said.stderr
        );
        let events = read_events(bench.path("out/events.jsonl")).unwrap().events;
        let named: Vec<u64> = events
            .iter()
            .filter_map(|event| if let Event::Skipped(row) = event { Some(row.pair) } else { None })
            .collect();
        assert_eq!(named, [4], "{more}");
    }
}

#[test]
fn with_and_without_a_cache_the_same_rows_are_skipped_and_the_others_come_in_the_same_order() {
    let bench = Bench::new();
    let whole = fs::read(bench.path("pairs/cold4.png")).unwrap();
    fs::write(bench.path("pairs/cold4.png"), &whole[..whole.len() / 2]).unwrap();
    // One pair at a time, so that a step of its own would be empty.
    let more = "--method sft --train_batch_size 1 --gradient_accumulation_steps 1 --max_train_steps 12";
    let of = |output: &str, rest: &str| {
        let said = train(&bench, output, &format!("{more} {rest}"));
        let named = said.stderr.matches("skipped: pair 4 (row 4): its loser does not decode").count();
        assert_eq!(named, 1, "{rest}: {}", said.stderr);
        let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
        let counts = events.iter().find_map(|event| match event {
            Event::Start(start) => Some((start.n_pairs, start.n_skipped)),
            _ => None,
        });
        assert_eq!(counts, Some((5, 1)), "{rest}");
        outcome(&bench, output).0
    };
    let (cached, live) = (of("cached", ""), of("live", "--no_cache"));
    assert_eq!((cached.len(), live.len()), (12, 12));
    for (cached, live) in cached.iter().zip(&live) {
        assert!((cached - live).abs() <= 2e-4 * live.abs(), "{cached} {live}");
    }
    // Who resumes knows already which rows they are.
    let more = format!("{more} --no_cache --checkpointing_steps 6");
    let said = train(&bench, "again", &more);
    assert!(said.stderr.contains("read the images of 6 pairs"), "{}", said.stderr);
    let said = train(&bench, "again", &format!("{more} --resume_from_checkpoint again/checkpoint-6"));
    assert!(!said.stderr.contains("read the images of"), "{}", said.stderr);
    assert!(said.stderr.contains("resuming from step 6"), "{}", said.stderr);
    let said = bench.train("dry", &["--method", "sft", "--dry-run"]);
    assert!(said.stdout.contains("6 at most"), "{}", said.stdout);
}

#[cfg(target_os = "linux")]
#[test]
fn an_image_without_read_permission_is_skipped_by_name() {
    use std::os::unix::fs::PermissionsExt;
    for more in ["", "--no_cache"] {
        let bench = Bench::new();
        let image = bench.path("pairs/cold4.png");
        fs::set_permissions(&image, fs::Permissions::from_mode(0o000)).unwrap();
        let line = line("", "").replace("data cache", "train").replace("--cache_to ", "--method sft");
        let line = format!("{line} --held_out_fraction 0 --max_train_steps 1 --output_dir out {more}");
        let said = bench.run_without_privileges(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(said.code, 0, "{}", said.stderr);
        assert!(said.stderr.contains("skipped: pair 4 (row 4): "), "{}", said.stderr);
        assert!(said.stderr.contains("cold4.png cannot be read: Permission denied"), "{}", said.stderr);
    }
}

#[test]
fn a_stale_and_a_damaged_cache_are_refused_with_the_reason() {
    let bench = Bench::new();
    assert_eq!(cache(&bench, "cached", "").code, 0);
    let said = cache(&bench, "cached", "--no_hflip");
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("hflip is true there and false here"), "{}", said.stderr);

    bench.pairs("pairs", 5);
    let said = bench.train("out", &["--method", "sft", "--cache_to", "cached"]);
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("n_pairs is 6 there and 5 here"), "{}", said.stderr);
    bench.pairs("pairs", 6);

    let name = files(&bench.path("cached")).into_keys().find(|name| name.starts_with("text-")).unwrap();
    let path = bench.path("cached").join(&name);
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let said = cache(&bench, "cached", "--verify");
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains(&name), "{}", said.stderr);
}

#[test]
fn shards_make_one_cache_together() {
    let bench = Bench::new();
    bench.pairs("pairs", 600);
    assert_eq!(cache(&bench, "whole", "").code, 0);
    let said = cache(&bench, "shared", "--share 1/2");
    assert!(said.stdout.contains("waits for the others"), "{}{}", said.stdout, said.stderr);
    assert!(said.stderr.contains("note: old names in flags: --share -> --shard"), "{}", said.stderr);
    let said = cache(&bench, "shared", "--shard 0/2");
    assert!(said.stdout.contains("holds 600 pairs"), "{}{}", said.stdout, said.stderr);
    assert!(files(&bench.path("whole")) == files(&bench.path("shared")));
}

/// Starts making a cache, kills it at moments spread over the time that a whole one takes, and lets the last attempt end.
fn killed(bench: &Bench, n_kills: u32) {
    let began = Instant::now();
    assert_eq!(cache(bench, "whole", "").code, 0);
    let whole = began.elapsed();
    let wanted = files(&bench.path("whole"));
    let line = line("killed", "");
    for kill in 0..n_kills {
        let mut child = bench.start(&line.split_whitespace().collect::<Vec<_>>());
        // The golden ratio spreads the moments evenly, in no order.
        let fraction = (f64::from(kill) * 0.618_033_988_7).fract();
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * (0.02 + fraction)));
        child.kill().unwrap();
        child.wait().unwrap();
        for (name, bytes) in
            files(&bench.path("killed")).iter().filter(|(name, _)| !name.starts_with(".tastemaker-"))
        {
            // What a shard is stands beside it until there is an index.
            let shard = name.strip_suffix(".json").map(|shard| format!("{shard}.safetensors"));
            let is_beside = shard.is_some_and(|shard| wanted.contains_key(&shard));
            assert!(is_beside || wanted.get(name) == Some(bytes), "after kill {kill}: {name}");
        }
        if kill % 4 == 3 && bench.path("killed/index.json").exists() {
            fs::remove_dir_all(bench.path("killed")).unwrap();
        }
    }
    assert_eq!(cache(bench, "killed", "").code, 0);
    assert!(files(&bench.path("killed")) == wanted);
}

#[test]
fn a_build_that_is_killed_again_and_again_ends_with_the_same_bytes() {
    let bench = Bench::new();
    bench.pairs("pairs", 1500);
    killed(&bench, 5);
}

#[test]
#[ignore = "takes minutes"]
fn a_build_that_is_killed_at_twenty_moments_ends_with_the_same_bytes() {
    let bench = Bench::new();
    bench.pairs("pairs", 3000);
    killed(&bench, 20);
}

#[test]
fn captions_that_are_cut_are_said_once_and_a_cache_is_of_one_length() {
    let bench = Bench::new();
    let list = fs::read_to_string(bench.path("pairs/metadata.jsonl")).unwrap();
    bench.write("pairs/metadata.jsonl", list.replacen("a fox", &["fox"; 200].join(" "), 1));
    let said = train(&bench, "short", "--method sft --cache_to short-cache").stderr;
    assert!(said.contains("note: 1 caption is longer than the "), "{said}");
    assert!(said.contains("tokens are cut; --max_token_length 150 or 225 encodes more"), "{said}");
    assert_eq!(said.matches("are cut").count(), 1);
    train(&bench, "long", "--method sft --max_token_length 225 --cache_to long-cache");
    train(&bench, "live", "--method sft --max_token_length 225 --no_cache");
    let [short, long, live] = ["short", "long", "live"].map(|name| outcome(&bench, name).0);
    assert_ne!(short, long);
    assert!(long.iter().zip(&live).all(|(a, b)| (a - b).abs() < 1e-4), "{long:?} {live:?}");
    let refused =
        bench.train("again", &["--method", "sft", "--max_token_length", "225", "--cache_to", "short-cache"]);
    assert_ne!(refused.code, 0);
    assert!(refused.stderr.contains("text.encoders is "), "{}", refused.stderr);
    let refused = bench.train("again", &["--method", "sft", "--max_token_length", "100"]);
    assert!(refused.stderr.contains("wanted 75, 150 or 225"), "{}", refused.stderr);
}
