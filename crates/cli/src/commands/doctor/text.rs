//! The report as people read it.

use std::fmt::Write as _;

use tastemaker_torch::devices::NoCuda;

use super::Report;

/// Bytes in words.
pub fn gibibytes(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

const UNKNOWN: &str = "unknown";

pub(super) fn of(report: &Report) -> String {
    let (machine, libtorch) = (&report.machine, &report.libtorch);
    let known = |bytes: Option<u64>| bytes.map_or_else(|| UNKNOWN.to_owned(), gibibytes);
    let mut text = format!("tastemaker {}\n", report.tastemaker);
    section(
        &mut text,
        "machine",
        &[
            ("system", machine.system.clone()),
            ("processor", machine.processor.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
            ("cores", machine.cores.to_string()),
            ("instructions", machine.features.join(" ")),
            ("memory", format!("{}, {} free", known(machine.memory_bytes), known(machine.free_bytes))),
        ],
    );
    section(
        &mut text,
        "libtorch",
        &[
            ("version", libtorch.version.clone().unwrap_or_else(|| UNKNOWN.to_owned())),
            (
                "folder",
                libtorch
                    .folder
                    .as_ref()
                    .map_or_else(|| UNKNOWN.to_owned(), |path| path.display().to_string()),
            ),
            ("built with CUDA", libtorch.cuda.clone().unwrap_or_else(|| "no".to_owned())),
            ("threads", libtorch.threads.to_string()),
            ("bf16 on the CPU", if libtorch.multiplies_bf16 { "fast" } else { "computed in f32" }.to_owned()),
        ],
    );
    section(&mut text, "NVIDIA", &nvidia(report));
    let disks = report.disks.iter();
    let disks: Vec<_> = disks
        .map(|disk| (disk.what, format!("{}, {} free", disk.folder.display(), known(disk.free_bytes))))
        .collect();
    section(&mut text, "disks", &disks);
    if !report.environment.is_empty() {
        let set: Vec<_> =
            report.environment.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        section(&mut text, "environment", &set);
    }
    match report.findings.len() {
        0 => text.push_str("\nnothing is wrong\n"),
        1 => text.push_str("\n1 problem\n"),
        n => _ = writeln!(text, "\n{n} problems"),
    }
    for finding in &report.findings {
        _ = writeln!(text, "  {}\n    to do: {}", finding.what, finding.advice);
    }
    text.trim_end().to_owned()
}

fn nvidia(report: &Report) -> Vec<(&'static str, String)> {
    let nvidia = &report.nvidia;
    let mut rows = vec![match (&nvidia.driver, &nvidia.usable) {
        (None, Err(NoCuda::NoDriver { .. })) if nvidia.is_on_bus => ("driver", "none".to_owned()),
        (None, Err(NoCuda::NoDriver { .. })) => ("driver", "none, and no device".to_owned()),
        (driver, _) => {
            let cuda = nvidia.driver_cuda.as_deref().unwrap_or(UNKNOWN);
            ("driver", format!("{}, for CUDA {cuda} and earlier", driver.as_deref().unwrap_or(UNKNOWN)))
        }
    }];
    for (name, release) in [("cuDNN", &nvidia.cudnn), ("NCCL", &nvidia.nccl)] {
        rows.extend(release.clone().map(|release| (name, release)));
    }
    for (index, gpu) in nvidia.gpus.iter().enumerate() {
        let free = gpu.free.map(|free| format!(", {} free", gibibytes(free))).unwrap_or_default();
        let (major, minor) = gpu.capability;
        rows.push((
            "device",
            format!(
                "cuda:{index} {}, compute capability {major}.{minor}, {} multiprocessors, {}{free}",
                gpu.name,
                gpu.multiprocessors,
                gibibytes(gpu.memory)
            ),
        ));
    }
    rows
}

fn section(text: &mut String, name: &str, rows: &[(&str, String)]) {
    _ = writeln!(text, "\n{name}");
    for (what, value) in rows {
        _ = writeln!(text, "  {what:<18} {value}");
    }
}
