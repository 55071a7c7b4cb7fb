//! Models by the names under which they were fetched.

mod support;

use std::fs;

use insta::assert_snapshot;
use support::{Said, bright_vae, cached, copy, mistake, tuned};

#[test]
fn every_command_takes_the_name_of_a_fetched_model() {
    let bench = tuned(&[]);
    let lora = bench.train("lora", &["--method", "mapo", "--learning_rate", "0.1"]);
    assert_eq!(lora.code, 0, "{}", lora.stderr);
    bench.write("adapter/pytorch_lora_weights.safetensors", {
        fs::read(bench.path("lora/pytorch_lora_weights.safetensors")).unwrap()
    });
    copy(&bench.path("full/unet"), &bench.path("only/unet"));
    cached(&bench, "model", "org/tiny", "main");
    cached(&bench, "full/model", "org/tiny", "tuned");
    cached(&bench, "only", "org/unet", "main");
    cached(&bench, "adapter", "org/lora", "main");
    bright_vae(&bench);
    cached(&bench, "vae", "org/vae", "main");

    let run = |line: &str| -> Said {
        let args: Vec<&str> = line.split(' ').collect();
        bench.run_in(&args, &[("HF_HUB_CACHE", "cache"), ("OMP_NUM_THREADS", "1")])
    };
    let succeed = |line: &str| {
        let said = run(line);
        assert_eq!(said.code, 0, "{line}: {}", said.stderr);
        said.stdout
    };
    assert_eq!(succeed("model inspect org/tiny"), bench.succeed(&["model", "inspect", "model"]).stdout);
    assert!(succeed("model inspect org/lora").contains("a LoRA in diffusers format"));
    succeed("model convert org/tiny single.safetensors");
    succeed("model merge org/tiny org/lora merged");
    let quick = "sample --num_inference_steps 2 --prompt fox --model org/tiny --out";
    let image = |out: &str, more: &str| {
        succeed(&format!("{quick} with-{out}{more}"));
        image::open(bench.path(&format!("with-{out}")).join("0000-0.png")).unwrap().into_rgb8()
    };
    let plain = image("plain", "");
    let tuned = image("tuned", " --revision tuned");
    assert!(plain != tuned);
    assert!(tuned == image("unet", " --unet_init org/unet"));
    assert!(plain != image("vae", " --vae org/vae"));
    assert!(plain != image("lora", " --lora org/lora"));
    let train = "train --train_data_dir pairs --resolution 32 --held_out_fraction 0 --max_train_steps 1 --method mapo \
                 --pretrained_model_name_or_path org/tiny --revision tuned --unet_init org/unet --vae org/vae --output_dir o";
    succeed(&train.split_whitespace().collect::<Vec<_>>().join(" "));
    let plan = fs::read_to_string(bench.path("o/plan.json")).unwrap();
    assert_eq!(plan.matches("/snapshots/").count(), 3, "{plan}");
    assert_snapshot!(mistake(&run(&format!("{quick} no --revision old"))));
}
