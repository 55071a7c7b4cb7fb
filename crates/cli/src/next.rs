//! What to type next, the last line of a command that is done.

use std::path::Path;

use crate::scorers::to_fetch;

/// Says it, on standard error: a command line, its words quoted where a shell asks for that.
pub fn say(words: &[&str]) {
    eprintln!("next: {}", line(words));
}

/// Says a line that needs a scorer, and how to get that if it is not there.
pub fn say_with_scorer(scorer: &str, words: &[&str]) {
    let Some(repo) = to_fetch(scorer) else { return say(words) };
    say(&["tastemaker", "model", "fetch", repo]);
    eprintln!("then: {}", line(words));
}

fn line(words: &[&str]) -> String {
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// A path as a word.
pub fn word(path: &Path) -> String {
    path.display().to_string()
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./=:+,@~%".contains(c);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_where_a_shell_asks_for_it() {
        for (word, wanted) in
            [("a/b-1.png", "a/b-1.png"), ("my run", "'my run'"), ("it's", r"'it'\''s'"), ("", "''")]
        {
            assert_eq!(quoted(word), wanted);
        }
    }
}
