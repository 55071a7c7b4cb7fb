//! A communicator of NCCL that never blocks: whatever it does is asked about until it is done, another rank is known to be
//! lost, or the time is over.

use std::ffi::c_int;
use std::ptr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tch::{Device, Kind, Tensor};

use super::abi::{
    Comm, Config, IN_PROGRESS, Library, SUCCESS, SUM, Status, StreamHandle, UniqueId, data_type,
};
use crate::distributed::Pulse;
use crate::streams::{Event, Stream};

/// Who takes part, and when to stop waiting.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub rank: usize,
    pub world_size: usize,
    pub device: Device,
    pub pulse: Arc<Pulse>,
    /// The longest that anything may take.
    pub limit: Duration,
}

/// A communicator, on the one thread that made it.
pub(super) struct Communicator {
    library: Library,
    comm: Comm,
    stream: Stream,
    place: Place,
}

/// Something under way on the stream.
#[derive(Debug)]
pub(super) struct Pending {
    over: Event,
    /// What it reads and writes: the allocator may not give that memory away before.
    _held: Vec<Tensor>,
}

impl Communicator {
    /// Meets the other ranks; all have the same `id`.
    pub(super) fn meet(library: Library, id: UniqueId, place: Place) -> Result<Self, String> {
        let count = |n: usize| c_int::try_from(n).map_err(|_| format!("{n} ranks are too many"));
        let (rank, world_size) = (count(place.rank)?, count(place.world_size)?);
        let stream = Stream::enter(place.device)?;
        let (mut comm, mut config) = (ptr::null_mut(), Config::not_blocking());
        #[expect(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: the function writes one pointer and reads the configuration, which says how large it is.
        let status =
            unsafe { (library.functions.init)(&raw mut comm, world_size, id, rank, &raw mut config) };
        let met = Self { library, comm, stream, place };
        let found = met.accepted(status).and_then(|()| met.until(|| Ok(true)));
        found.map(|()| met)
    }

    /// Sums each tensor over all ranks, in its place. They are flat.
    pub(super) fn all_reduce(&mut self, tensors: Vec<Tensor>) -> Result<Pending, String> {
        let calls: Vec<(&Tensor, c_int)> =
            tensors.iter().map(|tensor| Ok((tensor, number_type(tensor)?))).collect::<Result<_, String>>()?;
        self.launch(|this, stream| {
            calls
                .iter()
                .map(|(tensor, kind)| {
                    let (numbers, n) = (tensor.data_ptr(), tensor.numel());
                    #[expect(unsafe_code, reason = "a call of NCCL")]
                    // SAFETY: the tensor's memory lives until the call is over, and lies in one piece.
                    unsafe {
                        (this.library.functions.all_reduce)(
                            numbers, numbers, n, *kind, SUM, this.comm, stream,
                        )
                    }
                })
                .find(|status| !is_accepted(*status))
                .unwrap_or(SUCCESS)
        })?;
        self.pending(tensors)
    }

    /// Sums `sent [ranks, n]` over all ranks and gives row `rank` of the sum in `kept [n]`.
    pub(super) fn reduce_scatter(&mut self, sent: &Tensor, kept: &Tensor) -> Result<(), String> {
        let kind = number_type(sent)?;
        self.fits(sent, kept)?;
        self.launch(|this, stream| {
            let (from, to, n) = (sent.data_ptr(), kept.data_ptr(), kept.numel());
            #[expect(unsafe_code, reason = "a call of NCCL")]
            // SAFETY: `sent` holds as many numbers for each rank as `kept`, and both live until the call is over.
            unsafe {
                (this.library.functions.reduce_scatter)(from, to, n, kind, SUM, this.comm, stream)
            }
        })
    }

    /// Gives `sent [n]` of rank r in row r of `all [ranks, n]`.
    pub(super) fn all_gather(&mut self, sent: &Tensor, all: &Tensor) -> Result<(), String> {
        let kind = number_type(sent)?;
        self.fits(all, sent)?;
        self.launch(|this, stream| {
            let (from, to, n) = (sent.data_ptr(), all.data_ptr(), sent.numel());
            #[expect(unsafe_code, reason = "a call of NCCL")]
            // SAFETY: as in `reduce_scatter`.
            unsafe {
                (this.library.functions.all_gather)(from, to, n, kind, this.comm, stream)
            }
        })
    }

    /// What has been asked for until now, and needs these tensors.
    pub(super) fn pending(&self, held: Vec<Tensor>) -> Result<Pending, String> {
        Ok(Pending { over: Event::record(self.place.device)?, _held: held })
    }

    /// Waits until something is done.
    pub(super) fn complete(&self, pending: &Pending) -> Result<(), String> {
        self.until(|| pending.over.is_over())
    }

    /// Has the stream wait for what another one has done.
    pub(super) fn wait_for(&self, event: &Event) -> Result<(), String> {
        self.stream.wait_for(event)
    }

    /// Leaves in peace: waits until what this rank sent has arrived.
    pub(super) fn leave(mut self) -> Result<(), String> {
        #[expect(unsafe_code, reason = "calls of NCCL")]
        // SAFETY: the communicator is alive, and nobody uses it after `destroy`.
        unsafe {
            let status = (self.library.functions.finalize)(self.comm);
            self.accepted(status)?;
            self.until(|| Ok(true))?;
            (self.library.functions.destroy)(self.comm);
        }
        self.comm = ptr::null_mut();
        Ok(())
    }

    /// Asks for something, and waits until it is on its way.
    fn launch(&self, ask: impl FnOnce(&Self, StreamHandle) -> Status) -> Result<(), String> {
        let stream = self.stream.handle()?;
        #[expect(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: what a group asks for begins at its end, on this thread.
        let started = unsafe { (self.library.functions.group_start)() };
        self.accepted(started)?;
        let asked = ask(self, stream);
        #[expect(unsafe_code, reason = "a call of NCCL")]
        // SAFETY: as above.
        let ended = unsafe { (self.library.functions.group_end)() };
        self.accepted(asked)?;
        self.accepted(ended)?;
        self.until(|| Ok(true))
    }

    fn accepted(&self, status: Status) -> Result<(), String> {
        if is_accepted(status) { Ok(()) } else { Err(self.library.words(status, self.comm)) }
    }

    fn fits(&self, rows: &Tensor, row: &Tensor) -> Result<(), String> {
        let fits = rows.numel() == row.numel() * self.place.world_size
            && rows.kind() == row.kind()
            && all_flat(&[rows, row]);
        if fits {
            Ok(())
        } else {
            Err(format!("{:?} is no row for each rank of {:?}", row.size(), rows.size()))
        }
    }

    /// Waits until NCCL has begun what it was asked for, and `is_done`.
    fn until(&self, is_done: impl Fn() -> Result<bool, String>) -> Result<(), String> {
        let began = Instant::now();
        loop {
            let mut state = SUCCESS;
            #[expect(unsafe_code, reason = "a call of NCCL")]
            // SAFETY: the communicator is alive, or null, which is an error; the function writes one number.
            let asked = unsafe { (self.library.functions.async_error)(self.comm, &raw mut state) };
            self.accepted(asked)?;
            self.accepted(state)?;
            if state != IN_PROGRESS && is_done()? {
                return Ok(());
            }
            let waited = began.elapsed();
            if waited > Duration::from_millis(1) {
                if let Some(words) = self.place.pulse.lost() {
                    return Err(words);
                }
                if waited > self.place.limit {
                    return Err(format!("another rank has not come within {:?}", self.place.limit));
                }
            }
            pause(waited);
        }
    }
}

impl Drop for Communicator {
    /// Ends what is under way, here; others notice by their own means.
    fn drop(&mut self) {
        if !self.comm.is_null() {
            #[expect(unsafe_code, reason = "a call of NCCL")]
            // SAFETY: the communicator is alive, and nobody uses it after this.
            unsafe {
                (self.library.functions.abort)(self.comm);
            }
        }
    }
}

fn is_accepted(status: Status) -> bool {
    status == SUCCESS || status == IN_PROGRESS
}

fn number_type(tensor: &Tensor) -> Result<c_int, String> {
    data_type(tensor.kind())
        .ok_or_else(|| format!("a tensor is {:?}, which NCCL does not send", tensor.kind()))
}

fn all_flat(tensors: &[&Tensor]) -> bool {
    tensors.iter().all(|tensor| tensor.is_contiguous())
}

/// Hands the processor over: at first for as little as may be, later for longer.
fn pause(waited: Duration) {
    match waited {
        short if short < Duration::from_micros(200) => thread::yield_now(),
        longer => thread::sleep((longer / 20).clamp(Duration::from_micros(20), Duration::from_millis(5))),
    }
}

/// A buffer on the device of this rank.
pub(super) fn buffer(shape: &[i64], kind: Kind, device: Device) -> Tensor {
    Tensor::zeros(shape, (kind, device))
}
