//! Libraries that stand in for those of devices, made by the C compiler of this machine.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;
use std::{env, fs, process};

const NCCL: &str = include_str!("../standin/nccl.c");

/// A library with NCCL's functions, for tensors on the host; see its source, `standin/nccl.c`.
///
/// # Panics
/// If it does not compile.
pub fn nccl() -> PathBuf {
    let mut hasher = DefaultHasher::new();
    NCCL.hash(&mut hasher);
    let stem = format!("tastemaker-standin-nccl-{:016x}", hasher.finish());
    let library = env::temp_dir().join(format!("{stem}.so"));
    if library.exists() {
        return library;
    }
    let own = env::temp_dir().join(format!("{stem}-{}", process::id()));
    let (source, made) = (own.with_extension("c"), own.with_extension("made"));
    fs::write(&source, NCCL).expect("the folder for temporary files can be written");
    let flags = ["-std=gnu11", "-O1", "-shared", "-fPIC", "-pthread", "-o"];
    let compiled = Command::new("cc").args(flags).args([&made, &source]).status();
    assert!(compiled.is_ok_and(|status| status.success()), "the stand-in for NCCL does not compile");
    // Tests of several processes make it at once, each under its own name.
    fs::rename(&made, &library).expect("a file can be renamed in its folder");
    fs::remove_file(&source).expect("a file of this process can be removed");
    library
}
