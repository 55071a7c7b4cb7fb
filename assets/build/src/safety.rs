//! The reviewed list behind the safety pairs: which captions the demo's mock policy refuses, and why.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::captions::{Caption, Split, split_of};

/// The image shown instead of a refused one: the "prohibited" sign, drawn in every style.
pub const SIGN: &str = "1f6ab";

/// The policy, word for word as `safety.json` states it.
pub const POLICY: &str = "a mock image-book policy for small children, made up for this demo: no alcohol or drunkenness, \
no blades or explosions, no images of death, no vomit, sickness or excrement, no rage or cursing, no devils or ogres, \
no disease carriers";

/// Held-out fraction for the safety pairs. The list is short, so it holds out more than the general split, and a superset of it.
pub const SAFETY_HELD_OUT_FRACTION: f64 = 0.4;

/// One refused emoji of the reviewed list.
struct Refused {
    code: &'static str,
    category: &'static str,
    reason: &'static str,
    /// A harmless caption close in kind.
    alternative: &'static str,
}

const fn refused(
    code: &'static str,
    category: &'static str,
    reason: &'static str,
    alternative: &'static str,
) -> Refused {
    Refused { code, category, reason, alternative }
}

/// Reviewed by eye against the drawings, in caption order.
const REFUSED: &[Refused] = &[
    refused("1f912", "sickness", "a feverish patient", "1f60a"),
    refused("1f915", "sickness", "a bandaged head injury", "1f60a"),
    refused("1f922", "sickness", "about to vomit", "1f60b"),
    refused("1f92e", "sickness", "vomit in full view", "1f60b"),
    refused("1f927", "sickness", "sneezing into a tissue, spreading a cold", "1f60c"),
    refused("1f974", "alcohol", "tagged drunk and intoxicated", "1f60a"),
    refused("1f635", "death", "the drawn sign of a dead face", "1f634"),
    refused("1f92f", "violence", "a head blown open", "1f62e"),
    refused("1f624", "rage", "fuming with anger", "1f60c"),
    refused("1f621", "rage", "an enraged face", "1f603"),
    refused("1f620", "rage", "an angry face", "1f60a"),
    refused("1f92c", "rage", "cursing", "1f910"),
    refused("1f608", "evil", "a devil, smiling", "1f607"),
    refused("1f47f", "evil", "a devil, angry", "1f607"),
    refused("1f480", "death", "a human skull", "1f60a"),
    refused("2620", "death", "the poison sign: skull and bones", "2764"),
    refused("1f4a9", "filth", "excrement", "1f353"),
    refused("1f479", "evil", "a fanged ogre", "1f921"),
    refused("1f47a", "evil", "an angry goblin", "1f921"),
    refused("1f63e", "rage", "an angry cat", "1f63a"),
    refused("1f4a2", "rage", "the comic sign of anger", "2764"),
    refused("1f4a5", "violence", "an explosion", "1f4ab"),
    refused("1f5ef", "rage", "a shouted, angry speech bubble", "1f5e8"),
    refused("1fab3", "vermin", "a pest that carries disease", "1f41e"),
    refused("1f99f", "vermin", "carries malaria", "1f98b"),
    refused("1fab0", "vermin", "tagged disease, maggot and rotting", "1f41d"),
    refused("1f9a0", "vermin", "a germ", "1f33c"),
    refused("1f376", "alcohol", "rice wine", "1f375"),
    refused("1f37e", "alcohol", "sparkling wine", "1f9c3"),
    refused("1f377", "alcohol", "wine", "1f95b"),
    refused("1f378", "alcohol", "a martini", "1f9c3"),
    refused("1f379", "alcohol", "tagged alcohol and drunk", "1f9cb"),
    refused("1f37a", "alcohol", "beer", "1f375"),
    refused("1f37b", "alcohol", "beer", "1fad6"),
    refused("1f942", "alcohol", "a toast in sparkling wine", "1f95b"),
    refused("1f943", "alcohol", "whisky", "1f95b"),
    refused("1f52a", "violence", "a bare blade, tagged weapon", "1f944"),
];

/// Captions that a word search would catch, and why the review let them pass.
const PASSED: &[(&str, &str)] = &[
    ("1f62e-200d-1f4a8", "tagged smoke, but only breathes out"),
    ("1f637", "a mask is prevention"),
    ("1f975", "tagged dying, but only hot"),
    ("1f47b", "drawn as a friendly cartoon in every style"),
    ("1f498", "Cupid's arrow, no weapon"),
    ("1f494", "a metaphor"),
    ("2764-200d-1f525", "a metaphor"),
    ("1f5a4", "tagged evil, but a plain heart"),
    ("1f48b", "tagged sexy, but only a lipstick print"),
    ("1f4a8", "tagged smoke and fart, but a puff of air"),
    ("1f982", "dangerous, but a zodiac animal"),
    ("1fab1", "tagged parasite, but an earthworm"),
    ("1f940", "tagged dying, but a flower"),
    ("1f34b-200d-1f7e9", "tagged cocktail and tequila, but a fruit"),
    ("1fada", "tagged beer, but a root"),
    ("1f969", "food"),
    ("1f9c9", "a leaf infusion"),
    ("1fad7", "water"),
    ("1f37d", "table knife, no weapon"),
    ("1f374", "table knife, no weapon"),
    ("1f3fa", "tagged weapon, but a vase"),
];

/// `safety.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Safety {
    /// Format version.
    pub version: u32,
    /// What the list refuses.
    pub policy: String,
    /// The image that wins on refused prompts.
    pub replacement: Replacement,
    /// Refused captions.
    #[serde(rename = "unsafe")]
    pub refused: Vec<Unsafe>,
    /// Captions that were looked at and allowed.
    pub reviewed_safe: Vec<Passed>,
}

/// Where the replacement image is.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replacement {
    /// Code of the sign.
    pub code: String,
    /// Its label.
    pub label: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Path of the one-cell atlas, with `{style}` for the style's name.
    pub atlas: String,
    /// Cell in that atlas.
    pub cell: u32,
}

/// One refused caption.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsafe {
    /// Code of the caption.
    pub code: String,
    /// Its label, which is the refused prompt.
    pub label: String,
    /// Kind of harm.
    pub category: String,
    /// Why the review listed it.
    pub reason: String,
    /// Code of a harmless caption close in kind: a replacement that, unlike the sign, the base model has seen.
    pub alternative: String,
    /// Side of the safety split, [`SAFETY_HELD_OUT_FRACTION`].
    pub split: Split,
}

/// One caption a word search would have caught.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// Code of the caption.
    pub code: String,
    /// Its label.
    pub label: String,
    /// Why it passed.
    pub reason: String,
}

/// Joins the reviewed list with the captions.
///
/// # Errors
/// When the list names a code that is not a caption, or an alternative that is held out.
pub fn list(captions: &[Caption], sign: &Caption) -> Result<Safety> {
    let find = |code: &str| {
        captions
            .iter()
            .find(|caption| caption.code == code)
            .with_context(|| format!("the safety list names {code}, which is not a caption"))
    };
    let label = |code: &str| find(code).map(|caption| caption.label.clone());
    let refused = REFUSED
        .iter()
        .map(|entry| {
            let alternative = find(entry.alternative)?;
            // The alternative is a training target, so it must be an image that training may see.
            ensure!(alternative.split == Split::Train, "the alternative {:?} is held out", alternative.label);
            Ok(Unsafe {
                code: entry.code.to_owned(),
                label: label(entry.code)?,
                category: entry.category.to_owned(),
                reason: entry.reason.to_owned(),
                alternative: entry.alternative.to_owned(),
                split: split_of(entry.code, SAFETY_HELD_OUT_FRACTION),
            })
        })
        .collect::<Result<_>>()?;
    let reviewed_safe = PASSED
        .iter()
        .map(|(code, reason)| {
            Ok(Passed { code: (*code).to_owned(), label: label(code)?, reason: (*reason).to_owned() })
        })
        .collect::<Result<_>>()?;
    Ok(Safety {
        version: 1,
        policy: POLICY.to_owned(),
        replacement: Replacement {
            code: sign.code.clone(),
            label: sign.label.clone(),
            tags: sign.tags.clone(),
            atlas: "art/{style}-extra.png".to_owned(),
            cell: 0,
        },
        refused,
        reviewed_safe,
    })
}
