//! Devices by the names people type.
//!
//! Programs link only the part of libtorch that every machine can load. The part for NVIDIA's devices lies beside it and is opened
//! when such a device is asked for; its kernels then announce themselves.

use std::fmt::Display;
use std::str::FromStr;
use std::sync::OnceLock;

use tch::{Cuda, Device};

use crate::TorchError;
use crate::driver::{Driver, Refusal};
use crate::library::Library;
use crate::versions;

/// A device as it is typed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// A CUDA device where there is one, the CPU otherwise.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device: this one, or that of the process's place on its machine.
    Cuda(Option<usize>),
}

impl Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(None)),
            Some(("cuda", index)) => match index.parse() {
                Ok(index) => Ok(Self::Cuda(Some(index))),
                Err(_) => Err(format!("{index:?} is no number of a CUDA device, such as 0 in cuda:0")),
            },
            _ => Err("wanted auto, cpu, cuda, or cuda:N".to_owned()),
        }
    }
}

/// Why no CUDA device can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoCuda {
    /// There is no driver.
    #[error("NVIDIA's driver is not found ({why})")]
    NoDriver {
        /// The loader's words.
        why: String,
    },
    /// The driver is for an older CUDA than libtorch.
    #[error(
        "NVIDIA's driver{} is too old: it offers CUDA {}, and this libtorch needs CUDA {}",
        release.as_deref().map(|release| format!(" {release}")).unwrap_or_default(),
        versions::cuda(*offers),
        versions::cuda(*needs)
    )]
    OldDriver {
        /// Its release.
        release: Option<String>,
        /// The newest CUDA that it runs, as `1000 major + 10 minor`.
        offers: i32,
        /// The CUDA that libtorch is built with.
        needs: i32,
    },
    /// The driver offers none.
    #[error("NVIDIA's driver is there and offers no device")]
    NoDevice,
    /// The driver's library and its part in the kernel differ.
    #[error("NVIDIA's driver was updated, and the kernel still runs the one before")]
    Mismatch,
    /// The driver does not start.
    #[error("NVIDIA's driver does not start: {why}")]
    Refused {
        /// Its own word for it.
        why: String,
    },
    /// A library of libtorch's CUDA part is missing or does not fit.
    #[error("libtorch's CUDA part cannot be opened ({why})")]
    Library {
        /// The loader's words.
        why: String,
    },
    /// The driver has devices and libtorch sees none.
    #[error("NVIDIA's driver offers {n} devices and libtorch finds none of them")]
    Unseen {
        /// How many the driver offers.
        n: usize,
    },
}

impl NoCuda {
    /// What to do about it.
    pub fn advice(&self) -> String {
        match self {
            Self::NoDriver { .. } => {
                "install NVIDIA's driver, or start the container with --gpus all".to_owned()
            }
            Self::OldDriver { needs, .. } => {
                format!("update the driver to {} or later", oldest_driver(*needs))
            }
            Self::NoDevice => {
                "see whether CUDA_VISIBLE_DEVICES hides it and whether nvidia-smi lists it".to_owned()
            }
            Self::Mismatch => "restart the machine".to_owned(),
            Self::Refused { .. } => "see what nvidia-smi says".to_owned(),
            Self::Library { .. } => "type `cargo xtask setup --cuda`".to_owned(),
            Self::Unseen { .. } => {
                "see what nvidia-smi says, and report this with the output of `tastemaker doctor`".to_owned()
            }
        }
    }
}

/// The oldest driver for a major release of CUDA.
/// Source: CUDA release notes, "Minimum Required Driver Version for CUDA Minor Version Compatibility".
fn oldest_driver(cuda: i32) -> &'static str {
    match cuda / 1000 {
        ..=11 => "450",
        12 => "525",
        _ => "580",
    }
}

/// The device that is wanted; of several CUDA devices, where none is named, that of the process's place on its machine.
/// For the CPU nothing of CUDA is opened.
///
/// # Errors
/// [`TorchError::Device`] if a CUDA device is asked for and cannot be used, with the reason, or there are fewer than processes.
pub fn open(wanted: Wanted, local_rank: usize) -> Result<Device, TorchError> {
    match wanted {
        Wanted::Cpu => Ok(Device::Cpu),
        wanted => choose(wanted, local_rank, n_cuda()),
    }
}

fn choose(wanted: Wanted, local_rank: usize, n_cuda: Result<usize, NoCuda>) -> Result<Device, TorchError> {
    let refused = |why: String| TorchError::Device { wanted: wanted.to_string(), why };
    match (wanted, n_cuda) {
        (Wanted::Cpu, _) | (Wanted::Auto, Err(_)) => Ok(Device::Cpu),
        // A launcher that shows each process its own device alone: to each it is the first.
        (Wanted::Auto | Wanted::Cuda(None), Ok(1)) => Ok(Device::Cuda(0)),
        (Wanted::Auto | Wanted::Cuda(None), Ok(n)) if local_rank < n => Ok(Device::Cuda(local_rank)),
        (Wanted::Auto | Wanted::Cuda(None), Ok(n)) => Err(refused(format!(
            "this process is number {local_rank} of its machine, counted from 0, and that has {n} devices; start at most {n} \
             processes on it"
        ))),
        (Wanted::Cuda(Some(index)), Ok(n)) if index < n => Ok(Device::Cuda(index)),
        (Wanted::Cuda(Some(_)), Ok(n)) => Err(refused(format!("this machine has {n}, counted from 0"))),
        (Wanted::Cuda(_), Err(why)) => Err(refused(format!("{why}: {}", why.advice()))),
    }
}

/// How many CUDA devices there are, at least one, or why none can be used.
///
/// # Errors
/// The reason.
pub fn n_cuda() -> Result<usize, NoCuda> {
    static FOUND: OnceLock<Result<usize, NoCuda>> = OnceLock::new();
    FOUND.get_or_init(find).clone()
}

fn find() -> Result<usize, NoCuda> {
    // The driver first: opening libtorch's own part takes a second and says less when there is none.
    let driver = Driver::open().map_err(|why| NoCuda::NoDriver { why })?;
    let (needs, offers) = (versions::cuda_runtime(), driver.cuda());
    if let (Some(needs), Some(offers)) = (needs, offers)
        // A newer release of the same major runs on the same driver.
        && offers / 1000 < needs / 1000
    {
        return Err(NoCuda::OldDriver { release: driver.release(), offers, needs });
    }
    let gpus = driver.gpus().map_err(|refusal| match refusal {
        Refusal::NoDevice => NoCuda::NoDevice,
        Refusal::Mismatch => NoCuda::Mismatch,
        Refusal::Other(why) => NoCuda::Refused { why },
    })?;
    Library::open("libtorch_cuda.so").map_err(|why| NoCuda::Library { why })?;
    match usize::try_from(Cuda::device_count()) {
        Ok(n) if n > 0 => Ok(n),
        _ => Err(NoCuda::Unseen { n: gpus.len() }),
    }
}

/// What no other device in the world is called, for a CUDA device; `None` for the host.
///
/// # Errors
/// [`TorchError::Device`] if the driver does not say.
pub fn identity(device: Device) -> Result<Option<String>, TorchError> {
    let Device::Cuda(index) = device else { return Ok(None) };
    let uuid = Driver::open().and_then(|driver| driver.uuid(index));
    uuid.map(Some).map_err(|why| TorchError::Device { wanted: format!("cuda:{index}"), why })
}

/// The first two in a list of identities that are the same; empty ones are of the host.
pub fn first_shared<T: AsRef<[u8]>>(identities: &[T]) -> Option<(usize, usize)> {
    let is_shared = |&(first, second): &(usize, usize)| {
        let (first, second) = (identities[first].as_ref(), identities[second].as_ref());
        !first.is_empty() && first == second
    };
    let n = identities.len();
    (1..n).flat_map(|second| (0..second).map(move |first| (first, second))).find(is_shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_is_read_and_printed_alike() {
        for text in ["auto", "cpu", "cuda", "cuda:3"] {
            assert_eq!(text.parse::<Wanted>().unwrap().to_string(), text);
        }
        assert!("cuda:x".parse::<Wanted>().unwrap_err().contains("\"x\""));
        assert!("gpu".parse::<Wanted>().unwrap_err().contains("wanted auto"));
    }

    #[test]
    fn more_processes_than_devices_are_refused_unless_each_sees_one_of_its_own() {
        let chosen =
            |wanted, local_rank, n| choose(wanted, local_rank, Ok(n)).map_err(|error| error.to_string());
        for wanted in [Wanted::Auto, Wanted::Cuda(None)] {
            assert_eq!(chosen(wanted, 1, 2), Ok(Device::Cuda(1)));
            assert_eq!(
                chosen(wanted, 3, 1),
                Ok(Device::Cuda(0)),
                "two on that one are found by its identity"
            );
            let why = chosen(wanted, 2, 2).unwrap_err();
            assert!(
                why.contains("this process is number 2 of its machine") && why.contains("at most 2"),
                "{why}"
            );
        }
        assert_eq!(chosen(Wanted::Cuda(Some(1)), 5, 2), Ok(Device::Cuda(1)));
        assert_eq!(choose(Wanted::Auto, 5, Err(NoCuda::NoDevice)).unwrap(), Device::Cpu);
        assert_eq!(first_shared(&["a", "", "b", "", "a", "b"]), Some((0, 4)));
        assert_eq!(first_shared(&["", "a", "", "b"]), None);
        assert_eq!(identity(Device::Cpu).unwrap(), None);
    }

    #[test]
    fn the_processor_is_always_there_and_a_device_that_is_not_is_refused_by_name() {
        assert_eq!(open(Wanted::Cpu, 3).unwrap(), Device::Cpu);
        let error = open(Wanted::Cuda(Some(9999)), 0).unwrap_err().to_string();
        assert!(error.starts_with("cuda:9999 cannot be used: "), "{error}");
    }
}
