//! Gradients of a network, summed over ranks while the backward pass still computes.

use std::ffi::{c_char, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tch::{Device, Tensor};

use super::abi::{Library, UniqueId};
use super::buckets::{MOST, Message, rounds, whole};
use super::communicator::Place;
use super::worker::{Order, Outcome, Plan, work};
use crate::distributed::{Group, hinted};
use crate::error::TorchError;
use crate::shim::{Raw, attempt, raw};
use crate::streams::Event;

/// How much longer than its limit the thread that talks to NCCL may take to say so.
const GRACE: Duration = Duration::from_secs(60);

/// What is trained, and who keeps what of it.
#[derive(Debug)]
pub struct Leaves {
    /// The trainable tensors, in the same order and of the same layout on each rank.
    pub tensors: Vec<Tensor>,
    /// The rank that updates each, where each rank updates its own alone (ZeRO-2); `None` where each updates all.
    pub owners: Option<Vec<usize>>,
    /// Numbers that travel together, at most; `None` for what suits a device.
    pub most: Option<usize>,
}

/// The gradients of leaves on this rank, and their sums over all.
#[derive(Debug)]
pub struct Gradients {
    device: Device,
    limit: Duration,
    leaves: Vec<Tensor>,
    watch: Option<Arc<Watch>>,
    orders: Sender<Order>,
    thread: Option<JoinHandle<()>>,
    place: (usize, usize),
}

impl Gradients {
    /// Meets the other ranks of the group on this device; all call it.
    ///
    /// # Errors
    /// [`TorchError::Group`] if they do not meet, or their leaves differ.
    pub fn begin(
        library: &Library,
        group: &Group,
        device: Device,
        leaves: Leaves,
    ) -> Result<Self, TorchError> {
        let doing = || format!("meeting the other ranks by NCCL {}", library.version());
        let fail = |words: String| group.error(doing(), &words);
        check_layout(group, &leaves, &fail)?;
        let own = if group.rank() == 0 { library.unique_id().map_err(fail)?.0.to_vec() } else { Vec::new() };
        let ids = group.all_gather_bytes(&own)?;
        let id = UniqueId(ids[0].as_slice().try_into().map_err(|_| fail("rank 0 sent no id".to_owned()))?);
        let sizes: Vec<usize> = leaves.tensors.iter().map(Tensor::numel).collect();
        let most = leaves.most.unwrap_or(MOST);
        let messages = match &leaves.owners {
            None => whole(&sizes, most),
            Some(owners) => {
                rounds(&sizes, owners, group.world_size(), most).into_iter().map(Message::Parts).collect()
            }
        };
        let handles = || leaves.tensors.iter().map(Tensor::shallow_clone).collect::<Vec<_>>();
        let overlaps = messages.len() > 1;
        let (orders, received) = channel();
        let (met, has_met) = channel();
        let place = Place {
            rank: group.rank(),
            world_size: group.world_size(),
            device,
            pulse: group.pulse(),
            limit: group.timeout(),
        };
        let (plan, library, limit) = (Plan { leaves: handles(), messages }, library.clone(), place.limit);
        let thread = thread::spawn(move || work(library, id, place, plan, &received, &met));
        answer(limit, || has_met.recv_timeout(limit + GRACE)).map_err(fail)?;
        let mut gradients = Self {
            device,
            limit,
            leaves: handles(),
            watch: None,
            orders,
            thread: Some(thread),
            place: (group.rank(), group.world_size()),
        };
        // What fits one message leaves when all is complete.
        if overlaps {
            gradients.watch = Some(Watch::over(&gradients.leaves, device, &gradients.orders).map_err(fail)?);
        }
        Ok(gradients)
    }

    /// Says that the next backward pass is the last of its step, so that what it completes may leave at once.
    pub fn next_is_last(&self) {
        if let Some(watch) = &self.watch {
            watch.arm();
        }
    }

    /// Sums the gradients over all ranks, zeros where a rank has none. Where leaves have owners, only they have a gradient
    /// afterwards.
    ///
    /// # Errors
    /// [`TorchError::Group`] if a rank is lost, or NCCL fails.
    pub fn sum(&self) -> Result<(), TorchError> {
        let doing = || format!("summing the gradients of {} tensors over all ranks", self.leaves.len());
        let settled = self.watch.as_ref().map_or(Ok(()), |watch| watch.disarm());
        settled.map_err(|words| self.error(doing(), words))?;
        self.ask(doing, |since, reply| Order::Sum { since, reply })
    }

    /// Gives every rank the leaves that others own, as they are there.
    ///
    /// # Errors
    /// [`TorchError::Group`] if a rank is lost, or NCCL fails.
    pub fn gather_parameters(&self) -> Result<(), TorchError> {
        let doing = || "giving all ranks the parameters that each has updated".to_owned();
        self.ask(doing, |since, reply| Order::Gather { since, reply })
    }

    /// Leaves in peace, when all ranks are done.
    ///
    /// # Errors
    /// [`TorchError::Group`] if a rank is lost, or NCCL fails.
    pub fn leave(self) -> Result<(), TorchError> {
        self.ask(|| "leaving the others".to_owned(), |_, reply| Order::Leave { reply })
    }

    fn ask(
        &self,
        doing: impl Fn() -> String,
        order: impl FnOnce(Event, Sender<Outcome>) -> Order,
    ) -> Result<(), TorchError> {
        let (reply, replied) = channel();
        let asked = Event::record(self.device).and_then(|since| {
            // Whoever does not listen any more does not reply either.
            let _ = self.orders.send(order(since, reply));
            answer(self.limit, || replied.recv_timeout(self.limit + GRACE))
        });
        asked.map_err(|words| self.error(doing(), words))
    }

    fn error(&self, doing: String, words: String) -> TorchError {
        let (rank, world_size) = self.place;
        TorchError::Group { rank, world_size, doing, message: hinted(&words) }
    }
}

impl Drop for Gradients {
    fn drop(&mut self) {
        if self.watch.is_some() {
            self.leaves.iter().for_each(unwatch);
        }
        // Without anyone to ask it the thread ends, unless NCCL keeps it.
        self.watch = None;
        self.orders = channel().0;
        if let Some(thread) = self.thread.take() {
            let until = Instant::now() + Duration::from_secs(5);
            while !thread.is_finished() && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

/// What the thread replied, within its own limit and some time to say so.
fn answer(limit: Duration, reply: impl FnOnce() -> Result<Outcome, RecvTimeoutError>) -> Outcome {
    reply().unwrap_or_else(|error| {
        Err(match error {
            RecvTimeoutError::Timeout => format!("NCCL does not return, {limit:?} after it was called"),
            RecvTimeoutError::Disconnected => "the thread that calls NCCL has ended".to_owned(),
        })
    })
}

/// Sums are taken in the order of memory, which has to be the same on each rank.
fn check_layout(
    group: &Group,
    leaves: &Leaves,
    fail: &impl Fn(String) -> TorchError,
) -> Result<(), TorchError> {
    let mut hasher = DefaultHasher::new();
    leaves.owners.hash(&mut hasher);
    for leaf in &leaves.tensors {
        (leaf.size(), leaf.stride(), format!("{:?}", leaf.kind())).hash(&mut hasher);
    }
    let all = group.all_gather_bytes(&hasher.finish().to_le_bytes())?;
    if let Some(other) = all.iter().position(|hash| *hash != all[0]) {
        return Err(fail(format!(
            "the parameters of rank {other} lie otherwise in memory than those of rank 0"
        )));
    }
    let mut kinds = leaves.tensors.iter().map(Tensor::kind);
    let first = kinds.next();
    match leaves.owners.is_some() && kinds.any(|kind| Some(kind) != first) {
        true => Err(fail("parameters that are sharded are of several types".to_owned())),
        false => Ok(()),
    }
}

/// Counts how often the gradient of each leaf grows in a backward pass, and says when it is complete.
///
/// It grows once, but where parts of the network that share a leaf are recomputed, each of them adds to it. The first pass is
/// only counted.
#[derive(Debug)]
struct Watch {
    device: Device,
    orders: Sender<Order>,
    is_armed: AtomicBool,
    is_known: AtomicBool,
    has_overrun: AtomicBool,
    grown: Vec<AtomicU32>,
    expected: Vec<AtomicU32>,
}

impl Watch {
    fn over(leaves: &[Tensor], device: Device, orders: &Sender<Order>) -> Result<Arc<Self>, String> {
        let zeros = || leaves.iter().map(|_| AtomicU32::new(0)).collect();
        let watch = Arc::new(Self {
            device,
            orders: orders.clone(),
            is_armed: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
            has_overrun: AtomicBool::new(false),
            grown: zeros(),
            expected: zeros(),
        });
        for (number, leaf) in leaves.iter().enumerate() {
            let context = Arc::into_raw(Arc::clone(&watch)).cast();
            #[expect(unsafe_code, reason = "a call of the shim")]
            // SAFETY: the leaf is alive. The context is one reference to the watch, which `drop_watch` gives back, once.
            attempt(|error| unsafe {
                tastemaker_gradient_watch(raw(leaf), context, number, has_grown, drop_watch, error)
            })?;
        }
        Ok(watch)
    }

    fn arm(&self) {
        self.grown.iter().for_each(|count| count.store(0, SeqCst));
        self.is_armed.store(true, SeqCst);
    }

    fn disarm(&self) -> Outcome {
        let was_armed = self.is_armed.swap(false, SeqCst);
        if self.has_overrun.load(SeqCst) {
            return Err("a gradient grew after it was sent, which is a defect of the program".to_owned());
        }
        let any = self.grown.iter().any(|count| count.load(SeqCst) > 0);
        if was_armed && any && !self.is_known.load(SeqCst) {
            for (expected, grown) in self.expected.iter().zip(&self.grown) {
                expected.store(grown.load(SeqCst), SeqCst);
            }
            self.is_known.store(true, SeqCst);
        }
        Ok(())
    }

    fn grow(&self, leaf: usize) {
        if !self.is_armed.load(SeqCst) {
            return;
        }
        let times = self.grown[leaf].fetch_add(1, SeqCst) + 1;
        if !self.is_known.load(SeqCst) {
            return;
        }
        let expected = self.expected[leaf].load(SeqCst);
        if times == expected {
            let _ = self.orders.send(Order::Complete { leaf, since: Event::record(self.device) });
        } else if times > expected && expected > 0 {
            self.has_overrun.store(true, SeqCst);
        }
    }
}

fn unwatch(leaf: &Tensor) {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the leaf is alive.
    let _ = attempt(|error| unsafe { tastemaker_gradient_unwatch(raw(leaf), error) });
}

#[expect(unsafe_code, reason = "called from C++")]
unsafe extern "C" fn has_grown(context: *const c_void, leaf: usize) {
    // SAFETY: the hook that calls keeps its reference.
    unsafe { &*context.cast::<Watch>() }.grow(leaf);
}

#[expect(unsafe_code, reason = "called from C++")]
unsafe extern "C" fn drop_watch(context: *const c_void) {
    // SAFETY: the reference that `Watch::over` gave away, given back once.
    drop(unsafe { Arc::from_raw(context.cast::<Watch>()) });
}

type Error = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_gradient_watch(
        leaf: Raw,
        context: *const c_void,
        number: usize,
        call: unsafe extern "C" fn(*const c_void, usize),
        drop: unsafe extern "C" fn(*const c_void),
        error: Error,
    ) -> bool;
    fn tastemaker_gradient_unwatch(leaf: Raw, error: Error) -> bool;
}
