//! One rule for the places that commands write to: nothing a person made is replaced, nothing an earlier command made without
//! `--overwrite`, and the place is checked before any work.

mod support;

use std::fs;

use support::{Bench, files, mistake};
use tastemaker_store::lock::Claim;

/// Every command that writes, its place last; what it reads is not there, so that it must look at the place first.
const COMMANDS: &[&str] = &[
    "train --pretrained_model_name_or_path nowhere --train_data_dir nowhere --method mapo --max_train_steps 1 --output_dir",
    "sample --model nowhere --prompt x --out",
    "compare nowhere elsewhere --scorer nearest-art --out",
    "score nowhere.png --scorer nowhere --out",
    "accuracy --model nowhere --pairs nowhere --out",
    "data pairs --model nowhere --prompt x --out",
    "data relabel nowhere --scorer nowhere --out",
    "data convert nowhere",
    "model merge nowhere nowhere",
    "model convert nowhere",
    "demo --out",
];

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn no_command_writes_where_a_person_keeps_things() {
    let bench = Bench::empty();
    for command in COMMANDS {
        bench.pairs("kept", 1);
        bench.write("kept/notes.txt", "mine");
        bench.write("scores.csv", "mine");
        let before = files(&bench.path("kept"));
        let takes_file = ["score", "accuracy"].iter().any(|name| command.starts_with(name));
        for overwrite in [&[][..], &["--overwrite"]] {
            let place = if takes_file { "scores.csv" } else { "kept" };
            let said = bench.run(&[words(command).as_slice(), &[place], overwrite].concat());
            let text = mistake(&said);
            assert!(text.starts_with("exit code 5\n"), "{command}: {text}");
            assert!(text.contains(place) && text.contains("choose another"), "{command}: {text}");
        }
        let said = mistake(&bench.run(&[words(command).as_slice(), &["kept/notes.txt/below"]].concat()));
        assert!(said.starts_with("exit code 5\n"), "{command}: {said}");
        assert!(files(&bench.path("kept")) == before, "{command} changed what is there");
        assert_eq!(fs::read(bench.path("scores.csv")).unwrap(), b"mine", "{command}");
    }
}

#[test]
fn a_place_where_another_process_works_is_refused_by_every_command() {
    let bench = Bench::empty();
    bench.pairs("pairs", 1);
    bench.write("image.png", "");
    let more = [
        "data check pairs --fix --output_dir",
        "model convert nowhere out.safetensors",
        "model merge nowhere nowhere out.safetensors",
    ];
    let (folder, file) = (bench.path("out"), bench.path("out.safetensors"));
    let claims = (Claim::folder(&folder).unwrap().unwrap(), Claim::file(&file).unwrap().unwrap());
    let of_file = Claim::file(bench.path("scores.csv")).unwrap().unwrap();
    for command in COMMANDS.iter().chain(&more) {
        let is_named = command.ends_with(".safetensors");
        let takes_file = ["score", "accuracy"].iter().any(|name| command.starts_with(name));
        let place = if takes_file { "scores.csv" } else { "out" };
        let mut line = words(command);
        line.extend((!is_named).then_some(place));
        let text = mistake(&bench.run(&line));
        assert!(text.starts_with("exit code 5\n"), "{command}: {text}");
        assert!(
            text.contains("is in use by another process; wait until that has ended"),
            "{command}: {text}"
        );
    }
    drop((claims, of_file));
    let left = fs::read_dir(bench.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name != "pairs" && name != "image.png").collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn files_of_a_user_in_the_folder_of_a_run_stay_whatever_replaces_the_run() {
    let bench = Bench::new();
    let train = |more: &[&str]| {
        let line = "train --pretrained_model_name_or_path model --train_data_dir pairs --method mapo --resolution 32 \
                    --held_out_fraction 0 --max_train_steps 1 --output_name fox --logging_dir ./board --output_dir out";
        bench.run(&[words(line).as_slice(), more].concat())
    };
    assert_eq!(train(&[]).code, 0);
    let n_boards = || files(&bench.path("out/board")).len();
    assert_eq!(n_boards(), 1);
    let mine = ["notes.txt", "merged.safetensors", "images/best.png"];
    for name in mine {
        bench.write(&format!("out/{name}"), name);
    }
    let said = mistake(&train(&["--learning_rate", "1e-3"]));
    assert!(said.starts_with("exit code 5\n") && said.contains("or --overwrite"), "{said}");
    let before = fs::read(bench.path("out/fox.safetensors")).unwrap();
    let said = train(&["--learning_rate", "1e-3", "--overwrite"]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    let note = "note: images/best.png and 2 other files in out stay as they are";
    assert!(said.stderr.contains(note), "{}", said.stderr);
    assert!(fs::read(bench.path("out/fox.safetensors")).unwrap() != before);
    assert_eq!(n_boards(), 1, "curves of the run before are gone");
    for name in mine {
        assert_eq!(fs::read_to_string(bench.path(&format!("out/{name}"))).unwrap(), name);
    }
    // Within what a run replaces as a whole.
    for name in ["checkpoint-1/mine.txt", "unet/old/config.json", "model/unet/notes.txt"] {
        bench.write(&format!("out/{name}"), name);
        let said = mistake(&train(&["--overwrite"]));
        assert!(said.starts_with("exit code 5\n") && said.contains(&format!("such as {name}")), "{said}");
        assert_eq!(fs::read_to_string(bench.path(&format!("out/{name}"))).unwrap(), name);
        fs::remove_file(bench.path(&format!("out/{name}"))).unwrap();
    }
}

#[cfg(unix)]
#[test]
fn overwrite_replaces_nothing_that_the_command_reads_and_nothing_that_a_person_made() {
    let bench = Bench::new();
    let run = "train --model model --train_data_dir pairs --method mapo --resolution 32 --held_out_fraction 0 --max_train_steps 1";
    bench.succeed(&words(&format!("{run} --out lora")));
    bench.succeed(&words(&format!("{run} --adapter_type full --out full")));
    bench.succeed(&words("model merge model lora merged"));
    bench.succeed(&words("model convert merged single.safetensors"));
    bench.succeed(&words("model convert single.safetensors folder --model_config model"));
    bench.succeed(&words("data convert pairs set --to jsonl"));
    std::os::unix::fs::symlink("merged", bench.path("link")).unwrap();
    bench.write("mine.toml", "mine");
    let of = |name: &str| files(&bench.path(name));
    let before: Vec<_> = ["model", "lora", "full", "merged", "folder", "set"].map(of).into();
    for (line, named) in [
        ("model merge merged lora merged".to_owned(), "merged"),
        ("model merge link lora merged".to_owned(), "link"),
        ("model merge merged lora link".to_owned(), "merged"),
        ("model merge full lora full/model".to_owned(), "full"),
        ("model merge model lora merged --vae merged/vae".to_owned(), "merged/vae"),
        ("model merge model lora lora/pytorch_lora_weights.safetensors".to_owned(), "lora"),
        ("model convert single.safetensors single.safetensors".to_owned(), "single.safetensors"),
        ("model convert single.safetensors folder --model_config folder".to_owned(), "folder"),
        (format!("{run} --adapter_type full --out full --model full/model"), "full/model"),
        (format!("{run} --out lora --network_weights lora/pytorch_lora_weights.safetensors"), "lora/pytorch"),
        (format!("{run} --out full --unet_init full"), "full"),
        ("data convert set set --to jsonl".to_owned(), "set"),
        (
            "accuracy --model model --pairs pairs --without_reference --draws 1 --out mine.toml".to_owned(),
            "mine.toml is something else",
        ),
        (
            "score pairs/warm0.png --prompt x --scorer nearest-art --out mine.toml".to_owned(),
            "mine.toml is something else",
        ),
        ("model convert single.safetensors model --model_config merged".to_owned(), "model holds "),
        ("data convert pairs lora".to_owned(), "lora holds other things"),
    ] {
        let said = mistake(&bench.run(&[words(&line).as_slice(), &["--overwrite"]].concat()));
        assert!(said.starts_with("exit code 5\n") && said.contains(named), "{line}: {said}");
    }
    for (line, code) in [
        (format!("{run} --out dangling"), 5),
        (format!("{run} --out="), 2),
        ("sample --model model --prompt x --out=".to_owned(), 2),
    ] {
        let _ = std::os::unix::fs::symlink("nowhere", bench.path("dangling"));
        let said = bench.run(&words(&line));
        assert!(said.code == code && said.stderr.starts_with("error: "), "{line}: {}", said.stderr);
    }
    let folders = ["model", "lora", "full", "merged", "folder", "set"].map(of);
    assert!(folders.into_iter().zip(before).all(|(now, before)| now == before), "something was changed");
    assert_eq!(fs::read(bench.path("mine.toml")).unwrap(), b"mine");
    // A file of a person among those of a folder that is replaced as a whole.
    for (name, line) in [
        ("merged/unet/notes.txt", "model merge model lora merged"),
        ("merged/README.md", "model merge model lora merged"),
        ("set/images/mine.png", "data convert pairs set --to jsonl"),
    ] {
        bench.write(name, "mine");
        let said = mistake(&bench.run(&[words(line).as_slice(), &["--overwrite"]].concat()));
        assert!(said.starts_with("exit code 5\n") && said.contains("holds other things, such as"), "{said}");
        assert_eq!(fs::read(bench.path(name)).unwrap(), b"mine");
        fs::remove_file(bench.path(name)).unwrap();
        bench.succeed(&[words(line).as_slice(), &["--overwrite"]].concat());
    }
}

#[test]
fn what_a_command_made_is_replaced_only_with_overwrite() {
    let bench = Bench::new();
    bench.write("prompts.txt", "fox\nred apple\n");
    let train = "train --pretrained_model_name_or_path model --train_data_dir pairs --method mapo --resolution 32 \
                 --held_out_fraction 0 --max_train_steps 1 --output_dir";
    let quick = "--model model --prompts prompts.txt --num_inference_steps 2";
    let commands = [
        format!("{train} out"),
        format!("sample {quick} --out out"),
        "compare model other=model --scorer nearest-art --prompts prompts.txt --num_inference_steps 2 --out out".to_owned(),
        "score pairs/warm0.png --prompt fox --scorer nearest-art --out scores.csv".to_owned(),
        "accuracy --model model --pairs pairs --without_reference --draws 1 --resolution 32 --out found.json".to_owned(),
        format!("data pairs {quick} --scorer nearest-art --num_images_per_prompt 2 --out out"),
        "data relabel set --scorer nearest-art --out out".to_owned(),
        "data convert pairs out --to jsonl".to_owned(),
        "data convert pairs out --to pick-a-pic".to_owned(),
        "model convert model out.safetensors".to_owned(),
        "model merge model lora out".to_owned(),
    ];
    bench.succeed(&words(&format!("{train} lora")));
    bench.succeed(&words(&format!(
        "data pairs {quick} --scorer nearest-art --num_images_per_prompt 2 --out set"
    )));
    for command in &commands {
        let line = words(command);
        bench.succeed(&line);
        let place = line
            .iter()
            .rev()
            .find(|word| ["out", "scores.csv", "found.json", "out.safetensors"].contains(*word));
        let path = bench.path(place.unwrap());
        let of = || if path.is_dir() { files(&path) } else { vec![(path.clone(), fs::read(&path).unwrap())] };
        let made = of();
        // A comparison goes on with what is there, and refuses another one.
        let other: &[&str] = if line[0] == "compare" { &["--seed", "5"] } else { &[] };
        let said = mistake(&bench.run(&[line.as_slice(), other].concat()));
        assert!(said.starts_with("exit code 5\n") && said.contains("--overwrite"), "{command}: {said}");
        assert!(of() == made, "{command} changed what is there");
        bench.succeed(&[line.as_slice(), other, &["--overwrite"]].concat());
        if path.is_dir() { fs::remove_dir_all(&path).unwrap() } else { fs::remove_file(&path).unwrap() }
    }
}

#[test]
fn images_of_two_models_do_not_end_up_in_one_folder() {
    let bench = Bench::new();
    let sample = |more: &[&str]| {
        bench.run(
            &[words("sample --model model --num_inference_steps 2 --prompt fox --out out").as_slice(), more]
                .concat(),
        )
    };
    assert_eq!(sample(&[]).code, 0);
    let image = fs::read(bench.path("out/0000-0.png")).unwrap();
    for more in [&["--guidance_scale", "2", "--skip_existing"][..], &["--seed", "1"], &[]] {
        let said = sample(more);
        assert_eq!(said.code, 5, "{}", said.stderr);
        assert_eq!(fs::read(bench.path("out/0000-0.png")).unwrap(), image);
    }
    assert_eq!(sample(&["--skip_existing", "--num_images_per_prompt", "2"]).code, 0);
    assert_eq!(fs::read(bench.path("out/0000-0.png")).unwrap(), image);
    assert_eq!(sample(&["--seed", "1", "--overwrite"]).code, 0);
    assert!(!bench.path("out/0000-0.png").exists() && bench.path("out/0000-1.png").exists());
}

#[test]
fn a_tilde_is_the_home_folder_and_a_home_that_cannot_be_written_is_said() {
    let bench = Bench::new();
    let home = bench.path("home");
    fs::create_dir(&home).unwrap();
    fs::rename(bench.path("model"), home.join("model")).unwrap();
    let home = home.to_str().unwrap();
    let recipe = "output_dir = \"~/out\"\n[model]\npretrained_model_name_or_path = \"~/model\"\n[data]\ntrain_data_dir = \"pairs\"\n\
                  resolution = 32\nheld_out_fraction = 0\n[method]\nname = \"mapo\"\n[train]\nmax_train_steps = 1\n";
    bench.write("run.toml", recipe);
    let run = |args: &[&str], home: &str| bench.run_in(args, &[("OMP_NUM_THREADS", "1"), ("HOME", home)]);
    let said = run(&["train", "run.toml"], home);
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(bench.path("home/out/plan.json").is_file());
    let said = run(
        &words("sample --model=~/model --lora=~/out --prompt ~/x --num_inference_steps 2 --out=~/images"),
        home,
    );
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        bench.path("home/images/0000-0.png").is_file() && said.stdout.contains("  ~/x"),
        "{}",
        said.stdout
    );

    let nowhere = bench.write("no-home", "").to_str().unwrap().to_owned();
    let model = format!("{home}/model");
    let said = run(&["train", "run.toml", "--model", &model, "--out", "new"], &nowhere);
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains("choose another --cache_to or set XDG_CACHE_HOME"), "{}", said.stderr);
    let said = run(&["sample", "--model", "demo", "--prompt", "fox", "--out", "new"], &nowhere);
    assert_eq!(said.code, 5, "{}", said.stderr);
    assert!(said.stderr.contains("set XDG_CACHE_HOME to a folder that can be written"), "{}", said.stderr);
}

#[test]
fn what_is_replaced_stands_until_the_first_result_of_the_new_is_there() {
    let bench = Bench::new();
    bench.pairs("broken", 2);
    for image in ["warm0", "cold0", "warm1", "cold1"] {
        bench.write(&format!("broken/{image}.png"), "no image");
    }
    let sample = "sample --model model --num_inference_steps 1 --out images";
    let compare = "compare model other=model --prompts demo --n_prompts 2 --scorer nearest-art --num_inference_steps 1 --out compared";
    let train = "train --model model --method mapo --resolution 32 --held_out_fraction 0 --max_train_steps 1 --out run";
    for (command, place, old, fails, new, gone) in [
        (
            sample,
            "images",
            "--prompt fox --prompt hen",
            "--prompt rain --guidance_scale 1e300",
            "--prompt rain",
            "0001-0.png",
        ),
        (
            compare,
            "compared",
            "--seed 1",
            "--seed 2 --guidance_scale 1e300",
            "--seed 2",
            "images/model/0000-1.png",
        ),
        (
            train,
            "run",
            "--train_data_dir pairs --max_train_steps 2",
            "--train_data_dir broken",
            "--train_data_dir pairs --seed 1",
            "checkpoint-2/checkpoint.json",
        ),
    ] {
        let line = |more: &str| format!("{command} {more}");
        bench.succeed(&words(&line(old)));
        assert!(bench.path(place).join(gone).exists(), "{command}");
        let before = files(&bench.path(place));
        let said = bench.run(&words(&line(&format!("{fails} --overwrite"))));
        assert_ne!(said.code, 0, "{command}");
        assert!(files(&bench.path(place)) == before, "{command}: {}", said.stderr);
        bench.succeed(&words(&line(&format!("{new} --overwrite"))));
        assert!(!bench.path(place).join(gone).exists(), "{command}: old beside new");
        assert!(files(&bench.path(place)) != before, "{command}");
    }
}

#[test]
fn a_folder_of_somebody_else_is_neither_cache_nor_precomputed_reference() {
    let bench = Bench::new();
    bench.pairs("mine", 1);
    bench.write("named/reference.json", "{\"mine\": true}");
    bench.write("named/000000.safetensors", "mine");
    bench.write("named/cache.json", "{\"mine\": true}");
    for place in ["mine", "named"] {
        let before = files(&bench.path(place));
        for flags in [&["--reference", "precomputed", "--reference_dir", place][..], &["--cache_to", place]] {
            for more in [&[][..], &["--overwrite"]] {
                let said = bench.train("out", &[&["--method", "diffusion-dpo"], flags, more].concat());
                assert_eq!(said.code, 5, "{flags:?} {more:?}: {}", said.stderr);
                assert!(said.stderr.contains(place), "{flags:?}: {}", said.stderr);
                assert!(files(&bench.path(place)) == before, "{flags:?} {more:?} changed what is there");
                assert!(!bench.path("out").exists(), "{flags:?}");
            }
        }
    }
}
