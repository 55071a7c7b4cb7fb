//! Processor, memory, disks, libtorch and the environment.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;
use tastemaker_torch::{products, versions};

use crate::hub;

/// Processor and memory.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// Operating system and architecture.
    pub system: String,
    /// What the processor calls itself.
    pub processor: Option<String>,
    /// Threads that this process may run at once.
    pub cores: usize,
    /// Instructions that make a difference to libtorch, those that are there.
    pub features: Vec<String>,
    /// Bytes, of a container if it has less than the machine.
    pub memory_bytes: Option<u64>,
    /// Bytes that programs can have without swapping.
    pub free_bytes: Option<u64>,
}

/// Names in `/proc/cpuinfo`, of x86-64 and of aarch64.
const FEATURES: [&str; 12] = [
    "avx2",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "bf16",
    "i8mm",
    "sve",
];

impl Machine {
    pub fn read() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpu.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim())
        };
        let has: Vec<&str> =
            field("flags").or_else(|| field("Features")).unwrap_or_default().split(' ').collect();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let limit =
            fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
        let total = kibibytes(&memory, "MemTotal:");
        Self {
            system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            processor: field("model name").map(Into::into),
            cores: std::thread::available_parallelism().map_or(1, |n| n.get()),
            features: FEATURES.into_iter().filter(|name| has.contains(name)).map(Into::into).collect(),
            memory_bytes: total.into_iter().chain(limit).min(),
            free_bytes: kibibytes(&memory, "MemAvailable:"),
        }
    }
}

fn kibibytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// The libtorch of this process.
#[derive(Debug, Serialize)]
pub struct Libtorch {
    /// Its release.
    pub version: Option<String>,
    /// Where its libraries are.
    pub folder: Option<PathBuf>,
    /// The CUDA that it is built with.
    pub cuda: Option<String>,
    /// Threads of an operation on the CPU.
    pub threads: i32,
    /// Whether it has fast bfloat16 products for this processor.
    pub multiplies_bf16: bool,
}

impl Libtorch {
    pub fn read() -> Self {
        Self {
            version: versions::libtorch(),
            folder: versions::libtorch_folder(),
            cuda: versions::cuda_runtime().map(versions::cuda),
            threads: tch::get_num_threads(),
            multiplies_bf16: products::multiplies_bf16(),
        }
    }
}

/// A folder that much is written to.
#[derive(Debug, Serialize)]
pub struct Disk {
    /// What for.
    pub what: &'static str,
    pub folder: PathBuf,
    /// Bytes that this user may still write there.
    pub free_bytes: Option<u64>,
}

/// The folders that this program writes to unless told otherwise.
pub fn disks() -> Vec<Disk> {
    let models = hub::cache(None).ok().map(|cache| cache.root().to_owned());
    let folders = [
        ("fetched models", models),
        ("encoded pairs", hub::pair_caches()),
        ("this folder", std::env::current_dir().ok()),
        ("temporary files", Some(std::env::temp_dir())),
    ];
    let folders = folders.into_iter().filter_map(|(what, folder)| Some((what, folder?)));
    folders.map(|(what, folder)| Disk { what, free_bytes: free(&folder), folder }).collect()
}

/// Free bytes where a folder is or would be made.
fn free(folder: &Path) -> Option<u64> {
    let there = folder.ancestors().find(|folder| folder.is_dir())?;
    let disk = rustix::fs::statvfs(there).ok()?;
    Some(disk.f_bavail * disk.f_frsize)
}

/// Variables that change what libtorch, CUDA, NCCL and this program do.
const VARIABLES: [&str; 34] = [
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "CUDA_DEVICE_ORDER",
    "CUDA_LAUNCH_BLOCKING",
    "CUDA_VISIBLE_DEVICES",
    "DNNL_MAX_CPU_ISA",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_HUB_CACHE",
    "HF_HUB_OFFLINE",
    "KMP_AFFINITY",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LIBTORCH",
    "LOCAL_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "MKL_NUM_THREADS",
    "NCCL_DEBUG",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_SOCKET_IFNAME",
    "GLOO_SOCKET_IFNAME",
    "NVIDIA_TF32_OVERRIDE",
    "NVIDIA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "RANK",
    "TMPDIR",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
    "WORLD_SIZE",
    "XDG_CACHE_HOME",
];

/// Those that are set. Tokens and proxies, whose addresses may have a password, are not among them.
pub fn environment() -> Vec<(String, String)> {
    let set = VARIABLES.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
    set.map(|(name, value)| (name.to_owned(), value.to_string_lossy().into_owned())).collect()
}
