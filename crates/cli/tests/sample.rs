//! `tastemaker sample`, through the real program.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;
use std::io::BufReader;
use std::path::PathBuf;

use image::RgbImage;
use insta::assert_snapshot;
use support::{Bench, files, mistake};
use tastemaker_testkit::golden_dir;

const QUICK: [&str; 4] = ["--num_inference_steps", "2", "--model", "model"];

fn sample(bench: &Bench, more: &[&str]) -> support::Said {
    bench.run(&[&["sample"], QUICK.as_slice(), more].concat())
}

#[track_caller]
fn generated(bench: &Bench, more: &[&str]) {
    let said = sample(bench, more);
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn every_prompt_is_generated_with_every_seed_under_a_name_that_says_so() {
    let bench = Bench::new();
    bench.write("prompts.txt", "rain over the sea\n\n  a red house  \n");
    let more =
        ["--prompt", "a fox", "--prompts", "prompts.txt", "--seed", "41", "--num_images_per_prompt", "2"];
    generated(&bench, &[more.as_slice(), &["--out", "out"]].concat());
    let names: Vec<_> = files(&bench.path("out")).into_iter().map(|(path, _)| path).collect();
    let wanted = ["0000-41.png", "0000-42.png", "0001-41.png", "0001-42.png", "0002-41.png", "0002-42.png"];
    assert_eq!(names, wanted.into_iter().chain(["image-grid.png"]).map(PathBuf::from).collect::<Vec<_>>());
    let sheet = image::open(bench.path("out/image-grid.png")).unwrap();
    assert_eq!(
        (sheet.width(), sheet.height()),
        (4 + 2 * 36, 4 + 3 * 36),
        "two seeds across, three prompts down"
    );
    let image = image::open(bench.path("out/0001-42.png")).unwrap();
    assert_eq!((image.width(), image.height()), (32, 32));
}

#[test]
fn lists_of_every_kind_are_read_as_prompts_and_not_as_lines() {
    let bench = Bench::new();
    for (name, list) in [
        ("prompts.csv", "category,prompt\nanimals,\"a fox, in snow\"\n"),
        ("prompts.json", "[{\"prompt\": \"a fox, in snow\", \"category\": \"animals\"}]"),
        ("prompts.jsonl", "{\"caption\": \"a fox, in snow\"}\n"),
    ] {
        bench.write(name, list);
        generated(&bench, &["--prompts", name, "--out", name.trim_start_matches("prompts.")]);
        let out = name.trim_start_matches("prompts.");
        assert_eq!(files(&bench.path(out)).len(), 1, "{name}");
        assert!(parameters(&bench, &format!("{out}/0000-0.png")).starts_with("a fox, in snow\n"), "{name}");
    }
    bench.write("prompts.jsonl", "{\"caption\": \"a fox\"}\n{\"caption\": }\n");
    let said = sample(&bench, &["--prompts", "prompts.jsonl", "--out", "x"]);
    assert!(said.stderr.contains("line 2 is not valid JSON: expected value at column 13"), "{}", said.stderr);
    assert_eq!((said.code, files(&bench.path("x")).len()), (0, 1));
}

#[test]
fn an_image_depends_on_prompt_and_seed_and_not_on_its_neighbors() {
    let bench = Bench::new();
    generated(&bench, &["--prompt", "a fox", "--prompt", "rain", "--out", "both", "--batch_size", "1"]);
    generated(&bench, &["--prompt", "rain", "--out", "one"]);
    let read = |path: &str| fs::read(bench.path(path)).unwrap();
    assert!(read("both/0001-0.png") == read("one/0000-0.png"));
    assert!(read("both/0000-0.png") != read("both/0001-0.png"));
}

#[test]
fn what_was_trained_can_be_generated_with() {
    let bench = Bench::new();
    let train = |output: &str, adapter: &str| {
        let said =
            bench.train(output, &["--method", "mapo", "--adapter_type", adapter, "--learning_rate", "0.1"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    train("full", "full");
    train("lora", "lora");
    generated(&bench, &["--prompt", "a fox", "--out", "base"]);
    generated(
        &bench,
        &["--prompt", "a fox", "--out", "with-lora", "--lora", "lora/pytorch_lora_weights.safetensors"],
    );
    generated(&bench, &["--prompt", "a fox", "--out", "with-full", "--model", "full/model"]);
    let read = |folder: &str| fs::read(bench.path(folder).join("0000-0.png")).unwrap();
    assert!(read("base") != read("with-lora"));
    assert!(read("base") != read("with-full"));
}

/// The chunk that A1111 and others read.
fn parameters(bench: &Bench, path: &str) -> String {
    let file = BufReader::new(fs::File::open(bench.path(path)).unwrap());
    let reader = png::Decoder::new(file).read_info().unwrap();
    let [chunk] = &reader.info().uncompressed_latin1_text[..] else { panic!("one chunk of text") };
    assert_eq!(chunk.keyword, "parameters");
    chunk.text.clone()
}

fn pixels(bench: &Bench, path: &str) -> RgbImage {
    image::open(bench.path(path)).unwrap().into_rgb8()
}

/// Largest difference of a channel, 0 to 255.
fn distance(one: &RgbImage, other: &RgbImage) -> u8 {
    let pairs = one.as_raw().iter().zip(other.as_raw());
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn an_image_says_what_it_was_generated_with_in_the_form_of_a1111() {
    let bench = Bench::new();
    let model = fs::read(bench.path("model/unet/diffusion_pytorch_model.safetensors")).unwrap();
    let hash = &tastemaker_store::checksum::sha256_bytes(&model)[..10];
    let flags = [
        "--prompt",
        "a fox, asleep",
        "--negative_prompt",
        "rain",
        "--sampler",
        "DPM++ 2M Karras",
        "--seed",
        "7",
        "--guidance_scale",
        "5",
        "--guidance_rescale",
        "0.5",
        "--height",
        "48",
        "--out",
        "out",
    ];
    generated(&bench, &flags);
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        parameters(&bench, "out/0000-7.png"),
        format!(
            "a fox, asleep\nNegative prompt: rain\nSteps: 2, Sampler: DPM++ 2M Karras, CFG scale: 5, Seed: 7, \
             Size: 32x48, Model hash: {hash}, Model: model, CFG Rescale: 0.5, Version: tastemaker {version}"
        )
    );
    assert_eq!(pixels(&bench, "out/0000-7.png").dimensions(), (32, 48));
}

#[test]
fn every_sampler_generates_and_no_two_alike() {
    let bench = Bench::new();
    let mut seen: Vec<RgbImage> = Vec::new();
    for entry in tastemaker_math::SAMPLERS {
        let more = ["--prompt", "a fox", "--sampler", entry.name, "--out", entry.name];
        generated(&bench, &[more.as_slice(), &["--num_inference_steps", "5"]].concat());
        let image = pixels(&bench, &format!("{}/0000-0.png", entry.name));
        assert!(seen.iter().all(|other| distance(other, &image) > 0), "{}", entry.name);
        seen.push(image);
    }
}

#[test]
fn sdxl_generates_oblongs_too() {
    let bench = Bench::sdxl();
    generated(&bench, &["--prompt", "a fox", "--width", "64", "--out", "out"]);
    let image = pixels(&bench, "out/0000-0.png");
    assert_eq!(image.width(), 64);
    assert_ne!(image.height(), 64);
}

#[test]
fn an_image_to_start_from_shows_through_the_more_the_less_strength() {
    let bench = Bench::new();
    image::RgbImage::from_fn(2, 2, |x, y| image::Rgb([255 * x as u8, 255 * y as u8, 60]))
        .save(bench.path("layout.png"))
        .unwrap();
    let generate = |strength: &str| {
        let more = ["--prompt", "a fox", "--image", "layout.png", "--strength", strength, "--out", strength];
        generated(&bench, &[more.as_slice(), &["--num_inference_steps", "50"]].concat());
        assert!(
            parameters(&bench, &format!("{strength}/0000-0.png"))
                .contains(&format!("Denoising strength: {strength}, Image: layout"))
        );
        pixels(&bench, &format!("{strength}/0000-0.png"))
    };
    let mean = |one: &RgbImage, other: &RgbImage| {
        let pairs = one.as_raw().iter().zip(other.as_raw());
        pairs.map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / one.as_raw().len() as f64
    };
    let (one_step, two_steps, much) = (generate("0.02"), generate("0.04"), generate("0.9"));
    assert!(mean(&one_step, &two_steps) < mean(&one_step, &much), "a step more is a small change");
}

#[test]
fn a_lora_acts_at_its_weight() {
    let bench = Bench::new();
    let said = bench.train("lora", &["--method", "mapo", "--adapter_type", "lora", "--learning_rate", "0.1"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let lora = "lora/pytorch_lora_weights.safetensors";
    let half = format!("{lora}:0.5");
    let generate = |out: &str, more: &[&str]| {
        generated(&bench, &[&["--prompt", "a fox", "--out", out], more].concat());
        pixels(&bench, &format!("{out}/0000-0.png"))
    };
    let (base, whole) = (generate("base", &[]), generate("whole", &["--lora", lora]));
    assert!(generate("none", &["--lora", lora, "--lora_weight", "0"]) == base);
    let middle = generate("half", &["--lora", &half]);
    assert!(middle == generate("typed", &["--lora", lora, "--lora_weight", "0.5"]));
    assert!(middle != base && middle != whole);
    let told = parameters(&bench, "half/0000-0.png");
    assert!(told.contains("Lora hashes: \"lora: ") && told.contains("\", Lora weight: 0.5, "), "{told}");

    let said = sample(&bench, &["--prompt", "a fox", "--out", "out", "--lora", &half, "--lora_weight", "1"]);
    assert_eq!(said.code, 2, "{}", said.stderr);
    assert!(said.stderr.contains("two weights of one LoRA"), "{}", said.stderr);
}

#[test]
fn guidance_leads_away_from_a_negative_prompt_model_or_lora() {
    let bench = Bench::new();
    let train = |output: &str, adapter: &str| {
        let said =
            bench.train(output, &["--method", "mapo", "--adapter_type", adapter, "--learning_rate", "0.1"]);
        assert_eq!(said.code, 0, "{}", said.stderr);
    };
    train("full", "full");
    train("lora", "lora");
    let generate = |out: &str, more: &[&str]| {
        generated(&bench, &[&["--prompt", "a fox", "--out", out], more].concat());
        pixels(&bench, &format!("{out}/0000-0.png"))
    };
    let plain = generate("plain", &[]);
    assert!(distance(&plain, &generate("same", &["--negative_model", "model"])) <= 1, "the model itself");
    for (out, more) in [
        ("prompt", ["--negative_prompt", "rain"]),
        ("folder", ["--negative_model", "full/model"]),
        ("unet", ["--negative_model", "full/model/unet"]),
        ("adapter", ["--negative_lora", "lora/pytorch_lora_weights.safetensors"]),
        ("rescaled", ["--guidance_rescale", "0.7"]),
    ] {
        assert!(distance(&plain, &generate(out, &more)) > 0, "{out}");
    }
    assert!(pixels(&bench, "folder/0000-0.png") == pixels(&bench, "unet/0000-0.png"));
    assert!(parameters(&bench, "folder/0000-0.png").contains("Negative model: full/model, "));
}

#[test]
fn images_that_are_there_can_be_left_alone() {
    let bench = Bench::new();
    let run = |more: &[&str]| {
        let said =
            sample(&bench, &[&["--prompt", "a fox", "--out", "out", "--skip_existing"], more].concat());
        assert_eq!(said.code, 0, "{}", said.stderr);
        said.stdout
    };
    assert!(!run(&[]).contains("skipped, exists"));
    let first = fs::read(bench.path("out/0000-0.png")).unwrap();
    let said = run(&["--num_images_per_prompt", "2"]);
    assert!(said.contains("0000-0.png  skipped, exists") && said.contains("0000-1.png  a fox"), "{said}");
    assert!(bench.path("out/image-grid.png").exists(), "with the one that was there");
    assert!(fs::read(bench.path("out/0000-0.png")).unwrap() == first);
    let other = ["--prompt", "a fox", "--out", "out", "--skip_existing", "--guidance_scale", "3"];
    let refused = sample(&bench, &other);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("out/0000-0.png was generated otherwise"), "{}", refused.stderr);
    assert!(!run(&["--guidance_scale", "3", "--overwrite"]).contains("skipped, exists"), "other parameters");
}

#[test]
fn flags_that_cannot_be_are_mistakes() {
    let bench = Bench::new();
    bench.write("text.png", "no image");
    for (more, code, words) in [
        (&["--sampler", "eular"][..], 2, "did you mean \"euler\"?"),
        (&["--sampler", "euler", "--eta", "0.5"], 2, "eta is a setting of ddim, and euler has none"),
        (&["--guidance_scale", "1", "--negative_prompt", "rain"], 2, "--negative_prompt does nothing at"),
        (&["--guidance_scale", "0", "--negative_model", "model"], 2, "--negative_model does nothing at"),
        (&["--guidance_rescale", "2"], 2, "--guidance_rescale is 2; wanted a number from 0 to 1"),
        (&["--width", "33"], 2, "wanted a multiple of 8"),
        (&["--image", "text.png"], 3, "text.png"),
        (&["--image", "none.png"], 3, "none.png"),
        (&["--strength", "0.5"], 2, "--image"),
        (&["--lora_weight", "0.5"], 2, "--lora"),
    ] {
        let said = sample(&bench, &[&["--prompt", "a fox", "--out", "out"], more].concat());
        assert_eq!(said.code, code, "{more:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{more:?}: {}", said.stderr);
    }
}

#[test]
fn nothing_to_generate_is_a_mistake() {
    assert_snapshot!(mistake(&sample(&Bench::new(), &["--out", "out"])));
}

#[test]
fn a_file_of_which_no_prompt_is_utf8_is_a_mistake() {
    let bench = Bench::new();
    bench.write("prompts.txt", b"un r\xeanard");
    assert_snapshot!(mistake(&sample(&bench, &["--prompts", "prompts.txt", "--out", "out"])));
}

#[test]
fn a_lora_of_another_network_is_a_mistake() {
    let bench = Bench::new();
    let other = golden_dir("models", "unet-sd1-lora").join("pytorch_lora_weights.safetensors");
    bench.write("lora.safetensors", fs::read(other).unwrap());
    let said = sample(&bench, &["--prompt", "a fox", "--out", "out", "--lora", "lora.safetensors"]);
    assert_snapshot!(mistake(&said));
}

#[test]
fn too_many_steps_are_a_mistake() {
    let said = sample(&Bench::new(), &["--prompt", "a fox", "--out", "out", "--num_inference_steps", "1001"]);
    assert_snapshot!(mistake(&said));
}

#[test]
fn images_that_cannot_be_written_are_noticed_before_generating() {
    let bench = Bench::new();
    bench.write("file", "a file where a folder should be");
    assert_snapshot!(mistake(&sample(&bench, &["--prompt", "a fox", "--out", "file/out"])));
}

#[test]
fn what_was_trained_on_long_captions_is_sampled_with_their_length() {
    let bench = Bench::new();
    for (output, more) in [("lora", "--method sft"), ("full", "--method sft --adapter_type full")] {
        let more: Vec<&str> = more.split_whitespace().chain(["--max_token_length", "150"]).collect();
        let said = bench.train(output, &more);
        assert_eq!(said.code, 0, "{}", said.stderr);
    }
    let kohya = "lora/pytorch_lora_weights_kohya.safetensors";
    let header = tastemaker_torch::tensors::read_with_metadata(&bench.path(kohya)).unwrap().1;
    assert_eq!(header["ss_max_token_length"], "150");
    for card in ["lora/README.md", "full/model/README.md"] {
        let card = fs::read_to_string(bench.path(card)).unwrap();
        assert!(card.contains("| captions | up to 150 tokens, encoded in chunks of 75 |"), "{card}");
    }
    // Far from its run the header alone says it.
    bench.write("alone.safetensors", fs::read(bench.path(kohya)).unwrap());
    let mut number = 0;
    let mut image = |what: &str, more: &str| {
        number += 1;
        let out = format!("image{number}");
        let line = format!("sample {what} {more} --num_inference_steps 2 --out {out} --prompt");
        let args: Vec<&str> =
            line.split_whitespace().chain(["a very long prompt of many words indeed"]).collect();
        bench.succeed(&args);
        pixels(&bench, &format!("{out}/0000-0.png"))
    };
    for what in [
        "--model lora",
        "--model full",
        "--model model --lora lora",
        "--model model --lora alone.safetensors",
    ] {
        let (own, long) = (image(what, ""), image(what, "--max_token_length 150"));
        assert!(own == long, "{what}: not with the length of its run");
        assert!(own != image(what, "--max_token_length 75"), "{what}: what is typed does not count");
    }
}

#[test]
fn a_malformed_row_of_a_list_costs_no_other_image_and_no_number() {
    let bench = Bench::new();
    bench.write("list.txt", b"a fox\ncaf\xe9\nrain\n");
    let line =
        ["sample", "--model", "model", "--num_inference_steps", "1", "--prompts", "list.txt", "--out", "out"];
    let said = bench.succeed(&line);
    assert!(said.stderr.contains("note: skipped 1 malformed row of list.txt"), "{}", said.stderr);
    assert!(said.stderr.contains("note: line 2 is not UTF-8; save it as UTF-8"), "{}", said.stderr);
    let there = |name: &str| bench.path("out").join(name).is_file();
    assert_eq!(["0000-0.png", "0001-0.png", "0002-0.png"].map(there), [true, false, true]);
}
