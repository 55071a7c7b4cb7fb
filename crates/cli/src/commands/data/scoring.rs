//! Flags that choose scorers and their weights, and scoring with them.

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tastemaker_data::write::{ExtraColumn, Kind, Value as Cell};
use tastemaker_eval::pairing::{Mixed, mix, weights};
use tastemaker_eval::scorers::Panel;
use tastemaker_store::dtype::DType;

use crate::commands::DeviceFlag;
use crate::exit::UsageError;
use crate::progress::Work;
use crate::scorers;
use crate::scoring::{Item, Unscored, score_each};

/// Scorers, and how a pair is decided by them.
#[derive(Debug, Clone, Default, Args)]
#[command(rename_all = "snake_case")]
pub struct ScoringFlags {
    /// Scorer: pick-score, hps-v2, hps-v2.1, clip-score, aesthetic, image-reward, nearest-art, with other weights
    /// NAME=PATH; repeat for several, each then standardized over the set (mean 0, standard deviation 1) and combined by
    /// weight
    #[arg(long, value_name = "SCORER")]
    pub scorer: Vec<String>,
    /// Weight of a scorer, negative to invert it; repeat for several [default: 1 each]
    #[arg(long, value_name = "NAME=WEIGHT", value_parser = weight)]
    weight: Vec<(String, f64)>,
    /// Minimum score difference; smaller ones are ties. In the unit of a single scorer, in standard deviations of several
    /// [default: any]
    #[arg(long, value_name = "SCORE")]
    pub min_gap: Option<f64>,
    /// Keep ties, with labels of 0.5
    #[arg(long)]
    pub keep_ties: bool,
    #[command(flatten)]
    pub device: DeviceFlag,
}

/// The scores of the images of a set.
pub struct Scored {
    /// Their names.
    pub names: Vec<String>,
    /// `[scorers][images]`.
    pub scores: Vec<Vec<f64>>,
    /// Their weighted sum.
    pub mixed: Mixed,
    /// What each multiplies its cosines by, where its scores are cosines.
    scales: Vec<Option<f64>>,
}

impl ScoringFlags {
    /// Opens the scorers and finds their weights; `None` without any.
    ///
    /// # Errors
    /// [`UsageError`] for a gap that is none and weights without scorers; those of [`scorers::open`] and [`weights`].
    pub fn open(&self) -> Result<Option<(Panel, Vec<f64>)>> {
        if let Some(gap) = self.min_gap.filter(|gap| !(gap.is_finite() && *gap >= 0.0)) {
            return Err(UsageError(format!("--min_gap is {gap}; wanted a number of at least 0")).into());
        }
        if self.scorer.is_empty() {
            if let Some((name, _)) = self.weight.first() {
                return Err(UsageError(format!("--weight for {name} without --scorer {name}")).into());
            }
            return Ok(None);
        }
        let panel = scorers::open(&self.scorer, DType::F32, self.device.open()?)?;
        let weights = weights(&panel.names(), &self.weight)?;
        Ok(Some((panel, weights)))
    }
}

/// Scores the images of `n` items, one after the other: `load` gives those of a number. Returns also what could not be scored.
///
/// # Errors
/// Those of `load` and of the scorers.
pub fn score(
    (panel, weights): &(Panel, Vec<f64>),
    (n, things): (usize, &'static str),
    load: impl FnMut(usize) -> Result<Item>,
) -> Result<(Scored, Vec<Unscored>)> {
    let names = panel.names();
    let mut scores: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    let mut progress = Work::new("scoring", things);
    let unscored = score_each(panel, n, load, |found| {
        scores.iter_mut().zip(found.scores).for_each(|(scores, more)| scores.extend(more));
        progress.at(found.n_done as u64, n as u64);
        Ok(())
    })?;
    progress.end();
    let mixed = mix(&names, weights, &scores)?;
    Ok((Scored { names, scores, mixed, scales: panel.cosine_scales() }, unscored))
}

impl Scored {
    /// The columns of scores: what decides and by whom, then each scorer's, with the scale of its cosines.
    pub fn columns(&self) -> Vec<ExtraColumn> {
        let both = |stem: &str| [0, 1].map(|side| ExtraColumn::new(format!("{stem}_{side}"), Kind::Number));
        let mut columns = Vec::from(both("score"));
        columns.push(ExtraColumn::new("scorer", Kind::Text));
        for (name, scale) in self.names.iter().zip(&self.scales) {
            columns.extend(both(name));
            columns.extend(scale.map(|_| ExtraColumn::new(format!("{name}_scale"), Kind::Number)));
        }
        columns
    }

    /// What two images have in them.
    pub fn cells(&self, images: [usize; 2]) -> Vec<Cell> {
        let both = |scores: &[f64]| images.map(|image| Cell::Number(scores[image]));
        let mut cells = Vec::from(both(&self.mixed.scores));
        cells.push(Cell::Text(self.names.join(" + ")));
        for (scores, scale) in self.scores.iter().zip(&self.scales) {
            cells.extend(both(scores));
            cells.extend(scale.map(Cell::Number));
        }
        cells
    }

    /// Of the pair of a number, whose images were scored one after the other: by how much each scorer prefers the first, in its own unit,
    /// one that is inverted by its weight the other way round.
    pub fn gaps(&self, pair: usize) -> impl Iterator<Item = (&str, f64)> {
        let gap = move |scores: &[f64]| scores[2 * pair] - scores[2 * pair + 1];
        let all = self.mixed.standards.iter().zip(&self.scores);
        all.map(move |(standard, scores)| (standard.name.as_str(), standard.weight.signum() * gap(scores)))
    }

    /// What a reader of the set should know about its scorers.
    pub fn provenance(&self) -> Value {
        let unit = match self.names.len() {
            1 => "the scorer's own, times its weight",
            _ => {
                "sum(weight * (score - mean) / std) / sum(|weight|), mean and std over all images of the set"
            }
        };
        json!({ "scorers": self.mixed.standards, "score": unit })
    }
}

fn weight(text: &str) -> Result<(String, f64), String> {
    let (name, weight) = text.rsplit_once('=').ok_or("wanted NAME=WEIGHT")?;
    let number = weight.trim().parse().map_err(|_| format!("{weight:?} is no number"))?;
    Ok((name.trim().to_owned(), number))
}
