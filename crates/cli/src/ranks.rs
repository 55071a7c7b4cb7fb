//! The processes of a run, as launchers announce them: `torchrun`, Slurm and Kubernetes set the same variables.

use std::env;
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::Result;
use tastemaker_store::in_full;
use tastemaker_torch::TorchError;
use tastemaker_torch::distributed::{Farewell, Group, Settings};
use tastemaker_train::TrainError;

use crate::exit::{Interrupted, OtherRank, UsageError, code_of};
use crate::signals::{CODE, Signals};

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
///
/// # Errors
/// [`UsageError`] for what is announced wrongly, and where not all ranks come.
pub fn join(signals: &Signals) -> Result<Option<Group>> {
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
        signal: signals.number(),
    };
    let group = meet(&settings)?;
    group.limit(false);
    Ok(Some(group))
}

/// Joins the others.
///
/// # Errors
/// [`UsageError`] if not all of them come.
fn meet(settings: &Settings) -> Result<Group, UsageError> {
    Group::join(settings).map_err(|error| {
        let Settings { rank, world_size, master_addr, master_port, timeout, .. } = settings;
        UsageError(format!(
            "rank {rank} waited {timeout:?} at {master_addr}:{master_port} for {world_size} ranks, and not all came: start each of \
             them, with the same WORLD_SIZE, MASTER_ADDR and MASTER_PORT ({error})"
        ))
    })
}

/// What ends one rank ends the others: says to them what this one ends with, or what another one said. Whatever says that a rank is gone
/// becomes what that one said, so that all processes of a run end with one code.
pub fn part(group: &Group, signals: &Signals, error: anyhow::Error) -> anyhow::Error {
    let stopped =
        |signal| Interrupted { signal, source: TrainError::Stopped { step: None, signal: Some(signal) } };
    let is_of_group = |cause: &(dyn std::error::Error + 'static)| {
        let torch = match cause.downcast_ref() {
            Some(TrainError::Torch(error)) => Some(error),
            _ => cause.downcast_ref(),
        };
        matches!(torch, Some(TorchError::Group { .. }))
    };
    let is_of_group = error.chain().any(is_of_group);
    let error = match (group.farewell(), signals.came()) {
        (Some(Farewell { code, .. }), _) if is_of_group && i32::from(code) > CODE => {
            return stopped(i32::from(code) - CODE).into();
        }
        (Some(farewell), _) if is_of_group => return OtherRank(farewell).into(),
        (None, Some(signal)) if is_of_group => stopped(signal).into(),
        (_, None) if is_of_group => return error,
        _ => error,
    };
    group.leave_saying(code_of(&error), &in_full(error.as_ref()));
    error
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rank_that_waits_for_others_in_vain_says_what_to_start() {
        let settings = Settings {
            name: "alone".to_owned(),
            rank: 0,
            world_size: 2,
            master_addr: "127.0.0.1".to_owned(),
            // The system chooses a port, which nobody else knows.
            master_port: 0,
            store_is_hosted: false,
            interface: Some("lo".to_owned()),
            timeout: Duration::from_millis(300),
            silence: SILENCE,
            signal: Signals::default().number(),
        };
        let said = meet(&settings).unwrap_err().to_string();
        assert!(
            said.starts_with("rank 0 waited 300ms at 127.0.0.1:0 for 2 ranks, and not all came"),
            "{said}"
        );
        assert_eq!(code_of(&UsageError(said).into()), 2);
    }
}
