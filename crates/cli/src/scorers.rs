//! Scorers by the names people type, and where their weights lie.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use anyhow::Result;
use tastemaker_demo::scorers::{ArtScorer, NEAREST_ART};
use tastemaker_eval::scorers::{
    Aesthetic, CLIP_SCORE, ClipScorer, HPS_V2, HPS_V2_1, ImageReward, PICK_SCORE, Panel, SCORERS, Scorer,
    ScorerEntry, Tower, aesthetic, image_reward,
};
use tastemaker_math::nearest::{did_you_mean, nearest};
use tastemaker_models::blip::ImageRewardFiles;
use tastemaker_models::clip::ClipFiles;
use tastemaker_models::reward_head::RewardHead;
use tastemaker_store::dtype::DType;
use tch::Device;

use crate::exit::UsageError;
use crate::hub::locate_files;

/// Where the aesthetic head is published; it is on no hub.
const AESTHETIC_HEAD: &str = "https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/sac%2Blogos%2Bava1-l14-linearMSE.pth";

/// The CLIP that the aesthetic head was trained with.
const AESTHETIC_TOWER: &str = "openai/clip-vit-large-patch14";

/// Where ImageReward is published, and its files.
const IMAGE_REWARD: (&str, [&str; 2]) = ("THUDM/ImageReward", ["ImageReward.pt", "med_config.json"]);

/// Where the vocabulary of its tokenizer is published, and the file.
const BERT: (&str, &str) = ("google-bert/bert-base-uncased", "vocab.txt");

/// A scorer that is one CLIP.
struct ClipEntry {
    scorer: ScorerEntry,
    /// Other spellings of its name.
    aliases: &'static [&'static str],
    /// Where its weights are published.
    repo: &'static str,
    /// The file of that repository, where the weights are one file.
    file: Option<&'static str>,
}

const CLIP_SCORERS: [ClipEntry; 4] = [
    ClipEntry { scorer: PICK_SCORE, aliases: &["pickscore"], repo: "yuvalkirstain/PickScore_v1", file: None },
    ClipEntry {
        scorer: HPS_V2,
        aliases: &["hpsv2", "hps-v2.0"],
        repo: "xswu/HPSv2",
        file: Some("HPS_v2_compressed.pt"),
    },
    ClipEntry {
        scorer: HPS_V2_1,
        aliases: &["hpsv2.1"],
        repo: "xswu/HPSv2",
        file: Some("HPS_v2.1_compressed.pt"),
    },
    ClipEntry {
        scorer: CLIP_SCORE,
        aliases: &["clipscore"],
        repo: "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
        file: None,
    },
];

/// Opens scorers typed as `NAME`, `NAME:VARIANT` or `NAME=WEIGHTS`. Scorers with the same CLIP share it.
///
/// # Errors
/// [`UsageError`] for a name that is no scorer's; whatever keeps its weights from being read.
pub fn open(typed: &[String], precision: DType, device: Device) -> Result<Panel> {
    let mut opener = Opener { precision, device, towers: Vec::new() };
    let scorers = typed.iter().map(|typed| opener.open(typed)).collect::<Result<Vec<_>>>()?;
    Ok(Panel::new(scorers))
}

/// The scorers by name: the published ones, and that of the embedded art.
fn entries() -> impl Iterator<Item = &'static ScorerEntry> {
    SCORERS.iter().chain([&NEAREST_ART])
}

/// A scorer as it can be typed for any images.
fn offered(name: &str) -> String {
    match name {
        _ if name == aesthetic::ENTRY.name => format!("{name}=FILE"),
        _ if name == NEAREST_ART.name => format!("{name} (for prompts of the demo alone)"),
        name => name.to_owned(),
    }
}

/// The repository to fetch before a scorer can be used by its name alone; `None` if it is there, or on no hub.
pub fn to_fetch(name: &str) -> Option<&'static str> {
    let entry = CLIP_SCORERS.iter().find(|entry| entry.scorer.name == name)?;
    place(entry.repo, entry.file).is_err().then_some(entry.repo)
}

/// The unit of a scorer's scores and what they say; nothing for a name that is none's.
pub fn introduced(name: &str) -> [&'static str; 2] {
    entries().find(|entry| entry.name == name).map_or([""; 2], |entry| [entry.unit, entry.summary])
}

struct Opener {
    precision: DType,
    device: Device,
    towers: Vec<(PathBuf, Rc<Tower>)>,
}

impl Opener {
    fn open(&mut self, typed: &str) -> Result<Box<dyn Scorer>> {
        let (name, rest) = typed.split_at(typed.find([':', '=']).unwrap_or(typed.len()));
        if name == NEAREST_ART.name {
            return Ok(Box::new(ArtScorer::open(rest.strip_prefix(':'))?));
        }
        let is_called = |entry: &&ClipEntry| entry.scorer.name == name || entry.aliases.contains(&name);
        if let Some(entry) = CLIP_SCORERS.iter().find(is_called) {
            let path = match weights(name, rest)? {
                Some(typed) => place(typed, entry.file)?,
                None => place(entry.repo, entry.file)?,
            };
            return Ok(Box::new(ClipScorer::new(entry.scorer, self.tower(&path)?)));
        }
        if name == aesthetic::ENTRY.name {
            let Some(typed) = weights(name, rest)? else {
                return Err(UsageError(format!(
                    "the head of `{name}` is on no hub: download {AESTHETIC_HEAD} and give {name}=FILE"
                ))
                .into());
            };
            let (head, tower) = typed.split_once(',').unwrap_or((typed, AESTHETIC_TOWER));
            let tower = self.tower(&place(tower, None)?)?;
            let head = RewardHead::open(Path::new(head), tower.width())?;
            return Ok(Box::new(Aesthetic::new(tower, head)));
        }
        if name == image_reward::ENTRY.name || name == "imagereward" {
            let files = image_reward_files(weights(name, rest)?)?;
            return Ok(Box::new(ImageReward::load(files, self.precision, self.device)?));
        }
        let names = || entries().map(|entry| entry.name);
        let known: Vec<String> = names().map(offered).collect();
        let meant = did_you_mean(nearest(name, names()));
        Err(UsageError(format!("no scorer is called `{name}`{meant}; there are {}", known.join(", "))).into())
    }

    fn tower(&mut self, path: &Path) -> Result<Rc<Tower>> {
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if let Some((_, tower)) = self.towers.iter().find(|(known, _)| *known == path) {
            return Ok(Rc::clone(tower));
        }
        let tower = Tower::load(ClipFiles::open(&path)?, self.precision, self.device)?;
        self.towers.push((path, Rc::clone(&tower)));
        Ok(tower)
    }
}

/// ImageReward's three files: in a folder or beside the weights, or where they are published.
fn image_reward_files(typed: Option<&str>) -> Result<ImageRewardFiles> {
    let (repo, [weights, med_config]) = IMAGE_REWARD;
    let found = locate_files(typed.unwrap_or(repo), &[weights, med_config])?;
    let (folder, weights) = match found.is_dir() {
        true => (found.clone(), found.join(weights)),
        false => (found.parent().unwrap_or(Path::new(".")).to_owned(), found),
    };
    let beside = folder.join(BERT.1);
    let vocabulary = match beside.is_file() {
        true => beside,
        false => locate_files(BERT.0, &[BERT.1])?.join(BERT.1),
    };
    Ok(ImageRewardFiles { weights, med_config: folder.join(med_config), vocabulary })
}

/// What follows `=`; nothing else may follow the name.
fn weights<'a>(name: &str, rest: &'a str) -> Result<Option<&'a str>, UsageError> {
    match rest.strip_prefix('=') {
        Some("") => {
            Err(UsageError(format!("`{name}=` names no weights; wanted a file, a folder or ORG/NAME")))
        }
        Some(weights) => Ok(Some(weights)),
        None if rest.is_empty() => Ok(None),
        None => {
            Err(UsageError(format!("`{name}` has no variants; `{name}=WEIGHTS` says where its weights are")))
        }
    }
}

/// The place of weights: the folder or file of this name, or that of a fetched repository; in a folder, `file` if it is given.
fn place(typed: &str, file: Option<&str>) -> Result<PathBuf> {
    let found = locate_files(typed, file.as_slice())?;
    Ok(match file.map(|file| found.join(file)) {
        Some(inner) if found.is_dir() && inner.is_file() => inner,
        _ => found,
    })
}
