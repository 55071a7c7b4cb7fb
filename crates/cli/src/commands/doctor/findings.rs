//! What is wrong with a machine, and what to do about it.

use serde::Serialize;
use tastemaker_torch::devices::NoCuda;

use super::Report;
use super::text::gibibytes;

/// Something that is wrong, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// What to do or to type.
    pub advice: String,
}

const GIB: u64 = 1 << 30;

/// A model of SDXL's size and what is written while it is fetched.
const ROOM: u64 = 10 * GIB;

/// The release of libtorch that this program is built for.
const LIBTORCH: &str = "2.11";

pub(super) fn of(report: &Report) -> Vec<Finding> {
    [cuda(report), gpus(report), libtorch(report), environment(report), disks(report)].concat()
}

fn finding(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding { what: what.into(), advice: advice.into() }
}

/// A machine without a device needs no driver.
fn cuda(report: &Report) -> Vec<Finding> {
    let nvidia = &report.nvidia;
    match &nvidia.usable {
        Ok(_) => vec![],
        Err(NoCuda::NoDriver { .. }) if !nvidia.is_on_bus => vec![],
        Err(why) => vec![finding(why.to_string(), why.advice())],
    }
}

fn gpus(report: &Report) -> Vec<Finding> {
    let is_cuda_13 = report.libtorch.cuda.as_deref().is_none_or(|cuda| cuda.starts_with("13"));
    // CUDA 13 has no kernels for Maxwell, Pascal and Volta. Source: its release notes, "Deprecated Architectures".
    let oldest = if is_cuda_13 { (7, 5) } else { (5, 0) };
    let gpus = report.nvidia.gpus.iter().enumerate();
    gpus.flat_map(|(index, gpu)| {
        let (major, minor) = gpu.capability;
        let name = format!("cuda:{index} ({})", gpu.name);
        let is_old = gpu.capability < oldest;
        let is_full = gpu.free.is_some_and(|free| free < gpu.memory / 2);
        [
            is_old.then(|| {
                finding(
                    format!(
                        "{name} has compute capability {major}.{minor}, and this libtorch is for {}.{} and later",
                        oldest.0, oldest.1
                    ),
                    "compute on another device, or with --device cpu",
                )
            }),
            (!is_old && gpu.capability < (8, 0)).then(|| {
                finding(
                    format!("{name} has no bfloat16 instructions"),
                    "train with --mixed_precision fp16",
                )
            }),
            is_full.then(|| {
                let free = gibibytes(gpu.free.unwrap_or_default());
                finding(
                    format!("{name} has {free} of {} free: other programs use it", gibibytes(gpu.memory)),
                    "see which with nvidia-smi",
                )
            }),
        ]
    })
    .flatten()
    .collect()
}

fn libtorch(report: &Report) -> Vec<Finding> {
    match &report.libtorch.version {
        Some(version) if !version.starts_with(LIBTORCH) => vec![finding(
            format!("this is libtorch {version}, and the program is built for {LIBTORCH}"),
            "type `cargo xtask setup --again` in the checkout, then build again",
        )],
        _ => vec![],
    }
}

fn environment(report: &Report) -> Vec<Finding> {
    let value = |name: &str| {
        report.environment.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    };
    let mut found = Vec::new();
    if report.nvidia.usable.is_err() && value("OMP_NUM_THREADS") == Some("1") && report.machine.cores > 1 {
        found.push(finding(
            format!("OMP_NUM_THREADS is 1 and this machine has {} cores", report.machine.cores),
            format!("set it to {}, or unset it", report.machine.cores),
        ));
    }
    if value("CUDA_LAUNCH_BLOCKING").is_some_and(|value| value != "0") {
        found.push(finding("CUDA_LAUNCH_BLOCKING makes every kernel wait for the one before", "unset it"));
    }
    if value("NVIDIA_TF32_OVERRIDE").is_some() {
        found.push(finding("NVIDIA_TF32_OVERRIDE overrules --allow_tf32", "unset it"));
    }
    if value("ATEN_CPU_CAPABILITY").is_some() || value("DNNL_MAX_CPU_ISA").is_some() {
        found.push(finding(
            "ATEN_CPU_CAPABILITY or DNNL_MAX_CPU_ISA keeps libtorch from the processor's best instructions",
            "unset both",
        ));
    }
    found
}

fn disks(report: &Report) -> Vec<Finding> {
    let short = report.disks.iter().filter(|disk| disk.free_bytes.is_some_and(|free| free < ROOM));
    short
        .map(|disk| {
            let free = gibibytes(disk.free_bytes.unwrap_or_default());
            let advice = match disk.what {
                "fetched models" => "make room, or set HF_HOME to a folder on a larger disk",
                "encoded pairs" => "make room, or give --cache_to a folder on a larger disk",
                "temporary files" => "make room, or set TMPDIR to a folder on a larger disk",
                _ => "make room, or give --output_dir a folder on a larger disk",
            };
            finding(format!("{} has {free} free, for {}", disk.folder.display(), disk.what), advice)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use tastemaker_torch::driver::Gpu;

    use super::super::machine::{Disk, Libtorch, Machine};
    use super::super::nvidia::Nvidia;
    use super::*;

    /// A machine with one device, in order.
    fn sound() -> Report {
        let gpu = Gpu {
            name: "NVIDIA H200".into(),
            capability: (9, 0),
            multiprocessors: 132,
            memory: 140 * GIB,
            free: Some(139 * GIB),
        };
        Report {
            tastemaker: "0",
            machine: Machine {
                system: "linux x86_64".into(),
                processor: None,
                cores: 16,
                features: vec![],
                memory_bytes: Some(128 * GIB),
                free_bytes: Some(100 * GIB),
            },
            libtorch: Libtorch {
                version: Some("2.11.0".into()),
                folder: None,
                cuda: Some("13.0".into()),
                threads: 16,
                multiplies_bf16: true,
            },
            nvidia: Nvidia {
                is_on_bus: true,
                driver: Some("580.65.06".into()),
                driver_cuda: Some("13.0".into()),
                gpus: vec![gpu],
                usable: Ok(1),
                cudnn: None,
                nccl: None,
            },
            disks: vec![Disk {
                what: "fetched models",
                folder: PathBuf::from("/c"),
                free_bytes: Some(64 * GIB),
            }],
            environment: vec![],
            findings: vec![],
        }
    }

    #[test]
    fn each_fault_is_named_once_with_what_to_do() {
        assert_eq!(of(&sound()), []);
        type Spoil = fn(&mut Report);
        let old = NoCuda::OldDriver { release: Some("535.183.01".into()), offers: 12_020, needs: 13_000 };
        let library = NoCuda::Library { why: "libcudnn.so.9: cannot open shared object file".into() };
        let states = [
            (
                NoCuda::NoDriver { why: "no such file".into() },
                "driver is not found",
                "install NVIDIA's driver",
            ),
            (
                old,
                "driver 535.183.01 is too old: it offers CUDA 12.2, and this libtorch needs CUDA 13.0",
                "580",
            ),
            (NoCuda::NoDevice, "offers no device", "CUDA_VISIBLE_DEVICES"),
            (NoCuda::Mismatch, "the kernel still runs the one before", "restart"),
            (NoCuda::Refused { why: "CUDA_ERROR_UNKNOWN (999)".into() }, "999", "nvidia-smi"),
            (library, "libcudnn.so.9", "cargo xtask setup --cuda"),
            (NoCuda::Unseen { n: 1 }, "finds none of them", "report"),
        ];
        for (why, what, advice) in states {
            let mut report = sound();
            report.nvidia.usable = Err(why);
            let found = of(&report);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].what.contains(what) && found[0].advice.contains(advice), "{found:?}");
        }
        let spoils: [(Spoil, &str, &str); 8] = [
            (|report| report.nvidia.gpus[0].capability = (7, 0), "compute capability 7.0", "--device cpu"),
            (|report| report.nvidia.gpus[0].capability = (7, 5), "no bfloat16", "fp16"),
            (|report| report.nvidia.gpus[0].free = Some(GIB), "1.0 GiB of 140.0 GiB free", "nvidia-smi"),
            (|report| report.libtorch.version = Some("2.9.1".into()), "libtorch 2.9.1", "setup --again"),
            (|report| report.disks[0].free_bytes = Some(GIB), "/c has 1.0 GiB free", "HF_HOME"),
            (
                |report| report.environment = vec![("CUDA_LAUNCH_BLOCKING".into(), "1".into())],
                "every kernel wait",
                "unset",
            ),
            (
                |report| report.environment = vec![("NVIDIA_TF32_OVERRIDE".into(), "1".into())],
                "--allow_tf32",
                "unset",
            ),
            (
                |report| report.environment = vec![("DNNL_MAX_CPU_ISA".into(), "AVX2".into())],
                "best instructions",
                "unset",
            ),
        ];
        for (spoil, what, advice) in spoils {
            let mut report = sound();
            spoil(&mut report);
            let found = of(&report);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].what.contains(what) && found[0].advice.contains(advice), "{found:?}");
        }
    }

    #[test]
    fn a_machine_without_a_device_needs_no_driver() {
        let mut report = sound();
        report.nvidia.usable = Err(NoCuda::NoDriver { why: "no such file".into() });
        report.nvidia.is_on_bus = false;
        report.nvidia.gpus.clear();
        assert_eq!(of(&report), []);
        report.environment = vec![("OMP_NUM_THREADS".into(), "1".into())];
        assert!(of(&report)[0].what.contains("16 cores"));
    }
}
