//! Which columns of a table hold prompts and their categories.

/// Names of columns with the prompt, the first that is there being taken.
pub(super) const TEXT: [&str; 4] = ["prompt", "caption", "text", "description"];

/// Names of columns with the category.
pub(super) const CATEGORY: [&str; 4] = ["category", "style", "type", "group"];

/// The position of the first of `names` among columns, whatever their case.
pub(super) fn position<'a>(columns: impl Iterator<Item = &'a str> + Clone, names: &[&str]) -> Option<usize> {
    names.iter().find_map(|name| columns.clone().position(|column| column.trim().eq_ignore_ascii_case(name)))
}
