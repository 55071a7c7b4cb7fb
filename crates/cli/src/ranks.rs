//! The processes of a run, as launchers announce them: `torchrun`, Slurm and Kubernetes set the same variables.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result};
use tastemaker_torch::distributed::{Group, Settings};

use crate::exit::UsageError;

/// How long one rank may be at something alone, such as writing a checkpoint, before the others give up.
const PATIENCE: Duration = Duration::from_secs(1800);

/// The group that the environment announces; `None` where it announces none, or one process.
///
/// `WORLD_SIZE` and `RANK` say how many processes there are and which this is, `MASTER_ADDR` and `MASTER_PORT` where they meet.
/// `torchrun` runs the store they meet at itself and says so. Source: `pytorch/pytorch:torch/distributed/rendezvous.py`.
pub fn join() -> Result<Option<Group>> {
    let world_size: usize = number("WORLD_SIZE")?.unwrap_or(1);
    if world_size <= 1 {
        return Ok(None);
    }
    let missing = |name: &str| UsageError(format!("WORLD_SIZE is {world_size} and {name} is not set"));
    let rank = number("RANK")?.ok_or_else(|| missing("RANK"))?;
    if rank >= world_size {
        return Err(UsageError(format!("RANK is {rank}, wanted less than WORLD_SIZE, {world_size}")).into());
    }
    let settings = Settings {
        name: "tastemaker".to_owned(),
        rank,
        world_size,
        master_addr: env::var("MASTER_ADDR").map_err(|_| missing("MASTER_ADDR"))?,
        master_port: number("MASTER_PORT")?.ok_or_else(|| missing("MASTER_PORT"))?,
        store_is_hosted: env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|value| value == "True"),
        interface: env::var("GLOO_SOCKET_IFNAME").ok(),
        timeout: PATIENCE,
    };
    Ok(Some(Group::join(&settings)?))
}

/// The place of this process on its machine, from 0.
pub fn local_rank() -> Result<usize> {
    Ok(number("LOCAL_RANK")?.unwrap_or(0))
}

fn number<T: std::str::FromStr>(name: &str) -> Result<Option<T>>
where
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let Ok(text) = env::var(name) else { return Ok(None) };
    let parsed = text.parse().with_context(|| UsageError(format!("{name} is {text:?}, wanted a number")))?;
    Ok(Some(parsed))
}
