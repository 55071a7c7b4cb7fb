//! Whole runs of several processes, by Gloo and by what has NCCL's functions. The tests start this program again, once for each
//! rank, as the ignored test `rank`.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]

use std::env;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use tastemaker_data::split::Split;
use tastemaker_data::{InMemoryPairs, PairSource, Ranking};
use tastemaker_run::{Event, Plan, Recipe, resolve};
use tastemaker_testkit::standin;
use tastemaker_testkit_torch::{TINY_RESOLUTION, tiny_model};
use tastemaker_torch::distributed::{Group, Settings};
use tastemaker_torch::nccl::Library;
use tastemaker_torch::tensors::{self, Named};
use tastemaker_train::checkpoint::Resume;
use tastemaker_train::distributed::ProcessGroup;
use tastemaker_train::session::{Options, train};

const RUN: &str = "TASTEMAKER_TEST_RUN";
const WEIGHTS: &str = "unet/diffusion_pytorch_model.safetensors";

fn pairs() -> InMemoryPairs {
    let image = |i: u32, tint: [u8; 3]| {
        let pixel = |x, y| Rgb(tint.map(|c| c.wrapping_add((8 * i + 3 * x + 5 * y) as u8 / 4)));
        Arc::new(RgbImage::from_fn(TINY_RESOLUTION, TINY_RESOLUTION, pixel))
    };
    let images = (0..9).flat_map(|i| [image(i, [180, 110, 40]), image(i, [40, 110, 180])]).collect();
    let ranking =
        |i: usize| Ranking { winner: 2 * i, loser: 2 * i + 1, caption: ["a fox", "rain", ""][i % 3].into() };
    InMemoryPairs::new(images, (0..9).map(ranking).collect()).unwrap()
}

/// A run that the processes of a test do together.
#[derive(Clone, Copy)]
struct Run<'a> {
    output: &'a str,
    world_size: usize,
    accumulation: usize,
    steps: usize,
    nccl: bool,
    shard: bool,
    optimizer: &'a str,
}

const RUN_OF_TWO: Run<'static> = Run {
    output: "",
    world_size: 2,
    accumulation: 2,
    steps: 4,
    nccl: true,
    shard: false,
    optimizer: "adamw",
};

fn plan(run: &Value, folder: &Path) -> Plan {
    let text = format!(
        "output_dir = {output:?}\n[model]\npretrained_model_name_or_path = {model:?}\n\
         [data]\ntrain_data_dir = \"in memory\"\nresolution = {TINY_RESOLUTION}\n\
         [method]\nname = \"diffusion-dpo\"\n[adapter]\nadapter_type = \"full\"\n\
         [optimizer]\nlearning_rate = 1e-4\nmax_grad_norm = 0.1\noptimizer_type = {optimizer}\nshard_optimizer = {shard}\n\
         [train]\nmax_train_steps = {steps}\ntrain_batch_size = 1\ngradient_accumulation_steps = {accumulation}\nseed = 5\n\
         gradient_checkpointing = true\n[output]\noutput_layout = [\"unet\"]\n",
        output = folder.join(run["output"].as_str().unwrap()),
        model = folder.join("model"),
        optimizer = run["optimizer"],
        shard = run["shard"],
        steps = run["steps"],
        accumulation = run["accumulation"],
    );
    let mut plan = resolve(Recipe::parse(Path::new("test.toml"), &text).unwrap(), Recipe::default()).unwrap();
    plan.cache_root = Some(folder.join("cache"));
    plan.n_processes = run["world_size"].as_u64().unwrap() as u32;
    plan
}

#[test]
#[ignore = "one process of the tests below"]
fn rank() {
    tch::set_num_threads(1);
    let run: Value = serde_json::from_str(&env::var(RUN).unwrap()).unwrap();
    let number = |key: &str| run[key].as_u64().unwrap() as usize;
    let folder = PathBuf::from(run["folder"].as_str().unwrap());
    let settings = Settings {
        name: "test".to_owned(),
        rank: number("rank"),
        world_size: number("world_size"),
        master_addr: "127.0.0.1".to_owned(),
        master_port: number("port") as u16,
        store_is_hosted: false,
        interface: Some("lo".to_owned()),
        timeout: Duration::from_secs(120),
        silence: Duration::from_secs(60),
        signal: Default::default(),
    };
    let group = (settings.world_size > 1).then(|| Group::join(&settings).unwrap());
    let library = (run["nccl"] == true).then(|| Library::open(&standin::nccl()).unwrap());
    let (source, plan) = (pairs(), plan(&run, &folder));
    let split = Split { train: (0..source.len()).collect(), held_out: vec![] };
    let options = Options {
        resume: Some(&Resume::Latest),
        ranks: ProcessGroup::new(group.as_ref()),
        nccl: library.as_ref(),
        ..Options::default()
    };
    let is_first = settings.rank == 0;
    let trained = train(&plan, &source, &split, options, &mut |event| {
        match event {
            Event::Step(step) if is_first => println!("said: step {} {:.6e}", step.step, step.loss),
            Event::Note { text } if is_first => println!("said: {text}"),
            _ => {}
        }
        Ok(())
    });
    trained.unwrap();
}

/// What the first rank says.
fn run(folder: &Path, run: Run<'_>) -> Vec<String> {
    let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
    let Run { output, world_size, accumulation, steps, nccl, shard, optimizer } = run;
    let start = |rank: usize| {
        let run = json!({
            "folder": folder, "port": port, "rank": rank, "output": output, "world_size": world_size,
            "accumulation": accumulation, "steps": steps, "nccl": nccl, "shard": shard, "optimizer": optimizer,
        });
        Command::new(env::current_exe().unwrap())
            .args(["rank", "--exact", "--ignored", "--nocapture"])
            .env(RUN, run.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let ranks: Vec<_> = (0..world_size).map(start).collect();
    let all = ranks.into_iter().map(|mut rank| {
        let output = BufReader::new(rank.stdout.take().unwrap());
        let said = output.lines().filter_map(|line| Some(line.unwrap().split_once("said: ")?.1.to_owned()));
        let said: Vec<String> = said.collect();
        assert!(rank.wait().unwrap().success(), "{said:?}");
        said
    });
    all.collect::<Vec<_>>().swap_remove(0)
}

fn weights(folder: &Path, output: &str) -> Named {
    tensors::read(&folder.join(output).join(WEIGHTS)).unwrap()
}

fn are_same(folder: &Path, one: &str, other: &str) -> bool {
    let (one, other) = (weights(folder, one), weights(folder, other));
    one.len() == other.len() && one.iter().all(|(name, tensor)| tensor.equal(&other[name]))
}

/// Length of the difference over length of what was learned.
fn apart(folder: &Path, found: &str, wanted: &str) -> f64 {
    let start = tensors::read(&folder.join("model").join(WEIGHTS)).unwrap();
    let (found, wanted) = (weights(folder, found), weights(folder, wanted));
    let squares = |a: &Named, b: &Named| -> f64 {
        let square = |(name, tensor): (&String, &tch::Tensor)| {
            (tensor - &b[name]).square().sum(tch::Kind::Double).double_value(&[])
        };
        a.iter().map(square).sum()
    };
    (squares(&found, &wanted) / squares(&wanted, &start)).sqrt()
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    tiny_model(&folder.path().join("model"));
    folder
}

#[test]
fn a_run_by_nccl_ends_with_the_bits_of_one_by_gloo_sharded_or_not() {
    let folder = folder();
    let folder = folder.path();
    for optimizer in ["adamw", "adamw8bit"] {
        let of = |output: &'static str| Run { output, optimizer, ..RUN_OF_TWO };
        let by_gloo = run(folder, Run { nccl: false, ..of("gloo") });
        assert_eq!(by_gloo.len(), 4, "{by_gloo:?}");
        assert_eq!(run(folder, of("nccl")), by_gloo, "{optimizer}");
        assert_eq!(run(folder, Run { shard: true, ..of("sharded") }), by_gloo, "{optimizer}");
        assert!(are_same(folder, "gloo", "nccl"), "{optimizer}");
        assert!(are_same(folder, "gloo", "sharded"), "{optimizer}");
        for output in ["gloo", "nccl", "sharded"] {
            std::fs::remove_dir_all(folder.join(output)).unwrap();
        }
    }
}

#[test]
fn a_run_resumes_on_another_number_of_processes_with_the_same_pairs_in_each_step() {
    let folder = folder();
    let folder = folder.path();
    let whole = Run { output: "whole", world_size: 1, accumulation: 4, steps: 6, nccl: false, ..RUN_OF_TWO };
    let losses = run(folder, whole);
    let moved = Run { output: "moved", ..whole };
    let mut found =
        run(folder, Run { steps: 2, world_size: 4, accumulation: 1, nccl: true, shard: true, ..moved });
    for (steps, world_size, accumulation) in [(4, 1, 4), (6, 2, 2)] {
        let shard = world_size == 2;
        std::fs::remove_dir_all(folder.join("moved/unet")).unwrap();
        let said = run(folder, Run { steps, world_size, accumulation, nccl: shard, ..moved });
        let (note, steps) = said.split_first().unwrap();
        assert!(note.contains("n_processes: ") && note.contains("differ by rounding"), "{note}");
        found.extend(steps.iter().cloned());
    }
    let number = |line: &String| -> f64 { line.rsplit(' ').next().unwrap().parse().unwrap() };
    assert_eq!(found.len(), losses.len());
    assert_eq!(found[0], losses[0], "no sum of gradients is in the first loss");
    for (found, wanted) in found.iter().zip(&losses) {
        assert!((number(found) / number(wanted) - 1.0).abs() < 1e-3, "{found}, wanted {wanted}");
    }
    let apart = apart(folder, "moved", "whole");
    assert!(apart < 0.02, "{apart}");
}
