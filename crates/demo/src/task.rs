//! What the pairs of each task prefer, and how images are judged for it.

use std::str::FromStr;

use clap::ValueEnum;
use image::RgbImage;
use serde::Deserialize;

use crate::DemoError;
use crate::art::{Art, Split};
use crate::scorers::Reading;

const SAFETY: &[u8] = include_bytes!("../../../assets/demo/safety.json");
const FLAT: usize = 2;
const HIGH_CONTRAST: usize = 3;
/// Styles the base model was trained on.
pub const BASE_STYLES: [usize; 3] = [0, 1, 2];

/// The tasks of the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TaskName {
    /// Prefer one style of three that the base knows.
    Style,
    /// Prefer a style that the base has never seen.
    StyleMismatch,
    /// Prefer the better of the base's own images.
    Quality,
    /// Prefer something harmless where the prompt asks for something the policy forbids.
    Safety,
}

impl FromStr for TaskName {
    type Err = DemoError;

    fn from_str(typed: &str) -> Result<Self, DemoError> {
        <Self as ValueEnum>::from_str(typed, false).map_err(|_| {
            let known: Vec<&str> = Self::value_variants().iter().map(|task| task.name()).collect();
            DemoError::Usage(format!("the demo has no task `{typed}`; it has {}", known.join(", ")))
        })
    }
}

impl TaskName {
    /// As typed.
    pub fn name(self) -> &'static str {
        match self {
            TaskName::Style => "style",
            TaskName::StyleMismatch => "style-mismatch",
            TaskName::Quality => "quality",
            TaskName::Safety => "safety",
        }
    }

    /// What winners have in common, to stand after "The pairs prefer".
    pub fn goal(self) -> &'static str {
        match self {
            TaskName::Style => "the Fluent Flat style, one of three the base knows, over the other two",
            TaskName::StyleMismatch => "the Fluent High Contrast style, which the base has never seen",
            TaskName::Quality => "the base's own images that are nearest to real art of the caption",
            TaskName::Safety => "a harmless motif where the prompt asks for one that the policy forbids",
        }
    }

    /// The fraction of images that the report shows besides caption accuracy: its field in the summary, and its name.
    pub fn target(self) -> Option<(&'static str, &'static str)> {
        match self {
            TaskName::Style => Some(("style_fraction", "Fluent Flat fraction")),
            TaskName::StyleMismatch => Some(("style_fraction", "High Contrast fraction")),
            TaskName::Quality => None,
            TaskName::Safety => Some(("unsafe_fraction", "forbidden fraction")),
        }
    }

    /// The preferred style, where the task is about one.
    pub fn style(self) -> Option<usize> {
        match self {
            TaskName::Style => Some(FLAT),
            TaskName::StyleMismatch => Some(HIGH_CONTRAST),
            TaskName::Quality | TaskName::Safety => None,
        }
    }
}

/// One preference: images and caption.
pub struct Preference {
    /// The preferred image.
    pub winner: RgbImage,
    /// The other one.
    pub loser: RgbImage,
    /// What both were made for.
    pub caption: String,
}

/// A forbidden motif and what shall be generated instead.
#[derive(Debug, Clone, Copy)]
struct Forbidden {
    caption: usize,
    instead: usize,
    split: Split,
}

/// A task over the embedded art.
pub struct Task<'a> {
    /// Which.
    pub name: TaskName,
    art: &'a Art,
    forbidden: Vec<Forbidden>,
}

impl<'a> Task<'a> {
    /// Sets the task up.
    pub fn new(name: TaskName, art: &'a Art) -> Result<Self, DemoError> {
        Ok(Self { name, art, forbidden: forbidden(art)? })
    }

    /// The preferences made of real art; empty for `quality`, whose images the base generates.
    pub fn preferences(&self) -> Vec<Preference> {
        let art = self.art;
        let train = art.on(Split::Train);
        let pair =
            |caption: usize, (winner, winner_style): (usize, usize), (loser, loser_style): (usize, usize)| {
                Preference {
                    winner: art.image(winner, winner_style),
                    loser: art.image(loser, loser_style),
                    caption: art.captions[caption].label.clone(),
                }
            };
        match self.name {
            TaskName::Style | TaskName::StyleMismatch => {
                let target = self.name.style().unwrap_or(FLAT);
                let others = BASE_STYLES.into_iter().filter(move |&style| style != target);
                train
                    .iter()
                    .flat_map(|&c| others.clone().map(move |o| pair(c, (c, target), (c, o))))
                    .collect()
            }
            TaskName::Safety => {
                let taught: Vec<Forbidden> =
                    self.forbidden.iter().copied().filter(|f| f.split == Split::Train).collect();
                let corrected = taught.iter().flat_map(|f| {
                    BASE_STYLES.map(|style| pair(f.caption, (f.instead, style), (f.caption, style)))
                });
                // Harmless prompts stay as they are: the right motif wins over a forbidden one.
                let harmless = train.iter().filter(|&&c| self.forbidden.iter().all(|f| f.caption != c));
                let kept = harmless.enumerate().filter(|(i, _)| i % 3 == 0).map(|(i, &c)| {
                    let style = BASE_STYLES[i / 3 % BASE_STYLES.len()];
                    pair(c, (c, style), (taught[i / 3 % taught.len()].caption, style))
                });
                corrected.chain(kept).collect()
            }
            TaskName::Quality => Vec::new(),
        }
    }

    /// Captions the win rate is counted on, on one side of the split.
    pub fn prompts(&self, side: Split) -> Vec<usize> {
        match self.name {
            TaskName::Safety => {
                self.forbidden.iter().filter(|f| f.split == side).map(|f| f.caption).collect()
            }
            _ => self.art.on(side),
        }
    }

    /// Score of an image generated for a caption; higher is better.
    pub fn score(&self, reading: &Reading, caption: usize) -> f64 {
        match self.name {
            TaskName::Style | TaskName::StyleMismatch => {
                reading.score(caption, self.name.style().unwrap_or(FLAT))
            }
            TaskName::Quality => reading.caption_score(caption),
            TaskName::Safety => match self.forbidden.iter().find(|f| f.caption == caption) {
                Some(forbidden) => reading.caption_score(forbidden.instead),
                None => reading.caption_score(caption),
            },
        }
    }

    /// Unit and meaning of the score.
    pub fn score_unit(&self) -> &'static str {
        match self.name {
            TaskName::Style | TaskName::StyleMismatch => "nats of log p(caption, wanted style | image)",
            TaskName::Quality => "nats of log p(caption | image)",
            TaskName::Safety => "nats of log p(harmless motif | image)",
        }
    }

    /// Whether an image counts towards the target fraction.
    pub fn meets_target(&self, reading: &Reading, caption: usize) -> Option<bool> {
        match self.name {
            TaskName::Style | TaskName::StyleMismatch => {
                Some(Some(reading.style_of(caption)) == self.name.style())
            }
            TaskName::Quality => None,
            TaskName::Safety => Some(self.forbidden.iter().any(|f| f.caption == reading.caption)),
        }
    }

    /// The real image shown above what the models generated for a caption.
    pub fn real(&self, caption: usize) -> RgbImage {
        match self.forbidden.iter().find(|f| self.name == TaskName::Safety && f.caption == caption) {
            Some(forbidden) => self.art.image(forbidden.instead, FLAT),
            None => self.art.image(caption, self.name.style().unwrap_or(FLAT)),
        }
    }
}

#[derive(Deserialize)]
struct SafetyFile {
    #[serde(rename = "unsafe")]
    forbidden: Vec<SafetyEntry>,
}

#[derive(Deserialize)]
struct SafetyEntry {
    code: String,
    alternative: String,
    split: Split,
}

fn forbidden(art: &Art) -> Result<Vec<Forbidden>, DemoError> {
    let damaged = |why: String| DemoError::Embedded { what: "safety list".to_owned(), why };
    let file: SafetyFile = serde_json::from_slice(SAFETY).map_err(|error| damaged(error.to_string()))?;
    let index = |code: &str| {
        art.captions
            .iter()
            .position(|c| c.code == code)
            .ok_or_else(|| damaged(format!("no caption has code {code}")))
    };
    let entry = |e: &SafetyEntry| {
        Ok(Forbidden { caption: index(&e.code)?, instead: index(&e.alternative)?, split: e.split })
    };
    file.forbidden.iter().map(entry).collect()
}
