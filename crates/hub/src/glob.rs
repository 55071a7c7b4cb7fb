//! Patterns for file names: `*` stands for any run of characters, folders included, and `?` for one.

/// Whether the whole name fits the pattern. A pattern that ends in `/` fits everything below that folder.
pub(crate) fn fits(pattern: &str, name: &str) -> bool {
    let mut pattern: Vec<char> = pattern.chars().collect();
    if pattern.ends_with(&['/']) {
        pattern.push('*');
    }
    let name: Vec<char> = name.chars().collect();
    let (mut p, mut n) = (0, 0);
    // Where the last star stood, and how much of the name it has taken.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, n) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn stars_take_any_run_and_question_marks_one_character() {
        for (pattern, name) in [
            ("*", ""),
            ("*.json", "unet/config.json"),
            ("unet/*", "unet/a/b"),
            ("unet/", "unet/a"),
            ("*a*b", "xxaabab"),
            ("v?e/*.bin", "vae/x.bin"),
            ("model_index.json", "model_index.json"),
        ] {
            assert!(fits(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("*.json", "a.jsonl"), ("unet/*", "vae/a"), ("?", ""), ("a", "ab"), ("", "a"), ("*a*b", "xba")]
        {
            assert!(!fits(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        assert!(!fits(&"*a".repeat(40), &"a".repeat(39)));
    }
}
