//! The exit code of what commands meet, as `docs/reference/exit-codes.md` has it.

mod support;

use support::Bench;

#[test]
fn every_command_ends_with_the_documented_code() {
    let bench = Bench::new();
    bench.write("page.safetensors", "<!DOCTYPE html><html></html>");
    bench.write("prompts.txt", "fox\n");
    let scored = "--scorer nearest-art --num_inference_steps 2 --out";
    for (code, line) in [
        (4, "model inspect nowhere".to_owned()),
        (4, "model inspect page.safetensors".to_owned()),
        (4, "model convert nowhere new.safetensors".to_owned()),
        (4, "model merge model page.safetensors merged".to_owned()),
        (4, "model merge model nowhere merged".to_owned()),
        (4, "model verify nowhere --reference nowhere.safetensors".to_owned()),
        (4, format!("compare model nowhere --prompts prompts.txt {scored} a")),
        (4, format!("compare model page.safetensors --prompts prompts.txt {scored} a")),
        (3, format!("compare model other=model --prompts nowhere.txt {scored} a")),
        (2, format!("compare model model --prompts prompts.txt {scored} a")),
        (4, "sample --model model --lora nowhere --prompt x --out b".to_owned()),
        (4, "sample --model nowhere --prompt x --out b".to_owned()),
        (3, "sample --model model --prompts nowhere.txt --out b".to_owned()),
        (4, "data pairs --model nowhere --prompt x --out c".to_owned()),
        (4, "accuracy --model nowhere --pairs pairs --without_reference".to_owned()),
        (3, "accuracy --model model --pairs nowhere --without_reference".to_owned()),
        (3, "score nowhere.png --scorer nearest-art".to_owned()),
        (3, "data check nowhere".to_owned()),
        (3, "data convert nowhere d".to_owned()),
        (2, "train nowhere.toml".to_owned()),
        (2, "train pairs".to_owned()),
        (2, "score pairs/warm0.png --prompt fox --scorer preference".to_owned()),
        (2, "data check pairs --resolution 63".to_owned()),
        (2, "accuracy --model model --pairs pairs --without_reference --resolution 63".to_owned()),
        (2, "sample --model model --prompt x --height 63 --out b".to_owned()),
        (2, "train --model model --train_data_dir pairs --method mapo --max_train_steps 1 --out e --resolution 63".to_owned()),
    ] {
        let said = bench.run(&line.split_whitespace().collect::<Vec<_>>());
        assert_eq!(said.code, code, "{line}: {}", said.stderr);
        assert!(!said.stderr.trim().is_empty(), "{line} says nothing");
    }
    for made in ["new.safetensors", "merged", "a", "b", "c", "d", "e"] {
        assert!(!bench.path(made).exists(), "{made} was made by a command that could not work");
    }
}

#[test]
fn messages_say_what_to_type() {
    let bench = Bench::new();
    let run = "train --model model --train_data_dir pairs --max_train_steps 1 --out out";
    for (line, wanted) in [
        (run, "error: missing --method (for example diffusion-dpo)\n"),
        ("train pairs", "pairs is a folder: a recipe file is wanted here; pairs go to --train_data_dir"),
        (
            "train --method mapo --out out --max_train_steps 1 --model model",
            "error: missing --train_data_dir (for example pairs)\n",
        ),
        ("data convert pairs model", "model holds other things, such as"),
        (
            "score pairs --prompt fox --scorer preference",
            "aesthetic=FILE, nearest-art (for prompts of the demo alone)",
        ),
    ] {
        let said = bench.run(&line.split_whitespace().collect::<Vec<_>>());
        assert!(said.code != 0 && said.stderr.contains(wanted), "{line}: {}", said.stderr);
    }
    let images = [
        "--validation_prompt",
        "fox",
        "--validation_steps",
        "1",
        "--num_inference_steps",
        "2",
        "--method",
        "mapo",
    ];
    let said = bench.train("out", &images);
    assert!(said.stderr.contains("step 1: 1 image in images/step-000001/"), "{}", said.stderr);
    assert!(
        said.stderr.ends_with("--out out-samples\n") && said.stderr.contains("\nnext: tastemaker sample"),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.lines().filter(|line| line.starts_with("step ")).all(|line| line.len() <= 80),
        "{}",
        said.stderr
    );
    let compared = bench.succeed(&[
        "compare",
        "model",
        "other=model",
        "--prompts",
        "demo",
        "--n_prompts",
        "8",
        "--num_inference_steps",
        "2",
        "--scorer",
        "nearest-art",
        "--out",
        "compared",
    ]);
    let wanted = "no clear difference with 8 samples; about 100 are needed to see 10 points";
    assert!(compared.stdout.contains(wanted), "{}", compared.stdout);
}

#[cfg(target_os = "linux")]
#[test]
fn devices_and_pipes_are_refused_in_words_wherever_a_file_is_wanted() {
    let bench = Bench::new();
    assert!(
        std::process::Command::new("mkfifo")
            .arg(bench.path("pipe"))
            .status()
            .is_ok_and(|made| made.success())
    );
    bench.write("text.safetensors", "processor : 0 and more of this");
    let train = "train --model model --train_data_dir pairs --method mapo --resolution 32 --max_train_steps 1 --out out";
    for odd in ["/dev/zero", "pipe"] {
        for (code, line) in [
            (2, format!("train {odd}")),
            (4, format!("model inspect {odd}")),
            (4, format!("model convert {odd} new")),
            (4, format!("model verify model --reference {odd}")),
            (4, format!("sample --model {odd} --prompt x --out out")),
            (4, format!("sample --model model --lora {odd} --prompt x --out out")),
            (3, format!("sample --model model --image {odd} --prompt x --out out")),
            (3, format!("sample --model model --prompts {odd} --out out")),
            (3, format!("data check {odd}")),
            (4, format!("{train} --network_weights {odd}")),
            (4, format!("{train} --vae {odd}")),
            (4, format!("{train} --unet_init {odd}")),
            (3, format!("{train} --train_data_dir {odd}")),
            (3, format!("{train} --exclude {odd}")),
        ] {
            let said = bench.run(&line.split_whitespace().collect::<Vec<_>>());
            assert_eq!(said.code, code, "{line}: {}", said.stderr);
            let found = if odd == "pipe" { "a pipe" } else { "a device" };
            assert!(
                said.stderr.contains(&format!("{odd} is malformed: found {found}; wanted a regular file")),
                "{line}: {}",
                said.stderr
            );
        }
    }
    let said = bench.run(&["model", "inspect", "text.safetensors"]);
    assert!(
        said.code == 4 && said.stderr.contains("found a text; wanted a safetensors file"),
        "{}",
        said.stderr
    );
}

#[test]
fn a_seed_or_number_of_images_that_makes_none_or_too_many_is_a_mistake() {
    let bench = Bench::new();
    let sample = "sample --model model --num_inference_steps 1 --prompt x --out out";
    let compare = "compare model other=model --prompts pairs.txt --scorer nearest-art --out out";
    bench.write("pairs.txt", "x\n");
    for (line, wanted) in [
        (format!("{sample} --num_images_per_prompt 0"), "0 is not in 1..=1024"),
        (format!("{sample} --num_images_per_prompt 4294967295"), "4294967295 is not in 1..=1024"),
        (
            format!("{sample} --seed 18446744073709551615 --num_images_per_prompt 2"),
            "wanted at most 18446744073709551614, for 2 images",
        ),
        (format!("{compare} --num_images_per_prompt 0"), "0 is not in 1..=1024"),
        (format!("{compare} --num_images_per_prompt 4294967295"), "4294967295 is not in 1..=1024"),
        (
            format!("{compare} --seed 18446744073709551615 --num_images_per_prompt 2"),
            "wanted at most 18446744073709551614, for 2 images",
        ),
        (format!("{compare} --n_prompts 0"), "wanted at least 1"),
        ("data pairs --model model --prompt x --out out --max_prompts 0".to_owned(), "wanted at least 1"),
        (
            "score pairs/warm0.png --prompt x --scorer nearest-art --batch_size 0".to_owned(),
            "wanted at least 1",
        ),
    ] {
        let said = bench.run(&line.split_whitespace().collect::<Vec<_>>());
        assert!(said.code == 2 && said.stderr.contains(wanted), "{line}: {}", said.stderr);
    }
    let last = format!("{sample} --seed 18446744073709551615");
    bench.succeed(&last.split_whitespace().collect::<Vec<_>>());
    assert!(bench.path("out/0000-18446744073709551615.png").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_standard_output_is_code_5_and_a_closed_pipe_none() {
    let bench = Bench::new();
    for line in [
        "model inspect model",
        "data check pairs",
        "--help",
        "train --help",
        "--version",
        "accuracy --model model --pairs pairs --without_reference --draws 1 --resolution 32",
    ] {
        for (to, code) in [(">/dev/full", 5), ("| true", 0)] {
            let line =
                format!("exec 2>err; set -o pipefail; '{}' {line} {to}", env!("CARGO_BIN_EXE_tastemaker"));
            let mut shell = std::process::Command::new("bash");
            let done = shell
                .args(["-c", &line])
                .current_dir(bench.path(""))
                .envs(support::NO_DEVICE)
                .env("OMP_NUM_THREADS", "1")
                .status();
            let said = std::fs::read_to_string(bench.path("err")).unwrap_or_default();
            assert_eq!(done.ok().and_then(|status| status.code()), Some(code), "{line}: {said}");
            assert!(
                code == 0 || said.contains("cannot write to standard output: No space left"),
                "{line}: {said}"
            );
        }
    }
}

#[test]
fn a_lora_takes_the_name_of_nothing_else_that_a_run_writes() {
    let bench = Bench::new();
    let line = "train --model model --train_data_dir pairs --method mapo --resolution 32 --max_train_steps 4 --checkpointing_steps 2 \
                --validation_steps 2 --held_out_fraction 0.4 --on_alarm keep-best --out out";
    let line: Vec<&str> = line.split_whitespace().collect();
    bench.succeed(&line);
    let files = support::files(&bench.path("out")).into_iter().map(|(path, _)| path);
    let weights = files.filter(|path| path.extension().is_some_and(|ending| ending == "safetensors"));
    let mut names: Vec<String> =
        weights.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.retain(|name| name != "pytorch_lora_weights_kohya");
    for needed in ["state", "best", "pytorch_lora_weights"] {
        assert!(names.iter().any(|name| name == needed), "{needed} is not among {names:?}");
    }
    names.extend(["model", "State", "state-1", "", ".", "a/b", "a\nb"].map(str::to_owned));
    names.push("x".repeat(250));
    for name in names {
        let said = bench.run(&[line.as_slice(), &["--dry-run", &format!("--output_name={name}")]].concat());
        let wanted = "none that a run uses itself: pytorch_lora_weights, best, model, state";
        assert!(said.code == 2 && said.stderr.contains(wanted), "{name:?}: {}", said.stderr);
    }
}
