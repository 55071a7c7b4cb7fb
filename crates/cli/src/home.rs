//! `~` in what was typed, where a shell leaves it as it is: in `--out=~/x`, `name=~/x`, in recipes.

use std::ffi::OsString;
use std::path::Path;

/// Flags whose values are texts, in which `~` is itself.
const TEXTS: [&str; 8] = [
    "prompt",
    "negative_prompt",
    "validation_prompt",
    "validation_prompts",
    "winner_prefix",
    "loser_prefix",
    "set",
    "category",
];

/// A command line with the home folder in place of `~`.
pub fn expanded(line: Vec<OsString>, home: Option<&Path>) -> Vec<OsString> {
    let Some(home) = home.and_then(Path::to_str) else { return line };
    let mut is_text = false;
    let mut expand = |arg: OsString| {
        let Some(typed) = arg.to_str() else { return arg };
        let was_text = std::mem::take(&mut is_text);
        let Some(flag) = typed.strip_prefix("--") else {
            return if was_text { arg } else { in_words(typed, home).into() };
        };
        let (name, value) = flag.split_once('=').map_or((flag, None), |(name, value)| (name, Some(value)));
        let holds_text = TEXTS.contains(&name.replace('-', "_").as_str());
        is_text = holds_text && value.is_none();
        match value.filter(|_| !holds_text) {
            Some(value) => format!("--{name}={}", in_words(value, home)).into(),
            None => arg,
        }
    };
    line.into_iter().map(&mut expand).collect()
}

/// The home folder in place of a `~` at the beginning of a path: that of the text, or after `=` and `+` in it.
fn in_words(typed: &str, home: &str) -> String {
    let mut rest = typed;
    let mut words = String::new();
    loop {
        rest = match rest.strip_prefix('~') {
            Some(after) if after.is_empty() || after.starts_with('/') => {
                words.push_str(home);
                after
            }
            _ => rest,
        };
        match rest.find(['=', '+']) {
            Some(at) => {
                words.push_str(&rest[..=at]);
                rest = &rest[at + 1..];
            }
            None => {
                words.push_str(rest);
                return words;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tilde_that_begins_a_path_is_the_home_folder() {
        for (typed, meant) in [
            ("compare --out=~/x name=~/run base+~/lora ~", "compare --out=/h/x name=/h/run base+/h/lora /h"),
            ("score --scorer pick-score=~/w ~user/x a~/b", "score --scorer pick-score=/h/w ~user/x a~/b"),
            (
                "sample --prompt ~/x --negative-prompt=~/y --out ~/z",
                "sample --prompt ~/x --negative-prompt=~/y --out /h/z",
            ),
        ] {
            let line = typed.split(' ').map(OsString::from).collect();
            let found: Vec<String> = expanded(line, Some(Path::new("/h")))
                .into_iter()
                .map(|arg| arg.into_string().unwrap())
                .collect();
            assert_eq!(found.join(" "), meant);
        }
        assert_eq!(expanded(vec!["~/x".into()], None), ["~/x"]);
    }
}
