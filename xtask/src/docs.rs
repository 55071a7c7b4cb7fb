//! Reference pages written by the programs they describe.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::child;

/// Help is wrapped for this many columns, whatever terminal the pages are written from.
const COLUMNS: &str = "100";

/// Writes the pages of `docs/reference/`, or with `check` compares them.
///
/// # Errors
/// The program does not build, what it says cannot be read, or with `check` a page is out of date.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let program = PathBuf::from(child::program(root)?.get_program());
    let pages = [
        ("docs/reference/cli.md", commands(&|path| help(&program, path))?),
        ("docs/reference/objectives.md", objectives(root)?),
    ];
    let stale: Vec<_> = pages.iter().filter(|(place, page)| !holds(&root.join(place), page)).collect();
    for (place, page) in &stale {
        if check {
            println!("docs: {place} is out of date");
        } else {
            write(&root.join(place), page)?;
            println!("docs: wrote {place}");
        }
    }
    if check && !stale.is_empty() {
        bail!("{} pages are out of date: run `cargo xtask docs` and commit them", stale.len());
    }
    println!("docs: {} pages are up to date", pages.len());
    Ok(())
}

fn holds(place: &Path, page: &str) -> bool {
    fs::read_to_string(place).is_ok_and(|found| found == page)
}

fn write(place: &Path, page: &str) -> Result<()> {
    fs::create_dir_all(place.parent().context("the page has no folder")?)?;
    fs::write(place, page).with_context(|| format!("cannot write {}", place.display()))
}

/// The list of objectives, as the mathematics crate prints it.
fn objectives(root: &Path) -> Result<String> {
    let print = ["run", "--quiet", "--package", "tastemaker-math", "--example", "objectives"];
    let text = child::output(child::cargo(root).args(print))?;
    let head = "# Objectives\n\nWritten by `cargo xtask docs` from the list in `crates/math`.";
    Ok(format!("{head}\n\n{}\n", text.trim()))
}

fn help(program: &Path, path: &[String]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(path).arg("--help").env("COLUMNS", COLUMNS).env("NO_COLOR", "1").stdin(Stdio::null());
    child::output(&mut command)
}

/// One section per command, parents before children, in the order the help lists them.
fn commands(help: &dyn Fn(&[String]) -> Result<String>) -> Result<String> {
    let mut page = String::from("# Commands\n\nWritten by `cargo xtask docs` from the program's own help.\n");
    let mut waiting = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        let text = help(&path)?;
        let title = [&["tastemaker".to_owned()], path.as_slice()].concat().join(" ");
        let level = if path.len() > 1 { "###" } else { "##" };
        let text: Vec<&str> = text.lines().map(str::trim_end).collect();
        page.push_str(&format!("\n{level} `{title}`\n\n```text\n{}\n```\n", text.join("\n").trim()));
        for name in subcommands(&text).into_iter().rev() {
            waiting.push([path.as_slice(), &[name.to_owned()]].concat());
        }
    }
    Ok(page)
}

/// The names under the "Commands:" heading of a help text, without `help` itself.
fn subcommands<'a>(help: &[&'a str]) -> Vec<&'a str> {
    let listed = help.iter().skip_while(|line| **line != "Commands:").skip(1);
    listed
        .take_while(|line| line.starts_with(' ') || line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{commands, subcommands};

    const TOP: &str = "Aligns models\n\nUsage: tastemaker <COMMAND>\n\nCommands:\n  data  Prepare pairs\n        and more\n  \
                       demo  Show it\n  help  Print help\n\nOptions:\n  -h, --help  Print help";

    #[test]
    fn commands_are_read_from_help_without_continuation_lines() {
        let lines: Vec<&str> = TOP.lines().collect();
        assert_eq!(subcommands(&lines), ["data", "demo"]);
        assert!(subcommands(&["Options:", "  -h, --help"]).is_empty());
    }

    #[test]
    fn sections_follow_the_tree_of_commands() {
        let help = |path: &[String]| {
            Ok(match path {
                [] => TOP.to_owned(),
                [one] if one == "data" => "Usage: x\n\nCommands:\n  check  Check pairs".to_owned(),
                other => format!("help of {}", other.join(" ")),
            })
        };
        let page = commands(&help).expect("a page");
        let titles: Vec<&str> = page.lines().filter(|line| line.starts_with("##")).collect();
        assert_eq!(
            titles,
            [
                "## `tastemaker`",
                "## `tastemaker data`",
                "### `tastemaker data check`",
                "## `tastemaker demo`"
            ]
        );
    }
}
