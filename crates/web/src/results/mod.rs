//! What votes come to: who wins, how sure that is, and how far people agree with each other and with scorers.

mod export;
mod import;
mod matrix;
mod page;
mod scorers;
mod tables;

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use tastemaker_math::agreement::{Decision, Level, Votes, fleiss_kappa, krippendorff_alpha};
use tastemaker_math::intervals::{Interval, WinCount, bootstrap, mean, median};

use crate::WebError;
use crate::study::{AskedQuestion, StudySettings};
use crate::vote::{Answer, Ballot, Record};
pub use export::{EXPORTS, Export, export};
pub use import::import;
pub use matrix::Matrix;
pub use page::page;
pub use scorers::{ScorerScores, read_scores};
pub use tables::text;

/// Version of the results as JSON.
pub const RESULTS_FORMAT: u32 = 1;

/// Resamples of bootstrap intervals, as in comparisons.
const N_RESAMPLES: u64 = 2000;

/// Everything that votes say.
#[derive(Debug, Clone, Serialize)]
pub struct Results {
    /// Version of this layout.
    pub format: u32,
    /// What people voted on.
    pub study: String,
    /// How.
    pub settings: StudySettings,
    /// The category that all of it is about; `None` for all prompts.
    pub category: Option<String>,
    /// Pairs of images, without those whose answer is known.
    pub n_items: usize,
    /// Votes that stand, without repeated and known ones.
    pub n_votes: usize,
    /// What each question comes to.
    pub questions: Vec<QuestionResults>,
    /// What each voter is like.
    pub voters: Vec<VoterResults>,
}

/// What a question comes to.
#[derive(Debug, Clone, Serialize)]
pub struct QuestionResults {
    /// The question.
    pub question: AskedQuestion,
    /// Pairs that have as many votes as were wanted.
    pub n_complete: usize,
    /// Every two models, over all prompts, then by category.
    pub comparisons: Vec<ModelComparison>,
    /// How far voters agree.
    pub agreement: Agreement,
    /// How far scorers decide as people do.
    pub scorers: Vec<ScorerAgreement>,
}

/// One model against another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ModelComparison {
    /// The one whose wins are counted.
    pub a: String,
    /// The one it is compared with.
    pub b: String,
    /// The category, `None` for all prompts.
    pub category: Option<String>,
    /// Pairs of images with a vote.
    pub n: u64,
    /// Pairs that most voters gave to A.
    pub wins: u64,
    /// Pairs without such an answer.
    pub ties: u64,
    /// Pairs that most voters gave to B.
    pub losses: u64,
    /// `(wins + ties / 2) / n` with its 95% Wilson interval.
    pub win_rate: Rate,
    /// The same, each prompt counting once, with its 95% bootstrap interval over prompts.
    pub by_prompt: Rate,
    /// Votes, of all voters: for A, ties, for B.
    pub votes: [u64; 3],
    /// How many of the ties say that both images are bad.
    pub both_bad: u64,
}

/// A rate with its interval.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Rate {
    /// The measured rate.
    pub rate: f64,
    /// Lower bound of the 95% interval.
    pub low: f64,
    /// Upper bound.
    pub high: f64,
}

impl Rate {
    /// As pages draw it.
    pub fn interval(self) -> Interval {
        Interval { estimate: self.rate, low: self.low, high: self.high }
    }
}

impl From<Interval> for Rate {
    fn from(Interval { estimate, low, high }: Interval) -> Self {
        Self { rate: estimate, low, high }
    }
}

/// How far voters agree about a question.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agreement {
    /// Pairs with two votes or more.
    pub n: usize,
    /// Fleiss' kappa over A, tie, B; `None` where pairs have different numbers of votes.
    pub fleiss_kappa: Option<f64>,
    /// Krippendorff's alpha over the same, all answers equally unlike.
    pub krippendorff_nominal: Option<f64>,
    /// Krippendorff's alpha with a tie between A and B.
    pub krippendorff_ordinal: Option<f64>,
    /// Fraction of pairs that all voters decide alike.
    pub unanimous: Option<f64>,
}

/// How far a scorer decides as people do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScorerAgreement {
    /// Its name.
    pub scorer: String,
    /// Pairs that people decide and it scores.
    pub n: u64,
    /// On how many both prefer the same image.
    pub agree: u64,
    /// The fraction with its 95% Wilson interval.
    pub fraction: Rate,
}

/// How often, of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Of {
    /// How often.
    pub n: u64,
    /// Of how many.
    pub of: u64,
}

impl Of {
    fn add(&mut self, holds: bool) {
        self.n += u64::from(holds);
        self.of += 1;
    }

    /// As a fraction; `None` of nothing.
    pub fn fraction(self) -> Option<f64> {
        (self.of > 0).then(|| self.n as f64 / self.of as f64)
    }
}

/// What a voter is like.
#[derive(Debug, Clone, Serialize)]
pub struct VoterResults {
    /// The name.
    pub name: String,
    /// Votes that count.
    pub votes: u64,
    /// Pairs skipped.
    pub skipped: u64,
    /// Median time of a vote, in seconds.
    pub median_seconds: Option<f64>,
    /// How often the vote is what most of the others say, where they say something.
    pub with_others: Of,
    /// How often the same pair got the same answer again.
    pub consistent: Of,
    /// How often a known answer was given.
    pub known: Of,
    /// How often the image on the left was chosen, of votes for one image.
    pub left: Of,
    /// Whether known answers were given less often than the threshold: look at this voter's votes. None is dropped for it.
    pub below_threshold: bool,
}

/// Votes of every item for every question.
pub(crate) type Counted = BTreeMap<(u32, u32), (Votes, u64)>;

/// The votes that decide: given for the first time, on pairs whose answer is not known.
pub(crate) fn counted(record: &Record) -> Counted {
    let mut counted = Counted::new();
    for Ballot { task, answer, .. } in deciding(record) {
        let (votes, bad) = counted.entry((task.item, task.question)).or_default();
        match answer {
            Some(Answer::A) => votes.first += 1,
            Some(Answer::B) => votes.second += 1,
            _ => votes.tie += 1,
        }
        *bad += u64::from(*answer == Some(Answer::Bad));
    }
    counted
}

fn deciding(record: &Record) -> impl Iterator<Item = &Ballot> {
    record.ballots.iter().filter(|ballot| {
        ballot.task.round == 0
            && ballot.answer.is_some_and(Answer::counts)
            && record.items.get(ballot.task.item as usize).is_some_and(|item| item.known.is_none())
    })
}

impl Results {
    /// Computes everything, about one category or all prompts.
    ///
    /// # Errors
    /// [`WebError::Study`] for a category that no prompt has.
    pub fn of(record: &Record, category: Option<&str>, scorers: &[ScorerScores]) -> Result<Self, WebError> {
        let of_prompt = |prompt: u32| record.prompts[prompt as usize].category.as_deref();
        let mut categories: Vec<&str> = Vec::new();
        for item in &record.items {
            categories.extend(of_prompt(item.prompt).filter(|category| !categories.contains(category)));
        }
        if let Some(category) = category.filter(|category| !categories.contains(category)) {
            let known = if categories.is_empty() { "none".to_owned() } else { categories.join(", ") };
            return Err(WebError::Study(format!("no prompt is of category {category:?}; there are {known}")));
        }
        let within =
            |item: u32| category.is_none() || of_prompt(record.items[item as usize].prompt) == category;
        let mut record = record.clone();
        record.ballots.retain(|ballot| within(ballot.task.item));
        let counted = counted(&record);
        let shown: Vec<Option<&str>> = match category {
            Some(_) => vec![None],
            None => std::iter::once(None).chain(categories.iter().copied().map(Some)).collect(),
        };
        let questions = record.settings.questions.iter().zip(0..);
        let questions = questions
            .map(|(question, number)| QuestionResults {
                question: question.clone(),
                n_complete: complete(&counted, number, record.settings.votes_per_item),
                comparisons: shown
                    .iter()
                    .flat_map(|of| comparisons(&record, &counted, number, *of))
                    .collect(),
                agreement: agreement(&counted, number),
                scorers: scorers
                    .iter()
                    .filter_map(|one| scorers::agreement(&record, &counted, number, one))
                    .collect(),
            })
            .collect();
        let open = |item: u32| record.items[item as usize].known.is_none() && within(item);
        Ok(Self {
            format: RESULTS_FORMAT,
            study: record.name.clone(),
            settings: record.settings.clone(),
            category: category.map(str::to_owned),
            n_items: (0..record.items.len() as u32).filter(|&item| open(item)).count(),
            n_votes: deciding(&record).count(),
            questions,
            voters: (0..record.voters.len() as u32).map(|voter| of_voter(&record, &counted, voter)).collect(),
        })
    }

    /// As JSON, with a line break at the end.
    ///
    /// # Errors
    /// [`WebError::Study`] for a number that JSON does not have.
    pub fn json(&self) -> Result<String, WebError> {
        let text = serde_json::to_string_pretty(self);
        text.map(|text| text + "\n").map_err(|error| WebError::Study(error.to_string()))
    }
}

fn complete(counted: &Counted, question: u32, wanted: u32) -> usize {
    let of_question = counted.iter().filter(|((_, asked), _)| *asked == question);
    of_question.filter(|(_, (votes, _))| votes.n() >= u64::from(wanted)).count()
}

fn comparisons(
    record: &Record,
    counted: &Counted,
    question: u32,
    category: Option<&str>,
) -> Vec<ModelComparison> {
    let mut by_models: BTreeMap<[u32; 2], Vec<(u32, Votes, u64)>> = BTreeMap::new();
    for (number, item) in record.items.iter().enumerate() {
        let prompt = &record.prompts[item.prompt as usize];
        if category.is_some() && prompt.category.as_deref() != category {
            continue;
        }
        if let Some((votes, bad)) = counted.get(&(number as u32, question)) {
            by_models.entry(item.models).or_default().push((item.prompt, *votes, *bad));
        }
    }
    let of_models = by_models.into_iter().filter_map(|([a, b], items)| {
        let decided: Vec<(u32, Decision)> =
            items.iter().filter_map(|(prompt, votes, _)| Some((*prompt, votes.decision()?))).collect();
        let count =
            |wanted: Decision| decided.iter().filter(|(_, decision)| *decision == wanted).count() as u64;
        let (wins, ties, losses) = (count(Decision::First), count(Decision::Tie), count(Decision::Second));
        let mut by_prompt: BTreeMap<u32, Vec<f64>> = BTreeMap::new();
        for (prompt, decision) in &decided {
            by_prompt.entry(*prompt).or_default().push(match decision {
                Decision::First => 1.0,
                Decision::Tie => 0.5,
                Decision::Second => 0.0,
            });
        }
        let rates: Vec<f64> = by_prompt.values().filter_map(|rates| mean(rates)).collect();
        let sum = |of: fn(&Votes) -> u64| items.iter().map(|(_, votes, _)| of(votes)).sum();
        Some(ModelComparison {
            a: record.models[a as usize].clone(),
            b: record.models[b as usize].clone(),
            category: category.map(str::to_owned),
            n: decided.len() as u64,
            wins,
            ties,
            losses,
            win_rate: WinCount { wins, ties, losses }.wilson_95()?.into(),
            by_prompt: bootstrap(&rates, mean, 0.95, N_RESAMPLES, record.settings.seed)?.into(),
            votes: [sum(|votes| votes.first), sum(|votes| votes.tie), sum(|votes| votes.second)],
            both_bad: items.iter().map(|(.., bad)| bad).sum(),
        })
    });
    of_models.collect()
}

fn agreement(counted: &Counted, question: u32) -> Agreement {
    let of_question = counted.iter().filter(|((_, asked), _)| *asked == question);
    let rows: Vec<Vec<u64>> = of_question
        .map(|(_, (votes, _))| vec![votes.first, votes.tie, votes.second])
        .filter(|row| row.iter().sum::<u64>() >= 2)
        .collect();
    let alike = rows.iter().filter(|row| row.iter().filter(|count| **count > 0).count() == 1).count();
    Agreement {
        n: rows.len(),
        fleiss_kappa: fleiss_kappa(&rows),
        krippendorff_nominal: krippendorff_alpha(&rows, Level::Nominal),
        krippendorff_ordinal: krippendorff_alpha(&rows, Level::Ordinal),
        unanimous: (!rows.is_empty()).then(|| alike as f64 / rows.len() as f64),
    }
}

/// The answer as a decision.
pub(crate) fn decided(answer: Answer) -> Decision {
    match answer {
        Answer::A => Decision::First,
        Answer::B => Decision::Second,
        Answer::Tie | Answer::Bad | Answer::Skip => Decision::Tie,
    }
}

fn of_voter(record: &Record, counted: &Counted, voter: u32) -> VoterResults {
    let (mut votes, mut skipped) = (0, 0);
    let (mut with_others, mut consistent, mut known, mut left) = Default::default();
    let mut seconds = Vec::new();
    let mine = || record.ballots.iter().filter(move |ballot| ballot.voter == voter);
    let first: HashMap<(u32, u32), Answer> = mine()
        .filter(|ballot| ballot.task.round == 0)
        .filter_map(|ballot| Some(((ballot.task.item, ballot.task.question), ballot.answer?)))
        .collect();
    for Ballot { task, answer, a_is_left, seconds: looked, .. } in mine() {
        let Some(answer) = answer.filter(|answer| answer.counts()) else {
            skipped += 1;
            continue;
        };
        let key = (task.item, task.question);
        if *looked > 0.0 {
            seconds.push(*looked);
        }
        if matches!(answer, Answer::A | Answer::B) {
            Of::add(&mut left, answer.side(*a_is_left) == "left");
        }
        if task.round > 0 {
            Of::add(
                &mut consistent,
                first.get(&key).is_some_and(|before| decided(*before) == decided(answer)),
            );
            continue;
        }
        if let Some(right) = record.items[task.item as usize].known {
            let wanted = if right == 0 { Answer::A } else { Answer::B };
            Of::add(&mut known, answer == wanted);
            continue;
        }
        votes += 1;
        let mut others = counted.get(&key).map(|(votes, _)| *votes).unwrap_or_default();
        match decided(answer) {
            Decision::First => others.first -= 1,
            Decision::Tie => others.tie -= 1,
            Decision::Second => others.second -= 1,
        }
        if let Some(decision) = others.decision() {
            Of::add(&mut with_others, decision == decided(answer));
        }
    }
    VoterResults {
        name: record.voters[voter as usize].clone(),
        votes,
        skipped,
        median_seconds: median(&seconds),
        with_others,
        consistent,
        known,
        left,
        below_threshold: known.fraction().is_some_and(|fraction| fraction < record.settings.gold_threshold),
    }
}
