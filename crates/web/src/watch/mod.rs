//! Watching runs: their logs, as they grow, as curves. Runs are only read.

mod pages;
mod routes;
mod tail;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tastemaker_data::set::{decode, read_encoded};
use tastemaker_pages::Thumbnail;
use tastemaker_run::{RunDir, differences};
use tastemaker_store::{StoreError, json};

use crate::WebError;
pub use routes::router;
use tail::Tail;

/// The longest log that an exported page carries.
const MAX_EXPORT: usize = 64 << 20;

/// Runs that are watched.
#[derive(Debug, Clone)]
pub struct Runs {
    runs: Vec<WatchedRun>,
}

/// A run: its folder, and what it is called on the page.
#[derive(Debug, Clone)]
struct WatchedRun {
    name: String,
    folder: PathBuf,
}

impl Runs {
    /// Runs by their folders, which need not have begun yet.
    ///
    /// # Errors
    /// [`WebError::Settings`] without a run, and for one that is given twice; [`StoreError::Missing`] for a folder that is not there.
    pub fn new(folders: &[PathBuf]) -> Result<Self, WebError> {
        if folders.is_empty() {
            return Err(WebError::Settings(
                "no run is watched; wanted the output folder of one at least".into(),
            ));
        }
        let mut runs: Vec<WatchedRun> = Vec::new();
        for folder in folders {
            if !folder.is_dir() {
                let wanted = "the output folder of a training run".into();
                return Err(StoreError::Missing { path: folder.clone(), wanted }.into());
            }
            if runs.iter().any(|run| run.folder == *folder) {
                return Err(WebError::Settings(format!("{} is given twice", folder.display())));
            }
            let own = folder.canonicalize().unwrap_or_else(|_| folder.clone());
            let short = own.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let taken = runs.iter().any(|run| run.name == short);
            let name = if taken || short.is_empty() { folder.display().to_string() } else { short };
            runs.push(WatchedRun { name, folder: folder.clone() });
        }
        Ok(Self { runs })
    }

    /// Names, plans, and in what plans differ.
    fn about(&self) -> Value {
        let plans: Vec<Option<Value>> =
            self.runs.iter().map(|run| json::read(RunDir::at(&run.folder).plan_path()).ok()).collect();
        let runs = self.runs.iter().zip(&plans).map(|(run, plan)| {
            json!({ "name": run.name, "folder": run.folder.display().to_string(), "plan": plan })
        });
        // Of every key in which some two runs differ, all values.
        let mut keys: BTreeMap<String, Vec<Option<String>>> = BTreeMap::new();
        if let Some(Some(first)) = plans.first() {
            for (number, plan) in plans.iter().enumerate().skip(1) {
                let Some(plan) = plan else { continue };
                for difference in differences(first, plan) {
                    let values = keys.entry(difference.key).or_insert_with(|| vec![None; plans.len()]);
                    values[0] = Some(difference.there);
                    values[number] = Some(difference.here);
                }
            }
        }
        let rows: Vec<Value> = keys
            .into_iter()
            .map(|(key, values)| {
                let first = values[0].clone();
                let values: Vec<_> =
                    values.into_iter().map(|value| value.or_else(|| first.clone())).collect();
                json!({ "key": key, "values": values })
            })
            .collect();
        json!({ "runs": runs.collect::<Vec<_>>(), "differences": rows })
    }

    fn log(&self, run: usize) -> PathBuf {
        RunDir::at(&self.runs[run].folder).events_path()
    }

    /// An image that a run's log names; `None` for any other file.
    fn image(&self, run: usize, name: &str) -> Option<PathBuf> {
        let folder = self.runs.get(run)?.folder.canonicalize().ok()?;
        let path = folder.join(name).canonicalize().ok()?;
        let ending = path.extension()?.to_str()?;
        (path.starts_with(&folder) && ["png", "jpg", "jpeg", "webp"].contains(&ending)).then_some(path)
    }

    /// The page as one file, with what the logs say now.
    ///
    /// # Errors
    /// [`WebError::Study`] for logs of more than 64 MiB.
    pub fn export(&self) -> Result<String, WebError> {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for run in 0..self.runs.len() {
            let mut tail = Tail::new(self.log(run));
            let mut lines: Vec<Value> = Vec::new();
            loop {
                let found = tail.next();
                if !found.is_more {
                    break;
                }
                bytes += found.lines.iter().map(String::len).sum::<usize>();
                if bytes > MAX_EXPORT {
                    return Err(WebError::Study(format!(
                        "logs of more than {} MiB; export fewer runs",
                        MAX_EXPORT >> 20
                    )));
                }
                lines.extend(found.lines.iter().filter_map(|line| serde_json::from_str(line).ok()));
            }
            events.push(json!({ "lines": lines, "images": self.carried(run, &lines) }));
        }
        Ok(pages::exported(&self.about(), &Value::Array(events)).into_string())
    }

    /// Small images of those that a log names, by name, as addresses that carry them.
    fn carried(&self, run: usize, lines: &[Value]) -> BTreeMap<String, String> {
        let names = lines.iter().filter(|line| line["event"] == "images" || line["event"] == "pictures");
        let names = names.flat_map(|line| line["paths"].as_array().cloned().unwrap_or_default());
        let small = |path: &Path| Thumbnail::new(&decode(&read_encoded(path).ok()?).ok()?).ok();
        names
            .filter_map(|name| {
                let name = name.as_str()?.to_owned();
                let address = small(&self.image(run, &name)?)?.address();
                Some((name, address))
            })
            .collect()
    }
}
