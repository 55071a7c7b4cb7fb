//! What set-up downloads: each package at the release torch asks for, by the SHA-256 of its wheels.

use super::fit::TORCH;

/// A published package.
pub struct Package {
    /// Its name on PyPI.
    pub name: &'static str,
    /// Its release.
    pub version: &'static str,
    /// SHA-256 of its wheel for each kind of machine: Linux on x86-64, Linux on aarch64, and macOS if it has one.
    pub wheels: &'static [&'static str],
    /// Libraries that others of the installation load by these names.
    pub provides: &'static [&'static str],
}

impl Package {
    /// A line of a requirements file that pip accepts one of the wheels for, and nothing else.
    pub fn requirement(&self) -> String {
        let hashes: String = self.wheels.iter().map(|wheel| format!(" --hash=sha256:{wheel}")).collect();
        format!("{}=={}{hashes}\n", self.name, self.version)
    }
}

/// libtorch with its headers.
const LIBTORCH: Package = Package {
    name: "torch",
    version: TORCH,
    wheels: &[
        "0f68f4ac6d95d12e896c3b7a912b5871619542ec54d3649cf48cc1edd4dd2756",
        "f99924682ef0aa6a4ab3b1b76f40dc6e273fca09f367d15a524266db100a723f",
        "4b5866312ee6e52ea625cd211dcb97d6a2cdc1131a5f15cc0d87eec948f6dd34",
    ],
    provides: &[],
};

/// libtorch, and on Linux what its CPU library is linked to.
pub fn core() -> Vec<Package> {
    let mut packages = vec![LIBTORCH];
    if cfg!(target_os = "linux") {
        packages.extend(COMPANIONS);
    }
    packages
}

/// What `libtorch_cpu.so` is linked to on Linux besides the system.
const COMPANIONS: [Package; 2] = [
    Package {
        name: "nvidia-cuda-runtime",
        version: "13.0.96",
        wheels: &[
            "7f82250d7782aa23b6cfe765ecc7db554bd3c2870c43f3d1821f1d18aebf0548",
            "ef9bcbe90493a2b9d810e43d249adb3d02e98dd30200d86607d8d02687c43f55",
        ],
        provides: &["libcudart.so.13"],
    },
    Package {
        name: "nvidia-cuda-cupti",
        version: "13.0.85",
        wheels: &[
            "4eb01c08e859bf924d222250d2e8f8b8ff6d3db4721288cf35d14252a4d933c8",
            "796bd679890ee55fb14a94629b698b6db54bcfd833d391d5e94017dd9d7d3151",
        ],
        provides: &["libcupti.so.13"],
    },
];

/// What `libtorch_cuda.so` and the libraries that it loads are linked to in addition.
///
/// Source: `Requires-Dist` of torch 2.11.0, and of cuda-toolkit 13.0.2, which it names.
pub const CUDA: [Package; 12] = [
    Package {
        name: "nvidia-cublas",
        version: "13.1.0.3",
        wheels: &[
            "ee8722c1f0145ab246bccb9e452153b5e0515fd094c3678df50b2a0888b8b171",
            "c86fc7f7ae36d7528288c5d88098edcb7b02c633d262e7ddbb86b0ad91be5df2",
        ],
        provides: &["libcublas.so.13", "libcublasLt.so.13"],
    },
    Package {
        name: "nvidia-cuda-nvrtc",
        version: "13.0.88",
        wheels: &[
            "ad9b6d2ead2435f11cbb6868809d2adeeee302e9bb94bcf0539c7a40d80e8575",
            "d27f20a0ca67a4bb34268a5e951033496c5b74870b868bacd046b1b8e0c3267b",
        ],
        provides: &["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"],
    },
    Package {
        name: "nvidia-cudnn-cu13",
        version: "9.19.0.56",
        wheels: &[
            "d20e1734305e9d68889a96e3f35094d733ff1f83932ebe462753973e53a572bf",
            "6ed29ffaee1176c612daf442e4dd6cfeb6a0caa43ddcbeb59da94953030b1be4",
        ],
        provides: &["libcudnn.so.9"],
    },
    Package {
        name: "nvidia-cufft",
        version: "12.0.0.61",
        wheels: &[
            "6c44f692dce8fd5ffd3e3df134b6cdb9c2f72d99cf40b62c32dde45eea9ddad3",
            "2708c852ef8cd89d1d2068bdbece0aa188813a0c934db3779b9b1faa8442e5f5",
        ],
        provides: &["libcufft.so.12"],
    },
    Package {
        name: "nvidia-cufile",
        version: "1.15.1.6",
        wheels: &[
            "08a3ecefae5a01c7f5117351c64f17c7c62efa5fffdbe24fc7d298da19cd0b44",
            "bdc0deedc61f548bddf7733bdc216456c2fdb101d020e1ab4b88d232d5e2f6d1",
        ],
        provides: &["libcufile.so.0"],
    },
    Package {
        name: "nvidia-curand",
        version: "10.4.0.35",
        wheels: &[
            "1aee33a5da6e1db083fe2b90082def8915f30f3248d5896bcec36a579d941bfc",
            "133df5a7509c3e292aaa2b477afd0194f06ce4ea24d714d616ff36439cee349a",
        ],
        provides: &["libcurand.so.10"],
    },
    Package {
        name: "nvidia-cusolver",
        version: "12.0.4.66",
        wheels: &[
            "0a759da5dea5c0ea10fd307de75cdeb59e7ea4fcb8add0924859b944babf1112",
            "02c2457eaa9e39de20f880f4bd8820e6a1cfb9f9a34f820eb12a155aa5bc92d2",
        ],
        provides: &["libcusolver.so.12"],
    },
    Package {
        name: "nvidia-cusparse",
        version: "12.6.3.3",
        wheels: &[
            "2b3c89c88d01ee0e477cb7f82ef60a11a4bcd57b6b87c33f789350b59759360b",
            "80bcc4662f23f1054ee334a15c72b8940402975e0eab63178fc7e670aa59472c",
        ],
        provides: &["libcusparse.so.12"],
    },
    Package {
        name: "nvidia-cusparselt-cu13",
        version: "0.8.0",
        wheels: &[
            "25e30a8a7323935d4ad0340b95a0b69926eee755767e8e0b1cf8dd85b197d3fd",
            "400c6ed1cf6780fc6efedd64ec9f1345871767e6a1a0a552a1ea0578117ea77c",
        ],
        provides: &["libcusparseLt.so.0"],
    },
    Package {
        name: "nvidia-nccl-cu13",
        version: "2.28.9",
        wheels: &[
            "e4553a30f34195f3fa1da02a6da3d6337d28f2003943aa0a3d247bbc25fefc42",
            "01c873ba1626b54caa12272ed228dc5b2781545e0ae8ba3f432a8ef1c6d78643",
        ],
        provides: &["libnccl.so.2"],
    },
    Package {
        name: "nvidia-nvjitlink",
        version: "13.0.88",
        wheels: &[
            "13a74f429e23b921c1109976abefacc69835f2f433ebd323d3946e11d804e47b",
            "e931536ccc7d467a98ba1d8b89ff7fa7f1fa3b13f2b0069118cd7f47bff07d0c",
        ],
        provides: &["libnvJitLink.so.13"],
    },
    Package {
        name: "nvidia-nvshmem-cu13",
        version: "3.4.5",
        wheels: &[
            "290f0a2ee94c9f3687a02502f3b9299a9f9fe826e6d0287ee18482e78d495b80",
            "6dc2a197f38e5d0376ad52cd1a2a3617d3cdc150fd5966f4aee9bcebb1d68fe9",
        ],
        provides: &["libnvshmem_host.so.3"],
    },
];

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::needs;
    use super::{CUDA, Package, core};

    #[test]
    fn every_wheel_is_pinned_by_its_digest_once() {
        let packages: Vec<Package> = core().into_iter().chain(CUDA).collect();
        let mut wheels: Vec<&str> = packages.iter().flat_map(|package| package.wheels).copied().collect();
        for wheel in &wheels {
            assert!(wheel.len() == 64 && wheel.bytes().all(|byte| byte.is_ascii_hexdigit()), "{wheel}");
        }
        wheels.sort_unstable();
        wheels.dedup();
        assert_eq!(wheels.len(), 2 * packages.len() + 1, "two kinds of Linux machines, and torch for macOS");
        let line = packages[1].requirement();
        assert!(line.starts_with("nvidia-cuda-runtime==13.0.96 --hash=sha256:7f82250d"), "{line}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_pinned_packages_provide_whatever_the_cuda_part_of_libtorch_asks_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a checkout");
        let library = root.join(".libtorch/lib/libtorch_cuda.so");
        if !library.is_file() {
            // The checkout adopted a libtorch without CUDA.
            return;
        }
        let packages: Vec<Package> = core().into_iter().chain(CUDA).collect();
        let provided: Vec<&str> = packages.iter().flat_map(|package| package.provides).copied().collect();
        let missing = needs::missing(&library).expect("readable libraries");
        let others: Vec<_> =
            missing.iter().filter(|missing| !provided.contains(&missing.name.as_str())).collect();
        assert!(others.is_empty(), "{others:?}");
        let is_whole = root.join(".libtorch/../checked-cuda.json").is_file();
        assert!(!is_whole || missing.is_empty(), "{missing:?}");
    }
}
