//! The folder of a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tastemaker_math::objectives::MeanGain;
use tastemaker_store::lock::{FolderLock, Sharing};
use tastemaker_store::{StoreError, atomic, json};

use crate::{EventLog, MethodPlan, Plan, RunError, keys};

/// The folder of a run: `plan.json`, `events.jsonl`, and the results beside them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunDir {
    path: PathBuf,
}

impl RunDir {
    /// Makes the folder of a run, or enters one that has the same plan already.
    ///
    /// Two plans are the same if they differ at most in what does not change a single weight, such as where results go, how
    /// often a checkpoint is written, over how many processes the pairs of a step are split, and, at a constant learning rate,
    /// how long training lasts. The folder then has the new plan.
    ///
    /// # Errors
    /// [`RunError::Store`] if it cannot be made or written, [`RunError::NotARun`] if it holds other things,
    /// [`RunError::OtherPlan`] if it holds a run that differs, [`RunError::DamagedPlan`] if nobody can say.
    pub fn create(path: impl AsRef<Path>, plan: &Plan) -> Result<Self, RunError> {
        let path = path.as_ref();
        atomic::create_folder(path)?;
        let dir = Self { path: path.to_path_buf() };
        if !dir.plan_path().is_file() && !is_empty(path)? {
            return Err(RunError::NotARun { path: dir.path });
        }
        Self::create_among_others(path, plan)
    }

    /// The same in a folder that may hold other things, which stay there.
    ///
    /// # Errors
    /// As [`RunDir::create`], but for [`RunError::NotARun`].
    pub fn create_among_others(path: impl AsRef<Path>, plan: &Plan) -> Result<Self, RunError> {
        let dir = Self { path: path.as_ref().to_path_buf() };
        atomic::create_folder(&dir.path)?;
        if dir.plan_path().is_file() {
            let there: Value = json::read(dir.plan_path()).map_err(|error| damaged(&dir, error))?;
            check_format(&dir, &there)?;
            let differences = changes(&there, &plan_value(&dir, plan)?);
            if !differences.is_empty() {
                return Err(RunError::OtherPlan { path: dir.path, differences });
            }
        }
        json::write(dir.plan_path(), plan)?;
        Ok(dir)
    }

    /// Makes the folder of a run, and locks it for this process. Before [`RunDir::create`] nothing in it is touched.
    ///
    /// # Errors
    /// [`RunError::InUse`] if another process works there; [`RunError::Store`] if it cannot be made.
    pub fn lock(path: impl AsRef<Path>) -> Result<FolderLock, RunError> {
        let path = path.as_ref();
        atomic::create_folder(path)?;
        let lock = FolderLock::attempt(path, Sharing::Alone)?;
        lock.ok_or_else(|| RunError::InUse { path: path.to_path_buf() })
    }

    /// The folder of a run that another process of it makes.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self { path: path.as_ref().to_path_buf() }
    }

    /// Opens the folder of an earlier run and reads its plan.
    ///
    /// # Errors
    /// [`RunError::Store`] if there is no readable plan, [`RunError::DamagedPlan`] if it is none, [`RunError::Format`] if another
    /// version wrote it.
    pub fn open(path: impl AsRef<Path>) -> Result<(Self, Plan), RunError> {
        let dir = Self { path: path.as_ref().to_path_buf() };
        let plan_path = dir.plan_path();
        let value = json::read(&plan_path).map_err(|error| damaged(&dir, error))?;
        let value = Plan::upgraded(value);
        let format = check_format(&dir, &value)?;
        if format != u64::from(Plan::FORMAT) {
            let (found, wanted) = (format!("plan format {format}"), format!("format {}", Plan::FORMAT));
            return Err(RunError::Format { path: plan_path, line: 1, found, wanted });
        }
        let plan = serde_json::from_value(value)
            .map_err(|source| damaged(&dir, StoreError::Json { path: plan_path, source }))?;
        Ok((dir, plan))
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The resolved plan.
    pub fn plan_path(&self) -> PathBuf {
        self.path.join("plan.json")
    }

    /// The event log.
    pub fn events_path(&self) -> PathBuf {
        self.path.join("events.jsonl")
    }

    /// Opens the event log for appending.
    ///
    /// # Errors
    /// As [`EventLog::open`].
    pub fn event_log(&self) -> Result<EventLog, RunError> {
        EventLog::open(self.events_path())
    }
}

fn damaged(dir: &RunDir, error: StoreError) -> RunError {
    match error.damage() {
        Some(found) => RunError::DamagedPlan { path: dir.plan_path(), found },
        None => error.into(),
    }
}

/// The format of a plan: a number beside sections of settings, in plans of every version.
fn check_format(dir: &RunDir, plan: &Value) -> Result<u64, RunError> {
    let damaged = |found| RunError::DamagedPlan { path: dir.plan_path(), found };
    let is_section = |name: &str| plan.get(name).is_none_or(Value::is_object);
    if let Some(key) = keys().find(|key| !is_section(key.section())) {
        return Err(damaged(format!("`{}` holds no settings", key.section())));
    }
    let format = plan.get("format").cloned().unwrap_or_default();
    format.as_u64().ok_or_else(|| damaged(format!("its format is {format}, wanted {}", Plan::FORMAT)))
}

/// Whether there is nothing but what an interrupted [`RunDir::create`] leaves.
fn is_empty(path: &Path) -> Result<bool, StoreError> {
    let fail = |e| StoreError::io("read", path, e);
    for entry in fs::read_dir(path).map_err(fail)? {
        if !atomic::is_unfinished(&entry.map_err(fail)?.file_name()) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn plan_value(dir: &RunDir, plan: &Plan) -> Result<Value, StoreError> {
    serde_json::to_value(plan).map_err(|source| StoreError::Json { path: dir.plan_path(), source })
}

/// How the pairs of a step are split over processes, micro-batches and accumulation. Where their product is the same, so are
/// the pairs of each step and what is drawn for them.
const SPLIT: [&str; 3] = ["n_processes", "train.train_batch_size", "train.gradient_accumulation_steps"];

/// What differs between two plans on disk and changes weights, each as `key: there, here`.
///
/// How the pairs of a step are split changes nothing but the order in which their gradients are added, unless the method takes
/// a mean over a micro-batch; see [`split_changes`].
pub fn changes(there: &Value, here: &Value) -> Vec<String> {
    let (there, here) = (current(there), current(here));
    let keeps_split = is_same_step(&there, &here);
    let (mut there, mut here) = (flat(&there), flat(&here));
    if keeps_split {
        for plan in [&mut there, &mut here] {
            plan.retain(|path, _| !SPLIT.contains(&path.as_str()));
        }
    }
    let shapes = [&there, &here].map(|plan| plan.get("optimizer.lr_scheduler").and_then(Value::as_str));
    let constant = shapes.iter().all(|shape| shape.is_some_and(|shape| shape.starts_with("constant")));
    if constant {
        for plan in [&mut there, &mut here] {
            plan.remove("train.max_train_steps");
        }
    }
    let shown = |Difference { key, there, here }| format!("{key}: {there} there, {here} here");
    differing(&there, &here).map(shown).collect()
}

/// What differs in how two plans split the pairs of a step, each as `key: there, here`.
pub fn split_changes(there: &Value, here: &Value) -> Vec<String> {
    let (there, here) = (current(there), current(here));
    let split = |key: &&str| split_of(&there, key) != split_of(&here, key);
    let shown = |key: &str| format!("{key}: {} there, {} here", split_of(&there, key), split_of(&here, key));
    SPLIT.iter().filter(|key| split(key)).map(|key| shown(key)).collect()
}

/// Whether a step of two plans is about the same pairs, and each pair's gradient the same.
fn is_same_step(there: &Value, here: &Value) -> bool {
    let pairs = |plan: &Value| SPLIT.iter().map(|key| split_of(plan, key)).product::<u64>();
    let method = |plan: &Value| serde_json::from_value::<MethodPlan>(plan.get("method")?.clone()).ok();
    let averages = [there, here].iter().any(|plan| {
        let objective = method(plan).and_then(|method| method.objective().ok());
        objective.is_none_or(|objective| objective.needs().mean_gain == MeanGain::Batch)
    });
    let micro_batch = |plan: &Value| split_of(plan, "train.train_batch_size");
    pairs(there) == pairs(here) && (!averages || micro_batch(there) == micro_batch(here))
}

/// A number of a plan's split; 1 where the plan does not say it.
fn split_of(plan: &Value, key: &str) -> u64 {
    let found = key.split('.').try_fold(plan, |value, part| value.get(part));
    found.and_then(Value::as_u64).unwrap_or(1)
}

/// A leaf in which two values differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Its dotted key.
    pub key: String,
    /// Its value in the first as JSON, or `nothing`.
    pub there: String,
    /// That in the second.
    pub here: String,
}

/// Every leaf in which two values differ, by key.
pub fn differences(there: &Value, here: &Value) -> Vec<Difference> {
    differing(&leaves(there), &leaves(here)).collect()
}

/// A plan on disk as this version writes it.
fn current(plan: &Value) -> Value {
    let upgraded = Plan::upgraded(plan.clone());
    let read = serde_json::from_value::<Plan>(upgraded.clone());
    read.ok().and_then(|plan| serde_json::to_value(plan).ok()).unwrap_or(upgraded)
}

/// Every leaf of a plan by its dotted key, but for those that change no weight.
fn flat(plan: &Value) -> BTreeMap<String, Value> {
    let mut leaves = leaves(plan);
    leaves.retain(|path, _| !keys().any(|key| key.is_free && key.path == path));
    leaves
}

/// Every leaf by its dotted key.
fn leaves(value: &Value) -> BTreeMap<String, Value> {
    fn walk(key: &str, value: &Value, leaves: &mut BTreeMap<String, Value>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(&key, value, leaves);
                }
            }
            leaf => drop(leaves.insert(key.to_owned(), leaf.clone())),
        }
    }
    let mut leaves = BTreeMap::new();
    walk("", value, &mut leaves);
    leaves
}

fn differing<'a>(
    there: &'a BTreeMap<String, Value>,
    here: &'a BTreeMap<String, Value>,
) -> impl Iterator<Item = Difference> + 'a {
    let keys: BTreeSet<&String> = there.keys().chain(here.keys()).collect();
    let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
    keys.into_iter().filter(|key| there.get(*key) != here.get(*key)).map(move |key| Difference {
        key: key.clone(),
        there: shown(there.get(key)),
        here: shown(here.get(key)),
    })
}
