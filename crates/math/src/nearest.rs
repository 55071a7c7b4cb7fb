//! What a misspelled name probably meant.

/// The candidate closest to `word`, if one is close enough to be worth suggesting.
///
/// Close means few edits (insert, delete, replace, swap neighbors) for the length of the word: one edit per three
/// characters, at least two for anything but the shortest words. Case and the difference between `-` and `_` do not count. The
/// first candidate that has the word as one of its parts is closer than any other: `dpo` is `diffusion-dpo`, not `ipo`. Where nothing is
/// close, it is the longest candidate that is a part of the word: `kto_pair` is `kto`.
pub fn nearest<'a>(typed: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(typed);
    let candidates: Vec<&str> = candidates.into_iter().collect();
    let has_part = |candidate: &&&str| fold(candidate).split(|c| *c == '_').any(|part| part == word);
    if let Some(whole) = candidates.iter().find(has_part).filter(|_| word.len() > 2) {
        return Some(whole);
    }
    let limit = (word.len() / 3).max(if word.len() > 2 { 2 } else { 1 });
    let close = candidates.iter().map(|candidate| (edits(&word, &fold(candidate)), *candidate));
    let close = close.filter(|&(distance, _)| distance <= limit).min_by_key(|&(distance, _)| distance);
    close.map(|(_, candidate)| candidate).or_else(|| within(typed, candidates))
}

/// The longest candidate that is one or several parts of a word: `kto` of `kto_pair`.
pub fn within<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let parts = |word: &str| format!("_{}_", fold(word).iter().collect::<String>());
    let word = parts(word);
    let is_part = |candidate: &&str| candidate.len() > 2 && word.contains(&parts(candidate));
    candidates.into_iter().filter(is_part).max_by_key(|candidate| candidate.len())
}

/// Without case, and with one kind of dash.
fn fold(text: &str) -> Vec<char> {
    text.to_lowercase().replace('-', "_").chars().collect()
}

/// The suggestion as the end of an error message: `, did you mean "x"?` or nothing.
pub fn did_you_mean(nearest: Option<&str>) -> String {
    nearest.map(|name| format!(", did you mean \"{name}\"?")).unwrap_or_default()
}

/// Optimal string alignment distance.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        (before, above) = (above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_mistakes_find_the_name() {
        let names = ["ipo", "diffusion-dpo", "ddim-inpo", "mapo", "sft", "kto"];
        for (typed, meant) in [
            ("difusion-dpo", Some("diffusion-dpo")),
            ("diffusion_dpo", Some("diffusion-dpo")),
            ("ddim-ipno", Some("ddim-inpo")),
            ("MaPO", Some("mapo")),
            ("stf", Some("sft")),
            ("dpo", Some("diffusion-dpo")),
            ("inpo", Some("ddim-inpo")),
            ("kto_pair", Some("kto")),
            ("diffusion-dpo-sdxl-turbo", Some("diffusion-dpo")),
            ("textual-inversion", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, names), meant, "{typed}");
        }
    }

    #[test]
    fn swapping_neighbors_is_one_edit() {
        let distance =
            |a: &str, b: &str| edits(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        assert_eq!(distance("beta", "btea"), 1);
        assert_eq!(distance("beta", "beta"), 0);
        assert_eq!(distance("", "beta"), 4);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
