//! The processes of a run, as launchers announce them: `torchrun`, Slurm and Kubernetes set the same variables.

use std::env;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use tastemaker_torch::distributed::{Group, Settings};

use crate::exit::UsageError;

/// How long one rank may be at something alone during training, such as writing a checkpoint, before the others give up.
const PATIENCE: Duration = Duration::from_secs(1800);

/// How long a rank may give no sign of life before it counts as lost.
const SILENCE: Duration = Duration::from_secs(60);

/// More than any run has.
const MOST_PROCESSES: u32 = 65_536;

/// The group that the environment announces; `None` where it announces none, or one process.
///
/// `WORLD_SIZE` and `RANK` say how many processes there are and which this is, `MASTER_ADDR` and `MASTER_PORT` where they meet.
/// `torchrun` runs the store they meet at itself and says so, and keeps it when it starts all again after a loss, which
/// `TORCHELASTIC_RESTART_COUNT` counts: what ranks left there before is not for those of now. Until training begins they wait
/// for each other without limit, as long as all live. Source: `pytorch/pytorch:torch/distributed/rendezvous.py`.
pub fn join() -> Result<Option<Group>> {
    let world_size = world_size()?;
    let rank = number("RANK", 0..=world_size - 1)?;
    if world_size == 1 {
        return Ok(None);
    }
    let missing = |name: &str| UsageError(format!("WORLD_SIZE is {world_size} and {name} is not set"));
    let rank = rank.ok_or_else(|| missing("RANK"))?;
    let port = number("MASTER_PORT", 1..=u16::MAX.into())?.ok_or_else(|| missing("MASTER_PORT"))?;
    let address = env::var("MASTER_ADDR").ok().filter(|address| !address.trim().is_empty());
    let attempt = number("TORCHELASTIC_RESTART_COUNT", 0..=u32::MAX)?.unwrap_or(0);
    let settings = Settings {
        name: format!("tastemaker/{attempt}"),
        rank: rank as usize,
        world_size: world_size as usize,
        master_addr: address.ok_or_else(|| missing("MASTER_ADDR"))?,
        master_port: port as u16,
        store_is_hosted: env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|value| value == "True"),
        interface: env::var("GLOO_SOCKET_IFNAME").ok(),
        timeout: PATIENCE,
        silence: SILENCE,
    };
    let group = Group::join(&settings)?;
    group.limit(false);
    Ok(Some(group))
}

/// How many processes the environment announces.
pub fn world_size() -> Result<u32, UsageError> {
    Ok(number("WORLD_SIZE", 1..=MOST_PROCESSES)?.unwrap_or(1))
}

/// The place of this process on its machine, from 0.
pub fn local_rank() -> Result<usize> {
    Ok(number("LOCAL_RANK", 0..=MOST_PROCESSES)?.unwrap_or(0) as usize)
}

/// A number that a launcher announces.
fn number(name: &str, within: RangeInclusive<u32>) -> Result<Option<u32>, UsageError> {
    let Some(text) = env::var_os(name) else { return Ok(None) };
    let text = text.to_string_lossy();
    match text.trim().parse().ok().filter(|number| within.contains(number)) {
        Some(number) => Ok(Some(number)),
        None => {
            let (from, to) = within.into_inner();
            Err(UsageError(format!("{name} is {text:?}, wanted a number from {from} to {to}")))
        }
    }
}
