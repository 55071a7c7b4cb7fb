//! `compare.json`: what the pictures and scores of a folder were made from.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use tastemaker_store::json;

use crate::EvalError;

/// Version of the file's layout.
pub const PLAN_FORMAT: u64 = 1;

/// Everything that decides what a picture of the folder looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the layout.
    pub format: u64,
    /// What is asked.
    pub prompts: PlannedPrompts,
    /// Seed of the first picture of each prompt.
    pub seed: u64,
    /// Who paints.
    pub contestants: Vec<PlannedContestant>,
    /// Who scores.
    pub scorers: Vec<PlannedScorer>,
}

/// A scorer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedScorer {
    /// Its name.
    pub name: String,
    /// What was typed.
    pub what: String,
    /// SHA-256 of the weights that were named, `None` where none were.
    pub fingerprint: Option<String>,
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

/// A contestant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedContestant {
    /// Its name.
    pub name: String,
    /// What it is, as typed.
    pub what: String,
    /// SHA-256 of what it is made of.
    pub fingerprint: String,
    /// How it paints; empty for pictures that are there.
    pub painting: BTreeMap<String, String>,
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
        let value: serde_json::Value = json::read(path)?;
        let format = &value["format"];
        if *format != PLAN_FORMAT {
            return Err(EvalError::Compared {
                path: path.to_owned(),
                what: format!("its format is {format}; this program reads {PLAN_FORMAT}: use another --out"),
            });
        }
        Ok(Some(json::read(path)?))
    }

    /// Every way in which pictures of `self` would not be those of `new`, a line each; none if they can be used.
    ///
    /// Contestants and scorers may come and go, and a thing may have moved: only what painted or scored under a name, and how,
    /// must be the same.
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
        for now in &new.contestants {
            let Some(then) = self.contestants.iter().find(|then| then.name == now.name) else { continue };
            let name = &now.name;
            let thing =
                |one: &PlannedContestant| format!("{} (sha256 {})", one.what, short(&one.fingerprint));
            if then.fingerprint != now.fingerprint {
                compare(format!("`{name}`"), &thing(then), &thing(now));
            }
            let keys: std::collections::BTreeSet<&String> =
                then.painting.keys().chain(now.painting.keys()).collect();
            for key in keys {
                let value = |one: &PlannedContestant| {
                    one.painting.get(key).cloned().unwrap_or_else(|| "nothing".to_owned())
                };
                compare(format!("{key} of `{name}`"), &value(then), &value(now));
            }
        }
        for now in &new.scorers {
            let Some(then) = self.scorers.iter().find(|then| then.name == now.name) else { continue };
            let thing = |one: &PlannedScorer| match &one.fingerprint {
                Some(fingerprint) => format!("{} (sha256 {})", one.what, short(fingerprint)),
                None => one.what.clone(),
            };
            if then.fingerprint != now.fingerprint {
                compare(format!("scorer `{}`", now.name), &thing(then), &thing(now));
            }
        }
        found
    }

    /// The plan of a folder where `self` was painted before `new`: contestants that are not named now keep their entry.
    pub fn followed_by(self, new: Self) -> Self {
        let mut joined = new;
        for then in self.contestants {
            if joined.contestants.iter().all(|now| now.name != then.name) {
                joined.contestants.push(then);
            }
        }
        for scorer in self.scorers {
            if joined.scorers.iter().all(|now| now.name != scorer.name) {
                joined.scorers.push(scorer);
            }
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

    fn scorer(name: &str, fingerprint: &str) -> PlannedScorer {
        let what = format!("{name}=weights");
        PlannedScorer { name: name.into(), what, fingerprint: Some(fingerprint.repeat(64)) }
    }

    fn plan() -> Plan {
        let contestant = |name: &str| PlannedContestant {
            name: name.into(),
            what: format!("models/{name}"),
            fingerprint: name.repeat(20),
            painting: [("steps".to_owned(), "50".to_owned())].into(),
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
            contestants: vec![contestant("base"), contestant("tuned")],
            scorers: vec![scorer("one", "1")],
        }
    }

    #[test]
    fn what_would_change_a_picture_is_named() {
        let (old, mut new) = (plan(), plan());
        new.seed = 1;
        new.contestants[1].fingerprint = "other".repeat(10);
        new.contestants[1].painting.insert("steps".into(), "20".into());
        new.contestants[0].painting.insert("eta".into(), "1".into());
        new.scorers[0] = scorer("one", "2");
        insta::assert_snapshot!(old.differences(&new).join("\n"), @r"
        the seed was 0 and is 1
        eta of `base` was nothing and is 1
        `tuned` was models/tuned (sha256 tunedtunedtu) and is models/tuned (sha256 otherotherot)
        steps of `tuned` was 50 and is 20
        scorer `one` was one=weights (sha256 111111111111) and is one=weights (sha256 222222222222)
        ");
    }

    #[test]
    fn contestants_and_scorers_may_come_go_and_move() {
        let (old, mut new) = (plan(), plan());
        new.contestants[0].what = "elsewhere/base".into();
        new.contestants[1].name = "third".into();
        new.scorers = vec![scorer("two", "2")];
        assert_eq!(old.differences(&new), Vec::<String>::new());
        let joined = old.followed_by(new);
        let names: Vec<&str> = joined.contestants.iter().map(|one| one.name.as_str()).collect();
        assert_eq!((names.as_slice(), joined.scorers.len()), (["base", "third", "tuned"].as_slice(), 2));
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
        assert!(error.ends_with("its format is 7; this program reads 1: use another --out"), "{error}");
    }
}
