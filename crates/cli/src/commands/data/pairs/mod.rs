//! `tastemaker data pairs`: pairs of images that models generate themselves.

mod generating;
mod sides;
mod writing;

use std::path::{Path, PathBuf};
use tastemaker_store::version;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use tastemaker_eval::pairing::{Choice, Pick, choose};
use tastemaker_eval::scorers::Panel;
use tastemaker_generate::read_image;
use tastemaker_math::intervals::mean;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_store::json;

use super::scoring::{Scored, ScoringFlags, score};
use crate::commands::parts::PartFlags;
use crate::commands::{GenerateFlags, PromptFlags, images_per_prompt, some, word};
use crate::exit::{DataFault, UsageError};
use crate::next;
use crate::place::{OverwriteFlag, Place};
use crate::progress::counted;
use crate::scoring::Loaded;
use generating::{Image, SetFolder};
use sides::{SideFlags, Sides};
use writing::{Encoding, Pair, Verdict, write};

/// Generates images for prompts and makes pairs from them: ranked by scorers, by prompt prefixes, or left for people to
/// rank. Writes the columns of Pick-a-Pic, with the provenance of everything.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct PairsArgs {
    /// Model that generates: a folder in diffusers layout, a single-file checkpoint, or the name of a fetched one
    #[arg(long, value_name = "DIR|FILE|ORG/NAME", alias = "pretrained_model_name_or_path")]
    model: String,
    /// LoRA for the model: its file, a folder with one, or the name of a fetched one [default: none]
    #[arg(long, value_name = "FILE|DIR|ORG/NAME")]
    lora: Option<String>,
    #[command(flatten)]
    prompts: PromptFlags,
    /// Use only this many prompts, from the start [default: all]
    #[arg(long, value_name = "COUNT", value_parser = some)]
    max_prompts: Option<usize>,
    /// Images per prompt; with separate winner and loser prompts or models, pairs per prompt [default: 4, or 1 with those]
    #[arg(long, value_name = "COUNT", alias = "images_per_prompt", value_parser = images_per_prompt())]
    num_images_per_prompt: Option<u64>,
    /// Seed of all randomness: noise, order of the two images, random picks
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Which images of a prompt are paired: the best with the worst, the best with a random one, all, or each with the next
    /// in the ranking [default: best-worst with scorers, all without]
    #[arg(long, value_name = "best-worst|best-random|all|adjacent", value_parser = word::<Pick>)]
    pick: Option<Pick>,
    /// Write images as JPEG with this quality, 1 to 100 [default: PNG, lossless]
    #[arg(long, value_name = "QUALITY", value_parser = clap::value_parser!(u8).range(1..=100))]
    jpeg: Option<u8>,
    /// Output folder: the set in data/, pairs.json about it, and work/ with the images generated so far
    #[arg(long, value_name = "DIR", alias = "output_dir")]
    out: PathBuf,
    #[command(flatten)]
    overwrite: OverwriteFlag,
    #[command(flatten)]
    scoring: ScoringFlags,
    #[command(flatten)]
    sides: SideFlags,
    #[command(flatten)]
    flags: GenerateFlags,
    #[command(flatten)]
    parts: PartFlags,
}

/// The draw about which other image of a prompt the best one meets.
const OTHER: u64 = 1 << 40;

/// What the command writes into its folder.
const OURS: &[&str] = &["pairs.json", "data/*.parquet", "work/*.png"];

/// Whether a file of a set that was not finished has the name of an image of the command, which says everything that decides it.
fn is_generated(path: &Path) -> bool {
    let is_image = path.extension().is_some_and(|ending| ending == "png");
    let is_digits = |name: &str| name.len() == 32 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    !is_image || path.file_stem().and_then(|name| name.to_str()).is_some_and(is_digits)
}

/// Runs the command.
pub fn pairs(args: &PairsArgs) -> Result<()> {
    let place = Place::folder(&args.out, "--out", OURS).marked(&["pairs.json"]).beside_others(&["data"]);
    // Images of a set that was not finished are used.
    let is_begun = args.out.join("work").is_dir() && !args.out.join("data").exists();
    let place = if is_begun { place.proved(is_generated) } else { place };
    let _claim = place.claim_unless(is_begun, args.overwrite)?;
    let mut prompts = args.prompts.read()?;
    prompts.truncate(args.max_prompts.unwrap_or(usize::MAX));
    let scorers = args.scoring.open()?;
    let length = args.flags.max_token_length;
    let sides = args.sides.resolve(&args.model, args.lora.as_deref(), &args.parts, length)?;
    let pick = pick(args, scorers.is_some(), sides.is_two())?;
    args.flags.check()?;
    let n_each = args.num_images_per_prompt.unwrap_or(if sides.is_two() { 1 } else { 4 });
    if !sides.is_two() && n_each < 2 {
        return Err(UsageError("a pair needs --num_images_per_prompt of at least 2".into()).into());
    }
    let folder = SetFolder::open(&args.out, &args.flags, args.scoring.device.open()?, &sides)?;
    let images = folder.plan(&prompts, n_each, args.seed);
    let n_generated = folder.generate(&images)?;

    let scored = match &scorers {
        Some(scorers) => Some(score_images(scorers, &folder, &images)?),
        None => None,
    };
    let pairs = match sides.is_two() {
        true => by_side(&images, scored.as_ref(), args.scoring.min_gap),
        false => by_score(&images, scored.as_ref(), pick, n_each as usize, args),
    };
    let n_chosen = pairs.len();
    let n_ties = pairs.iter().filter(|pair| pair.verdict == Verdict::Tie).count();
    let keeps = |pair: &Pair| match pair.verdict {
        Verdict::Tie => args.scoring.keep_ties,
        Verdict::Filtered => false,
        Verdict::First | Verdict::Unjudged => true,
    };
    let pairs: Vec<Pair> = pairs.into_iter().filter(keeps).collect();
    if pairs.is_empty() {
        return Err(UsageError(format!(
            "of {} none is left, {n_ties} of them ties; lower --min_gap or generate more images",
            counted(n_chosen as u64, "pair")
        ))
        .into());
    }
    let encoding = args.jpeg.map_or(Encoding::Png, Encoding::Jpeg);
    let about = about(args, &sides, &folder, scored.as_ref(), pick, &pairs, (n_chosen, n_ties, n_each));
    write(&folder, &images, &pairs, scored.as_ref(), encoding, args.seed)?;
    json::write(args.out.join("pairs.json"), &about)?;
    let (n_images, n_pairs) = (images.len(), pairs.len());
    if let Some(scored) = &scored {
        print_means(scored, &images, &sides);
    }
    println!(
        "generated {}, {} already generated",
        counted(n_generated as u64, "image"),
        n_images - n_generated
    );
    let skipped = n_chosen - n_pairs;
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    let made = counted(n_pairs as u64, "pair");
    println!("wrote {}: {made} of {}{skipped}", args.out.display(), counted(n_images as u64, "image"));
    let out = next::word(&args.out);
    match sides.is_two() || scored.is_some() {
        true => next::say_train_of(&args.model, &out, "diffusion-dpo", &[]),
        false => {
            let labeled = format!("{out}-labeled");
            let line = ["tastemaker", "data", "relabel", &out, "--scorer", "pick-score", "--out", &labeled];
            next::say_with_scorer("pick-score", &line);
        }
    }
    Ok(())
}

fn pick(args: &PairsArgs, is_scored: bool, is_two_sided: bool) -> Result<Pick, UsageError> {
    let pick = match args.pick {
        None if is_scored => Pick::BestWorst,
        None => Pick::All,
        Some(pick) => pick,
    };
    let asks_scores = matches!(pick, Pick::BestWorst | Pick::BestRandom);
    if is_two_sided && args.pick.is_some() {
        return Err(UsageError("--pick is for images of one side; with two sides they are the pairs".into()));
    }
    if asks_scores && !is_scored {
        return Err(UsageError(
            "--pick needs to know which image is best: add --scorer, or take all or adjacent".into(),
        ));
    }
    if !is_scored && (args.scoring.min_gap.is_some() || args.scoring.keep_ties) {
        return Err(UsageError("--min_gap and --keep_ties are about scores; add --scorer".into()));
    }
    Ok(pick)
}

fn score_images(scorers: &(Panel, Vec<f64>), folder: &SetFolder, images: &[Image]) -> Result<Scored> {
    let load = |number: usize| {
        let image = &images[number];
        let (path, prompt) = (folder.path(image), image.caption.clone());
        Ok(Ok(vec![Loaded { image: read_image(&path)?, prompt, place: path.display().to_string() }]))
    };
    let (scored, unscored) = score(scorers, (images.len(), "images"), load)?;
    match unscored.first() {
        None => Ok(scored),
        Some(first) => Err(DataFault(first.why.clone()).into()),
    }
}

/// Prints the mean of each scorer over each side.
fn print_means(scored: &Scored, images: &[Image], sides: &Sides) {
    for (name, scores) in scored.names.iter().zip(&scored.scores) {
        let of_side = |side: usize| {
            let own = images.iter().zip(scores).filter(|(image, _)| image.side == side);
            let own: Vec<f64> = own.map(|(_, score)| *score).collect();
            mean(&own).unwrap_or_default()
        };
        match sides.is_two() {
            true => println!("{name}: mean {:.4} of winners, {:.4} of losers", of_side(0), of_side(1)),
            false => println!("{name}: mean {:.4}", of_side(0)),
        }
    }
}

/// Each image of the winning side with that of the other one.
fn by_side(images: &[Image], scored: Option<&Scored>, min_gap: Option<f64>) -> Vec<Pair> {
    let both = images.chunks_exact(2).enumerate();
    let pair = |(number, _): (usize, &[Image])| {
        let (winner, loser) = (2 * number, 2 * number + 1);
        let gap = scored.map(|scored| scored.mixed.scores[winner] - scored.mixed.scores[loser]);
        let agrees = gap.zip(min_gap).is_none_or(|(gap, least)| gap >= least);
        let verdict = if agrees { Verdict::First } else { Verdict::Filtered };
        Pair { first: winner, second: loser, verdict }
    };
    both.map(pair).collect()
}

/// Pairs among the images of each prompt.
fn by_score(
    images: &[Image],
    scored: Option<&Scored>,
    pick: Pick,
    n_each: usize,
    args: &PairsArgs,
) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for first in (0..images.len()).step_by(n_each) {
        let equal = vec![0.0; n_each];
        let scores = scored.map_or(equal.as_slice(), |scored| &scored.mixed.scores[first..first + n_each]);
        let mut keyed = Keyed::new(args.seed, Stream::Data, images[first].prompt as u64, OTHER);
        for choice in choose(scores, pick, &mut keyed) {
            let Choice { winner, loser, .. } = choice;
            let verdict = match scored {
                None => Verdict::Unjudged,
                Some(_) if choice.is_tie(args.scoring.min_gap.unwrap_or_default()) => Verdict::Tie,
                Some(_) => Verdict::First,
            };
            pairs.push(Pair { first: first + winner, second: first + loser, verdict });
        }
    }
    pairs
}

/// Everything about the set that is not in its columns.
fn about(
    args: &PairsArgs,
    sides: &Sides,
    folder: &SetFolder,
    scored: Option<&Scored>,
    pick: Pick,
    pairs: &[Pair],
    (n_chosen, n_ties, n_each): (usize, usize, u64),
) -> Value {
    let labels = match (sides.is_two(), scored) {
        (true, _) => "the first side wins",
        (false, Some(_)) => "the higher score wins",
        (false, None) => "none: for people to say",
    };
    json!({
        "format": 2,
        "made_by": format!("tastemaker {} data pairs", version()),
        "labels": labels,
        "sides": folder.sides(),
        "same_noise_on_both_sides": sides.is_two().then_some(sides.same_noise),
        "generating": folder.settings(),
        "seed": args.seed,
        "num_images_per_prompt": n_each,
        "pick": (!sides.is_two()).then_some(pick),
        "min_gap": args.scoring.min_gap,
        "keep_ties": args.scoring.keep_ties,
        "scoring": scored.map(Scored::provenance),
        "images": args.jpeg.map_or("png".to_owned(), |quality| format!("jpeg of quality {quality}")),
        "n_pairs": pairs.len(),
        "n_ties": n_ties,
        "n_skipped": n_chosen - pairs.len(),
    })
}
