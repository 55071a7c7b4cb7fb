//! Published training commands, pasted: `accelerate launch SCRIPT` replaced by `tastemaker train`, on a tiny model and tiny pairs.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::fs;

use serde_json::Value;
use support::{Bench, Said};

/// Where the names of published models, of a VAE and of pairs lead here, and what keeps a run short; the last of two values wins.
const HERE: &str = "--pretrained_model_name_or_path=model --dataset_name=pairs --resolution=32 --train_batch_size=1 \
                    --gradient_accumulation_steps=2 --max_train_steps=2 --mixed_precision=no";

/// What a pasted command comes to.
enum Outcome {
    /// It trains with this method and these other values of the plan, and says this.
    Runs(&'static str, &'static [(&'static str, &'static str)], &'static [&'static str]),
    /// It is refused with the one thing to type.
    Wants(&'static str),
}

use Outcome::{Runs, Wants};

/// README.md of diffusers' research project diffusion_dpo: "SD training command".
const DIFFUSERS_SD: &str = r#"
  --pretrained_model_name_or_path=runwayml/stable-diffusion-v1-5  \
  --output_dir="diffusion-dpo" \
  --mixed_precision="fp16" \
  --dataset_name=kashif/pickascore \
  --resolution=512 \
  --train_batch_size=16 \
  --gradient_accumulation_steps=2 \
  --gradient_checkpointing \
  --use_8bit_adam \
  --rank=8 \
  --learning_rate=1e-5 \
  --report_to="wandb" \
  --lr_scheduler="constant" \
  --lr_warmup_steps=0 \
  --max_train_steps=10000 \
  --checkpointing_steps=2000 \
  --run_validation --validation_steps=200 \
  --seed="0" \
  --report_to="wandb" \
  --push_to_hub"#;

/// The same: "SDXL training command".
const DIFFUSERS_SDXL: &str = r#"
  --pretrained_model_name_or_path=stabilityai/stable-diffusion-xl-base-1.0  \
  --pretrained_vae_model_name_or_path=madebyollin/sdxl-vae-fp16-fix \
  --output_dir="diffusion-sdxl-dpo" \
  --mixed_precision="fp16" \
  --dataset_name=kashif/pickascore \
  --train_batch_size=8 \
  --gradient_accumulation_steps=2 \
  --gradient_checkpointing \
  --use_8bit_adam \
  --rank=8 \
  --learning_rate=1e-5 \
  --report_to="wandb" \
  --lr_scheduler="constant" \
  --lr_warmup_steps=0 \
  --max_train_steps=2000 \
  --checkpointing_steps=500 \
  --run_validation --validation_steps=50 \
  --seed="0" \
  --report_to="wandb" \
  --push_to_hub"#;

/// launchers/sd15.sh of SalesforceAIResearch/DiffusionDPO.
const SALESFORCE_SD: &str = r#"
  --pretrained_model_name_or_path=$MODEL_NAME \
  --dataset_name=$DATASET_NAME \
  --train_batch_size=1 \
  --dataloader_num_workers=16 \
  --gradient_accumulation_steps=128 \
  --max_train_steps=2000 \
  --lr_scheduler="constant_with_warmup" --lr_warmup_steps=500 \
  --learning_rate=1e-8 --scale_lr \
  --cache_dir="/export/share/datasets/vision_language/pick_a_pic_v2/" \
  --checkpointing_steps 500 \
  --beta_dpo 5000 \
   --output_dir="tmp-sd15""#;

/// launchers/sdxl.sh and launchers/turbo.sh, without their ends.
const SALESFORCE_SDXL: &str = r#"
  --pretrained_model_name_or_path=$MODEL_NAME \
  --pretrained_vae_model_name_or_path=$VAE \
  --dataset_name=$DATASET_NAME \
  --train_batch_size=1 \
  --dataloader_num_workers=16 \
  --gradient_accumulation_steps=128 \
  --max_train_steps=2000 \
  --lr_scheduler="constant_with_warmup" --lr_warmup_steps=200 \
  --learning_rate=1e-8 --scale_lr \
  --cache_dir="/export/share/datasets/vision_language/pick_a_pic_v2/" \
  --checkpointing_steps 200 \
  --beta_dpo 5000 \
   --sdxl"#;

/// README.md of mapo-t2i/mapo, without the rank of its second command.
const MAPO: &str = r#"
  --pretrained_model_name_or_path=stabilityai/stable-diffusion-xl-base-1.0  \
  --pretrained_vae_model_name_or_path=madebyollin/sdxl-vae-fp16-fix \
  --output_dir="mapo" \
  --mixed_precision="fp16" \
  --dataset_name=kashif/pickascore \
  --train_batch_size=8 \
  --gradient_accumulation_steps=2 \
  --gradient_checkpointing \
  --use_8bit_adam \
  --learning_rate=1e-5 \
  --lr_scheduler="constant" \
  --lr_warmup_steps=0 \
  --max_train_steps=2000 \
  --checkpointing_steps=500 \
  --seed="0""#;

/// train_network.md in the docs of kohya-ss/sd-scripts, with a folder in place of its list of folders, and flags that are typed as often.
const KOHYA: &str = r#"
 --pretrained_model_name_or_path="model.safetensors"
 --train_data_dir="pairs"
 --output_dir="out"
 --output_name="my_lora"
 --save_model_as=safetensors
 --network_module=networks.lora
 --network_dim=16
 --network_alpha=1
 --learning_rate=1e-4
 --unet_lr=2e-4
 --optimizer_type="AdamW8bit"
 --lr_scheduler="constant"
 --sdpa
 --xformers
 --cache_latents_to_disk
 --max_train_epochs=10
 --save_every_n_epochs=1
 --save_every_n_steps=100
 --caption_extension=".txt"
 --mixed_precision="fp16"
 --gradient_checkpointing"#;

/// The words of a command as a shell has them, for commands without anything harder than quotes.
fn words(command: &str) -> Vec<String> {
    command.split_whitespace().filter(|word| *word != "\\").map(|word| word.replace('"', "")).collect()
}

fn paste(bench: &Bench, command: &str, more: &str) -> Said {
    let command = command.replace("$VAE", "vae").replace("madebyollin/sdxl-vae-fp16-fix", "vae");
    let words = [words("train"), words(&command), words(HERE), words(more)].concat();
    bench.run(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn plan(bench: &Bench, folder: &str) -> Value {
    serde_json::from_slice(&fs::read(bench.path(folder).join("plan.json")).unwrap()).unwrap()
}

#[track_caller]
fn check(bench: &Bench, what: &str, output: &str, said: &Said, outcome: &Outcome) {
    match outcome {
        Runs(method, values, notices) => {
            assert_eq!(said.code, 0, "{what}: {}", said.stderr);
            let plan = plan(bench, output);
            assert_eq!(plan["method"]["name"], *method, "{what}");
            for (pointer, value) in *values {
                let wanted: Value = serde_json::from_str(value).unwrap();
                assert_eq!(plan.pointer(pointer), Some(&wanted), "{what}: {pointer}");
            }
            for notice in *notices {
                assert!(said.stderr.contains(notice), "{what} does not say {notice}: {}", said.stderr);
            }
        }
        Wants(text) => {
            assert_eq!(said.code, 2, "{what}: {}", said.stderr);
            assert!(said.stderr.contains(text), "{what}: {}", said.stderr);
        }
    }
}

/// What every one of them leaves to itself.
const WANDB: &str = "--report_to wandb: metrics go to TensorBoard files and events.jsonl instead";

#[test]
fn the_published_commands_run_as_pasted() {
    let (sd, sdxl) = (Bench::new(), Bench::sdxl());
    for bench in [&sd, &sdxl] {
        copy(bench, "model/vae", "vae");
    }
    let turbo = DIFFUSERS_SDXL
        .replace("diffusion-sdxl-dpo", "diffusion-sdxl-turbo-dpo")
        .replace("--push_to_hub", "--is_turbo --resolution 512 --push_to_hub");
    let salesforce_sdxl = format!("{SALESFORCE_SDXL} --output_dir=\"tmp-sdxl\"");
    let salesforce_turbo = format!(
        "{SALESFORCE_SDXL} --resolution 512 --proportion_empty_prompts 0 --output_dir=\"turbo-trial-beta5k-lr1e-8-warmup200\""
    );
    let mapo_lora =
        MAPO.replace("--use_8bit_adam", "--lora_rank=8 --use_8bit_adam").replace("\"mapo\"", "\"lora\"");
    let lora: (&str, &str) = ("/adapter/adapter_type", "\"lora\"");
    let full: (&str, &str) = ("/adapter/adapter_type", "\"full\"");
    let beta: (&str, &str) = ("/method/settings/beta", "5000.0");
    let commands: [(&str, &Bench, &str, &str, Outcome); 8] = [
        (
            "diffusers, SD",
            &sd,
            DIFFUSERS_SD,
            "diffusion-dpo",
            Runs(
                "diffusion-dpo",
                &[("/adapter/rank", "8"), ("/optimizer/optimizer_type", "\"adamw8bit\"")],
                &[
                    "a command of train_diffusion_dpo.py (diffusers): the method is diffusion-dpo",
                    WANDB,
                    "--push_to_hub is ignored",
                    "4 images in images/step-000000/",
                ],
            ),
        ),
        (
            "diffusers, SDXL",
            &sdxl,
            DIFFUSERS_SDXL,
            "diffusion-sdxl-dpo",
            Runs(
                "diffusion-dpo",
                &[("/data/augment", "\"joint\""), ("/data/time_ids", "\"real\"")],
                &[
                    "a command of train_diffusion_dpo_sdxl.py (diffusers)",
                    "otherwise than there: no image is stretched",
                    WANDB,
                ],
            ),
        ),
        (
            "diffusers, Turbo",
            &sdxl,
            &turbo,
            "diffusion-sdxl-turbo-dpo",
            Runs(
                "diffusion-dpo",
                &[("/train/timesteps", "[249, 499, 749, 999]")],
                &["a command of train_diffusion_dpo_sdxl.py (diffusers)"],
            ),
        ),
        (
            "Salesforce, SD",
            &sd,
            SALESFORCE_SD,
            "tmp-sd15",
            Runs(
                "diffusion-dpo",
                &[("/data/proportion_empty_prompts", "0.2"), ("/data/augment", "\"independent\"")],
                &[
                    "a command of train.py (SalesforceAIResearch/DiffusionDPO)",
                    "otherwise than there: the VAE computes in fp32",
                    "--cache_dir is ignored",
                ],
            ),
        ),
        (
            "Salesforce, SDXL",
            &sdxl,
            &salesforce_sdxl,
            "tmp-sdxl",
            Runs(
                "diffusion-dpo",
                &[("/optimizer/optimizer_type", "\"adafactor\"")],
                &["a command of train.py"],
            ),
        ),
        (
            "Salesforce, Turbo",
            &sdxl,
            &salesforce_turbo,
            "turbo-trial-beta5k-lr1e-8-warmup200",
            Runs("diffusion-dpo", &[("/data/proportion_empty_prompts", "0.0")], &["a command of train.py"]),
        ),
        (
            "MaPO",
            &sdxl,
            MAPO,
            "mapo",
            Runs("mapo", &[("/data/time_ids", "\"real\"")], &["a command of train.py (mapo-t2i/mapo)"]),
        ),
        (
            "MaPO, LoRA",
            &sdxl,
            &mapo_lora,
            "lora",
            Runs("mapo", &[("/adapter/rank", "8")], &["a command of train_with_lora.py (mapo-t2i/mapo)"]),
        ),
    ];
    for (what, bench, command, output, outcome) in &commands {
        let said = paste(bench, command, "");
        check(bench, what, output, &said, outcome);
        let plan = plan(bench, output);
        let (pointer, value) = if what.starts_with("Salesforce") || *what == "MaPO" { full } else { lora };
        assert_eq!(plan.pointer(pointer).unwrap().to_string(), value, "{what}");
        if !what.starts_with("MaPO") {
            assert_eq!(plan.pointer(beta.0).unwrap().to_string(), beta.1, "{what}");
        }
    }
    // The script can be named, too, where flags alone leave it open.
    let said = paste(&sd, "train_diffusion_dpo.py --beta_dpo 2500 --output_dir named", "--dry-run");
    assert_eq!(said.code, 0, "{}", said.stderr);
    assert!(
        said.stderr.contains("--beta_dpo 2500 of train_diffusion_dpo.py is beta 5000 here"),
        "{}",
        said.stderr
    );
    assert!(said.stdout.lines().any(|line| line.split_whitespace().eq(["beta", "5000"])), "{}", said.stdout);
    // With this flag Salesforce's script clips no gradients; a norm that is typed says more.
    for (typed, norm) in [("", "0"), ("--max_grad_norm 2", "2")] {
        let command = format!("{SALESFORCE_SD} --use_adafactor {typed}");
        let said = paste(&sd, &command, "--dry-run");
        let line = said.stdout.lines().find(|line| line.contains("max_grad_norm")).unwrap_or_default();
        assert_eq!(line.split_whitespace().last(), Some(norm), "{}{}", said.stdout, said.stderr);
    }
    // scripts/train/sd15_dmpo.sh of AIDC-AI/Diffusion-SDPO, its end.
    let safeguarded = "--train_method dmpo --beta_dpo 2000 --dmpo_alpha 0.01 --use_winner_preserving --winner_preserving_mu 0.9";
    let said = paste(&sd, safeguarded, "--output_dir sdpo");
    assert!(said.stderr.contains("a command of train.py (AIDC-AI/Diffusion-SDPO)"), "{}", said.stderr);
    let outcome =
        Runs("dmpo", &[("/method/settings/safeguard_mu", "0.9"), ("/method/settings/alpha", "0.01")], &[]);
    check(&sd, "Diffusion-SDPO", "sdpo", &said, &outcome);
    // What a script does by itself when it is started again: go on.
    let said = paste(&sd, SALESFORCE_SD, "");
    assert_eq!(said.code, 0, "{}", said.stderr);
}

#[test]
fn a_command_of_kohyas_runs_or_says_the_one_thing_to_change() {
    let bench = Bench::new();
    let short = "--max_train_epochs=1 --network_dim=4 --held_out_fraction=0";
    let said = paste(&bench, &KOHYA.replace("--max_train_epochs=10", ""), "");
    check(&bench, "without a method", "out", &said, &Wants("missing --method (for example diffusion-dpo)"));
    let here =
        HERE.replace(" --max_train_steps=2", "").replace("--dataset_name=pairs", "--train_data_dir=pairs");
    let line =
        [words("train"), words(KOHYA), words(&here), words(short), words("--method diffusion-dpo")].concat();
    let said = bench.run(&line.iter().map(String::as_str).collect::<Vec<_>>());
    let values: &[(&str, &str)] = &[
        ("/optimizer/learning_rate", "2e-4"),
        ("/optimizer/optimizer_type", "\"adamw8bit\""),
        ("/adapter/alpha", "1.0"),
        ("/adapter/rank", "4"),
        ("/train/max_train_steps", "3"),
        ("/checkpoint/checkpointing_steps", "3"),
        ("/output/output_name", "\"my_lora\""),
    ];
    check(
        &bench,
        "with one",
        "out",
        &said,
        &Runs("diffusion-dpo", values, &["--sdpa is ignored", "--xformers is ignored"]),
    );
    assert!(bench.path("out/my_lora.safetensors").is_file());
    for (flag, wanted) in [
        ("--resolution 512,768", "give --resolution 576 --enable_bucket"),
        (
            "--dataset_config d.toml",
            "--dataset_config is not supported: give the pairs with --train_data_dir",
        ),
        (
            "--network_module lycoris.kohya",
            "LyCORIS is not supported: leave it away for a LoRA, or give --use_dora",
        ),
        ("--network_args conv_dim=4 conv_alpha=1", "give --rank_pattern"),
        ("--optimizer_args weight_decay=0.1 momentum=0.9", "no optimizer here has momentum"),
        ("--clip_skip 2", "leave it away"),
        (
            "--clip_skip 2 --shuffle_caption --keep_tokens 1 --dataset_config d.toml",
            "--dataset_config is not supported: give the pairs with --train_data_dir; not supported, leave them away: --shuffle_caption (captions \
             are trained as they are), --keep_tokens (captions are trained as they are), --clip_skip (the text encoder's",
        ),
        ("--network_module networks.lora_flux", "Flux is not supported yet"),
        ("sdxl_train_network.py", "missing --method"),
        ("train_text_to_image_lora_sdxl.py", "without preferences: give --method sft"),
        ("train_dreambooth_lora_sdxl.py", "without preferences: give --method sft"),
        ("sdxl_train_network.py --method mapo --lr 1", "a similar argument exists: '--learning_rate'"),
        ("--precision fp16", "a similar argument exists: '--mixed_precision'"),
        ("--instance_data_dir x", "a similar argument exists: '--train_data_dir'"),
        ("--network_dim 4", "  diffusion-dpo  prefer the winner"),
        ("--save_model_as ckpt", "results are safetensors files"),
        ("--label_noise_prob 0.1 --sft", "data.label_noise_prob is 0.1, wanted 0"),
        ("--loss_type cpo", "give --method, for example diffusion-dpo"),
        ("--choice_model hps", "tastemaker data relabel PAIRS --scorer hps-v2"),
        ("--optimizer_type Lion", "there is no Lion here: give --optimizer_type adamw8bit"),
        ("--optimizer_type PagedLion8bit", "there is no PagedLion8bit here: give --optimizer_type adamw8bit"),
        ("--optimizer PRODIGY", "there is no PRODIGY here: give --optimizer_type adamw8bit"),
        ("--optimizer_type SGD", "expected one of adamw, adamw8bit, adafactor"),
        ("--beta 3000 --method sft", "beta"),
        ("--metod x", "a similar argument exists: '--method'"),
        (
            "other_script.py",
            "commands of other_script.py are not known; known are sdxl_train_network.py, train.py, train_diffusion_dpo.py, \
             train_diffusion_dpo_sdxl.py, train_network.py, train_with_lora.py: leave it away",
        ),
    ] {
        let said = bench.train("refused", &words(flag).iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(said.code, 2, "{flag}: {}", said.stderr);
        assert!(said.stderr.contains(wanted), "{flag}: {}", said.stderr);
    }
}

#[test]
fn flags_of_other_tools_that_are_ours_under_another_name_are_taken() {
    let bench = Bench::new();
    for (flags, pointer, value) in [
        ("--resolution 32,32", "/data/resolution", "32"),
        ("--optimizer AdamW8bit", "/optimizer/optimizer_type", "\"adamw8bit\""),
        ("--optimizer_args weight_decay=0.1 betas=0.8,0.9", "/optimizer/adam_beta2", "0.9"),
        ("--noise_offset 0.1", "/train/noise_offset", "0.1"),
        ("--lr_scheduler polynomial --lr_scheduler_power 2", "/optimizer/lr_power", "2.0"),
        ("--label_noise_prob 0.5", "/data/label_noise_prob", "0.5"),
        ("--caption_dropout_rate 0.1", "/data/proportion_empty_prompts", "0.1"),
        ("--use_winner_preserving --winner_preserving_mu 0.9", "/method/settings/safeguard_mu", "0.9"),
        ("--steps 1", "/train/max_train_steps", "1"),
        ("--save_every_n_epochs 2 --random_flip --center_crop", "/checkpoint/checkpointing_steps", "6"),
        ("--epochs 2 --output_name x", "/output/output_name", "\"x\""),
        ("--v_parameterization", "/model/prediction_type", "\"v_prediction\""),
        ("--loss_type ipo", "/method/name", "\"ipo\""),
        ("--loss_type ipo --beta_dpo 2000", "/method/settings/beta", "4000.0"),
        ("--loss_type hinge --beta_dpo 2000", "/method/settings/beta", "4000.0"),
        ("--beta 3000", "/method/settings/beta", "3000.0"),
        ("--optimizer_type AdamW", "/optimizer/optimizer_type", "\"adamw\""),
        ("--optimizer_type PagedAdamW8bit", "/optimizer/optimizer_type", "\"adamw8bit\""),
        ("--optimizer_type ADAMW_8BIT", "/optimizer/optimizer_type", "\"adamw8bit\""),
        ("--optimizer AdaFactor", "/optimizer/optimizer_type", "\"adafactor\""),
        ("--no_hflip false", "/data/no_hflip", "false"),
        ("--scale_lr True", "/optimizer/scale_lr", "true"),
        ("--use_8bit_adam false", "/optimizer/optimizer_type", "\"adamw\""),
        ("--validation_prompts fox owl --seed 1", "/validation/validation_prompts", "[\"fox\",\"owl\"]"),
        ("--run_validation --num_inference_steps 1", "/validation/validation_steps", "200"),
        (
            "--run_validation --validation_steps 50 --validation_prompts fox --num_inference_steps 1",
            "/validation/validation_prompts",
            "[\"fox\"]",
        ),
    ] {
        let method = if flags.contains("loss_type") { "" } else { "--method diffusion-dpo" };
        let line = [words(flags), words(method)].concat();
        let said = bench.train("out", &line.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(said.code, 0, "{flags}: {}", said.stderr);
        assert_eq!(plan(&bench, "out").pointer(pointer).unwrap().to_string(), value, "{flags}");
        fs::remove_dir_all(bench.path("out")).unwrap();
    }
}

#[test]
fn nobody_is_sent_to_a_flag_that_is_refused() {
    let bench = Bench::new();
    for flag in ["--network_arg", "--dataset_confg", "--clip-ski", "--dreamlike_pairs"] {
        let said = bench.train("out", &["--method", "mapo", flag, "1"]);
        assert_eq!(said.code, 2, "{}", said.stderr);
        for refused in ["--network_args", "--dataset_config", "--dreamlike_pairs_only"] {
            assert!(!said.stderr.contains(&format!("'{refused}'")), "{flag}: {}", said.stderr);
        }
    }
    let said = bench.train("out", &["--method", "dpo"]);
    assert!(said.stderr.contains("did you mean \"diffusion-dpo\"?"), "{}", said.stderr);
}

fn copy(bench: &Bench, from: &str, to: &str) {
    fs::create_dir_all(bench.path(to)).unwrap();
    for entry in fs::read_dir(bench.path(from)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), bench.path(to).join(entry.file_name())).unwrap();
    }
}
