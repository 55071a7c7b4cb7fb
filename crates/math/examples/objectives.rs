//! Prints every objective with its default settings, as the Markdown of `docs/reference/objectives.md`.

use serde_json::Value;
use tastemaker_math::objectives::{OBJECTIVES, SettingsError};

fn main() -> Result<(), SettingsError> {
    for entry in OBJECTIVES {
        let objective = (entry.build)(&Value::Null)?;
        let reference = if objective.needs_reference() { "needs" } else { "does not need" };
        println!("## `{}`\n\nPurpose: {}.\n", entry.name, entry.summary);
        println!("It {reference} a reference model. Source: {}.", entry.source.trim_end_matches('.'));
        if let Some(why) = entry.not_monotone {
            println!("\nA better winner or a worse loser may raise its loss: {}.", why.trim_end_matches('.'));
        }
        println!("\nSettings with their defaults:\n\n```json\n{:#}\n```\n", objective.settings());
        println!("More: [{0}](../methods/{0}.md).\n", entry.name);
    }
    Ok(())
}
