//! The database: one SQLite file, to which votes are only ever added.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use sha2::{Digest, Sha256};
use tastemaker_store::StoreError;
use tastemaker_store::checksum::hex;

use super::answer::{Answer, Task};
use super::booth::Voter;
use crate::WebError;
use crate::study::{Item, Study, StudyPrompt, StudySettings};

/// Version of the tables.
const FORMAT: &str = "1";

/// How long to wait for a reader.
const BUSY: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
    CREATE TABLE prompt (id INTEGER PRIMARY KEY, text TEXT NOT NULL, category TEXT) STRICT;
    CREATE TABLE model (id INTEGER PRIMARY KEY, name TEXT NOT NULL) STRICT;
    CREATE TABLE item (
        id INTEGER PRIMARY KEY, prompt INTEGER NOT NULL REFERENCES prompt, model_a INTEGER NOT NULL REFERENCES model,
        model_b INTEGER NOT NULL REFERENCES model, image_a TEXT NOT NULL, image_b TEXT NOT NULL, seed INTEGER NOT NULL,
        known INTEGER
    ) STRICT;
    CREATE TABLE voter (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
    CREATE TABLE vote (
        id INTEGER PRIMARY KEY, voter INTEGER NOT NULL REFERENCES voter, item INTEGER NOT NULL REFERENCES item,
        question TEXT NOT NULL, round INTEGER NOT NULL, answer TEXT, a_is_left INTEGER NOT NULL, position INTEGER NOT NULL,
        seconds REAL NOT NULL, at INTEGER NOT NULL
    ) STRICT;";

/// A vote as it goes to disk; without an answer it takes an earlier one back.
#[derive(Debug, Clone, PartialEq)]
pub struct Ballot {
    /// Number of the voter.
    pub voter: u32,
    /// What was asked.
    pub task: Task,
    /// What was answered.
    pub answer: Option<Answer>,
    /// Whether the image of A was on the left.
    pub a_is_left: bool,
    /// How many rows this voter has before this one.
    pub position: u32,
    /// How long the voter looked, in seconds.
    pub seconds: f64,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// What a database holds, for results: the study and every vote that stands.
#[derive(Debug, Clone)]
pub struct Record {
    /// What people voted on, as it was typed.
    pub name: String,
    /// How.
    pub settings: StudySettings,
    /// The prompts.
    pub prompts: Vec<StudyPrompt>,
    /// The models.
    pub models: Vec<String>,
    /// The pairs.
    pub items: Vec<Item>,
    /// Where their images are, A and B.
    pub places: Vec<[String; 2]>,
    /// Names of the voters.
    pub voters: Vec<String>,
    /// The votes that stand, in the order they were given.
    pub ballots: Vec<Ballot>,
}

/// A database that this process writes to, alone.
#[derive(Debug)]
pub struct Database {
    path: PathBuf,
    connection: Connection,
    key: String,
    #[expect(dead_code, reason = "closing it unlocks the database")]
    lock: File,
}

impl Database {
    /// Opens the database of a study, or creates it.
    ///
    /// # Errors
    /// [`WebError::OtherStudy`] if another process has it, or it is of another study or other settings; [`WebError::Database`].
    pub fn open(path: &Path, study: &Study, settings: &StudySettings) -> Result<Self, WebError> {
        let lock = lock(path)?;
        let fail = |source| WebError::Database { path: path.to_owned(), source };
        let is_new = !path.exists();
        if is_new {
            // Links of voters follow from what is in it: for its owner alone.
            private(path)?;
        }
        let other = |what: &str| WebError::OtherStudy { path: path.to_owned(), what: what.to_owned() };
        let mut connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fail)?;
        let has_tables = meta(&connection, "format").map_err(fail)?.is_some();
        if !has_tables && !is_empty(&connection).map_err(fail)? {
            return Err(other("it is a database of another program; use another --db"));
        }
        configure(&connection).map_err(fail)?;
        if !has_tables {
            create(&mut connection, study, settings).map_err(fail)?;
        }
        // Without it links could be guessed.
        let key = meta(&connection, "key").map_err(fail)?.filter(|key| key.len() == 64);
        let key = key.ok_or_else(|| other("it is damaged: its key is gone; use another --db"))?;
        let database = Self { path: path.to_owned(), connection, key, lock };
        if has_tables {
            database.check(study, settings)?;
        }
        Ok(database)
    }

    /// What links and names of images are made with; secret.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Makes sure that voters of these names exist, and returns all there are.
    ///
    /// # Errors
    /// [`WebError::Database`].
    pub fn voters(&self, names: &[String]) -> Result<Vec<Voter>, WebError> {
        let run = || {
            for name in names {
                self.connection.execute("INSERT OR IGNORE INTO voter (name) VALUES (?1)", [name])?;
            }
            self.connection
                .prepare("SELECT name FROM voter ORDER BY id")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<Vec<String>, _>>()
        };
        let names = run().map_err(|source| self.fail(source))?;
        Ok(names.into_iter().map(|name| Voter { secret: self.derived("voter", &name), name }).collect())
    }

    /// A name that nobody can guess, always the same for the same thing.
    pub fn derived(&self, kind: &str, of: &str) -> String {
        let hash = Sha256::digest(format!("{}\n{kind}\n{of}", self.key));
        hex(&hash)[..32].to_owned()
    }

    /// Every row of votes in order, for whoever keeps state in memory.
    ///
    /// # Errors
    /// [`WebError::Database`].
    pub fn rows(&self, keys: &[String]) -> Result<Vec<Ballot>, WebError> {
        rows(&self.connection, keys).map_err(|source| self.fail(source))
    }

    /// Writes votes; when this returns they are on disk.
    ///
    /// # Errors
    /// [`WebError::Database`]; then none of them is.
    pub fn add(&mut self, ballots: &[Ballot], keys: &[String]) -> Result<(), WebError> {
        let path = self.path.clone();
        let write = |transaction: &Transaction<'_>| {
            let mut insert = transaction.prepare_cached(
                "INSERT INTO vote (voter, item, question, round, answer, a_is_left, position, seconds, at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?;
            for ballot in ballots {
                let Task { item, question, round } = ballot.task;
                insert.execute(params![
                    ballot.voter + 1,
                    item,
                    keys[question as usize],
                    round,
                    ballot.answer.map(Answer::name),
                    ballot.a_is_left,
                    ballot.position,
                    ballot.seconds,
                    ballot.at as i64,
                ])?;
            }
            Ok::<(), rusqlite::Error>(())
        };
        let mut run = || {
            let transaction = self.connection.transaction()?;
            write(&transaction)?;
            transaction.commit()
        };
        run().map_err(|source| WebError::Database { path, source })
    }

    fn check(&self, study: &Study, settings: &StudySettings) -> Result<(), WebError> {
        let other = |what: String| Err(WebError::OtherStudy { path: self.path.clone(), what });
        let read = |key: &str| meta(&self.connection, key).map_err(|source| self.fail(source));
        let format = read("format")?.unwrap_or_default();
        if format != FORMAT {
            return other(format!("its format is {format}; this program reads {FORMAT}: use another --db"));
        }
        if read("fingerprint")?.as_deref() != Some(&study.fingerprint()) {
            let of = read("name")?.unwrap_or_default();
            return other(format!(
                "it has votes on {of}, with other images or prompts than {} has now; use another --db",
                study.name
            ));
        }
        let old = serde_json::from_str::<StudySettings>(&read("settings")?.unwrap_or_default()).ok();
        let difference = match &old {
            None => Some("its settings are damaged".to_owned()),
            Some(old) => old.differences(settings),
        };
        if let Some(difference) = difference {
            return other(format!("{difference}; use another --db, or the same settings"));
        }
        let text = serde_json::json!(settings).to_string();
        let changed = self.connection.execute("UPDATE meta SET value = ?1 WHERE key = 'settings'", [text]);
        changed.map(drop).map_err(|source| self.fail(source))
    }

    /// What is wrong with what it holds.
    pub(super) fn damaged(&self, what: &str) -> WebError {
        WebError::OtherStudy { path: self.path.clone(), what: damage(what) }
    }

    fn fail(&self, source: rusqlite::Error) -> WebError {
        WebError::Database { path: self.path.clone(), source }
    }
}

impl Record {
    /// Reads a database, also while people vote.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none; [`WebError::Database`]; [`WebError::OtherStudy`] for one that is no study.
    pub fn read(path: &Path) -> Result<Self, WebError> {
        if !path.is_file() {
            let wanted = "a database that tastemaker vote wrote".to_owned();
            return Err(StoreError::Missing { path: path.to_owned(), wanted }.into());
        }
        let fail = |source| WebError::Database { path: path.to_owned(), source };
        // The log beside a database can only be read by whoever could write it.
        let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .or_else(|_| connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY))
            .map_err(fail)?;
        // All of it as it is now, whatever is written meanwhile.
        let _snapshot = connection.unchecked_transaction().map_err(fail)?;
        let read = |key: &str| meta(&connection, key).map_err(fail);
        let settings = read("settings")?.and_then(|text| serde_json::from_str::<StudySettings>(&text).ok());
        let (Some(settings), Some(FORMAT)) = (settings, read("format")?.as_deref()) else {
            let what =
                format!("it is no study of format {FORMAT}; wanted a database that tastemaker vote wrote");
            return Err(WebError::OtherStudy { path: path.to_owned(), what });
        };
        let keys: Vec<String> = settings.questions.iter().map(|question| question.key.clone()).collect();
        let tables = || {
            let prompts = connection
                .prepare("SELECT text, category FROM prompt ORDER BY id")?
                .query_map([], |row| Ok(StudyPrompt { text: row.get(0)?, category: row.get(1)? }))?
                .collect::<Result<_, _>>()?;
            let names = |table: &str| {
                connection
                    .prepare(&format!("SELECT name FROM {table} ORDER BY id"))?
                    .query_map([], |row| row.get(0))?
                    .collect::<Result<Vec<String>, _>>()
            };
            let (models, voters) = (names("model")?, names("voter")?);
            let mut items = Vec::new();
            let mut places = Vec::new();
            let mut statement = connection.prepare(
                "SELECT prompt, model_a, model_b, seed, known, image_a, image_b FROM item ORDER BY id",
            )?;
            let mut found = statement.query([])?;
            while let Some(row) = found.next()? {
                let seed = row.get::<_, i64>(3)? as u64;
                items.push(Item {
                    prompt: row.get(0)?,
                    models: [row.get(1)?, row.get(2)?],
                    images: [2 * items.len() as u32, 2 * items.len() as u32 + 1],
                    seed,
                    known: row.get(4)?,
                });
                places.push([row.get(5)?, row.get(6)?]);
            }
            Ok((prompts, models, items, places, voters, standing(rows(&connection, &keys)?)))
        };
        let (prompts, models, items, places, voters, ballots) = tables().map_err(fail)?;
        let name = read("name")?.unwrap_or_default();
        let record = Self { name, settings, prompts, models, items, places, voters, ballots };
        match record.wrong() {
            None => Ok(record),
            Some(what) => Err(WebError::OtherStudy { path: path.to_owned(), what: damage(&what) }),
        }
    }

    /// What a row names that is not there: a database is a file that anybody can write to.
    fn wrong(&self) -> Option<String> {
        let [prompts, models, items, voters] =
            [self.prompts.len(), self.models.len(), self.items.len(), self.voters.len()];
        let item = self.items.iter().position(|item| {
            item.prompt as usize >= prompts || item.models.iter().any(|model| *model as usize >= models)
        });
        let vote = self.ballots.iter().find(|ballot| {
            let Task { item, round, .. } = ballot.task;
            item as usize >= items || ballot.voter as usize >= voters || round > 1
        });
        item.map(|item| format!("pair {item} has a prompt or model that is not there")).or_else(|| {
            let Ballot { voter, task, .. } = vote?;
            Some(format!("a vote of voter {} on {task} is on nothing that is there", voter.wrapping_add(1)))
        })
    }
}

fn damage(what: &str) -> String {
    format!("it is damaged: {what}; use another --db, or a copy from before")
}

/// Of all rows those that stand: the last of each voter and task, unless it takes the answer back.
fn standing(rows: Vec<Ballot>) -> Vec<Ballot> {
    let mut last = std::collections::HashMap::new();
    for (index, row) in rows.iter().enumerate() {
        last.insert((row.voter, row.task), index);
    }
    let stands =
        |(index, row): &(usize, Ballot)| last[&(row.voter, row.task)] == *index && row.answer.is_some();
    rows.into_iter().enumerate().filter(stands).map(|(_, row)| row).collect()
}

fn rows(connection: &Connection, keys: &[String]) -> rusqlite::Result<Vec<Ballot>> {
    let mut statement = connection.prepare(
        "SELECT voter, item, question, round, answer, a_is_left, position, seconds, at FROM vote ORDER BY id",
    )?;
    let mut found = statement.query([])?;
    let mut ballots = Vec::new();
    while let Some(row) = found.next()? {
        let key: String = row.get(2)?;
        let Some(question) = keys.iter().position(|known| *known == key) else { continue };
        let answer: Option<String> = row.get(4)?;
        ballots.push(Ballot {
            voter: row.get::<_, u32>(0)?.wrapping_sub(1),
            task: Task { item: row.get(1)?, question: question as u32, round: row.get(3)? },
            answer: answer.as_deref().and_then(Answer::of_name),
            a_is_left: row.get(5)?,
            position: row.get(6)?,
            seconds: row.get(7)?,
            at: row.get::<_, i64>(8)? as u64,
        });
    }
    Ok(ballots)
}

fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY)?;
    // A database is a file of a stranger until it was read.
    connection.pragma_update(None, "trusted_schema", false)?;
    Ok(connection)
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")
}

fn meta(connection: &Connection, key: &str) -> rusqlite::Result<Option<String>> {
    let has_tables: bool = connection.query_row(
        "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'meta'",
        [],
        |row| Ok(row.get::<_, i64>(0)? > 0),
    )?;
    if !has_tables {
        return Ok(None);
    }
    connection.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

fn is_empty(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| Ok(row.get::<_, i64>(0)? == 0))
}

fn create(connection: &mut Connection, study: &Study, settings: &StudySettings) -> rusqlite::Result<()> {
    let mut key = [0; 32];
    getrandom::fill(&mut key)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.to_string().into()))?;
    let transaction = connection.transaction()?;
    transaction.execute_batch(SCHEMA)?;
    let pairs = [
        ("format", FORMAT.to_owned()),
        ("name", study.name.clone()),
        ("fingerprint", study.fingerprint()),
        ("settings", serde_json::json!(settings).to_string()),
        ("key", hex(&key)),
    ];
    for (key, value) in pairs {
        transaction.execute("INSERT INTO meta VALUES (?1, ?2)", [key, &value])?;
    }
    {
        let mut insert = transaction.prepare("INSERT INTO prompt VALUES (?1, ?2, ?3)")?;
        for (id, prompt) in study.prompts.iter().enumerate() {
            insert.execute(params![id as i64, prompt.text, prompt.category])?;
        }
        let mut insert = transaction.prepare("INSERT INTO model VALUES (?1, ?2)")?;
        for (id, name) in study.models.iter().enumerate() {
            insert.execute(params![id as i64, name])?;
        }
        let mut insert = transaction.prepare("INSERT INTO item VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?;
        for (id, item) in study.items.iter().enumerate() {
            let [a, b] = item.images.map(|image| study.images.name(image));
            let [model_a, model_b] = item.models;
            insert.execute(params![
                id as i64,
                item.prompt,
                model_a,
                model_b,
                a,
                b,
                item.seed as i64,
                item.known
            ])?;
        }
    }
    transaction.commit()
}

/// Keeps other processes from writing to the same database, whatever they call it. SQLite's own locks cannot: between two votes
/// nobody holds them.
fn lock(path: &Path) -> Result<File, WebError> {
    let mut name = path.canonicalize().unwrap_or_else(|_| path.to_owned()).into_os_string();
    name.push(".lock");
    let name = PathBuf::from(name);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&name);
    let file = file.map_err(|error| StoreError::io("lock", &name, error))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            let what = "another process is collecting votes in it; use its page, or another --db".to_owned();
            Err(WebError::OtherStudy { path: path.to_owned(), what })
        }
        // A file system without locks keeps nobody out.
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Creates an empty file that only its owner reads.
fn private(path: &Path) -> Result<(), StoreError> {
    let mut options = OpenOptions::new();
    options.create_new(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop).map_err(|error| StoreError::io("create", path, error))
}
