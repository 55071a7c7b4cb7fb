//! Prints every objective with its default settings, as the Markdown of `docs/reference/objectives.md`.

use serde_json::Value;
use tastemaker_math::objectives::{OBJECTIVES, Objective, SettingsError};

fn main() -> Result<(), SettingsError> {
    for entry in OBJECTIVES {
        let objective = Objective::new(entry, &Value::Null)?;
        let needs = objective.needs();
        let reference = if needs.reference { "needs" } else { "does not need" };
        println!("## `{}`\n\nPurpose: {}.\n", entry.name, entry.summary);
        println!("It {reference} a reference model. Source: {}.", entry.source.trim_end_matches('.'));
        if needs.soft_label {
            println!("\nIts pairs need scores, which give label confidence.");
        }
        if objective.is_unpaired() {
            println!("\nIt learns from single images, each liked or disliked; a pair counts as one of both.");
        }
        if let Some(why) = entry.not_monotone {
            println!("\nA better winner or a worse loser may raise its loss: {}.", why.trim_end_matches('.'));
        }
        if let Some(why) = entry.detached {
            println!("\nIts gradient is not that of the value it reports: {}.", why.trim_end_matches('.'));
        }
        println!("\nSettings with their defaults:\n\n```json\n{:#}\n```\n", objective.settings());
        println!("More: [{0}](../methods/{0}.md).\n", entry.name);
    }
    println!(
        "In addition to its own settings any method takes [`sft_weight`, `safeguard_mu` and `anchor_weight`](../methods/terms.md)."
    );
    Ok(())
}
