//! `compare.json`: what the images and scores of a folder were made from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tastemaker_store::dtype::DType;
use tastemaker_store::{StoreError, json};

use crate::EvalError;

/// Version of the file's layout.
pub const PLAN_FORMAT: u64 = 3;

/// The layout before, with other names for the same things.
const OLD_FORMATS: [u64; 2] = [1, 2];

/// Everything that decides what an image of the folder looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the layout.
    pub format: u64,
    /// The set of prompts.
    pub prompts: PlannedPrompts,
    /// Seed of the first image of each prompt.
    pub seed: u64,
    /// The models.
    #[serde(alias = "contestants")]
    pub models: Vec<PlannedModel>,
    /// The scorers, by name, with what tells each from others of its name.
    pub scorers: BTreeMap<String, String>,
}

/// A set of prompts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedPrompts {
    /// What it is called.
    pub name: String,
    /// Prompts of the whole set.
    pub n: usize,
    /// SHA-256 of the whole set.
    pub fingerprint: String,
    /// How prompts come by their noise.
    pub noise: String,
}

/// A model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedModel {
    /// Its name.
    pub name: String,
    /// What it is, as typed.
    pub what: String,
    /// SHA-256 of what it is made of.
    pub fingerprint: String,
    /// How it generates; empty for images that are there.
    #[serde(alias = "painting", alias = "generating")]
    pub generation: BTreeMap<String, String>,
}

/// The plan of a comparison that says something else than it must.
fn damaged(path: &Path, error: StoreError) -> EvalError {
    match error.damage() {
        Some(found) => {
            let what = format!("it is damaged: {found}; use another --out, or --overwrite to begin again");
            EvalError::Compared { path: path.to_owned(), what }
        }
        None => error.into(),
    }
}

impl Plan {
    /// The plan of a folder; `None` if it has none.
    ///
    /// # Errors
    /// [`EvalError::Store`] if it cannot be read; [`EvalError::Compared`] for one of another version.
    pub fn read(path: impl AsRef<Path>) -> Result<Option<Self>, EvalError> {
        let path = path.as_ref();
        if !path.exists() {
            return Ok(None);
        }
        let value = json::read::<serde_json::Value>(path).map_err(|error| damaged(path, error))?;
        let format = &value["format"];
        if *format != PLAN_FORMAT && OLD_FORMATS.iter().all(|old| format != old) {
            return Err(EvalError::Compared {
                path: path.to_owned(),
                what: format!("its format is {format}; this program reads {PLAN_FORMAT}: use another --out"),
            });
        }
        let mut plan =
            Self { format: PLAN_FORMAT, ..json::read(path).map_err(|error| damaged(path, error))? };
        // Earlier versions spelled element types as Rust does.
        for precision in plan.models.iter_mut().filter_map(|model| model.generation.get_mut("precision")) {
            if let Ok(dtype) = precision.parse::<DType>() {
                *precision = dtype.to_string();
            }
        }
        Ok(Some(plan))
    }

    /// Every way in which images of `self` would not be those of `new`, a line each; none if they can be used.
    ///
    /// Models and scorers may come and go, and a thing may have moved: only what was generated under a name, and how, must
    /// be the same.
    pub fn differences(&self, new: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: String, old: &str, new: &str| {
            if old != new {
                found.push(format!("{what} was {old} and is {new}"));
            }
        };
        let described = |prompts: &PlannedPrompts| {
            format!("{} ({}, sha256 {})", prompts.name, prompts.n, short(&prompts.fingerprint))
        };
        if self.prompts.fingerprint != new.prompts.fingerprint {
            compare("the set of prompts".into(), &described(&self.prompts), &described(&new.prompts));
        }
        compare("the noise".into(), &self.prompts.noise, &new.prompts.noise);
        compare("the seed".into(), &self.seed.to_string(), &new.seed.to_string());
        for (name, then) in &self.scorers {
            let now = new.scorers.get(name).unwrap_or(then);
            compare(format!("scorer `{name}`"), short(then), short(now));
        }
        for now in &new.models {
            let Some(then) = self.models.iter().find(|then| then.name == now.name) else { continue };
            let name = &now.name;
            let thing = |one: &PlannedModel| format!("{} (sha256 {})", one.what, short(&one.fingerprint));
            if then.fingerprint != now.fingerprint {
                compare(format!("`{name}`"), &thing(then), &thing(now));
            }
            let keys: std::collections::BTreeSet<&String> =
                then.generation.keys().chain(now.generation.keys()).collect();
            for key in keys {
                let value = |one: &PlannedModel| {
                    one.generation.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
                };
                compare(format!("{key} of `{name}`"), &value(then), &value(now));
            }
        }
        found
    }

    /// The plan of a folder where `self` was generated before `new`: models that are not named now keep their entry.
    pub fn followed_by(self, new: Self) -> Self {
        let mut joined = new;
        for then in self.models {
            if joined.models.iter().all(|now| now.name != then.name) {
                joined.models.push(then);
            }
        }
        for (name, fingerprint) in self.scorers {
            joined.scorers.entry(name).or_insert(fingerprint);
        }
        joined
    }
}

fn short(fingerprint: &str) -> &str {
    fingerprint.get(..12).unwrap_or(fingerprint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let model = |name: &str| PlannedModel {
            name: name.into(),
            what: format!("models/{name}"),
            fingerprint: name.repeat(20),
            generation: [("steps".to_owned(), "50".to_owned())].into(),
        };
        let prompts = PlannedPrompts {
            name: "small".into(),
            n: 64,
            fingerprint: "f".repeat(64),
            noise: "by seed".into(),
        };
        Plan {
            format: PLAN_FORMAT,
            prompts,
            seed: 0,
            models: vec![model("base"), model("tuned")],
            scorers: [("one".to_owned(), "weights".to_owned())].into(),
        }
    }

    #[test]
    fn what_would_change_an_image_is_named() {
        let (old, mut new) = (plan(), plan());
        new.seed = 1;
        new.models[1].fingerprint = "other".repeat(10);
        new.models[1].generation.insert("steps".into(), "20".into());
        new.models[0].generation.insert("eta".into(), "1".into());
        new.scorers.insert("one".into(), "others".into());
        insta::assert_snapshot!(old.differences(&new).join("\n"), @r"
        the seed was 0 and is 1
        scorer `one` was weights and is others
        eta of `base` was nothing and is 1
        `tuned` was models/tuned (sha256 tunedtunedtu) and is models/tuned (sha256 otherotherot)
        steps of `tuned` was 50 and is 20
        ");
    }

    #[test]
    fn models_and_scorers_may_come_go_and_move() {
        let (old, mut new) = (plan(), plan());
        new.models[0].what = "elsewhere/base".into();
        new.models[1].name = "third".into();
        new.scorers = [("two".to_owned(), "others".to_owned())].into();
        assert_eq!(old.differences(&new), Vec::<String>::new());
        let joined = old.followed_by(new);
        let names: Vec<&str> = joined.models.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names.as_slice(), joined.scorers.len()), (["base", "third", "tuned"].as_slice(), 2));
    }

    #[test]
    fn a_plan_under_the_old_names_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compare.json");
        let mut now = plan();
        now.models[0].generation.insert("precision".into(), "fp32".into());
        for (format, models, generation) in [(1, "contestants", "painting"), (2, "models", "generating")] {
            json::write(&path, &Plan { format, ..now.clone() }).unwrap();
            let text = std::fs::read_to_string(&path).unwrap();
            let old = text.replace("\"models\"", &format!("\"{models}\""));
            let old = old.replace("\"generation\"", &format!("\"{generation}\"")).replace("fp32", "f32");
            assert_ne!(old, text);
            std::fs::write(&path, old).unwrap();
            assert_eq!(Plan::read(&path).unwrap(), Some(now.clone()));
        }
    }

    #[test]
    fn a_plan_is_read_back_and_one_of_another_version_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compare.json");
        assert_eq!(Plan::read(&path).unwrap(), None);
        json::write(&path, &plan()).unwrap();
        assert_eq!(Plan::read(&path).unwrap(), Some(plan()));
        json::write(&path, &Plan { format: 7, ..plan() }).unwrap();
        let error = Plan::read(&path).unwrap_err().to_string();
        assert!(error.ends_with("its format is 7; this program reads 3: use another --out"), "{error}");
    }
}
