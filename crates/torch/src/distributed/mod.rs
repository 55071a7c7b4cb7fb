//! Processes that train together: sums, copies and collections of tensors over TCP, by libtorch's c10d and Gloo.
//!
//! Every process of a group calls the same operations in the same order, with tensors of the same shapes and types. Results
//! are the same bits on every rank, and the same in every run with as many ranks.
//!
//! An error ends the group: connections close, so that the other ranks fail as well instead of waiting. A rank that is killed
//! is noticed at once by those that exchange data with it, one that is stopped or whose machine is gone after
//! [`Settings::silence`], and one that lives and does not come after [`Settings::timeout`], unless the group
//! [waits for as long as it takes](Group::limit).

mod pulse;

use std::ffi::{CString, c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tch::{Device, Kind, Tensor};

pub use self::pulse::Farewell;
pub(crate) use self::pulse::Pulse;
use self::pulse::{Store, is_lost};

use crate::error::TorchError;
use crate::shim::{Raw, attempt, raw};

/// Who takes part, and where they meet.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Name of the group: groups that meet at one address have different names.
    pub name: String,
    /// Which process this is, from 0.
    pub rank: usize,
    /// How many processes there are.
    pub world_size: usize,
    /// Host on which the store runs that the processes meet at.
    pub master_addr: String,
    /// Port of the store.
    pub master_port: u16,
    /// Whether a launcher runs the store already, as `torchrun` does where it sets `TORCHELASTIC_USE_AGENT_STORE`. Otherwise
    /// rank 0 does.
    pub store_is_hosted: bool,
    /// Network interface to exchange tensors over; `None` for the one that this machine's host name stands for.
    pub interface: Option<String>,
    /// How long to wait for the others, when joining and in each operation, before that is an error.
    ///
    /// It must cover what one rank does alone, such as writing a checkpoint.
    pub timeout: Duration,
    /// After how long a rank that gives no sign of life counts as lost.
    pub silence: Duration,
    /// The number of the signal that asks this process to end, 0 while none does. It ends operations that have no limit; see
    /// [`Group::limit`].
    pub signal: Arc<AtomicUsize>,
}

/// As good as no limit, and far from what the clocks below can hold.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A group of processes on their CPUs; dropping it leaves.
#[derive(Debug)]
pub struct Group {
    handle: NonNull<c_void>,
    rank: usize,
    world_size: usize,
    timeout: Duration,
    pulse: Arc<Pulse>,
}

impl Group {
    /// Waits until all ranks are there, and connects them.
    ///
    /// # Errors
    /// [`TorchError::Group`] if the store is not reached or not all ranks come in time.
    pub fn join(settings: &Settings) -> Result<Self, TorchError> {
        let Settings { rank, world_size, master_port, .. } = *settings;
        let fail = |message: String| TorchError::Group {
            rank,
            world_size,
            doing: format!("joining the others at {}:{master_port}", settings.master_addr),
            message,
        };
        let text = |text: &str| CString::new(text).map_err(|_| fail(format!("a zero byte in {text:?}")));
        let (address, name) = (text(&settings.master_addr)?, text(&settings.name)?);
        let interface = settings.interface.as_deref().map(text).transpose()?;
        if rank >= world_size {
            return Err(fail("ranks are counted from 0".to_owned()));
        }
        let count = |n: usize| i32::try_from(n).map_err(|_| fail(format!("{n} ranks are too many")));
        let (rank_number, n_ranks) = (count(rank)?, count(world_size)?);
        let timeout = i64::try_from(settings.timeout.as_millis()).unwrap_or(i64::MAX);
        let hosts = rank == 0 && !settings.store_is_hosted;
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: the strings end with zeros and outlive the call; null stands for no interface.
        let handle = attempt(|error| unsafe {
            tastemaker_group_join(
                rank_number,
                n_ranks,
                address.as_ptr(),
                master_port,
                hosts,
                name.as_ptr(),
                interface.as_ref().map_or(ptr::null(), |name| name.as_ptr()),
                timeout,
                error,
            )
        });
        let handle = handle.map_err(|message| fail(lost(&message)))?;
        let handle = NonNull::new(handle).ok_or_else(|| fail("no group came of it".to_owned()))?;
        let store = Store::open(handle.as_ptr()).map_err(|message| fail(lost(&message)))?;
        let pulse = Pulse::begin(store, rank, world_size, settings.silence, Arc::clone(&settings.signal));
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: `handle` is a live group, which `Drop` takes away before the pulse.
        unsafe {
            tastemaker_group_watch(handle.as_ptr(), is_lost, Arc::as_ptr(&pulse).cast());
        }
        Ok(Self { handle, rank, world_size, timeout: settings.timeout, pulse })
    }

    /// Whether an operation has a limit from now on: [`Settings::timeout`], as at first, or none but the life of the other
    /// ranks, for times in which one of them may be busy for hours. Then a signal to this process ends it as well.
    pub fn limit(&self, is_limited: bool) {
        self.pulse.heed(!is_limited);
        let limit = if is_limited { self.timeout } else { FOREVER };
        let limit = i64::try_from(limit.min(FOREVER).as_millis()).unwrap_or(i64::MAX);
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: `handle` is a live group.
        unsafe {
            tastemaker_group_limit(self.handle.as_ptr(), limit);
        }
    }

    /// Leaves before the work is done, and tells the others why, who are waited for until they know, but no longer than a few seconds.
    pub fn leave_saying(&self, code: u8, words: &str) {
        self.pulse.leave_saying(Some(Farewell { rank: self.rank, code, words: words.to_owned() }));
    }

    /// Whether all ranks are there, as far as is known.
    ///
    /// # Errors
    /// [`TorchError::Group`] if one is lost or has left.
    pub fn check_all(&self) -> Result<(), TorchError> {
        let lost = self.pulse.lost();
        lost.map_or(Ok(()), |words| Err(self.error("working by itself".to_owned(), &hinted(&words))))
    }

    /// What a rank said that left before its work was done.
    pub fn farewell(&self) -> Option<Farewell> {
        self.pulse.farewell()
    }

    /// How long an operation may take where there is a limit.
    pub fn timeout(&self) -> Duration {
        self.timeout
    }

    /// What is known of the other ranks' lives.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        Arc::clone(&self.pulse)
    }

    /// Which process this is, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// How many processes there are.
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// Replaces each tensor by its sum over all ranks.
    ///
    /// # Errors
    /// [`TorchError::Group`] for tensors that are not f32 or f64 on the CPU, before anything is sent, and if a rank is lost;
    /// the tensors are then undefined.
    pub fn all_reduce_sum(&self, tensors: &mut [Tensor]) -> Result<(), TorchError> {
        let doing = || format!("summing {} tensors over all ranks", tensors.len());
        for tensor in tensors.iter() {
            self.check(tensor, &[Kind::Float, Kind::Double], doing)?;
        }
        let pointers: Vec<Raw> = tensors.iter().map(raw).collect();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: `handle` is a live group; the pointers are those of live tensors, whose values are ours to change.
        self.together(doing, |error| unsafe {
            tastemaker_group_sum(self.handle.as_ptr(), pointers.as_ptr(), pointers.len(), error);
        })
    }

    /// Replaces the tensor by that of rank `root`.
    ///
    /// # Errors
    /// [`TorchError::Group`] for a tensor that is not on the CPU or a rank that is not there, before anything is sent, and if a
    /// rank is lost.
    pub fn broadcast(&self, tensor: &mut Tensor, root: usize) -> Result<(), TorchError> {
        let doing = || format!("broadcasting a tensor {:?} from rank {root}", tensor.size());
        self.check(tensor, &SENT, doing)?;
        if root >= self.world_size {
            return Err(self.error(doing(), "there is no such rank"));
        }
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: as in `all_reduce_sum`.
        self.together(doing, |error| unsafe {
            tastemaker_group_broadcast(self.handle.as_ptr(), raw(tensor), root as i64, error);
        })
    }

    /// The tensors of all ranks, by rank; shape and type are the same on each.
    ///
    /// # Errors
    /// [`TorchError::Group`] for a tensor that is not on the CPU, before anything is sent, and if a rank is lost.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, TorchError> {
        let doing = || format!("gathering a tensor {:?} of each rank", tensor.size());
        self.check(tensor, &SENT, doing)?;
        let options = (tensor.kind(), tensor.device());
        let outputs: Vec<Tensor> =
            (0..self.world_size).map(|_| Tensor::empty(tensor.size(), options)).collect();
        let pointers: Vec<Raw> = outputs.iter().map(raw).collect();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: as in `all_reduce_sum`; the outputs are contiguous, shaped as the input, and one for each rank.
        self.together(doing, |error| unsafe {
            tastemaker_group_gather(
                self.handle.as_ptr(),
                pointers.as_ptr(),
                pointers.len(),
                raw(tensor),
                error,
            );
        })?;
        Ok(outputs)
    }

    /// The bytes of all ranks, by rank, each as long as it is.
    ///
    /// # Errors
    /// [`TorchError::Group`] if a rank is lost.
    pub fn all_gather_bytes(&self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, TorchError> {
        let lengths = self.all_gather(&Tensor::from_slice(&[bytes.len() as i64]))?;
        let lengths: Vec<usize> = lengths.iter().map(|length| length.int64_value(&[0]) as usize).collect();
        let longest = lengths.iter().copied().max().unwrap_or(0);
        if longest == 0 {
            return Ok(vec![Vec::new(); self.world_size]);
        }
        let mut padded = bytes.to_vec();
        padded.resize(longest, 0);
        let rows = self.all_gather(&Tensor::from_slice(&padded))?;
        rows.into_iter()
            .zip(lengths)
            .map(|(row, length)| {
                let mut row = Vec::<u8>::try_from(row)?;
                row.truncate(length);
                Ok(row)
            })
            .collect()
    }

    /// Waits until every rank is here.
    ///
    /// # Errors
    /// [`TorchError::Group`] if a rank is lost.
    pub fn barrier(&self) -> Result<(), TorchError> {
        let doing = || "waiting for all ranks".to_owned();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: `handle` is a live group.
        self.together(doing, |error| unsafe {
            tastemaker_group_barrier(self.handle.as_ptr(), error);
        })
    }

    fn check(&self, tensor: &Tensor, kinds: &[Kind], doing: impl Fn() -> String) -> Result<(), TorchError> {
        let (kind, device) = (tensor.kind(), tensor.device());
        if device != Device::Cpu {
            return Err(self.error(doing(), &format!("a tensor is on {device:?}; wanted the CPU")));
        }
        if !kinds.contains(&kind) {
            return Err(self.error(doing(), &format!("a tensor is {kind:?}; wanted one of {kinds:?}")));
        }
        Ok(())
    }

    fn together(
        &self,
        doing: impl Fn() -> String,
        work: impl FnOnce(*mut *mut c_char),
    ) -> Result<(), TorchError> {
        attempt(work).map_err(|message| {
            self.pulse.ask();
            let words = self.pulse.end_of_wait().map_or_else(|| lost(&message), |words| hinted(&words));
            self.error(doing(), &words)
        })
    }

    pub(crate) fn error(&self, doing: String, message: &str) -> TorchError {
        let (rank, world_size) = (self.rank, self.world_size);
        TorchError::Group { rank, world_size, doing, message: message.to_owned() }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.pulse.leave();
        #[expect(unsafe_code, reason = "a call of the shim")]
        // SAFETY: `handle` is a live group, and nobody uses it after this.
        unsafe {
            tastemaker_group_leave(self.handle.as_ptr());
        }
    }
}

/// Element types that are sent as they are.
const SENT: [Kind; 8] =
    [Kind::Float, Kind::Double, Kind::Half, Kind::BFloat16, Kind::Int8, Kind::Uint8, Kind::Int, Kind::Int64];

/// What libtorch says of an operation that failed, without its stack trace and the place in its source.
fn lost(message: &str) -> String {
    let first = message.lines().next().unwrap_or("");
    let words = first
        .split_once(".cc:")
        .and_then(|(_, rest)| rest.split_once("] "))
        .map_or(first, |(_, words)| words);
    format!("{}; another rank may have ended or hang: look at its output", words.trim_end_matches('.'))
}

/// What is known of a lost rank, and what to do.
pub(crate) fn hinted(words: &str) -> String {
    format!("{words}: look at its output")
}

type Handle = *mut c_void;
type Message = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_group_join(
        rank: i32,
        world_size: i32,
        address: *const c_char,
        port: u16,
        hosts: bool,
        name: *const c_char,
        interface: *const c_char,
        timeout_ms: i64,
        error: Message,
    ) -> Handle;
    fn tastemaker_group_leave(group: Handle);
    fn tastemaker_group_watch(
        group: Handle,
        is_lost: unsafe extern "C" fn(*const c_void) -> bool,
        watch: *const c_void,
    );
    fn tastemaker_group_limit(group: Handle, limit_ms: i64);
    fn tastemaker_group_sum(group: Handle, tensors: *const Raw, n: usize, error: Message) -> bool;
    fn tastemaker_group_broadcast(group: Handle, tensor: Raw, root: i64, error: Message) -> bool;
    fn tastemaker_group_gather(
        group: Handle,
        outputs: *const Raw,
        n: usize,
        input: Raw,
        error: Message,
    ) -> bool;
    fn tastemaker_group_barrier(group: Handle, error: Message) -> bool;
}
