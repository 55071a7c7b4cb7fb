//! Which values a setting may have.

use serde_json::Value;

/// A condition on a value as JSON, in which numbers that are none are `null`.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// What would do, in words.
    pub wanted: &'static str,
    /// Whether a value does.
    pub holds: fn(&Value) -> bool,
}

const fn check(wanted: &'static str, holds: fn(&Value) -> bool) -> Check {
    Check { wanted, holds }
}

fn is_number(value: &Value, holds: impl Fn(f64) -> bool) -> bool {
    value.as_f64().is_some_and(holds)
}

pub(super) const POSITIVE: Check = check("a positive number", |value| is_number(value, |n| n > 0.0));
pub(super) const ALPHA: Check =
    check("a positive number, at most a million", |value| is_number(value, is_alpha));
pub(super) const NOT_NEGATIVE: Check =
    check("0 or a positive number", |value| is_number(value, |n| n >= 0.0));
pub(super) const FINITE: Check = check("a number", |value| is_number(value, |_| true));
pub(super) const AT_LEAST_ONE: Check = check("at least 1", |value| is_number(value, |n| n >= 1.0));
pub(super) const FRACTION: Check =
    check("between 0 and 1", |value| is_number(value, |n| (0.0..=1.0).contains(&n)));
pub(super) const BELOW_ONE: Check =
    check("at least 0 and below 1", |value| is_number(value, |n| (0.0..1.0).contains(&n)));
pub(super) const BELOW_HALF: Check =
    check("above 0 and below 0.5, the fraction of a pair that is undecided", |value| {
        is_number(value, |n| n > 0.0 && n < 0.5)
    });
pub(super) const RESOLUTION: Check = check("a multiple of 8, at most 16384", |value| {
    value.as_u64().is_some_and(|n| (8..=1 << 14).contains(&n) && n.is_multiple_of(8))
});
// Far beyond what anybody needs, and far below what cannot be counted or kept.
pub(super) const UP_TO_65536: Check = check("from 1 to 65536", |value| is_count(value, 1, 1 << 16));
pub(super) const UP_TO_A_MILLION: Check = check("from 1 to 1000000", |value| is_count(value, 1, 1_000_000));
pub(super) const SOME_STEPS: Check = check("from 1 to 100000000", |value| is_count(value, 1, 100_000_000));
pub(super) const THREADS: Check = check("from 0 to 1024", |value| is_count(value, 0, 1024));
pub(super) const TOKENS: Check =
    check("75, 150 or 225", |value| value.as_u64().is_some_and(|n| [75, 150, 225].contains(&n)));
pub(super) const SOME_PAIRS: Check =
    check("at least 1; to switch validation off, validation_steps = 0", |value| value.as_u64() != Some(0));
pub(super) const SOME_TIMESTEPS: Check = check("at least one timestep", has_entries);
pub(super) const NOISE_LEVELS: Check = check("numbers above 0 and up to 1", |value| {
    let is_level = |level: &Value| is_number(level, |level| level > 0.0 && level <= 1.0);
    has_entries(value) && value.as_array().is_some_and(|levels| levels.iter().all(is_level))
});
pub(super) const MODE_SCALE: Check =
    check("from -1 to 1.75", |value| is_number(value, |n| (-1.0..=1.75).contains(&n)));
pub(super) const SOME_LAYOUTS: Check = check("at least one layout", has_entries);
pub(super) const SOME_NAMES: Check =
    check("name endings of layers", |value| has_entries(value) && are_names(value));
pub(super) const NAMES: Check = check("name endings of layers", are_names);
pub(super) const FOLDER_NAME: Check =
    check("the name of a folder, not a path; --logging_dir takes one", |value| {
        let fits = |name: &str| {
            !name.is_empty()
                && !name.starts_with('.')
                && !name.contains(|c: char| "/\\".contains(c) || c.is_control())
        };
        value.as_str().is_some_and(fits)
    });
pub(super) const LORA_NAME: Check = check(
    "a file name of at most 200 bytes, without folders and ending, and none that a run uses itself: pytorch_lora_weights, best, \
     model, state",
    |value| {
        let fits = |name: &str| {
            !name.is_empty()
                && name.len() <= 200
                && !name.starts_with('.')
                && !name.contains(|c: char| "/\\".contains(c) || c.is_control())
        };
        value.as_str().is_some_and(|name| fits(name) && !is_own(name))
    },
);
pub(super) const RANKS: Check =
    check("name endings of layers, not expressions, and numbers from 1 to 65536", |value| {
        are_patterns(value, |rank| is_count(rank, 1, 1 << 16))
    });
pub(super) const ALPHAS: Check =
    check("name endings of layers, not expressions, and positive numbers, at most a million", |value| {
        are_patterns(value, |alpha| is_number(alpha, is_alpha))
    });

/// Beyond this an adapter's file is not read.
fn is_alpha(n: f64) -> bool {
    n > 0.0 && n <= 1e6
}

/// Whether a run gives this name to weights of its own, in its folder or in that of a checkpoint. Some file systems do not tell
/// small letters from capitals.
fn is_own(name: &str) -> bool {
    let name = name.to_lowercase();
    ["pytorch_lora_weights", "best", "model", "state"].contains(&name.as_str()) || name.starts_with("state-")
}

fn is_count(value: &Value, least: u64, most: u64) -> bool {
    value.as_u64().is_some_and(|n| (least..=most).contains(&n))
}

fn are_patterns(value: &Value, fits: impl Fn(&Value) -> bool) -> bool {
    let fits = |(name, value): (&String, &Value)| is_pattern(name) && fits(value);
    value.as_object().is_some_and(|entries| entries.iter().all(fits))
}

fn has_entries(value: &Value) -> bool {
    value.as_array().is_some_and(|entries| !entries.is_empty())
}

fn are_names(value: &Value) -> bool {
    value.as_array().is_some_and(|names| names.iter().all(|name| name.as_str() != Some("")))
}

/// Whether peft, which reads keys of patterns as expressions, takes this for a name: dots, and a caret for a whole name.
fn is_pattern(key: &str) -> bool {
    let name = key.strip_prefix('^').unwrap_or(key);
    !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}
