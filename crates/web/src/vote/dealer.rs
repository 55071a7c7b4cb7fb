//! Which task a voter gets next: in memory, rebuilt from the votes whenever the program starts.
//!
//! Every pair of images gets its number of votes for each question, and no voter sees one twice unless it is to measure how
//! consistent that voter is. Pairs that have votes already come first, so that a study that ends early has whole pairs.

use std::collections::{HashMap, HashSet, VecDeque};

use tastemaker_math::{Keyed, Permutation, Stream};

use super::answer::{Answer, Task};
use crate::study::{Study, StudySettings};

/// How long a task waits for its voter before somebody else may get it, in milliseconds.
const PATIENCE_MS: u64 = 20 * 60 * 1000;

/// How long a voter counts as present after the last request, in milliseconds.
const PRESENT_MS: u64 = 10 * 60 * 1000;

/// Other pairs between a pair and the same one again.
const APART: usize = 8;

/// Votes over which the pace of a voter is taken.
const PACE: usize = 20;

/// How far a voter is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Progress {
    /// Answers given.
    pub done: usize,
    /// Answers still wanted of this voter, about.
    pub left: usize,
    /// Seconds these will take at the voter's pace; `None` before the pace is known.
    pub seconds_left: Option<f64>,
}

/// Why a vote is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// There is no such task for this voter.
    NoSuchTask,
    /// Others gave the votes that were wanted while this voter was away.
    Full,
    /// There is nothing to take back.
    Nothing,
}

#[derive(Default)]
struct Slot {
    votes: u32,
    /// Voters who have it before them, and until when.
    held: Vec<(u32, u64)>,
}

#[derive(Default)]
struct OneVoter {
    standing: HashMap<Task, Answer>,
    /// Tasks in the order they were answered first.
    order: Vec<Task>,
    begun: HashSet<u32>,
    queue: VecDeque<Task>,
    /// Items that come again, and after how many answers.
    again: VecDeque<(usize, u32)>,
    n_gold: usize,
    rows: u32,
    pace: VecDeque<f64>,
    seen_at: u64,
}

/// Who gets what.
pub struct Dealer {
    n_questions: u32,
    wanted: u32,
    repeats: f64,
    seed: u64,
    known: Vec<bool>,
    gold: Vec<u32>,
    /// The order in which items are begun.
    order: Vec<u32>,
    slots: Vec<Slot>,
    voters: Vec<OneVoter>,
    /// Votes that are still wanted, and slots that want some, known answers aside.
    needed: usize,
    open: usize,
}

impl Dealer {
    pub fn new(study: &Study, settings: &StudySettings, n_voters: usize) -> Self {
        let n_questions = settings.questions.len() as u32;
        let known: Vec<bool> = study.items.iter().map(|item| item.known.is_some()).collect();
        let order = Permutation::new(settings.seed, 0, known.len() as u64);
        let (gold, order): (Vec<u32>, Vec<u32>) =
            order.iter().map(|item| item as u32).partition(|&item| known[item as usize]);
        let slots = (0..known.len() * n_questions as usize).map(|_| Slot::default()).collect();
        let open = order.len() * n_questions as usize;
        Self {
            n_questions,
            wanted: settings.votes_per_item,
            repeats: settings.repeats,
            seed: settings.seed,
            known,
            gold,
            order,
            slots,
            voters: (0..n_voters).map(|_| OneVoter::default()).collect(),
            needed: open * settings.votes_per_item as usize,
            open: if settings.votes_per_item > 0 { open } else { 0 },
        }
    }

    /// Whether the image of A is on the left: a coin for each voter and pair, and the other way when it comes again.
    pub fn a_is_left(&self, voter: u32, task: Task) -> bool {
        let coin = Keyed::new(self.seed, Stream::Vote, u64::from(task.item), u64::from(voter)).bernoulli(0.5);
        coin ^ (task.round % 2 == 1)
    }

    /// Takes a vote that is on disk already; whether there is such a task.
    pub fn replay(&mut self, voter: u32, task: Task, answer: Option<Answer>) -> bool {
        let exists = self.exists(voter, task);
        if exists {
            self.put(voter, task, answer);
        }
        exists
    }

    /// After all votes were replayed: pairs of which some questions are open come first, and pairs that come again do so still.
    pub fn resume(&mut self) {
        for voter in 0..self.voters.len() {
            let begun: Vec<u32> = {
                let mut seen = HashSet::new();
                self.voters[voter]
                    .order
                    .iter()
                    .map(|task| task.item)
                    .filter(|item| seen.insert(*item))
                    .collect()
            };
            for item in begun {
                let tasks = self.open_tasks(voter as u32, item, 0);
                let last = Task { item, question: self.n_questions - 1, round: 0 };
                let comes_again = !self.open_tasks(voter as u32, item, 1).is_empty();
                let one = &mut self.voters[voter];
                one.queue.extend(tasks);
                let waits = one.again.iter().any(|&(_, other)| other == item);
                if comes_again && !waits && one.standing.contains_key(&last) {
                    one.again.push_back((0, item));
                }
            }
        }
    }

    /// The task before a voter and those after it, at most `n`, which are kept for this voter for a while.
    pub fn upcoming(&mut self, voter: u32, n: usize, now: u64) -> Vec<Task> {
        let queue = std::mem::take(&mut self.voters[voter as usize].queue);
        let open = queue.into_iter().filter(|&task| self.is_open(voter, task)).collect();
        let one = &mut self.voters[voter as usize];
        one.queue = open;
        one.seen_at = now;
        while self.voters[voter as usize].queue.len() < n {
            let tasks = self.pick(voter, now);
            if tasks.is_empty() {
                break;
            }
            self.voters[voter as usize].queue.extend(tasks);
        }
        let tasks: Vec<Task> = self.voters[voter as usize].queue.iter().copied().collect();
        for task in tasks.iter().filter(|task| task.round == 0) {
            let held =
                &mut self.slots[self.n_questions as usize * task.item as usize + task.question as usize].held;
            held.retain(|&(other, until)| other != voter && until > now);
            held.push((voter, now + PATIENCE_MS));
        }
        tasks.into_iter().take(n).collect()
    }

    /// Takes a vote, or takes one back (`None`), if that can be.
    pub fn vote(
        &mut self,
        voter: u32,
        task: Task,
        answer: Option<Answer>,
        seconds: f64,
    ) -> Result<u32, Wrong> {
        if !self.exists(voter, task) {
            return Err(Wrong::NoSuchTask);
        }
        let slot = &self.slots[self.slot(task)];
        let one = &self.voters[voter as usize];
        let was = one.standing.get(&task).copied();
        match (was, answer) {
            (None, None) => return Err(Wrong::Nothing),
            (None, Some(_)) if task.round > 0 && !self.comes_again(voter, task) => {
                return Err(Wrong::NoSuchTask);
            }
            (was, Some(answer))
                if task.round == 0
                    && !self.known[task.item as usize]
                    && answer.counts()
                    && !was.is_some_and(Answer::counts)
                    && slot.votes >= self.wanted =>
            {
                return Err(Wrong::Full);
            }
            _ => {}
        }
        self.put(voter, task, answer);
        let one = &mut self.voters[voter as usize];
        if was.is_none() && seconds > 0.0 {
            one.pace.push_back(seconds);
            if one.pace.len() > PACE {
                one.pace.pop_front();
            }
        }
        if answer.is_none() {
            one.queue.retain(|other| *other != task);
            one.queue.push_front(task);
        } else {
            one.queue.retain(|other| *other != task);
        }
        Ok(one.rows)
    }

    /// The task that a voter answered last.
    pub fn last(&self, voter: u32) -> Option<Task> {
        self.voters[voter as usize].order.last().copied()
    }

    /// A voter's tasks with the answers that stand, in the order they were given.
    pub fn answers(&self, voter: u32) -> impl Iterator<Item = (Task, Answer)> {
        let one = &self.voters[voter as usize];
        one.order.iter().filter_map(|task| Some((*task, *one.standing.get(task)?)))
    }

    /// How far a voter is.
    pub fn progress(&self, voter: u32, now: u64) -> Progress {
        let one = &self.voters[voter as usize];
        let wants = |task: &&Task| {
            task.round == 0
                && !self.known[task.item as usize]
                && self.slots[self.slot(**task)].votes < self.wanted
        };
        let open = self.open - one.standing.keys().filter(wants).count();
        let present =
            self.voters.iter().filter(|other| now.saturating_sub(other.seen_at) < PRESENT_MS).count();
        let rest = one.queue.iter().filter(|task| task.round > 0 || self.known[task.item as usize]).count()
            + one.again.len() * self.n_questions as usize;
        let left = open.min(self.needed.div_ceil(present.max(1))) + rest;
        let mut pace: Vec<f64> = one.pace.iter().copied().collect();
        pace.sort_by(f64::total_cmp);
        let median = pace.get(pace.len() / 2).filter(|_| pace.len() >= 3);
        let seconds_left = median.map(|seconds| seconds * left as f64);
        Progress { done: one.order.len(), left, seconds_left }
    }

    fn exists(&self, voter: u32, task: Task) -> bool {
        (voter as usize) < self.voters.len()
            && (task.item as usize) < self.known.len()
            && task.question < self.n_questions
            && task.round < 2
    }

    fn slot(&self, task: Task) -> usize {
        task.item as usize * self.n_questions as usize + task.question as usize
    }

    /// Changes what stands.
    fn put(&mut self, voter: u32, task: Task, answer: Option<Answer>) {
        let slot = self.slot(task);
        let one = &mut self.voters[voter as usize];
        one.rows += 1;
        let was = match answer {
            Some(answer) => one.standing.insert(task, answer),
            None => one.standing.remove(&task),
        };
        if task.round == 0 {
            let votes = &mut self.slots[slot].votes;
            let before = self.wanted.saturating_sub(*votes) as usize;
            *votes = *votes + u32::from(answer.is_some_and(Answer::counts))
                - u32::from(was.is_some_and(Answer::counts));
            if !self.known[task.item as usize] {
                let after = self.wanted.saturating_sub(*votes) as usize;
                self.needed = self.needed + after - before;
                self.open = self.open + usize::from(after > 0) - usize::from(before > 0);
            }
            self.slots[slot].held.retain(|&(other, _)| other != voter);
        }
        match (was, answer) {
            (None, Some(_)) => {
                one.order.push(task);
                let is_new = one.begun.insert(task.item);
                one.n_gold += usize::from(is_new && self.known[task.item as usize]);
            }
            (Some(_), None) => {
                one.order.retain(|other| *other != task);
                // An item whose last answer was taken back is asked about again, also by a program that starts anew.
                if !one.order.iter().any(|other| other.item == task.item) && one.begun.remove(&task.item) {
                    one.n_gold -= usize::from(self.known[task.item as usize]);
                }
            }
            _ => {}
        }
        let is_last = task.round == 0 && task.question + 1 == self.n_questions;
        if was.is_none() && is_last && answer.is_some() && self.is_repeated(voter, task.item) {
            let one = &mut self.voters[voter as usize];
            if !one.again.iter().any(|&(_, item)| item == task.item) {
                one.again.push_back((one.order.len() + APART * self.n_questions as usize, task.item));
            }
        }
        if task.round > 0 {
            self.voters[voter as usize].again.retain(|&(_, item)| item != task.item);
        }
    }

    /// Whether a pair that comes again may be answered: it was answered before.
    fn comes_again(&self, voter: u32, task: Task) -> bool {
        let before = Task { round: 0, ..task };
        let standing = &self.voters[voter as usize].standing;
        standing.get(&before).is_some_and(|answer| answer.counts()) && self.is_repeated(voter, task.item)
    }

    /// Whether a pair is one of those that come to a voter twice.
    fn is_repeated(&self, voter: u32, item: u32) -> bool {
        let coin = Keyed::new(self.seed, Stream::Vote, u64::from(item), (1 << 40) | u64::from(voter))
            .bernoulli(self.repeats);
        coin && !self.known[item as usize]
    }

    fn is_open(&self, voter: u32, task: Task) -> bool {
        let slot = &self.slots[self.slot(task)];
        let answered = self.voters[voter as usize].standing.contains_key(&task);
        let wanted = match task.round {
            0 => self.known[task.item as usize] || slot.votes < self.wanted,
            // Whoever takes the first answer back, or skips after all, is not asked for it again.
            _ => self.comes_again(voter, task),
        };
        !answered && wanted
    }

    /// The questions about an item that a voter can be asked.
    fn open_tasks(&self, voter: u32, item: u32, round: u32) -> Vec<Task> {
        let tasks = (0..self.n_questions).map(|question| Task { item, question, round });
        tasks.filter(|&task| self.is_open(voter, task)).collect()
    }

    fn pick(&mut self, voter: u32, now: u64) -> Vec<Task> {
        let one = &self.voters[voter as usize];
        let at = one.order.len() + one.queue.len();
        let n_questions = self.n_questions as usize;
        if one.again.front().is_some_and(|&(due, _)| due <= at) {
            return self.again(voter);
        }
        let apart = (self.order.len() / self.gold.len().max(1)).max(1);
        let due = (one.n_gold * apart + apart / 2) * n_questions;
        if at >= due
            && let Some(&item) =
                self.gold.iter().find(|&item| !one.begun.contains(item) && !is_queued(one, *item))
        {
            self.voters[voter as usize].begun.insert(item);
            self.voters[voter as usize].n_gold += 1;
            return self.open_tasks(voter, item, 0);
        }
        let mut best: Option<(u32, u32)> = None;
        for &item in &self.order {
            let first = item as usize * n_questions;
            let slots = &self.slots[first..first + n_questions];
            let taken = |slot: &Slot| {
                let others = slot.held.iter().filter(|&&(other, until)| other != voter && until > now);
                slot.votes + others.count() as u32
            };
            let fullest = slots.iter().map(taken).max().unwrap_or(0);
            // Cheap questions first: this goes through the whole study.
            if best.is_none_or(|(most, _)| fullest > most)
                && !slots.iter().all(|slot| taken(slot) >= self.wanted)
                && !one.begun.contains(&item)
                && !is_queued(one, item)
            {
                best = Some((fullest, item));
            }
        }
        match best {
            Some((_, item)) => self.open_tasks(voter, item, 0),
            None => self.again(voter),
        }
    }

    /// The pair that waits to come again longest.
    fn again(&mut self, voter: u32) -> Vec<Task> {
        while let Some((_, item)) = self.voters[voter as usize].again.pop_front() {
            let tasks = self.open_tasks(voter, item, 1);
            if !tasks.is_empty() {
                return tasks;
            }
        }
        Vec::new()
    }
}

fn is_queued(one: &OneVoter, item: u32) -> bool {
    one.queue.iter().any(|task| task.item == item)
}
