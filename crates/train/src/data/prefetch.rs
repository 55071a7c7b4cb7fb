//! Making batches on a thread of their own, while the step before is computed.

use std::panic;
use std::sync::mpsc::sync_channel;
use std::thread;

use super::{Batch, BatchOptions, Feed, FeedItem, Order, Pairs, feed};
use crate::TrainError;
use crate::draws::Drawing;

/// Batches that wait for the step: one that is next, one that is being made.
const WAITING: usize = 2;

/// Runs `body` with the feed of an order, which a thread of its own prefetches, and the draws of its steps with it. `open` opens the
/// pairs there, since networks do not change threads.
///
/// # Errors
/// What `open` complains about comes out of the feed first.
pub fn prefetch<'p, T, P: Pairs + 'p>(
    open: impl FnOnce() -> Result<P, TrainError> + Send + 'p,
    order: Order,
    options: BatchOptions,
    drawing: Drawing<'p>,
    body: impl FnOnce(&mut Feed<'_>) -> T,
) -> T {
    thread::scope(|scope| {
        let (sender, receiver) = sync_channel(WAITING);
        let worker = scope.spawn(move || {
            let _no_grad = tch::no_grad_guard();
            let pairs = match open() {
                Ok(pairs) => pairs,
                Err(error) => return drop(sender.send(Err(error))),
            };
            for item in feed(&pairs, order, options) {
                let item = item.map(|item| match item {
                    FeedItem::Batch(batch) if batch.is_of_step() => {
                        let draws = Some(drawing.draw(&batch));
                        FeedItem::Batch(Batch { draws, ..batch })
                    }
                    other => other,
                });
                let failed = item.is_err();
                // Nobody listens any more when the run has ended by an error.
                if sender.send(item).is_err() || failed {
                    return;
                }
            }
        });
        // The receiver is gone before the thread is waited for, or both would wait for ever.
        let result = body(&mut receiver.into_iter());
        if let Err(payload) = worker.join() {
            panic::resume_unwind(payload);
        }
        result
    })
}
