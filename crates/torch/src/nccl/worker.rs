//! The thread that talks to NCCL: it alone calls it, in an order that is the same on each rank.

use std::collections::VecDeque;
use std::ffi::c_char;
use std::sync::mpsc::{Receiver, Sender};

use tch::Tensor;

use super::abi::{Library, UniqueId};
use super::buckets::{Message, Piece, Round};
use super::communicator::{Communicator, Pending, Place, buffer};
use crate::error::guard;
use crate::optimizers::take_away_gradient;
use crate::shim::{Raw, attempt, raw, taken};
use crate::streams::Event;

/// Messages that are under way at once: one travels while the next is packed.
const UNDER_WAY: usize = 2;

/// How something ended.
pub(super) type Outcome = Result<(), String>;

/// What the thread is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// The gradient of a leaf is complete, as of this event.
    Complete { leaf: usize, since: Result<Event, String> },
    /// Sum what has not been summed yet, as of this event.
    Sum { since: Event, reply: Sender<Outcome> },
    /// Give all ranks what each has changed of its own leaves, as of this event.
    Gather { since: Event, reply: Sender<Outcome> },
    /// Leave in peace.
    Leave { reply: Sender<Outcome> },
}

/// Tensors that the thread works on, and who keeps what of their gradients.
#[derive(Debug)]
pub(super) struct Plan {
    pub leaves: Vec<Tensor>,
    pub messages: Vec<Message>,
}

/// Meets the other ranks, says so, and does what it is asked for until it is asked to leave or nobody can ask any more.
pub(super) fn work(
    library: Library,
    id: UniqueId,
    place: Place,
    plan: Plan,
    orders: &Receiver<Order>,
    met: &Sender<Outcome>,
) {
    let _no_grad = tch::no_grad_guard();
    let communicator = match Communicator::meet(library, id, place.clone()) {
        Ok(communicator) => communicator,
        Err(words) => return drop(met.send(Err(words))),
    };
    let _ = met.send(Ok(()));
    let n_leaves = plan.leaves.len();
    let mut worker = Worker {
        communicator,
        place,
        plan,
        complete: (0..n_leaves).map(|_| None).collect(),
        next: 0,
        under_way: VecDeque::new(),
    };
    let mut failed: Option<String> = None;
    while let Ok(order) = orders.recv() {
        let (outcome, reply) = match order {
            Order::Complete { leaf, since } => (worker.attempt(&failed, |w| w.completed(leaf, since)), None),
            Order::Sum { since, reply } => (worker.attempt(&failed, |w| w.sum_rest(&since)), Some(reply)),
            Order::Gather { since, reply } => (worker.attempt(&failed, |w| w.gather(&since)), Some(reply)),
            Order::Leave { reply } => {
                let outcome = failed.map_or_else(|| worker.communicator.leave(), Err);
                return drop(reply.send(outcome));
            }
        };
        if let Err(words) = &outcome {
            failed.get_or_insert_with(|| words.clone());
        }
        if let Some(reply) = reply {
            let _ = reply.send(outcome);
        }
    }
}

struct Worker {
    communicator: Communicator,
    place: Place,
    plan: Plan,
    /// Since when the gradient of each leaf is complete.
    complete: Vec<Option<Event>>,
    /// The next message to send.
    next: usize,
    under_way: VecDeque<Pending>,
}

impl Worker {
    /// Does something, unless something before it failed; memory that ends is an error like others.
    fn attempt(&mut self, failed: &Option<String>, work: impl FnOnce(&mut Self) -> Outcome) -> Outcome {
        if let Some(words) = failed {
            return Err(words.clone());
        }
        guard("exchanging gradients between ranks", "", || work(self)).map_err(|error| error.to_string())?
    }

    fn completed(&mut self, leaf: usize, since: Result<Event, String>) -> Outcome {
        self.complete[leaf] = Some(since?);
        while let Some(message) = self.plan.messages.get(self.next) {
            let leaves = message.leaves();
            if leaves.iter().any(|&leaf| self.complete[leaf].is_none()) {
                return Ok(());
            }
            for event in leaves.iter().filter_map(|&leaf| self.complete[leaf].as_ref()) {
                self.communicator.wait_for(event)?;
            }
            self.send_next()?;
        }
        Ok(())
    }

    fn sum_rest(&mut self, since: &Event) -> Outcome {
        self.communicator.wait_for(since)?;
        while self.next < self.plan.messages.len() {
            self.send_next()?;
        }
        self.finish(0)?;
        self.next = 0;
        self.complete.iter_mut().for_each(|event| *event = None);
        Ok(())
    }

    fn send_next(&mut self) -> Outcome {
        self.finish(UNDER_WAY - 1)?;
        let pending = match &self.plan.messages[self.next] {
            Message::Whole(leaves) => {
                let gradients: Result<Vec<Tensor>, String> =
                    leaves.iter().map(|&leaf| gradient(&self.plan.leaves[leaf])).collect();
                self.communicator.all_reduce(gradients?)?
            }
            Message::Parts(round) => scatter(&mut self.communicator, &self.place, &self.plan.leaves, round)?,
        };
        self.under_way.push_back(pending);
        self.next += 1;
        Ok(())
    }

    fn gather(&mut self, since: &Event) -> Outcome {
        self.communicator.wait_for(since)?;
        for number in 0..self.plan.messages.len() {
            self.finish(UNDER_WAY - 1)?;
            if let Message::Parts(round) = &self.plan.messages[number] {
                let pending = gather_round(&mut self.communicator, &self.place, &self.plan.leaves, round)?;
                self.under_way.push_back(pending);
            }
        }
        self.finish(0)
    }

    /// Waits until at most `n` messages are under way.
    fn finish(&mut self, n: usize) -> Outcome {
        while self.under_way.len() > n {
            if let Some(pending) = self.under_way.front() {
                self.communicator.complete(pending)?;
            }
            self.under_way.pop_front();
        }
        Ok(())
    }
}

/// Sums the pieces of a round into the gradients of those who own them; others lose theirs when the last of it is sent.
fn scatter(
    communicator: &mut Communicator,
    place: &Place,
    leaves: &[Tensor],
    round: &Round,
) -> Result<Pending, String> {
    let kind = leaves[0].kind();
    let sent = buffer(&[round.rows.len() as i64, round.width as i64], kind, place.device);
    let kept = buffer(&[round.width as i64], kind, place.device);
    let mut held = Vec::new();
    for (rank, row) in round.rows.iter().enumerate() {
        let packed = sent.get(rank as i64);
        for piece in row {
            let gradient = gradient(&leaves[piece.leaf])?;
            at(&packed, piece).copy_(&of(&gradient, piece));
            if rank != place.rank && piece.from + piece.n == gradient.numel() {
                take_away_gradient(&leaves[piece.leaf]);
            }
            held.push(gradient);
        }
    }
    communicator.reduce_scatter(&sent, &kept)?;
    for piece in &round.rows[place.rank] {
        let gradient = gradient(&leaves[piece.leaf])?;
        of(&gradient, piece).copy_(&at(&kept, piece));
    }
    held.extend([sent, kept]);
    communicator.pending(held)
}

/// Puts the pieces of a round that other ranks own into the leaves.
fn gather_round(
    communicator: &mut Communicator,
    place: &Place,
    leaves: &[Tensor],
    round: &Round,
) -> Result<Pending, String> {
    let kind = leaves[0].kind();
    let sent = buffer(&[round.width as i64], kind, place.device);
    let all = buffer(&[round.rows.len() as i64, round.width as i64], kind, place.device);
    for piece in &round.rows[place.rank] {
        at(&sent, piece).copy_(&of(&flat(&leaves[piece.leaf])?, piece));
    }
    communicator.all_gather(&sent, &all)?;
    for (rank, row) in round.rows.iter().enumerate().filter(|(rank, _)| *rank != place.rank) {
        let packed = all.get(rank as i64);
        for piece in row {
            of(&flat(&leaves[piece.leaf])?, piece).copy_(&at(&packed, piece));
        }
    }
    communicator.pending(vec![sent, all])
}

/// A piece in its row.
fn at(row: &Tensor, piece: &Piece) -> Tensor {
    row.narrow(0, piece.at as i64, piece.n as i64)
}

/// A piece in its leaf, or in the leaf's gradient.
fn of(flat: &Tensor, piece: &Piece) -> Tensor {
    flat.narrow(0, piece.from as i64, piece.n as i64)
}

/// The gradient of a leaf, flat; zeros where this rank has none.
fn gradient(leaf: &Tensor) -> Result<Tensor, String> {
    #[expect(unsafe_code, reason = "a call of the shim")]
    // SAFETY: the leaf is a live tensor.
    attempt(|error| unsafe { tastemaker_gradient_fill(raw(leaf), error) })?;
    flat(&leaf.grad())
}

/// A view of a tensor's numbers in the order of memory.
fn flat(tensor: &Tensor) -> Result<Tensor, String> {
    #[expect(unsafe_code, reason = "the shim hands over a tensor")]
    // SAFETY: the tensor is alive; what comes back without an error is a new one, and nobody else has it.
    unsafe {
        attempt(|error| tastemaker_flat(raw(tensor), error)).map(|view| taken(view))
    }
}

type Error = *mut *mut c_char;

#[expect(unsafe_code, reason = "the shim is C++; its functions are called through C")]
unsafe extern "C" {
    fn tastemaker_gradient_fill(leaf: Raw, error: Error) -> bool;
    fn tastemaker_flat(tensor: Raw, error: Error) -> Raw;
}
