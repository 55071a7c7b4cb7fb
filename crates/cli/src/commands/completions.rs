//! `tastemaker completions`: what shells and `man` show of the commands.

use std::fs;
use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, Command};
use clap_complete::Shell;
use tastemaker_store::atomic;

use crate::exit::UsageError;
use crate::output;
use crate::place::{OverwriteFlag, Place};

/// Prints a script that completes commands, flags and their values in a shell, or writes manual pages.
#[derive(Debug, Args)]
#[command(rename_all = "snake_case")]
pub struct CompletionsArgs {
    /// The shell
    shell: Option<Shell>,
    /// Write a manual page for each command into this folder
    #[arg(long, value_name = "DIR")]
    man: Option<PathBuf>,
    #[command(flatten)]
    overwrite: OverwriteFlag,
}

/// What the command writes into its folder.
const OURS: &[&str] = &["*.1"];

/// Runs the command; `program` describes all commands.
pub fn completions(args: &CompletionsArgs, mut program: Command) -> Result<()> {
    if args.shell.is_none() && args.man.is_none() {
        let wanted = "no shell: wanted bash, zsh, fish, powershell or elvish, or --man DIR";
        return Err(UsageError(wanted.into()).into());
    }
    if let Some(folder) = &args.man {
        let _claim = Place::folder(folder, "--man", OURS).proved(is_page).claim(args.overwrite)?;
        program.build();
        pages(&program, "tastemaker", &mut |name, page| {
            Ok(atomic::write_bytes(folder.join(format!("{name}.1")), page)?)
        })?;
        println!("wrote {}", folder.display());
    }
    if let Some(shell) = args.shell {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut program, "tastemaker", &mut script);
        output::part(&mut stdout(), format_args!("{}", String::from_utf8_lossy(&script)));
    }
    Ok(())
}

/// Whether a file is a page of this program.
fn is_page(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(".TH tastemaker"))
}

/// Writes the page of a command and those of its parts, as `tastemaker-data-check`.
fn pages(command: &Command, name: &str, write: &mut dyn FnMut(&str, &[u8]) -> Result<()>) -> Result<()> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone().name(name.to_owned())).render(&mut page)?;
    write(name, &page)?;
    let parts = command.get_subcommands().filter(|part| part.get_name() != "help");
    for part in parts {
        pages(part, &format!("{name}-{}", part.get_name()), write)?;
    }
    Ok(())
}
