//! NVIDIA's devices, and why they cannot be used where they cannot.

use std::fs;

use serde::{Serialize, Serializer};
use tastemaker_torch::devices::{self, NoCuda};
use tastemaker_torch::driver::{Driver, Gpu};
use tastemaker_torch::versions;

/// NVIDIA's part of a machine.
#[derive(Debug, Serialize)]
pub struct Nvidia {
    /// Whether the kernel shows a device, with a driver or without.
    pub is_on_bus: bool,
    /// The release of the driver.
    pub driver: Option<String>,
    /// The newest CUDA that the driver runs.
    pub driver_cuda: Option<String>,
    /// The devices that the driver offers.
    #[serde(serialize_with = "gpus")]
    pub gpus: Vec<Gpu>,
    /// How many devices can be computed on.
    #[serde(serialize_with = "usable")]
    pub usable: Result<usize, NoCuda>,
    /// The release of cuDNN, if libtorch's CUDA part is open.
    pub cudnn: Option<String>,
    /// The release of NCCL, if libtorch's CUDA part is open.
    pub nccl: Option<String>,
}

impl Nvidia {
    /// Opens the driver, and libtorch's CUDA part if the driver fits it.
    pub fn read() -> Self {
        let driver = Driver::open().ok();
        Self {
            is_on_bus: is_on_bus(),
            driver: driver.and_then(|driver| driver.release()),
            driver_cuda: driver.and_then(|driver| driver.cuda()).map(versions::cuda),
            gpus: driver.and_then(|driver| driver.gpus().ok()).unwrap_or_default(),
            usable: devices::n_cuda(),
            cudnn: versions::cudnn(),
            nccl: versions::nccl(),
        }
    }
}

/// Whether a display or 3D controller of vendor 10de is on the PCI bus, or Windows lends one.
fn is_on_bus() -> bool {
    let devices = fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let mut devices = devices.map(|device| {
        let read = |name: &str| fs::read_to_string(device.path().join(name)).unwrap_or_default();
        (read("vendor"), read("class"))
    });
    devices.any(|(vendor, class)| vendor.trim() == "0x10de" && class.starts_with("0x03"))
        || fs::exists("/dev/dxg").unwrap_or(false)
}

fn gpus<S: Serializer>(gpus: &[Gpu], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(gpus.iter().map(|gpu| {
        serde_json::json!({
            "name": gpu.name,
            "capability": format!("{}.{}", gpu.capability.0, gpu.capability.1),
            "multiprocessors": gpu.multiprocessors,
            "memory_bytes": gpu.memory,
            "free_bytes": gpu.free,
        })
    }))
}

fn usable<S: Serializer>(usable: &Result<usize, NoCuda>, serializer: S) -> Result<S::Ok, S::Error> {
    match usable {
        Ok(n) => serializer.serialize_u64(*n as u64),
        Err(why) => serializer.serialize_str(&why.to_string()),
    }
}
