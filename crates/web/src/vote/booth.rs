//! The one place that votes go through: checked in memory, written by one thread, acknowledged when they are on disk.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use tokio::sync::oneshot;

use super::answer::{Answer, Task};
use super::database::{Ballot, Database};
use super::dealer::{Dealer, Progress, Wrong};
use crate::WebError;
use crate::study::{Item, Study, StudySettings};

/// Votes that one transaction takes, and that wait.
const AT_ONCE: usize = 256;

/// The longest that looking at two images counts, in seconds.
const LONGEST: f64 = 3600.0;

/// Somebody who votes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voter {
    /// The name.
    pub name: String,
    /// What the link of this voter ends with.
    pub secret: String,
}

/// The longest name of a voter, in letters.
const LONGEST_NAME: usize = 80;

/// Letters that turn around what stands beside them.
const TURNING: [char; 11] = [
    '\u{61c}', '\u{200e}', '\u{200f}', '\u{202a}', '\u{202b}', '\u{202c}', '\u{202d}', '\u{202e}',
    '\u{2066}', '\u{2067}', '\u{2068}',
];

/// Names of voters as they were typed, without the spaces around them.
///
/// # Errors
/// [`WebError::Settings`] for a name that cannot be shown, and for two that people would take for one.
pub fn voter_names(typed: &[String]) -> Result<Vec<String>, WebError> {
    let mut names: Vec<String> = Vec::new();
    for name in typed.iter().map(|name| name.trim()) {
        let is_odd = |letter: char| letter.is_control() || TURNING.contains(&letter);
        if name.is_empty() || name.chars().count() > LONGEST_NAME || name.chars().any(is_odd) {
            let what = format!("no voter can be named {name:?}; wanted 1 to {LONGEST_NAME} letters");
            return Err(WebError::Settings(what));
        }
        if let Some(other) = names.iter().find(|other| alike(other, name)) {
            let what =
                format!("two voters are named {other:?} and {name:?}; wanted names that differ by more");
            return Err(WebError::Settings(what));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Whether people would take two names for one.
fn alike(a: &str, b: &str) -> bool {
    let plain = |name: &str| name.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    plain(a) == plain(b)
}

/// Why a vote was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such task.
    NoSuchTask,
    /// Others gave the votes that were wanted meanwhile.
    Full,
    /// There is no vote to take back.
    Nothing,
    /// The disk refuses.
    NotWritten,
}

struct Job {
    voter: u32,
    task: Task,
    /// `None` takes it back.
    answer: Option<Answer>,
    seconds: f64,
    reply: oneshot::Sender<Result<(), Refusal>>,
}

/// A study that people vote on.
pub struct Booth {
    study: Study,
    settings: StudySettings,
    voters: Vec<Voter>,
    by_secret: HashMap<String, u32>,
    /// Names of images, and what they stand for.
    images: HashMap<String, u32>,
    names: Vec<String>,
    tag: String,
    /// What the dealer counts time from: the clock of the machine may be set back.
    begun: Instant,
    dealer: Arc<Mutex<Dealer>>,
    /// Both are there until this is dropped.
    jobs: Option<SyncSender<Job>>,
    writer: Option<JoinHandle<()>>,
}

impl Drop for Booth {
    fn drop(&mut self) {
        // The thread ends, and gives the database free, when nobody can send it anything.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

impl Booth {
    /// Opens the database of a study and takes up where it was left.
    ///
    /// # Errors
    /// [`WebError::Study`] for a study nobody can vote on, and those of [`Database::open`].
    pub fn open(
        database: Database,
        study: Study,
        settings: StudySettings,
        names: &[String],
    ) -> Result<Self, WebError> {
        let there = database.voters(&[])?;
        let is_new = |name: &&String| there.iter().all(|voter| voter.name != **name);
        for name in names.iter().filter(is_new) {
            if let Some(Voter { name: other, .. }) = there.iter().find(|voter| alike(&voter.name, name)) {
                let what = format!("the voter {name:?} is {other:?} in the database; write it like that");
                return Err(WebError::Settings(what));
            }
        }
        let voters = database.voters(names)?;
        if voters.is_empty() {
            return Err(WebError::Study("nobody is to vote; wanted one name at least".into()));
        }
        let fresh = Dealer::new(&study, &settings, voters.len());
        let keys: Vec<String> = settings.questions.iter().map(|question| question.key.clone()).collect();
        let dealer = Arc::new(Mutex::new(replayed(fresh, &database, &keys)?));
        let image_names: Vec<String> =
            (0..study.images.len()).map(|image| database.derived("image", &image.to_string())).collect();
        let images = image_names.iter().cloned().zip(0..).collect();
        let by_secret = voters.iter().map(|voter| voter.secret.clone()).zip(0..).collect();
        let tag = database.derived("cookie", "")[..8].to_owned();
        let (jobs, waiting) = sync_channel(AT_ONCE);
        let shared = Arc::clone(&dealer);
        let rebuild = {
            let (study, settings, n) = (study.clone(), settings.clone(), voters.len());
            move || Dealer::new(&study, &settings, n)
        };
        let writer = std::thread::Builder::new()
            .name("votes".into())
            .spawn(move || write_all(database, &waiting, &shared, &rebuild, &keys))?;
        Ok(Self {
            study,
            settings,
            voters,
            by_secret,
            images,
            names: image_names,
            tag,
            begun: Instant::now(),
            dealer,
            jobs: Some(jobs),
            writer: Some(writer),
        })
    }

    /// What is voted on.
    pub fn study(&self) -> &Study {
        &self.study
    }

    /// How.
    pub fn settings(&self) -> &StudySettings {
        &self.settings
    }

    /// Who votes.
    pub fn voters(&self) -> &[Voter] {
        &self.voters
    }

    /// The voter of a secret.
    pub fn voter_of(&self, secret: &str) -> Option<u32> {
        self.by_secret.get(secret).copied()
    }

    /// What tells cookies of this study from those of others on the same machine.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// The name of an image, which says nothing about its model.
    pub fn image_name(&self, image: u32) -> &str {
        &self.names[image as usize]
    }

    /// The image of a name.
    pub fn image_of(&self, name: &str) -> Option<u32> {
        self.images.get(name).copied()
    }

    /// The pair of a task.
    pub fn item(&self, task: Task) -> &Item {
        &self.study.items[task.item as usize]
    }

    /// The tasks before a voter.
    pub fn upcoming(&self, voter: u32, n: usize) -> Vec<Task> {
        self.dealer().upcoming(voter, n, self.elapsed())
    }

    /// How far a voter is.
    pub fn progress(&self, voter: u32) -> Progress {
        self.dealer().progress(voter, self.elapsed())
    }

    /// Whether the image of A is on the left.
    pub fn a_is_left(&self, voter: u32, task: Task) -> bool {
        self.dealer().a_is_left(voter, task)
    }

    /// A voter's answers, in order.
    pub fn answers(&self, voter: u32) -> Vec<(Task, Answer)> {
        self.dealer().answers(voter).collect()
    }

    /// Takes a vote; when this returns well, it is on disk.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn vote(&self, voter: u32, task: Task, answer: Answer, seconds: f64) -> Result<(), Refusal> {
        self.send(voter, task, Some(answer), seconds).await
    }

    /// The task that a voter answered last.
    pub fn last(&self, voter: u32) -> Option<Task> {
        self.dealer().last(voter)
    }

    /// Takes a vote back, which can be asked twice: it is gone then too.
    ///
    /// # Errors
    /// [`Refusal`].
    pub async fn undo(&self, voter: u32, task: Task) -> Result<(), Refusal> {
        self.send(voter, task, None, 0.0).await
    }

    /// Milliseconds since this was opened.
    fn elapsed(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    async fn send(
        &self,
        voter: u32,
        task: Task,
        answer: Option<Answer>,
        seconds: f64,
    ) -> Result<(), Refusal> {
        let seconds = if seconds.is_finite() { seconds.clamp(0.0, LONGEST) } else { 0.0 };
        let (reply, answered) = oneshot::channel();
        let jobs = self.jobs.as_ref().ok_or(Refusal::NotWritten)?;
        let mut job = Job { voter, task, answer, seconds, reply };
        // The thread that writes is slower than clients only where the disk is; then clients wait.
        while let Err(error) = jobs.try_send(job) {
            match error {
                std::sync::mpsc::TrySendError::Full(back) => job = back,
                std::sync::mpsc::TrySendError::Disconnected(_) => return Err(Refusal::NotWritten),
            }
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        answered.await.unwrap_or(Err(Refusal::NotWritten))
    }

    fn dealer(&self) -> MutexGuard<'_, Dealer> {
        self.dealer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

fn replayed(mut dealer: Dealer, database: &Database, keys: &[String]) -> Result<Dealer, WebError> {
    for Ballot { voter, task, answer, .. } in database.rows(keys)? {
        if !dealer.replay(voter, task, answer) {
            let what =
                format!("a vote of voter {} on {task} is on nothing that is there", voter.wrapping_add(1));
            return Err(database.damaged(&what));
        }
    }
    dealer.resume();
    Ok(dealer)
}

/// Writes whatever waits in one transaction, then answers.
fn write_all(
    mut database: Database,
    waiting: &Receiver<Job>,
    dealer: &Mutex<Dealer>,
    rebuild: &dyn Fn() -> Dealer,
    keys: &[String],
) {
    while let Ok(first) = waiting.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(waiting.try_iter().take(AT_ONCE - 1)).collect();
        let (mut ballots, mut replies) = (Vec::new(), Vec::new());
        {
            let mut dealer = dealer.lock().unwrap_or_else(PoisonError::into_inner);
            for Job { voter, task, answer, seconds, reply } in jobs {
                match taken(&mut dealer, voter, task, answer, seconds) {
                    Ok(ballot) => {
                        ballots.push(ballot);
                        replies.push(reply);
                    }
                    // Whoever asked may have gone.
                    Err(refusal) => {
                        let _ = reply.send(Err(refusal));
                    }
                }
            }
        }
        let written = if ballots.is_empty() { Ok(()) } else { database.add(&ballots, keys) };
        if written.is_err()
            && let Ok(old) = replayed(rebuild(), &database, keys)
        {
            *dealer.lock().unwrap_or_else(PoisonError::into_inner) = old;
        }
        for reply in replies {
            let _ = reply.send(if written.is_ok() { Ok(()) } else { Err(Refusal::NotWritten) });
        }
    }
}

fn taken(
    dealer: &mut Dealer,
    voter: u32,
    task: Task,
    answer: Option<Answer>,
    seconds: f64,
) -> Result<Ballot, Refusal> {
    let rows = dealer.vote(voter, task, answer, seconds).map_err(|wrong| match wrong {
        Wrong::NoSuchTask => Refusal::NoSuchTask,
        Wrong::Full => Refusal::Full,
        Wrong::Nothing => Refusal::Nothing,
    })?;
    let a_is_left = dealer.a_is_left(voter, task);
    Ok(Ballot { voter, task, answer, a_is_left, position: rows - 1, seconds, at: now() })
}
