//! What tests of kernels share.

use std::path::PathBuf;

use tch::{Device, Kind, Tensor};

/// A file in the folder of recorded cases.
pub fn golden(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../golden").join(path)
}

/// Values of no pattern between -1 and 1.
pub fn values(shape: &[i64], phase: f64) -> Tensor {
    let n: i64 = shape.iter().product();
    (Tensor::arange(n, (Kind::Double, Device::Cpu)) * 12.9898 + phase)
        .sin()
        .reshape(shape)
        .to_kind(Kind::Float)
}
