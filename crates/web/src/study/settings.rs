//! How people vote: which questions, how often, and how voters are measured.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tastemaker_math::nearest::{did_you_mean, nearest};

use crate::WebError;

/// A question that voters are asked about two images.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskedQuestion {
    /// Its name in flags, results and files.
    pub key: String,
    /// Its words.
    pub text: String,
    /// Whether the prompt is shown with it.
    pub shows_prompt: bool,
}

/// The questions of the papers: name, words, whether the prompt is shown.
///
/// Source: Diffusion-DPO, arXiv 2311.12908, section 5.1.
pub const QUESTIONS: [(&str, &str, bool); 3] = [
    ("general", "Which image do you prefer given the prompt?", true),
    ("appeal", "Which image is more visually appealing? (prompt not considered)", false),
    ("alignment", "Which image better fits the text description?", true),
];

/// How people vote.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StudySettings {
    /// The questions, asked one after the other about the same two images.
    pub questions: Vec<AskedQuestion>,
    /// Votes that each pair of images gets, for each question.
    pub votes_per_item: u32,
    /// Fraction of pairs that come to a voter again, with sides swapped, to measure how consistent the voter is.
    pub repeats: f64,
    /// Voters who give fewer known answers than this are reported.
    pub gold_threshold: f64,
    /// Seed of orders and sides.
    pub seed: u64,
}

impl Default for StudySettings {
    fn default() -> Self {
        let [general, ..] = QUESTIONS.map(asked);
        Self { questions: vec![general], votes_per_item: 1, repeats: 0.0, gold_threshold: 0.8, seed: 0 }
    }
}

/// The file of one's own words: `[questions]`, then a line `name = "words"` for each.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wording {
    questions: BTreeMap<String, String>,
}

fn is_known(name: &str) -> bool {
    QUESTIONS.iter().any(|(key, ..)| *key == name)
}

fn asked((key, text, shows_prompt): (&str, &str, bool)) -> AskedQuestion {
    AskedQuestion { key: key.to_owned(), text: text.to_owned(), shows_prompt }
}

impl StudySettings {
    /// Questions by their names. `wording` is a TOML text that gives words to these names, or to other ones.
    ///
    /// # Errors
    /// [`WebError::Settings`] for a name without words, one given twice, and a text that is something else.
    pub fn ask(&mut self, names: &[String], wording: Option<&str>) -> Result<(), WebError> {
        let refuse = |what: String| Err(WebError::Settings(what));
        let own = match wording.map(toml::from_str::<Wording>).transpose() {
            Ok(own) => own.map(|own| own.questions).unwrap_or_default(),
            Err(error) => {
                let what = error.message().to_owned();
                return refuse(format!(
                    "the words of questions: {what}; wanted [questions] with lines NAME = \"WORDS\""
                ));
            }
        };
        let mut questions: Vec<AskedQuestion> = Vec::new();
        for name in names {
            if questions.iter().any(|earlier| earlier.key == *name) {
                return refuse(format!("the question `{name}` is named twice"));
            }
            let known = QUESTIONS.into_iter().find(|(key, ..)| key == name).map(asked);
            let own = own.get(name).filter(|text| !text.trim().is_empty());
            let question = match (own, known) {
                (Some(text), known) => AskedQuestion {
                    key: name.clone(),
                    text: text.trim().to_owned(),
                    shows_prompt: known.is_none_or(|known| known.shows_prompt),
                },
                (None, Some(known)) => known,
                (None, None) => {
                    let keys = || QUESTIONS.into_iter().map(|(key, ..)| key);
                    let meant = did_you_mean(nearest(name, keys()));
                    let known = keys().collect::<Vec<_>>().join(", ");
                    return refuse(format!(
                        "no words for the question `{name}`{meant}; wanted {known}, or words of your own by --wording FILE"
                    ));
                }
            };
            questions.push(question);
        }
        // A name that was meant to be one that is asked; all others may wait for another study.
        for name in own.keys().filter(|name| !names.contains(name)) {
            if let Some(meant) = nearest(name, names.iter().map(String::as_str)).filter(|_| !is_known(name)) {
                return refuse(format!(
                    "words for the question `{name}`, which nobody asks{}",
                    did_you_mean(Some(meant))
                ));
            }
        }
        if questions.is_empty() {
            return refuse("no question is asked; wanted one at least".into());
        }
        self.questions = questions;
        Ok(())
    }

    /// What of `new` cannot be joined with votes that were given under `self`, in words.
    pub fn differences(&self, new: &Self) -> Option<String> {
        let keys =
            |settings: &Self| settings.questions.iter().map(|q| q.key.clone()).collect::<Vec<_>>().join(", ");
        if self.questions != new.questions {
            let what = if keys(self) == keys(new) { "other words for" } else { "the questions" };
            return Some(format!("it has {what} {}, and {} are asked", keys(self), keys(new)));
        }
        let pairs = [("--seed", self.seed as f64, new.seed as f64), ("--repeats", self.repeats, new.repeats)];
        let found = pairs.into_iter().find(|(_, old, new)| old != new);
        found.map(|(flag, old, new)| format!("it has {flag} {old}, and {new} was typed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(names: &[&str], wording: Option<&str>) -> Result<Vec<AskedQuestion>, String> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut settings = StudySettings::default();
        settings.ask(&names, wording).map(|()| settings.questions).map_err(|error| error.to_string())
    }

    #[test]
    fn questions_have_the_words_of_the_papers_or_ones_own() {
        let own = "[questions]\nappeal = \"Welches Bild ist schöner?\"\ntext = \"Is the text legible?\"\n";
        let asked = ask(&["general", "appeal", "text"], Some(own)).unwrap();
        let words: Vec<&str> = asked.iter().map(|question| question.text.as_str()).collect();
        assert_eq!(
            words,
            [
                "Which image do you prefer given the prompt?",
                "Welches Bild ist schöner?",
                "Is the text legible?"
            ]
        );
        assert_eq!(
            asked.iter().map(|question| question.shows_prompt).collect::<Vec<_>>(),
            [true, false, true]
        );
    }

    #[test]
    fn a_question_without_words_is_refused_with_the_nearest() {
        assert!(
            ask(&["apeal"], None)
                .unwrap_err()
                .starts_with("no words for the question `apeal`, did you mean \"appeal\"?")
        );
        let misspelt =
            ask(&["appeal"], Some("[questions]\napeal = \"Schön?\"\nhands = \"Whose?\"")).unwrap_err();
        assert_eq!(misspelt, "words for the question `apeal`, which nobody asks, did you mean \"appeal\"?");
        assert!(ask(&["appeal"], Some("[questions]\ngeneral = \"Welches?\"\nhands = \"Whose?\"")).is_ok());
        assert!(ask(&["appeal", "appeal"], None).unwrap_err().contains("twice"));
        assert!(ask(&["a"], Some("a = 1")).unwrap_err().contains("wanted [questions]"));
        assert!(ask(&[], None).is_err());
    }
}
