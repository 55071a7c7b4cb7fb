//! Which emoji become captioned images, and what the captions say.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::art::IconSet;
use crate::hash::unit_interval;

/// Emojibase group numbers we take, with the names we give them. Flags, symbols, people, places and objects stay out:
/// round, coherent shapes are what a model of a few million parameters learns.
const GROUPS: &[(u64, &str)] = &[(0, "smileys-emotion"), (3, "animals-nature"), (4, "food-drink")];

/// Share of captions that the preference step never trains on.
pub const HELD_OUT_FRACTION: f64 = 0.2;

/// Which side of the preference split a caption is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// May enter preference training.
    Train,
    /// Only ever evaluated.
    HeldOut,
}

/// One captioned emoji; its position in the list is its cell in every atlas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Caption {
    /// Code points in lower-case hex joined by `-`, without the variation selector `fe0f`.
    pub code: String,
    /// CLDR short name in lower case.
    pub label: String,
    /// CLDR and emojibase keywords in lower case.
    pub tags: Vec<String>,
    /// Emoji group.
    pub group: String,
    /// Emoji subgroup.
    pub subgroup: String,
    /// Side of the preference split.
    pub split: Split,
}

/// Assigns `code` to a side of a split that holds out about `fraction` of all codes.
///
/// The number compared with `fraction` is the same for every fraction, so a larger fraction holds out a superset.
pub fn split_of(code: &str, fraction: f64) -> Split {
    if unit_interval(code) < fraction { Split::HeldOut } else { Split::Train }
}

/// Normalizes a code-point sequence: lower case, no `fe0f`.
pub fn normal_code(code: &str) -> String {
    let lower = code.to_lowercase();
    let kept: Vec<&str> = lower.split('-').filter(|point| *point != "fe0f").collect();
    kept.join("-")
}

/// Lists the captions in Unicode's emoji order: the three groups, restricted to emoji every icon set draws.
///
/// # Errors
/// When the emojibase files do not have the expected fields.
pub fn list(data: &Value, groups: &Value, sets: &[IconSet]) -> Result<Vec<Caption>> {
    let mut ordered = Vec::new();
    for emoji in data.as_array().context("emojibase data is not a list")? {
        let Some(number) = emoji["group"].as_u64() else { continue };
        let Some((_, group)) = GROUPS.iter().find(|(wanted, _)| *wanted == number) else { continue };
        let caption = caption(emoji, groups, group)?;
        if sets.iter().all(|set| set.has(&caption.code)) {
            ordered.push((emoji["order"].as_u64().context("an emoji has no order")?, caption));
        }
    }
    ordered.sort_by_key(|(order, _)| *order);
    Ok(ordered.into_iter().map(|(_, caption)| caption).collect())
}

/// Finds the one emoji with code `code`, whatever its group.
///
/// # Errors
/// When there is none.
pub fn find(data: &Value, groups: &Value, code: &str) -> Result<Caption> {
    data.as_array()
        .into_iter()
        .flatten()
        .find(|emoji| emoji["hexcode"].as_str().map(normal_code).as_deref() == Some(code))
        .with_context(|| format!("emojibase has no {code}"))
        .and_then(|emoji| caption(emoji, groups, "symbols"))
}

fn caption(emoji: &Value, groups: &Value, group: &str) -> Result<Caption> {
    let code = normal_code(emoji["hexcode"].as_str().context("an emoji has no hexcode")?);
    let label = emoji["label"].as_str().with_context(|| format!("{code} has no label"))?;
    let tags = emoji["tags"].as_array().map(Vec::as_slice).unwrap_or_default();
    let subgroup = emoji["subgroup"].as_u64().with_context(|| format!("{code} has no subgroup"))?;
    let subgroup = groups["subgroups"][subgroup.to_string()]
        .as_str()
        .with_context(|| format!("{code}: subgroup {subgroup} has no name"))?;
    Ok(Caption {
        label: label.to_lowercase(),
        tags: tags.iter().filter_map(Value::as_str).map(str::to_lowercase).collect(),
        group: group.to_owned(),
        subgroup: subgroup.to_owned(),
        split: split_of(&code, HELD_OUT_FRACTION),
        code,
    })
}
