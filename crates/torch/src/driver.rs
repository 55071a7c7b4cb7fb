//! NVIDIA's driver: what it is and which devices it offers, asked through its own libraries.
//!
//! Nothing here makes a context on a device or opens libtorch's CUDA part.
//! Source: CUDA Driver API (`cuInit`, error codes), NVML API reference.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ptr;

use crate::library::Library;

/// A device as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gpu {
    /// Such as `NVIDIA H200`.
    pub name: String,
    /// Compute capability, major and minor.
    pub capability: (i32, i32),
    /// Streaming multiprocessors.
    pub multiprocessors: i32,
    /// Bytes of memory.
    pub memory: u64,
    /// Bytes of it that nobody uses; `None` where the driver does not say.
    pub free: Option<u64>,
}

/// The driver, opened.
#[derive(Debug, Clone, Copy)]
pub struct Driver {
    cuda: Library,
    nvml: Option<Library>,
}

/// `CUresult`, and `nvmlReturn_t`.
type Status = c_int;
const SUCCESS: Status = 0;

/// `CU_DEVICE_ATTRIBUTE_*`.
const MULTIPROCESSORS: c_int = 16;
const CAPABILITY_MAJOR: c_int = 75;
const CAPABILITY_MINOR: c_int = 76;

/// Why the driver offers no device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It has none, or `CUDA_VISIBLE_DEVICES` hides them.
    NoDevice,
    /// Its library is of another version than the part in the kernel.
    Mismatch,
    /// It refuses for another reason, in its own words.
    Other(String),
}

impl Driver {
    /// Opens the driver.
    ///
    /// # Errors
    /// The loader's words.
    pub fn open() -> Result<Self, String> {
        let cuda = Library::open("libcuda.so.1")?;
        let nvml = Library::open("libnvidia-ml.so.1").ok().filter(|library| {
            #[expect(unsafe_code, reason = "NVML is opened by name")]
            // SAFETY: `nvmlReturn_t nvmlInit_v2(void)`.
            let init = unsafe { library.function::<extern "C" fn() -> Status>(c"nvmlInit_v2") };
            init.is_some_and(|init| init() == SUCCESS)
        });
        Ok(Self { cuda, nvml })
    }

    /// The release of the driver, such as `580.65.06`.
    pub fn release(&self) -> Option<String> {
        self.release_of_nvml().or_else(release_of_kernel)
    }

    fn release_of_nvml(&self) -> Option<String> {
        type Version = extern "C" fn(*mut c_char, c_uint) -> Status;
        #[expect(unsafe_code, reason = "NVML is opened by name")]
        // SAFETY: `nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)`.
        let version = unsafe { self.nvml?.function::<Version>(c"nvmlSystemGetDriverVersion") };
        let mut text = [0; 96];
        (version?(text.as_mut_ptr(), 96) == SUCCESS).then(|| text_of(&text))?
    }

    /// The newest CUDA it can run, as `1000 major + 10 minor`.
    pub fn cuda(&self) -> Option<i32> {
        #[expect(unsafe_code, reason = "the driver is opened by name")]
        // SAFETY: `CUresult cuDriverGetVersion(int *driverVersion)`.
        let version =
            unsafe { self.cuda.function::<extern "C" fn(*mut c_int) -> Status>(c"cuDriverGetVersion") };
        let mut number = 0;
        (version?(&raw mut number) == SUCCESS).then_some(number)
    }

    /// The devices that `CUDA_VISIBLE_DEVICES` leaves.
    ///
    /// # Errors
    /// Why there is none.
    pub fn gpus(&self) -> Result<Vec<Gpu>, Refusal> {
        #[expect(unsafe_code, reason = "the driver is opened by name")]
        // SAFETY: `CUresult cuInit(unsigned int Flags)`, `CUresult cuDeviceGetCount(int *count)`.
        let (init, count) = unsafe {
            (
                self.cuda.function::<extern "C" fn(c_uint) -> Status>(c"cuInit"),
                self.cuda.function::<extern "C" fn(*mut c_int) -> Status>(c"cuDeviceGetCount"),
            )
        };
        let (Some(init), Some(count)) = (init, count) else {
            return Err(Refusal::Other("its library has no cuInit".to_owned()));
        };
        self.accept(init(0))?;
        let mut n = 0;
        self.accept(count(&raw mut n))?;
        match n {
            1.. => Ok((0..n).map(|index| self.gpu(index)).collect()),
            _ => Err(Refusal::NoDevice),
        }
    }

    /// What no other device in the world is called, nor another part of one that is split (MIG); devices are counted as
    /// `CUDA_VISIBLE_DEVICES` leaves them.
    ///
    /// # Errors
    /// The driver's words.
    pub fn uuid(&self, index: usize) -> Result<String, String> {
        #[expect(unsafe_code, reason = "the driver is opened by name")]
        // SAFETY: `CUresult cuInit(unsigned int Flags)`, `CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice dev)`, whose first
        // argument is 16 bytes.
        let (init, uuid) = unsafe {
            (
                self.cuda.function::<extern "C" fn(c_uint) -> Status>(c"cuInit"),
                self.cuda.function::<extern "C" fn(*mut [u8; 16], c_int) -> Status>(c"cuDeviceGetUuid_v2"),
            )
        };
        let (Some(init), Some(uuid)) = (init, uuid) else {
            return Err("the driver does not say which device it is".to_owned());
        };
        let index = c_int::try_from(index).map_err(|error| error.to_string())?;
        let mut bytes = [0; 16];
        for status in [init(0), uuid(&raw mut bytes, index)] {
            if status != SUCCESS {
                return Err(self.name_of(status));
            }
        }
        Ok(format!("GPU-{}", bytes.map(|byte| format!("{byte:02x}")).concat()))
    }

    fn accept(&self, status: Status) -> Result<(), Refusal> {
        const NO_DEVICE: Status = 100;
        const SYSTEM_DRIVER_MISMATCH: Status = 803;
        match status {
            SUCCESS => Ok(()),
            NO_DEVICE => Err(Refusal::NoDevice),
            SYSTEM_DRIVER_MISMATCH => Err(Refusal::Mismatch),
            other => Err(Refusal::Other(self.name_of(other))),
        }
    }

    /// The name of an error, such as `CUDA_ERROR_SYSTEM_NOT_READY`, with its number.
    fn name_of(&self, status: Status) -> String {
        #[expect(unsafe_code, reason = "the driver is opened by name")]
        // SAFETY: `CUresult cuGetErrorName(CUresult error, const char **pStr)`; the name lives as long as the library.
        let name = unsafe {
            let get =
                self.cuda.function::<extern "C" fn(Status, *mut *const c_char) -> Status>(c"cuGetErrorName");
            let mut name = ptr::null();
            get.filter(|get| get(status, &raw mut name) == SUCCESS && !name.is_null())
                .map(|_| CStr::from_ptr(name).to_string_lossy().into_owned())
        };
        format!("{} ({status})", name.as_deref().unwrap_or("error"))
    }

    /// Handles of the driver API are the devices' numbers.
    fn gpu(&self, index: c_int) -> Gpu {
        type Text = extern "C" fn(*mut c_char, c_int, c_int) -> Status;
        type Bytes = extern "C" fn(*mut usize, c_int) -> Status;
        type Attribute = extern "C" fn(*mut c_int, c_int, c_int) -> Status;
        #[expect(unsafe_code, reason = "the driver is opened by name")]
        // SAFETY: `CUresult cuDeviceGetName(char *name, int len, CUdevice dev)` and the same for the bus id,
        // `CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice dev)`,
        // `CUresult cuDeviceGetAttribute(int *pi, CUdevice_attribute attrib, CUdevice dev)`.
        let (name, bus_id, bytes, attribute) = unsafe {
            (
                self.cuda.function::<Text>(c"cuDeviceGetName"),
                self.cuda.function::<Text>(c"cuDeviceGetPCIBusId"),
                self.cuda.function::<Bytes>(c"cuDeviceTotalMem_v2"),
                self.cuda.function::<Attribute>(c"cuDeviceGetAttribute"),
            )
        };
        let text = |get: Option<Text>| {
            let mut text = [0; 256];
            (get?(text.as_mut_ptr(), 256, index) == SUCCESS).then_some(text)
        };
        let number = |which| {
            let mut number = 0;
            attribute.map(|get| get(&raw mut number, which, index));
            number
        };
        let mut memory = 0;
        bytes.map(|get| get(&raw mut memory, index));
        Gpu {
            name: text(name).and_then(|text| text_of(&text)).unwrap_or_default(),
            capability: (number(CAPABILITY_MAJOR), number(CAPABILITY_MINOR)),
            multiprocessors: number(MULTIPROCESSORS),
            memory: memory as u64,
            free: text(bus_id).and_then(|bus_id| self.free(&bus_id)),
        }
    }

    /// Bytes that nobody uses on the device at this place of the bus.
    fn free(&self, bus_id: &[c_char]) -> Option<u64> {
        /// `nvmlMemory_t`.
        #[repr(C)]
        #[derive(Default)]
        struct Memory {
            total: u64,
            free: u64,
            used: u64,
        }
        type Handle = extern "C" fn(*const c_char, *mut *mut c_void) -> Status;
        #[expect(unsafe_code, reason = "NVML is opened by name")]
        // SAFETY: `nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *pciBusId, nvmlDevice_t *device)`,
        // `nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)`.
        let (handle, memory_info) = unsafe {
            (
                self.nvml?.function::<Handle>(c"nvmlDeviceGetHandleByPciBusId_v2")?,
                self.nvml?.function::<extern "C" fn(*mut c_void, *mut Memory) -> Status>(
                    c"nvmlDeviceGetMemoryInfo",
                )?,
            )
        };
        let (mut device, mut memory) = (ptr::null_mut(), Memory::default());
        let is_found = handle(bus_id.as_ptr(), &raw mut device) == SUCCESS;
        (is_found && memory_info(device, &raw mut memory) == SUCCESS).then_some(memory.free)
    }
}

fn text_of(text: &[c_char]) -> Option<String> {
    let bytes: Vec<u8> = text.iter().map(|c| *c as u8).take_while(|c| *c != 0).collect();
    String::from_utf8(bytes).ok().filter(|text| !text.is_empty())
}

/// The release that the part of the driver in the kernel says; `None` without it, as under Windows.
pub fn release_of_kernel() -> Option<String> {
    let text = std::fs::read_to_string("/proc/driver/nvidia/version").ok()?;
    let mut words = text.lines().next()?.split_whitespace();
    words
        .find(|word| word.split_once('.').is_some_and(|(major, _)| major.parse::<u32>().is_ok()))
        .map(Into::into)
}
