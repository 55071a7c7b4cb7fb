//! Dotted names, and maps from the names of one layout to those of another.

use std::collections::{BTreeMap, BTreeSet};

/// What follows `prefix` in a name: nothing, or a dot and more.
///
/// `conv1` is followed by `.weight` in `conv1.weight`, but it does not stand at the start of `conv10.weight`.
pub(crate) fn after<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    name.strip_prefix(prefix).filter(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a layer's name ends in `target`, from a dot on.
pub(crate) fn ends_with(layer: &str, target: &str) -> bool {
    layer.strip_suffix(target).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// Whether a layer's name answers to a key of peft's `rank_pattern` or `alpha_pattern`: the whole name after `^`, else an
/// ending of it.
///
/// Source: `get_pattern_key` in `huggingface/peft:src/peft/utils/other.py`, for keys that are plain names.
pub(crate) fn answers_to(layer: &str, key: &str) -> bool {
    key.strip_prefix('^').map_or_else(|| ends_with(layer, key), |whole| layer == whole)
}

/// The first `most` of some names, and how many there are where that is not all.
pub(crate) fn shown(names: &[String], most: usize) -> String {
    let shown = names.iter().take(most).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > most { format!("{shown}, ... ({} in all)", names.len()) } else { shown }
}

/// New names to the names they stand for. `modern` gives a tensor's name of today, or `None` for what is to be skipped.
///
/// A name whose new place is taken stays as it is, to be reported as unexpected.
pub(crate) fn renamed<'a>(
    names: impl Iterator<Item = &'a str> + Clone,
    modern: impl Fn(&str) -> Option<String>,
) -> BTreeMap<String, String> {
    let taken: BTreeSet<&str> = names.clone().collect();
    names
        .filter_map(|name| Some((name, modern(name)?)))
        .map(|(name, new)| {
            let moves = new != name && !taken.contains(new.as_str());
            (if moves { new } else { name.to_owned() }, name.to_owned())
        })
        .collect()
}

/// The name below `prefix` if it begins with one of `parts`, the name itself otherwise; `None` for names that end in
/// `skipped`.
pub(crate) fn below(name: &str, prefix: &str, parts: &[&str], skipped: &str) -> Option<String> {
    if name.ends_with(skipped) {
        return None;
    }
    let moves = parts.iter().any(|part| name.starts_with(part));
    Some(if moves { format!("{prefix}{name}") } else { name.to_owned() })
}
