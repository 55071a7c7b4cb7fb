//! The check of `benchmarks/gpu`, on the CPU at tiny sizes: whatever it does on a device has run before.

use std::path::Path;
use std::process::Command;
use std::{env, fs};

use serde_json::Value;

/// Our side, which `cargo test` builds with all examples.
fn program() -> std::path::PathBuf {
    let test = env::current_exe().expect("a test runs");
    let built = test.parent().and_then(Path::parent).expect("it lies in target/PROFILE/deps");
    built.join("examples").join("gpu")
}

#[cfg(unix)]
#[test]
fn the_whole_check_runs_to_its_last_line_on_the_cpu() {
    let program = program();
    assert!(program.is_file(), "{} is built by `cargo test --examples`", program.display());
    let folder = env::temp_dir().join(format!("tastemaker-gpu-check-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    std::os::unix::fs::symlink(&program, folder.join("gpu")).expect("a link");
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../benchmarks/gpu/run.sh");
    let mut command = Command::new(script);
    command
        .arg(&folder)
        .args(["--device", "cpu", "--smoke", "--no-peer"])
        .env("OMP_NUM_THREADS", "1")
        .env_remove("OUT");
    let output = command.output().expect("bash is there");
    let text = fs::read_to_string(folder.join("results.jsonl")).expect("results");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["passed"] == Value::Bool(false)).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    let last = lines.last().expect("a last line");
    assert!(last["failed"] == 0 && last["passed"].as_u64() > Some(100), "{last}");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // Every section was there, and ended by itself.
    let sections = ["device", "operators", "goldens", "logits", "steps", "resume", "nccl"];
    let speeds = ["sd15-lora-1", "sd15-lora-16", "sd15-full", "sd15-full-8bit", "sdxl-lora", "sdxl-full"];
    let ended = |section: &str| {
        lines
            .iter()
            .any(|line| line["section"] == *section && line["name"] == "time" && line["exit_code"] == 0)
    };
    for section in sections.iter().map(ToString::to_string).chain(speeds.map(|case| format!("speed:{case}")))
    {
        assert!(ended(&section), "{section}\n{text}");
    }
    fs::remove_dir_all(folder).expect("it is ours");
}
