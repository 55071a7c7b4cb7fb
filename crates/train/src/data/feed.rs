//! The batches of a run in order: those of each step, and those of each validation on held-out pairs.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use tastemaker_data::order::{BucketOrder, pairs_of_step};
use tastemaker_data::transform::Size;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_run::Plan;

use super::{Batch, BatchOptions, Pairs, Rank, SkippedPair, Use};
use crate::TrainError;

/// Repetition numbers of validation start here, far from those of training.
pub const FIRST_DRAW: u64 = 1 << 40;

/// One item of a feed.
#[derive(Debug)]
pub enum FeedItem {
    /// A micro-batch of the current step or validation.
    Batch(Batch),
    /// A pair that the current step or validation has to do without.
    Skipped(SkippedPair),
    /// The current step or validation is complete.
    End,
}

/// All batches of a run, in order.
pub type Feed<'a> = dyn Iterator<Item = Result<FeedItem, TrainError>> + 'a;

/// Which pairs are used when.
#[derive(Debug, Clone)]
pub struct Order {
    /// Indices of the pairs to train on.
    pub train: Vec<usize>,
    /// Indices of the held-out pairs to validate on; may be empty.
    pub held_out: Vec<usize>,
    /// Whether training uses losers; validation always does, unless these are single images.
    pub with_losers: bool,
    is_single: bool,
    seed: u64,
    steps: Range<u64>,
    rank: Rank,
    pairs_per_step: usize,
    micro_batch: usize,
    max_steps: u64,
    validate_every: u64,
    caption_dropout: f64,
    /// Where pairs are drawn by bucket.
    by_bucket: Option<Arc<BucketOrder>>,
}

/// The pairs of a step or of a validation.
struct Request {
    uses: Vec<(usize, u64)>,
    with_losers: bool,
    caption_dropout: f64,
}

impl Order {
    /// The order of a plan.
    pub fn new(plan: &Plan, train: Vec<usize>, held_out: Vec<usize>, with_losers: bool) -> Self {
        let mut held_out = held_out;
        held_out.truncate(plan.validation.validation_pairs as usize);
        Self {
            train,
            held_out,
            with_losers,
            is_single: false,
            seed: plan.train.seed,
            steps: 0..plan.train.max_train_steps,
            rank: Rank::ONLY,
            pairs_per_step: plan.effective_batch() as usize,
            micro_batch: plan.train.train_batch_size as usize,
            max_steps: plan.train.max_train_steps,
            validate_every: plan.validation.validation_steps,
            caption_dropout: plan.data.proportion_empty_prompts,
            by_bucket: None,
        }
    }

    /// With pairs drawn in groups of one bucket resolution, so that no micro-batch of so many pairs is cut short; as it is where all
    /// pairs are of one resolution.
    #[must_use]
    pub fn by_bucket(self, group: u64, resolution: impl Fn(usize) -> Size) -> Self {
        let resolutions = self.train.iter().map(|&index| resolution(index));
        let by_bucket = BucketOrder::new(self.seed, group, resolutions).map(Arc::new);
        Self { by_bucket, ..self }
    }

    /// Pairs in a group, where they are drawn by bucket.
    pub fn drawn_in(&self) -> Option<u64> {
        self.by_bucket.as_ref().map(|order| order.group())
    }

    /// The part of it that these steps use. Where they end before the run does, no validation follows them.
    #[must_use]
    pub fn over(self, steps: Range<u64>) -> Self {
        Self { steps, ..self }
    }

    /// The micro-batches of one rank.
    #[must_use]
    pub fn of_rank(self, rank: Rank) -> Self {
        Self { rank, ..self }
    }

    /// The order of single images, which have no losers.
    #[must_use]
    pub fn of_single_images(self) -> Self {
        Self { with_losers: false, is_single: true, ..self }
    }

    /// Its steps.
    pub fn steps(&self) -> Range<u64> {
        self.steps.clone()
    }

    /// Without held-out pairs.
    #[must_use]
    pub fn without_validation(self) -> Self {
        Self { held_out: Vec::new(), ..self }
    }

    /// Whether to validate before a step, or after the last.
    pub fn validates_at(&self, step: u64) -> bool {
        self.validate_every > 0
            && !self.held_out.is_empty()
            && (step == self.max_steps || step.is_multiple_of(self.validate_every))
    }

    /// The pairs of a step, and which repetition of each it is.
    fn uses(&self, step: u64) -> Vec<(usize, u64)> {
        let uses = match &self.by_bucket {
            Some(order) => order.pairs_of_step(self.pairs_per_step, step),
            None => pairs_of_step(self.seed, self.train.len(), self.pairs_per_step, step),
        };
        uses.into_iter().map(|used| (self.train[used.index], used.epoch)).collect()
    }

    fn requests(self) -> impl Iterator<Item = Request> {
        (self.steps.start..=self.steps.end).flat_map(move |step| {
            let is_over = step == self.steps.end;
            let validates = self.validates_at(step) && (!is_over || step == self.max_steps);
            let validation = validates.then(|| Request {
                uses: self.held_out.iter().map(|&index| (index, FIRST_DRAW)).collect(),
                with_losers: !self.is_single,
                caption_dropout: 0.0,
            });
            let training = (!is_over && !self.train.is_empty()).then(|| Request {
                uses: self.uses(step),
                with_losers: self.with_losers,
                caption_dropout: self.caption_dropout,
            });
            validation.into_iter().chain(training)
        })
    }
}

/// Micro-batches that are on their way from the disk while one is made.
const AHEAD: usize = 8;

/// What a feed has to do next.
enum Piece {
    Batch { uses: Vec<Use>, options: BatchOptions, is_last: bool },
    End,
}

/// Makes the batches of an order, one micro-batch after the other.
///
/// Pairs of one resolution go together; their order is that of the step.
pub fn feed(
    pairs: &dyn Pairs,
    order: Order,
    options: BatchOptions,
) -> impl Iterator<Item = Result<FeedItem, TrainError>> + '_ {
    let (seed, micro_batch, rank) = (options.augmentation.seed, order.micro_batch, order.rank);
    let pieces = order.requests().flat_map(move |request| {
        let uses = request.uses.into_iter().map(|(index, draw)| {
            let mut keyed = Keyed::new(seed, Stream::CaptionDropout, pairs.id(index), draw);
            Use { index, draw, drop_caption: keyed.bernoulli(request.caption_dropout) }
        });
        let options = BatchOptions { with_losers: request.with_losers, ..options };
        let chunks = chunks(uses, micro_batch, |u| pairs.resolution(u.index));
        // Cut before it is distributed, so that a micro-batch is the same on however many ranks.
        let own: Vec<_> = chunks.into_iter().skip(rank.rank).step_by(rank.world_size).collect();
        let n_own = own.len();
        let batch = move |(i, uses)| Piece::Batch { uses, options, is_last: i + 1 == n_own };
        own.into_iter().enumerate().map(batch).chain([Piece::End])
    });
    let announce = move |piece: &Piece| {
        if let Piece::Batch { uses, options, .. } = piece {
            pairs.read_ahead(uses, options);
        }
    };
    let pieces = Ahead { pieces, waiting: VecDeque::new(), announce };
    pieces.flat_map(move |piece| match piece {
        Piece::Batch { uses, options, is_last } => match pairs.batch(&uses, &options) {
            Ok(loaded) => {
                let skipped = loaded.skipped.into_iter().map(|pair| Ok(FeedItem::Skipped(pair)));
                let batch = loaded.batch.map(|batch| Ok(FeedItem::Batch(Batch { is_last, ..batch })));
                skipped.chain(batch).collect()
            }
            Err(error) => vec![Err(error)],
        },
        Piece::End => vec![Ok(FeedItem::End)],
    })
}

/// Announces each item [`AHEAD`] of its turn.
struct Ahead<I: Iterator, F> {
    pieces: I,
    waiting: VecDeque<I::Item>,
    announce: F,
}

impl<I: Iterator, F: Fn(&I::Item)> Iterator for Ahead<I, F> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        while self.waiting.len() <= AHEAD
            && let Some(piece) = self.pieces.next()
        {
            (self.announce)(&piece);
            self.waiting.push_back(piece);
        }
        self.waiting.pop_front()
    }
}

/// Cuts into parts of at most `micro` that are alike, each as early as its first member.
pub(crate) fn chunks<T, K: PartialEq>(
    items: impl Iterator<Item = T>,
    micro: usize,
    kind: impl Fn(&T) -> K,
) -> Vec<Vec<T>> {
    let mut done: Vec<Vec<T>> = Vec::new();
    let mut open: VecDeque<(K, usize)> = VecDeque::new();
    for item in items {
        let kind = kind(&item);
        match open.iter().position(|(known, _)| *known == kind) {
            Some(at) => {
                let chunk = open[at].1;
                done[chunk].push(item);
                if done[chunk].len() == micro {
                    open.remove(at);
                }
            }
            None => {
                done.push(vec![item]);
                if micro > 1 {
                    open.push_back((kind, done.len() - 1));
                }
            }
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_alike_goes_together_and_nothing_is_lost() {
        let cut = |micro| chunks([10, 11, 20, 12, 21, 13, 30].into_iter(), micro, |item| item / 10);
        assert_eq!(cut(2), [vec![10, 11], vec![20, 21], vec![12, 13], vec![30]]);
        assert_eq!(cut(9), [vec![10, 11, 12, 13], vec![20, 21], vec![30]]);
        assert_eq!(cut(1).len(), 7);
    }
}
