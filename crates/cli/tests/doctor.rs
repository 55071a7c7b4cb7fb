//! What the program says of the machine it runs on, and what it opens there.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up should stop")]
#![cfg(target_os = "linux")]

mod support;

use std::process::Command;

use serde_json::Value;
use support::Bench;

/// A driver that runs this CUDA, starts with this status, and leaves a mark when it is opened.
const DRIVER: &str = r#"
#include <cstdio>
#include <cstdlib>
__attribute__((constructor)) static void opened() {
  if (const char *mark = getenv("MARK")) fclose(fopen(mark, "w"));
}
extern "C" {
int cuInit(unsigned) { return STATUS; }
int cuDriverGetVersion(int *version) { *version = CUDA; return 0; }
int cuDeviceGetCount(int *n) { *n = 1; return 0; }
int cuDeviceGetName(char *name, int length, int) { snprintf(name, length, "NVIDIA Stub"); return 0; }
int cuDeviceTotalMem_v2(size_t *bytes, int) { *bytes = 1ull << 34; return 0; }
int cuDeviceGetAttribute(int *value, int which, int) { *value = which == 75 ? 9 : 0; return 0; }
int cuGetErrorName(int, const char **name) { *name = "CUDA_ERROR_STUB"; return 0; }
}
"#;

/// A folder of the bench with such a driver.
fn driver(bench: &Bench, name: &str, cuda: u32, status: u32) -> String {
    let source = bench.write(&format!("{name}/driver.cpp"), DRIVER);
    let folder = source.parent().unwrap();
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", &format!("-DCUDA={cuda}"), &format!("-DSTATUS={status}"), "-o"]);
    assert!(compiler.arg(folder.join("libcuda.so.1")).arg(source).status().unwrap().success());
    bench.path(name).to_str().unwrap().to_owned()
}

fn report(bench: &Bench, folder: &str) -> Value {
    let said = bench.run_in(&["doctor", "--json"], &[("LD_LIBRARY_PATH", folder), ("HOME", "/nowhere")]);
    assert_eq!(said.code, 0, "{}", said.stderr);
    serde_json::from_str(&said.stdout).unwrap()
}

#[test]
fn a_driver_that_cannot_be_used_is_named_with_what_to_do() {
    let bench = Bench::empty();
    for (name, cuda, status, what, advice) in [
        ("old", 12_020, 0, "is too old: it offers CUDA 12.2, and this libtorch needs CUDA 13.0", "580"),
        ("empty", 13_000, 100, "offers no device", "nvidia-smi"),
        ("updated", 13_000, 803, "the kernel still runs the one before", "restart"),
        ("failing", 13_000, 999, "does not start: CUDA_ERROR_STUB (999)", "nvidia-smi"),
    ] {
        let report = report(&bench, &driver(&bench, name, cuda, status));
        let finding = &report["findings"][0];
        assert!(finding["what"].as_str().unwrap().contains(what), "{report}");
        assert!(finding["advice"].as_str().unwrap().contains(advice), "{report}");
        assert_eq!(report["nvidia"]["usable"], finding["what"]);
    }
}

#[test]
fn a_device_that_libtorch_cannot_reach_is_described_and_the_cause_named() {
    let bench = Bench::empty();
    let report = report(&bench, &driver(&bench, "sound", 13_000, 0));
    assert_eq!(report["nvidia"]["gpus"][0]["name"], "NVIDIA Stub");
    assert_eq!(report["nvidia"]["gpus"][0]["capability"], "9.0");
    // The libraries of libtorch's CUDA part are missing; where they are installed, they do not take this for a driver.
    let what = report["findings"][0]["what"].as_str().unwrap();
    assert!(what.contains("CUDA part cannot be opened") || what.contains("finds none of them"), "{report}");
}

#[test]
fn what_people_read_has_every_section_and_ends_with_what_is_wrong() {
    let bench = Bench::empty();
    let folder = driver(&bench, "old", 11_040, 0);
    let said = bench.run_in(&["doctor"], &[("LD_LIBRARY_PATH", &folder), ("OMP_NUM_THREADS", "1")]);
    for section in ["machine", "libtorch", "NVIDIA", "disks", "environment"] {
        assert!(said.stdout.lines().any(|line| line == section), "{}", said.stdout);
    }
    assert!(said.stdout.contains("for CUDA 11.4 and earlier"), "{}", said.stdout);
    assert!(said.stdout.contains("    to do: update the driver to 580 or later"), "{}", said.stdout);
}

#[test]
fn on_the_cpu_nothing_of_cuda_is_opened() {
    let bench = Bench::new();
    let (folder, mark) = (driver(&bench, "empty", 13_000, 100), bench.path("mark"));
    let line = "sample --num_inference_steps 2 --prompt fox --out";
    let mut opened = Vec::new();
    for (out, device) in [("one", Some("cpu")), ("two", None)] {
        let mut args: Vec<&str> = line.split(' ').chain([out, "--model", "model"]).collect();
        args.extend(device.iter().flat_map(|device| ["--device", device]));
        let variables =
            [("LD_LIBRARY_PATH", &*folder), ("MARK", mark.to_str().unwrap()), ("OMP_NUM_THREADS", "1")];
        let said = bench.run_in(&args, &variables);
        assert_eq!(said.code, 0, "{}", said.stderr);
        opened.push(mark.exists());
    }
    assert_eq!(opened, [false, true], "the driver is opened where a device may be chosen, and only there");
}
