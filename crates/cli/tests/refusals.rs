//! What is refused before any work: what is shown and what is run are held against the same rules.

mod support;

use support::{Bench, files};

#[test]
fn a_dry_run_refuses_what_the_run_would_refuse_in_the_same_words_and_before_any_work() {
    let bench = Bench::new();
    let dpo = ["--method", "diffusion-dpo"];
    for (more, code, words) in [
        (
            &["--held_out_fraction", "0.9999999"][..],
            3,
            "6 of them held out, 0 skipped; lower `held_out_fraction`",
        ),
        (&["--rank_pattern", "nosuch=4"], 2, "adapter.rank_pattern is nosuch, wanted name endings of layers"),
        (&["--alpha_pattern", "down_blocks.0.nosuch=4"], 2, "adapter.alpha_pattern is down_blocks.0.nosuch"),
        (&["--rank_pattern", "conv_in=4"], 2, "adapter.rank_pattern is conv_in"),
        (&["--target_modules", "to_q,nosuch"], 2, "adapter.target_modules is nosuch"),
        (
            &["--train_text_encoder", "--text_encoder_target_modules", "nosuch"],
            2,
            "adapter.text_encoder_target_modules is nosuch",
        ),
        (&["--tracker_name", "a/b"], 2, "logging.tracker_name is a/b, wanted the name of a folder"),
        (&["--logging_dir", "checkpoint-6"], 2, "logging.logging_dir is checkpoint-6, wanted a folder"),
        (&["--logging_dir", "./x/../Model"], 2, "logging.logging_dir is ./x/../Model"),
        (&["--logging_dir", ".", "--tracker_name", "images"], 2, "logging.logging_dir is ."),
        (&["--cache_to", "refused/unet/cache"], 2, "data.cache_to is refused/unet/cache"),
        (&["--cache_to", "refused"], 2, "data.cache_to is refused, wanted a folder"),
        (
            &["--reference", "precomputed", "--reference_dir", "refused/checkpoint-2"],
            2,
            "train.reference_dir is refused/checkpoint-2",
        ),
        (
            &["--timesteps", "5000"],
            2,
            "train.timesteps is 5000, wanted timesteps that the model's schedule has",
        ),
        (&["--method", "smpo"], 3, "no pair has scores"),
    ] {
        for only_shown in [true, false] {
            let shown: &[&str] = if only_shown { &["--dry-run"] } else { &[] };
            let said = bench.train("refused", &[dpo.as_slice(), more, shown].concat());
            assert_eq!(said.code, code, "{more:?} {shown:?}: {}", said.stderr);
            assert!(said.stderr.contains(words), "{more:?} {shown:?}: {}", said.stderr);
            assert!(!said.stderr.contains("encoded"), "{more:?} {shown:?}: {}", said.stderr);
            assert!(!bench.path("refused").exists(), "{more:?} {shown:?}");
        }
    }
    // What lies beside the run's own is nobody else's business.
    let beside = ["--logging_dir", "model-logs", "--cache_to", "taken/cache", "--rank_pattern", "to_q=4"];
    let said = bench.train("taken", &[dpo.as_slice(), &beside].concat());
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn what_was_meant_is_suggested_and_what_is_said_of_the_method_is_what_is_trained() {
    let bench = Bench::new();
    let dpo = ["--method", "diffusion-dpo"].as_slice();
    let beta = ["--beta_dpo", "5000", "--rank", "4", "--dry-run"];
    for (more, code, words, others) in [
        (&[dpo, &["--mu", "0.5"]].concat()[..], 2, "'--set safeguard_mu=VALUE'", "multi"),
        (&[dpo, &["--safeguard_mu", "0.5"]].concat(), 2, "'--set safeguard_mu=VALUE'", "multi"),
        (&[dpo, &["--gamma", "5"]].concat(), 2, "'--set gamma=VALUE'", "similar argument exists: '--g"),
        (&["--method", "kto_pair"], 2, "did you mean \"kto\"?", "nothing"),
        (&["--loss_type", "kto_pair"], 2, "give --method, for example kto", "nothing"),
        (
            &[&["--loss_type", "ipo"], beta.as_slice()].concat(),
            0,
            "the method is ipo; ",
            "the method is diffusion-dpo",
        ),
        (
            &[&["--loss_type", "sigmoid"], beta.as_slice()].concat(),
            0,
            "the method is diffusion-dpo; ",
            "is ipo",
        ),
        (
            &["--sft", "--sdxl", "--hard_skip_resume", "--dry-run"],
            0,
            "the method is sft; ",
            "the method is diffusion-dpo",
        ),
        (
            &[dpo, &["--set", "beta=1e-320", "--dry-run"]].concat(),
            0,
            "beta 1e-320 is outside",
            "0000000000000000",
        ),
    ] {
        let said = bench.train("out", more);
        assert_eq!(said.code, code, "{more:?}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{more:?}: {}", said.stderr);
        assert!(!said.stderr.contains(others), "{more:?}: {}", said.stderr);
    }
}

#[test]
fn every_command_that_takes_prompts_takes_the_lists_that_are_built_in() {
    let bench = Bench::new();
    let quick = ["--num_inference_steps", "1", "--out"];
    let sample = ["sample", "--model", "model", "--prompts"];
    bench.succeed(&[sample.as_slice(), &["small"], &quick, &["small"]].concat());
    assert_eq!(files(&bench.path("small")).len(), 64 + 1, "sixty-four prompts and their grid");
    for name in ["demo", "demo:held-out", "demo:train", "demo:style"] {
        let said =
            bench.run(&[sample.as_slice(), &[name], &["--num_inference_steps", "0", "--out", "x"]].concat());
        // The steps are what is wrong, for the list was found.
        assert_eq!(said.code, 2, "{name}: {}", said.stderr);
        assert!(said.stderr.contains("--num_inference_steps is 0"), "{name}: {}", said.stderr);
    }
    let pairs = ["data", "pairs", "--model", "model", "--prompts", "small", "--max_prompts", "2"];
    bench.succeed(&[pairs.as_slice(), &["--num_images_per_prompt", "2"], &quick, &["set"]].concat());
    let said = bench.run(&[sample.as_slice(), &["smal.txt"], &quick, &["x"]].concat());
    assert_eq!(said.code, 3, "{}", said.stderr);
    assert!(said.stderr.contains("small, demo, demo:train, demo:held-out and demo:TASK"), "{}", said.stderr);
}

#[test]
fn pixels_that_are_no_numbers_are_the_models_fault_and_the_scale_is_named() {
    let bench = Bench::new();
    let quick = ["--prompt", "a fox", "--num_inference_steps", "2", "--guidance_scale", "1e300"];
    let said = bench.run(&[&["sample", "--model", "model", "--out", "out"], quick.as_slice()].concat());
    assert_eq!(said.code, 4, "{}", said.stderr);
    assert!(
        said.stderr.contains("model: the model gives pixels that are not finite for \"a fox\""),
        "{}",
        said.stderr
    );
    assert!(said.stderr.contains("at guidance scale 1e300"), "{}", said.stderr);
    let two = ["--num_images_per_prompt", "2", "--out", "set"];
    let said = bench.run(&[&["data", "pairs", "--model", "model"], quick.as_slice(), &two].concat());
    assert_eq!(said.code, 4, "{}", said.stderr);
}
