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
