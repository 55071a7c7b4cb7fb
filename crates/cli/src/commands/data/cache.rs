//! `tastemaker data cache`: the latents and embeddings of a run, encoded before it.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tastemaker_data::PairSource;
use tastemaker_models::pipeline::Model;
use tastemaker_run::Recipe;
use tastemaker_train::data::Rank;
use tastemaker_train::session;

use crate::allocator;
use crate::commands::DeviceFlag;
use crate::commands::train::saying::say_cache_dtype;
use crate::commands::train::{Flags, Planned, planned};
use crate::exit::UsageError;
use crate::hub::check_cache;
use crate::next;
use crate::pairs;
use crate::progress::{Progress, counted, mebibytes};

/// Encodes the pairs of a run before training
#[derive(Debug, Args)]
pub struct CacheArgs {
    /// The run, in TOML; flags override it
    #[arg(value_name = "RECIPE.toml")]
    recipe: Option<PathBuf>,
    /// Verify all checksums of the cache
    #[arg(long)]
    verify: bool,
    /// Encode shard I of N (from 0); other processes encode the others [default: all]
    #[arg(long, value_name = "I/N", value_parser = shard)]
    shard: Option<(usize, usize)>,
    #[command(flatten)]
    device: DeviceFlag,
    /// What the run is.
    #[command(flatten)]
    pub flags: Flags,
}

/// Runs the command.
pub fn cache(args: CacheArgs) -> Result<()> {
    // Neither method nor length nor output matters here, so none must be given.
    let mut fallback = Recipe { output_dir: Some("run".into()), ..Recipe::default() };
    fallback.method.name = Some("sft".to_owned());
    fallback.train.max_train_steps = Some(1);
    let Planned { plan, .. } = planned(args.recipe.as_deref(), args.flags, fallback, false, false)?;
    if plan.data.no_cache {
        return Err(UsageError("the run says no_cache: nothing is to be kept".into()).into());
    }
    if let (Some(root), None) = (&plan.cache_root, &plan.data.cache_to) {
        check_cache(root, "--cache_to")?;
    }
    let source = pairs::of_plan(&plan)?;
    pairs::report_skipped(&source);
    say_cache_dtype(&plan, source.len());
    allocator::suit(&Model::from_sources(&session::sources(&plan.model))?)?;
    let mut progress = Progress::new(0);
    let (rank, world_size) = args.shard.unwrap_or((0, 1));
    let rank = Rank { rank, world_size };
    let made = session::cache(&plan, &source, rank, args.device.open()?, &mut |event| {
        progress.on_event(event);
        Ok(())
    });
    progress.end();
    let folder = made?;
    let (path, size) = (folder.path().display(), mebibytes(folder.bytes()));
    let pairs = counted(source.len() as u64, "pair");
    if !folder.is_whole() {
        println!("this shard is done; {path} holds {size} and waits for the others");
        return Ok(());
    }
    if args.verify {
        folder.verify(|_, _| {})?;
        println!("{path} holds {pairs} in {size}, all checksums match");
    } else {
        println!("{path} holds {pairs} in {size}");
    }
    let line = train_line(&next::typed(), args.recipe.is_some());
    next::say(&line.iter().map(String::as_str).collect::<Vec<_>>());
    Ok(())
}

/// The command that trains on what was cached, from the words of the one that cached it.
fn train_line(typed: &[String], has_recipe: bool) -> Vec<String> {
    let mut line: Vec<String> = ["tastemaker", "train"].map(str::to_owned).into();
    let mut words = typed.iter().filter(|word| *word != "--verify").skip(2);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--shard" => drop(words.next()),
            shard if shard.starts_with("--shard=") => {}
            _ => line.push(word.clone()),
        }
    }
    // What caching does not ask for.
    for (flag, value) in
        [("--method", "diffusion-dpo"), ("--max_train_steps", "2000"), ("--output_dir", "run")]
    {
        let is_typed = line.iter().any(|word| word.split('=').next() == Some(flag));
        if !is_typed && !has_recipe {
            line.extend([flag.to_owned(), value.to_owned()]);
        }
    }
    line
}

fn shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
    parsed.filter(|&(i, n)| i < n).ok_or_else(|| "wanted I/N with I below N, such as 0/4".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cached_is_trained_on_by_a_command_that_says_all_it_must() {
        let line = |typed: &str, has_recipe| {
            let typed: Vec<String> = typed.split(' ').map(str::to_owned).collect();
            train_line(&typed, has_recipe).join(" ")
        };
        assert_eq!(
            line("data cache a.toml --verify --shard 0/2 --seed 1", true),
            "tastemaker train a.toml --seed 1"
        );
        assert_eq!(
            line("data cache --train_data_dir p --output_dir=o --shard=0/2", false),
            "tastemaker train --train_data_dir p --output_dir=o --method diffusion-dpo --max_train_steps 2000"
        );
    }
}
