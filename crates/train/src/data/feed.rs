//! What a run asks for, in order: the pairs of each step, and those of each look at held-out pairs.

use std::collections::VecDeque;
use std::ops::Range;

use tastemaker_data::order::pairs_of_step;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_run::Plan;

use super::{Making, Pairs, Unusable};
use crate::TrainError;
use crate::data::{Batch, Use};

/// Repetition numbers of probes start here, far from those of training.
pub const FIRST_DRAW: u64 = 1 << 40;

/// What comes of asking.
#[derive(Debug)]
pub enum Fed {
    /// A micro-batch of the step or look at hand.
    Batch(Batch),
    /// A pair that the step or look at hand has to do without.
    Skipped(Unusable),
    /// The step or look at hand is over.
    End,
}

/// Everything a run asks for, in order.
pub type Feed<'a> = dyn Iterator<Item = Result<Fed, TrainError>> + 'a;

/// Which pairs are used when.
#[derive(Debug, Clone)]
pub struct Order {
    /// Indices of the pairs to train on.
    pub train: Vec<usize>,
    /// Indices of the held-out pairs that probes ask about; may be empty.
    pub held_out: Vec<usize>,
    /// Whether training looks at losers; probes always do, unless these are single images.
    pub with_losers: bool,
    /// Whether these are single images.
    singles: bool,
    seed: u64,
    steps: Range<u64>,
    share: (usize, usize),
    pairs_per_step: usize,
    micro: usize,
    max_steps: u64,
    probe_every: u64,
    caption_dropout: f64,
}

/// A step or a look: what to ask for.
struct Ask {
    uses: Vec<(usize, u64)>,
    with_losers: bool,
    caption_dropout: f64,
}

impl Order {
    /// The order of a plan.
    pub fn new(plan: &Plan, train: Vec<usize>, held_out: Vec<usize>, with_losers: bool) -> Self {
        let mut held_out = held_out;
        held_out.truncate(plan.validation.validation_pairs as usize);
        let micro = plan.train.train_batch_size as usize;
        Self {
            train,
            held_out,
            with_losers,
            singles: false,
            seed: plan.train.seed,
            steps: 0..plan.train.max_train_steps,
            share: (0, 1),
            pairs_per_step: plan.effective_batch() as usize,
            micro,
            max_steps: plan.train.max_train_steps,
            probe_every: plan.validation.validation_steps,
            caption_dropout: plan.data.proportion_empty_prompts,
        }
    }

    /// The part of it that these steps use. Where they end before the run does, there is no look behind them.
    #[must_use]
    pub fn over(self, steps: Range<u64>) -> Self {
        Self { steps, ..self }
    }

    /// The micro-batches of one rank: number of the rank, and how many there are.
    #[must_use]
    pub fn of_rank(self, share: (usize, usize)) -> Self {
        Self { share, ..self }
    }

    /// The order of single images, of which nobody looks at losers.
    #[must_use]
    pub fn of_singles(self) -> Self {
        Self { with_losers: false, singles: true, ..self }
    }

    /// Its steps.
    pub fn steps(&self) -> Range<u64> {
        self.steps.clone()
    }

    /// Without held-out pairs.
    #[must_use]
    pub fn without_looks(self) -> Self {
        Self { held_out: Vec::new(), ..self }
    }

    /// Whether held-out pairs are looked at before a step, or after the last.
    pub fn probes(&self, step: u64) -> bool {
        self.probe_every > 0
            && !self.held_out.is_empty()
            && (step == self.max_steps || step.is_multiple_of(self.probe_every))
    }

    fn asks(self) -> impl Iterator<Item = Ask> {
        (self.steps.start..=self.steps.end).flat_map(move |step| {
            let is_over = step == self.steps.end;
            let look = (self.probes(step) && (!is_over || step == self.max_steps)).then(|| Ask {
                uses: self.held_out.iter().map(|&index| (index, FIRST_DRAW)).collect(),
                with_losers: !self.singles,
                caption_dropout: 0.0,
            });
            let steps = (!is_over && !self.train.is_empty()).then(|| Ask {
                uses: pairs_of_step(self.seed, self.train.len(), self.pairs_per_step, step)
                    .into_iter()
                    .map(|used| (self.train[used.index], used.epoch))
                    .collect(),
                with_losers: self.with_losers,
                caption_dropout: self.caption_dropout,
            });
            look.into_iter().chain(steps)
        })
    }
}

/// Makes what a run asks for, one micro-batch after the other, when it is asked for.
///
/// Pairs of one resolution go together; their order is that of the step.
pub fn feed(
    pairs: &dyn Pairs,
    order: Order,
    making: Making,
) -> impl Iterator<Item = Result<Fed, TrainError>> + '_ {
    let (seed, micro, (rank, n_ranks)) = (making.augmentation.seed, order.micro, order.share);
    order.asks().flat_map(move |ask| {
        let uses = ask.uses.into_iter().map(|(index, draw)| {
            let mut keyed = Keyed::new(seed, Stream::CaptionDropout, pairs.id(index), draw);
            Use { index, draw, drop_caption: keyed.bernoulli(ask.caption_dropout) }
        });
        let making = Making { with_losers: ask.with_losers, ..making };
        let chunks = chunks(uses, micro, |u| pairs.resolution(u.index));
        // Cut before it is dealt out, so that a micro-batch is the same on however many ranks.
        let own = chunks.into_iter().skip(rank).step_by(n_ranks);
        let fed = own.flat_map(move |chunk| match pairs.batch(&chunk, &making) {
            Ok(made) => {
                let skipped = made.skipped.into_iter().map(|row| Ok(Fed::Skipped(row)));
                skipped.chain(made.batch.map(|batch| Ok(Fed::Batch(batch)))).collect()
            }
            Err(error) => vec![Err(error)],
        });
        fed.chain([Ok(Fed::End)])
    })
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
