//! Links libtorch and compiles the shim.

#[path = "link.rs"]
mod link;

use std::path::Path;

const SHIM: &str = "shim";
/// Includes all other files.
const SOURCE: &str = "shim/all.cpp";

/// Set for a program that is to start with C and C++ libraries older than this machine's.
const OLD_LIBRARIES: &str = "TASTEMAKER_OLD_LIBRARIES";

fn main() {
    link::main();
    println!("cargo::rerun-if-changed={SHIM}");
    println!("cargo::rerun-if-env-changed={OLD_LIBRARIES}");
    let include = Path::new("../../.libtorch/include");
    let mut shim = cc::Build::new();
    if std::env::var_os(OLD_LIBRARIES).is_some() {
        shim.file("shim/old_libraries.cpp");
    }
    shim.cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        // Debug information of libtorch's headers is larger than everything else.
        .debug(false)
        .opt_level(3)
        // Which sums are fused with products would depend on where things lie in memory.
        .flag_if_supported("-ffp-contract=off")
        .include("shim/declared")
        .include(include)
        .include(include.join("torch/csrc/api/include"))
        .file(SOURCE)
        .compile("tastemaker_shim");
}
