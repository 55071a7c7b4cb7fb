//! What the program says about itself.

mod support;

use insta::assert_snapshot;
use support::Bench;

fn help(args: &[&str]) -> String {
    Bench::empty().succeed(&[args, &["--help"]].concat()).stdout
}

#[test]
fn help_of_the_program() {
    assert_snapshot!(help(&[]));
}

#[test]
fn help_of_sample() {
    assert_snapshot!(help(&["sample"]));
}

#[test]
fn help_of_model() {
    let commands =
        ["inspect", "convert", "merge", "verify", "fetch"].map(|command| help(&["model", command]));
    assert_snapshot!([help(&["model"]), commands.join("\n\n")].join("\n\n"));
}

#[test]
fn help_of_data() {
    let commands = ["fetch", "check", "convert"].map(|command| help(&["data", command]));
    assert_snapshot!([help(&["data"]), commands.join("\n\n")].join("\n\n"));
}

#[test]
fn help_of_train() {
    assert_snapshot!(help(&["train"]));
}

#[test]
fn a_dry_run_prints_the_plan_and_does_nothing() {
    let bench = Bench::new();
    let said = bench.succeed(&[
        "train",
        "--pretrained-model-name-or-path=model",
        "--train-data-dir=pairs",
        "--method=ddim-inpo",
        "--set=steps=4",
        "--beta-dpo=2000",
        "--output-dir=out",
        "--resolution=32",
        "--held-out-fraction=0",
        "--max-train-steps=12",
        "--train-batch-size=2",
        "--gradient-accumulation-steps=2",
        "--scale-lr",
        "--lr-warmup-steps=3",
        "--dry-run",
    ]);
    // What the program itself takes, and what is free, differ from machine to machine.
    let of_machine = |line: &&str| line.contains(" needs about ") || line.contains(" most of it ");
    assert_eq!(said.stdout.lines().filter(of_machine).count(), 2, "{}", said.stdout);
    let plan: Vec<&str> = said.stdout.lines().filter(|line| !of_machine(line)).collect();
    assert_snapshot!(format!("{}\n\n{}", plan.join("\n"), said.stderr));
    assert!(!bench.path("out").exists());
}

#[test]
fn shells_complete_commands_and_flags_and_manual_pages_are_there_for_each_command() {
    let bench = Bench::empty();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = bench.succeed(&["completions", shell]).stdout;
        for word in ["train", "relabel", "train_data_dir", "num_inference_steps"] {
            assert!(script.contains(word), "{shell} does not know {word}");
        }
    }
    let pages = |said: &support::Said| assert!(said.stdout.starts_with("wrote "), "{}", said.stdout);
    pages(&bench.succeed(&["completions", "--man", "man"]));
    let page = |name: &str| std::fs::read_to_string(bench.path("man").join(name)).expect("a page");
    assert!(page("tastemaker.1").contains(".TH"));
    assert!(page("tastemaker-data-check.1").contains("strict"));
    assert_eq!(bench.run(&["completions", "--man", "man"]).code, 5, "what is there is not replaced unasked");
    pages(&bench.succeed(&["completions", "--man", "man", "--overwrite"]));
    assert!(support::mistake(&bench.run(&["completions"])).contains("wanted bash, zsh, fish"));
}

#[test]
fn the_version_says_which_libtorch_it_runs_on() {
    let said = Bench::empty().succeed(&["--version"]).stdout;
    assert!(said.starts_with(concat!("tastemaker ", env!("CARGO_PKG_VERSION"))), "{said}");
    assert!(said.trim_end().ends_with("(libtorch 2.11.0)"), "{said}");
}
