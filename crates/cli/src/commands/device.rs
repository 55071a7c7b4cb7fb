//! The device that networks compute on.

use anyhow::Result;
use clap::Args;
use tastemaker_torch::devices::{self, Wanted};
use tch::Device;

use crate::ranks;

/// Where to compute.
#[derive(Debug, Default, Clone, Copy, Args)]
pub struct DeviceFlag {
    /// Device: auto, cpu, cuda, or cuda:N; auto is CUDA if available, the device of LOCAL_RANK if it is set
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Wanted,
}

impl DeviceFlag {
    /// The device.
    ///
    /// # Errors
    /// [`TorchError::Device`](tastemaker_torch::TorchError::Device) for one that is not there.
    pub fn open(self) -> Result<Device> {
        let device = devices::open(self.device, ranks::local_rank()?)?;
        let driver_is_there = std::path::Path::new("/proc/driver/nvidia/version").exists();
        if self.device == Wanted::Auto && device == Device::Cpu && driver_is_there {
            let why = devices::n_cuda().err().unwrap_or_default();
            eprintln!("warning: computing on the CPU, because the GPU cannot be used: {why}");
        }
        Ok(device)
    }
}
