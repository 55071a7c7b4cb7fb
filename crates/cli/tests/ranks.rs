//! Runs of several processes, launched by the variables that every launcher sets.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

mod support;

use std::net::TcpListener;
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::Bench;
use tastemaker_run::{Event, Step, read_events};
use tastemaker_testkit::TINY_RESOLUTION;
use tastemaker_torch::tensors::{self, Named};

const FULL: &str = "model/unet/diffusion_pytorch_model.safetensors";

fn line(output: &str, accumulation: u32, more: &str) -> Vec<String> {
    let line = format!(
        "train --pretrained_model_name_or_path model --train_data_dir pairs --resolution {TINY_RESOLUTION} \
         --method diffusion-dpo --adapter_type full --learning_rate 1e-4 --train_batch_size 2 \
         --gradient_accumulation_steps {accumulation} --held_out_fraction 0.4 --seed 1 --validation_steps 4 \
         --lr_scheduler cosine --lr_warmup_steps 3 --output_dir {output} {more}"
    );
    line.split_whitespace().map(str::to_owned).collect()
}

/// Starts every rank of a run.
fn launch(bench: &Bench, n: usize, output: &str, more: &str) -> Vec<Child> {
    launch_each(bench, output, &vec![more; n])
}

/// Starts a rank for each of these flags.
fn launch_each(bench: &Bench, output: &str, more: &[&str]) -> Vec<Child> {
    let n = more.len();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let rank = |rank: usize| {
        // Whoever started the tests may ignore an interruption or what a hang-up sends.
        Command::new("/usr/bin/env")
            .args(["--default-signal=INT,HUP", env!("CARGO_BIN_EXE_tastemaker")])
            .args(line(output, 1, more[rank]))
            .current_dir(bench.path(""))
            .env_clear()
            .envs(support::NO_DEVICE)
            .env("OMP_NUM_THREADS", "1")
            .env("WORLD_SIZE", n.to_string())
            .env("RANK", rank.to_string())
            .env("LOCAL_RANK", rank.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("GLOO_SOCKET_IFNAME", "lo")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    (0..n).map(rank).collect()
}

fn ended(children: Vec<Child>) -> Vec<Output> {
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

#[track_caller]
fn succeeded(children: Vec<Child>) {
    for output in ended(children) {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn weights(bench: &Bench, output: &str) -> Named {
    tensors::read(&bench.path(output).join(FULL)).unwrap()
}

fn steps(bench: &Bench, output: &str) -> Vec<Step> {
    let events = read_events(bench.path(output).join("events.jsonl")).unwrap().events;
    let mut steps: Vec<Step> = Vec::new();
    for event in events {
        match event {
            Event::Start(start) => steps.retain(|step| step.step < start.step),
            Event::Step(step) => steps.push(step),
            _ => {}
        }
    }
    steps
}

/// Length of the difference over length of what was learned.
fn apart(found: &Named, wanted: &Named, start: &Named) -> f64 {
    let squares = |a: &Named, b: &Named| {
        a.iter()
            .map(|(name, tensor)| (tensor - &b[name]).square().sum(tch::Kind::Double).double_value(&[]))
            .sum::<f64>()
    };
    (squares(found, wanted) / squares(wanted, start)).sqrt()
}

fn bench() -> Bench {
    let bench = Bench::new();
    bench.pairs("pairs", 12);
    bench
}

#[test]
fn two_ranks_learn_what_one_learns_and_the_same_each_time() {
    let bench = bench();
    let more = "--max_train_steps 9 --reference precomputed";
    let one = line("one", 2, more);
    assert_eq!(bench.run(&one.iter().map(String::as_str).collect::<Vec<_>>()).code, 0);
    for output in ["two", "again"] {
        succeeded(launch(&bench, 2, output, more));
    }
    let (one, two, again) = (weights(&bench, "one"), weights(&bench, "two"), weights(&bench, "again"));
    assert!(two.iter().all(|(name, tensor)| tensor.equal(&again[name])), "two runs of two ranks differ");
    let start = tensors::read(&bench.path("model/unet/diffusion_pytorch_model.safetensors")).unwrap();
    // Sums of gradients are rounded in another order, and AdamW divides by their size.
    let apart = apart(&two, &one, &start);
    assert!(apart < 0.02, "{apart}");
    for (one, two) in steps(&bench, "one").iter().zip(steps(&bench, "two")) {
        assert_eq!((one.step, one.lr), (two.step, two.lr), "the rate depends on the number of ranks");
        assert!((one.loss / two.loss - 1.0).abs() < 1e-3, "step {}: {} {}", one.step, one.loss, two.loss);
    }
    assert_eq!(steps(&bench, "one")[0].loss, steps(&bench, "two")[0].loss);
}

#[test]
fn a_lost_rank_ends_the_others_soon_and_the_run_goes_on_from_its_checkpoint() {
    let bench = bench();
    let more = "--max_train_steps 24 --checkpointing_steps 2 --resume_from_checkpoint latest";
    succeeded(launch(&bench, 2, "whole", more));
    for lost in [1, 0] {
        let mut ranks = launch(&bench, 2, "killed", more);
        let made = steps_made(&bench);
        while steps_made(&bench) < made + 3 {
            sleep(Duration::from_millis(2));
        }
        ranks[lost].kill().unwrap();
        let began = Instant::now();
        let outputs = ended(ranks);
        assert!(began.elapsed() < Duration::from_secs(60));
        let other = &outputs[1 - lost];
        let words = String::from_utf8_lossy(&other.stderr);
        assert!(!other.status.success(), "{words}");
        assert!(words.contains("rank"), "{words}");
    }
    succeeded(launch(&bench, 2, "killed", more));
    let (whole, killed) = (weights(&bench, "whole"), weights(&bench, "killed"));
    assert!(whole.iter().all(|(name, tensor)| tensor.equal(&killed[name])));
    let losses = |output| steps(&bench, output).into_iter().map(|step| step.loss).collect::<Vec<_>>();
    assert_eq!(losses("whole"), losses("killed"));
}

#[test]
#[ignore = "takes minutes"]
fn a_run_of_two_ranks_that_is_killed_at_twenty_moments_ends_with_the_same_weights() {
    let bench = bench();
    for more in ["--reference precomputed", "--shard_optimizer --use_ema"] {
        let more =
            format!("--max_train_steps 16 --checkpointing_steps 2 --resume_from_checkpoint latest {more}");
        let began = Instant::now();
        succeeded(launch(&bench, 2, "whole", &more));
        let whole = began.elapsed();
        for kill in 0..10 {
            let mut ranks = launch(&bench, 2, "killed", &more);
            // The golden ratio spreads the moments evenly, in no order.
            let share = 0.05 + (f64::from(kill) * 0.618_033_988_7).fract();
            sleep(whole.mul_f64(share));
            let lost = kill as usize % 2;
            ranks[lost].kill().unwrap();
            // One that waits for the other to come is the launcher's to end.
            let patience = Instant::now() + Duration::from_secs(5);
            while ranks[1 - lost].try_wait().unwrap().is_none() && Instant::now() < patience {
                sleep(Duration::from_millis(20));
            }
            let _ = ranks[1 - lost].kill();
            ended(ranks);
            if bench.path("killed").join(FULL).exists() {
                std::fs::remove_dir_all(bench.path("killed")).unwrap();
            }
        }
        succeeded(launch(&bench, 2, "killed", &more));
        let (whole, killed) = (weights(&bench, "whole"), weights(&bench, "killed"));
        assert!(whole.iter().all(|(name, tensor)| tensor.equal(&killed[name])), "{more}");
        ["whole", "killed"].iter().for_each(|output| std::fs::remove_dir_all(bench.path(output)).unwrap());
    }
}

fn steps_made(bench: &Bench) -> usize {
    let log = std::fs::read_to_string(bench.path("killed/events.jsonl")).unwrap_or_default();
    log.matches("{\"event\":\"step\"").count()
}

#[test]
fn an_optimizer_that_is_dealt_out_is_the_same_optimizer() {
    let bench = bench();
    for optimizer in ["adamw", "adamw8bit"] {
        let more =
            format!("--max_train_steps 6 --optimizer_type {optimizer} --checkpointing_steps 4 --use_ema");
        let (whole, dealt) = (format!("whole-{optimizer}"), format!("dealt-{optimizer}"));
        succeeded(launch(&bench, 2, &whole, &more));
        succeeded(launch(&bench, 2, &dealt, &format!("{more} --shard_optimizer")));
        let wanted = weights(&bench, &whole);
        let found = weights(&bench, &dealt);
        assert!(found.iter().all(|(name, tensor)| tensor.equal(&wanted[name])), "{optimizer}");
        let folder = bench.path(&dealt).join("checkpoint-4");
        let size = |name: &str| std::fs::metadata(folder.join(name)).unwrap().len();
        let one = std::fs::metadata(bench.path(&whole).join("checkpoint-4/state.safetensors")).unwrap().len();
        assert!(size("state-1.safetensors") < one / 2 && size("state.safetensors") < one, "{optimizer}");
        // Behind the checkpoint it goes on with the same steps.
        std::fs::remove_dir_all(bench.path(&dealt).join("model")).unwrap();
        let more = format!("{more} --shard_optimizer --resume_from_checkpoint latest");
        succeeded(launch(&bench, 2, &dealt, &more));
        let again = weights(&bench, &dealt);
        assert!(again.iter().all(|(name, tensor)| tensor.equal(&wanted[name])), "{optimizer}, gone on with");
    }
}

#[test]
fn half_an_announcement_is_a_mistake_that_is_named() {
    let bench = bench();
    let line = line("out", 1, "--max_train_steps 1");
    let args: Vec<&str> = line.iter().map(String::as_str).collect();
    let said = bench.run_in(&args, &[("WORLD_SIZE", "2")]);
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("WORLD_SIZE is 2 and RANK is not set"), "{}", said.stderr);
    let whole = [("WORLD_SIZE", "2"), ("RANK", "0"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "29500")];
    for (name, value, words) in [
        ("WORLD_SIZE", "two", "WORLD_SIZE is \"two\", wanted a number from 1 to 65536"),
        ("WORLD_SIZE", "0", "WORLD_SIZE is \"0\""),
        ("WORLD_SIZE", "-1", "WORLD_SIZE is \"-1\""),
        ("WORLD_SIZE", "4294967297", "WORLD_SIZE is \"4294967297\""),
        ("WORLD_SIZE", "", "WORLD_SIZE is \"\""),
        ("RANK", "2", "RANK is \"2\", wanted a number from 0 to 1"),
        ("RANK", "-1", "RANK is \"-1\""),
        ("RANK", "1.0", "RANK is \"1.0\""),
        ("LOCAL_RANK", "one", "LOCAL_RANK is \"one\""),
        ("MASTER_ADDR", " ", "MASTER_ADDR is not set"),
        ("MASTER_PORT", "0", "MASTER_PORT is \"0\", wanted a number from 1 to 65535"),
        ("MASTER_PORT", "70000", "MASTER_PORT is \"70000\""),
        ("MASTER_PORT", "tcp", "MASTER_PORT is \"tcp\""),
    ] {
        let others = whole.into_iter().filter(|(other, _)| *other != name);
        let said = bench.run_in(&args, &others.chain([(name, value)]).collect::<Vec<_>>());
        assert_eq!(said.code, 2, "{name} {value}: {}", said.stderr);
        assert!(said.stderr.contains(words), "{name} {value}: {}", said.stderr);
    }
}

#[test]
fn ranks_that_would_do_different_things_end_before_the_first_step_and_say_which() {
    let bench = bench();
    bench.pairs("others", 10);
    support::copy(&bench.path("model"), &bench.path("other"));
    let path = bench.path("other").join("unet").join(support::WEIGHTS);
    let mut weights = tensors::read(&path).unwrap();
    let moved = &weights["conv_out.bias"] + 0.5;
    weights.insert("conv_out.bias".into(), moved);
    tensors::write(&path, &weights, &Default::default()).unwrap();
    let same = "--max_train_steps 4 --adapter_type lora";
    for (other, words) in [
        ("--seed 2", "train.seed is 1 there and 2 on rank 1"),
        ("--method ipo", "method.name is \"diffusion-dpo\" there and \"ipo\" on rank 1"),
        ("--learning_rate 1e-3", "optimizer.learning_rate is 0.0001 there and 0.001 on rank 1"),
        ("--train_batch_size 1", "train.train_batch_size is 2 there and 1 on rank 1"),
        ("--max_train_steps 5", "train.max_train_steps is 4 there and 5 on rank 1"),
        ("--validation_steps 2", "validation.validation_steps is 4 there and 2 on rank 1"),
        ("--rank 4", "adapter.rank is 8 there and 4 on rank 1"),
        ("--train_data_dir others", "the pairs is "),
        ("--model other", "the network is "),
    ] {
        let began = Instant::now();
        let ended = ended(launch_each(&bench, "out", &[same, &format!("{same} {other}")]));
        for output in ended {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{other}: {said}");
            assert!(said.contains(words), "{other}: {said}");
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{other}");
        assert!(!bench.path("out").exists(), "{other}: a folder was made");
    }
    // How a rank does its part is its own matter.
    succeeded(launch_each(&bench, "out", &[same, &format!("{same} --dataloader_num_workers 2")]));
}

#[test]
fn a_signal_to_one_rank_ends_all_as_that_signal_does() {
    let bench = bench();
    let more =
        "--max_train_steps 100000 --lr_scheduler constant --validation_steps 0 --checkpointing_steps 0";
    for (signal, code, to) in [("-TERM", 143, 1), ("-INT", 130, 0)] {
        let ranks = launch(&bench, 2, "killed", more);
        while steps_made(&bench) < 2 {
            sleep(Duration::from_millis(5));
        }
        let id = ranks[to].id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
        for output in ended(ranks) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{said}");
            assert!(said.contains("resume with --resume_from_checkpoint latest"), "{said}");
        }
        std::fs::remove_dir_all(bench.path("killed")).unwrap();
    }
}

fn send(signal: &str, rank: &Child) {
    assert!(Command::new("kill").args([signal, &rank.id().to_string()]).status().unwrap().success());
}

#[test]
fn a_signal_to_one_rank_before_the_first_step_ends_all_as_that_signal_does() {
    let bench = bench();
    let reference =
        "--reference precomputed --reference_dir errors --max_train_steps 1000000 --checkpointing_steps 0";
    let more = format!("{reference} --lr_scheduler constant --validation_steps 0");
    for (signal, code, to, other_is_stopped) in
        [("-TERM", 143, 1, false), ("-INT", 130, 0, false), ("-HUP", 129, 1, true)]
    {
        let ranks = launch(&bench, 2, "early", &more);
        while !bench.path("errors/reference.json").exists() {
            sleep(Duration::from_millis(5));
        }
        // One that is at something alone, for which the other may have to wait for hours.
        if other_is_stopped {
            send("-STOP", &ranks[1 - to]);
        }
        send(signal, &ranks[to]);
        let mut ranks: Vec<Option<Child>> = ranks.into_iter().map(Some).collect();
        let first = ranks[to].take().unwrap().wait_with_output().unwrap();
        let other = ranks[1 - to].take().unwrap();
        // Rank 0 has the store that the ranks meet at: what it does not answer cannot be said to it.
        if other_is_stopped {
            send("-KILL", &other);
        }
        let other = other.wait_with_output().unwrap();
        for output in std::iter::once(first).chain((!other_is_stopped).then_some(other)) {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{signal} to rank {to}: {said}");
            assert!(said.contains("stopped before the first step"), "{signal} to rank {to}: {said}");
        }
        std::fs::remove_dir_all(bench.path("errors")).unwrap();
    }
}

#[test]
fn what_ends_one_rank_is_said_by_all_and_all_end_with_its_code() {
    let bench = bench();
    let more = "--max_train_steps 2 --checkpointing_steps 0";
    let wrong = format!("{more} --resume_from_checkpoint checkpoint-9");
    for (outputs, code, words) in [
        (ended(launch_each(&bench, "out", &[more, &wrong])), 2, "checkpoint-9 is no checkpoint"),
        (ended(launch_each(&bench, "out", &[&wrong, more])), 2, "checkpoint-9 is no checkpoint"),
        (
            {
                bench.write("out/notes.txt", "mine");
                ended(launch(&bench, 2, "out", more))
            },
            5,
            "holds other things, such as notes.txt",
        ),
    ] {
        for (rank, output) in outputs.iter().enumerate() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "rank {rank}: {said}");
            assert!(said.contains(words), "rank {rank}: {said}");
        }
    }
}
