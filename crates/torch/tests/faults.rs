//! Weight files that are cut short while they are mapped.

#![cfg(target_os = "linux")]

use std::fs::{self, OpenOptions};
use std::hint::black_box;
use std::path::Path;
use std::process::Command;

use tastemaker_torch::faults;
use tastemaker_torch::mapped::Mapped;
use tempfile::TempDir;

const PAGE: usize = 64 << 10;

fn truncate(path: impl AsRef<Path>, length: usize) {
    let file = OpenOptions::new().write(true).open(path).expect("it is ours");
    file.set_len(length as u64).expect("it is ours");
}

#[test]
#[ignore = "ends its process; run by the test below"]
fn reads_what_was_cut_off() {
    faults::end_with(4).expect("a handler");
    let path = std::env::var("TASTEMAKER_CUT").expect("a file to cut");
    let map = Mapped::open(&path).expect("it is there");
    truncate(&path, PAGE);
    black_box(map.as_ref()[2 * PAGE + 100]);
}

#[test]
#[ignore = "ends its process; run by the test below"]
fn touches_what_is_no_file() {
    faults::end_with(4).expect("a handler");
    let _ = Command::new("kill").args(["-BUS", &std::process::id().to_string()]).status();
}

#[test]
fn a_mapped_file_that_is_cut_ends_the_program_with_its_name_and_the_code_of_bad_weights() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    let run = |test: &str| {
        fs::write(&path, vec![7u8; 3 * PAGE]).expect("a file");
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--ignored", "--exact", "--nocapture", test]).env("TASTEMAKER_CUT", &path);
        command.output().expect("it runs")
    };
    let output = run("reads_what_was_cut_off");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{said}");
    let words = format!("error: {}: it cannot be read any more: it was cut short", path.display());
    assert!(said.contains(&words), "{said}");
    // Other faults end the program as before.
    let output = run("touches_what_is_no_file");
    assert!(!output.status.success() && output.status.code().is_none(), "{output:?}");
}

#[test]
fn a_file_that_is_cut_within_a_page_is_not_whole() {
    let folder = TempDir::new().expect("a folder");
    let path = folder.path().join("weights.safetensors");
    fs::write(&path, vec![7u8; 3 * PAGE]).expect("a file");
    let map = Mapped::open(&path).expect("it is there");
    assert!(map.is_whole());
    truncate(&path, 3 * PAGE - 10);
    assert_eq!(map.as_ref()[3 * PAGE - 1], 0, "the kernel fills the page");
    assert!(!map.is_whole());
}
