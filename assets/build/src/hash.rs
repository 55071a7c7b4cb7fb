//! SHA-256, for pinning inputs, for the manifest and for the split.

use sha2::{Digest, Sha256};

/// Lower-case hex SHA-256 of `bytes`.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A number in `[0, 1)` that depends on `text` alone: the first four bytes of its SHA-256, big-endian, over 2^32.
pub fn unit_interval(text: &str) -> f64 {
    let digest = Sha256::digest(text.as_bytes());
    let head = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    f64::from(head) / 4_294_967_296.0
}
