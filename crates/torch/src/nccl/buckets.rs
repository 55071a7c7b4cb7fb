//! Which numbers travel together.
//!
//! Leaves are taken from the last to the first, the order in which the backward pass completes their gradients, so that what is
//! complete can leave while the rest is computed.

/// Numbers that travel together, at most.
pub(super) const MOST: usize = 16 << 20;

/// Part of a leaf: `n` of its numbers in the order of memory, from `from`, that stand at `at` in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub leaf: usize,
    pub from: usize,
    pub n: usize,
    pub at: usize,
}

/// What each rank keeps of the sum of some gradients: a row of numbers for each rank, in the end filled up with zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Round {
    /// Numbers in a row.
    pub width: usize,
    /// The pieces of each rank.
    pub rows: Vec<Vec<Piece>>,
}

/// What is asked of NCCL at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// Sums of whole leaves, for all ranks.
    Whole(Vec<usize>),
    /// Sums of which each rank gets its own.
    Parts(Round),
}

impl Message {
    /// The leaves it needs.
    pub(super) fn leaves(&self) -> Vec<usize> {
        match self {
            Self::Whole(leaves) => leaves.clone(),
            Self::Parts(round) => round.rows.iter().flatten().map(|piece| piece.leaf).collect(),
        }
    }
}

/// Leaves of these sizes in messages of about `most` numbers, the same on each rank.
pub(super) fn whole(sizes: &[usize], most: usize) -> Vec<Message> {
    let mut messages: Vec<Vec<usize>> = Vec::new();
    let mut n = most;
    for (leaf, size) in sizes.iter().enumerate().rev() {
        if n + size > most {
            messages.push(Vec::new());
            n = 0;
        }
        n += size;
        messages.last_mut().into_iter().for_each(|message| message.push(leaf));
    }
    messages.into_iter().map(Message::Whole).collect()
}

/// Leaves of these sizes and owners in rounds of at most `most` numbers for all of `world_size` ranks together.
pub(super) fn rounds(sizes: &[usize], owners: &[usize], world_size: usize, most: usize) -> Vec<Round> {
    let width = (most / world_size).max(1);
    let mut rounds: Vec<Round> = Vec::new();
    let mut filled = vec![0; world_size];
    for leaf in (0..sizes.len()).rev() {
        let owner = owners[leaf];
        let mut from = 0;
        while from < sizes[leaf] {
            let (round, at) = (filled[owner] / width, filled[owner] % width);
            let n = (width - at).min(sizes[leaf] - from);
            while rounds.len() <= round {
                rounds.push(Round { width: 0, rows: vec![Vec::new(); world_size] });
            }
            rounds[round].rows[owner].push(Piece { leaf, from, n, at });
            rounds[round].width = rounds[round].width.max(at + n);
            from += n;
            filled[owner] += n;
        }
    }
    rounds
}

/// Which rank owns each of the leaves of these sizes, so that all own about as much, in each part of the backward pass.
pub fn owners(sizes: &[usize], world_size: usize) -> Vec<usize> {
    let mut owned = vec![0; world_size.max(1)];
    let mut owners = vec![0; sizes.len()];
    for (leaf, size) in sizes.iter().enumerate().rev() {
        let least = (0..owned.len()).min_by_key(|&rank| owned[rank]).unwrap_or(0);
        owned[least] += size;
        owners[leaf] = least;
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 7] = [3, 10, 1, 0, 25, 4, 7];

    #[test]
    fn every_leaf_is_in_one_message_and_the_last_leaves_first() {
        for most in [1, 8, 12, 1000] {
            let leaves: Vec<usize> = whole(&SIZES, most).iter().flat_map(Message::leaves).collect();
            assert_eq!(leaves, [6, 5, 4, 3, 2, 1, 0], "{most}");
        }
        assert_eq!(whole(&SIZES, 1000).len(), 1);
        assert_eq!(whole(&SIZES, 12)[0], Message::Whole(vec![6, 5]));
    }

    #[test]
    fn every_number_is_in_one_row_of_its_owner_and_no_two_in_one_place() {
        for (world_size, most) in [(1, 4), (2, 6), (3, 30), (4, 1000)] {
            let owners = owners(&SIZES, world_size);
            let rounds = rounds(&SIZES, &owners, world_size, most);
            let mut found = SIZES.map(|size| vec![0; size]);
            for round in &rounds {
                assert!(round.width * world_size <= most.max(world_size));
                for (rank, row) in round.rows.iter().enumerate() {
                    let mut taken = vec![false; round.width];
                    for &Piece { leaf, from, n, at } in row {
                        assert_eq!(owners[leaf], rank);
                        found[leaf][from..from + n].iter_mut().for_each(|times| *times += 1);
                        for place in &mut taken[at..at + n] {
                            assert!(!std::mem::replace(place, true), "two numbers in one place");
                        }
                    }
                }
            }
            assert!(found.iter().flatten().all(|&times| times == 1), "{found:?}");
        }
    }

    #[test]
    fn owners_have_about_as_much_each_in_the_whole_and_at_the_end() {
        let sizes: Vec<usize> = (0..200).map(|i| 100 + 37 * i % 90).collect();
        for world_size in [1, 2, 8] {
            let owners = owners(&sizes, world_size);
            for first in [0, 100, 150] {
                let owned = |rank: usize| -> usize {
                    (first..200).filter(|&leaf| owners[leaf] == rank).map(|leaf| sizes[leaf]).sum()
                };
                let all: Vec<usize> = (0..world_size).map(owned).collect();
                assert!(all.iter().max().unwrap() - all.iter().min().unwrap() <= 190, "{all:?}");
            }
        }
    }
}
