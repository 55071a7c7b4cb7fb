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

/// Says how to train on a set by itself: shown first, because a model is chosen and fetched before it is trained.
pub fn say_train(set: &str, method: &str, more: &[&str]) {
    const MODEL: &str = "stable-diffusion-v1-5/stable-diffusion-v1-5";
    say_train_of(MODEL, set, method, more);
}

/// The same, of this model.
pub fn say_train_of(model: &str, set: &str, method: &str, more: &[&str]) {
    let line =
        ["tastemaker", "train", "--dry-run", "--method", method, "--pretrained_model_name_or_path", model];
    let run = ["--train_data_dir", set, "--max_train_steps", "2000", "--output_dir", "run"];
    say(&[&line[..], &run, more].concat());
}

/// A method that trains on pairs, or on single images.
pub fn method_for(are_single: bool) -> &'static str {
    if are_single { "kto" } else { "diffusion-dpo" }
}

/// Says the command that was typed, without some of its words and with others after it.
pub fn again(without: &[&str], more: &[&str]) {
    let typed = typed();
    let kept = typed.iter().map(String::as_str).filter(|word| !without.contains(word));
    say(&["tastemaker"].into_iter().chain(kept).chain(more.iter().copied()).collect::<Vec<_>>());
}

/// The words that were typed after the program's name.
pub fn typed() -> Vec<String> {
    std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect()
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
