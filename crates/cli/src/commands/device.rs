//! The device that networks compute on.

use anyhow::Result;
use clap::Args;
use tastemaker_torch::devices::{self, NoCuda, Wanted};
use tastemaker_torch::driver;
use tastemaker_torch::kernels::Kernels;
use tch::Device;

use crate::ranks;

/// Where to compute.
#[derive(Debug, Default, Clone, Copy, Args)]
#[command(rename_all = "snake_case")]
pub struct DeviceFlag {
    /// Device: auto, cpu, cuda, or cuda:N; auto is CUDA if available, the device of LOCAL_RANK if it is set
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Wanted,
    /// Round fp32 matrix products to TF32 on CUDA devices, as the published scripts' flag does
    #[arg(long)]
    allow_tf32: bool,
    /// Let attention take cuDNN's kernel on CUDA; first logits may then differ from 0
    #[arg(long)]
    cudnn_attention: bool,
}

impl DeviceFlag {
    /// The device.
    ///
    /// # Errors
    /// [`TorchError::Device`](tastemaker_torch::TorchError::Device) for one that is not there.
    pub fn open(self) -> Result<Device> {
        let device = devices::open(self.device, ranks::local_rank()?)?;
        Kernels { tf32: self.allow_tf32, cudnn_attention: self.cudnn_attention }.allow();
        if self.device == Wanted::Auto
            && let Err(why) = devices::n_cuda()
            && is_odd(&why)
        {
            eprintln!(
                "warning: computing on the CPU, because the GPU cannot be used: {why}: {}; `tastemaker doctor` says more",
                why.advice()
            );
        }
        Ok(device)
    }
}

/// Whether there ought to be a device. A machine without one is in order, and so is one whose user hides it; images for
/// containers bring the driver's library to machines without a device.
fn is_odd(why: &NoCuda) -> bool {
    match why {
        NoCuda::NoDriver { .. } => driver::release_of_kernel().is_some(),
        NoCuda::NoDevice => {
            let hidden =
                std::env::var("CUDA_VISIBLE_DEVICES").is_ok_and(|shown| ["", "-1"].contains(&shown.trim()));
            !hidden && driver::release_of_kernel().is_some()
        }
        _ => true,
    }
}
