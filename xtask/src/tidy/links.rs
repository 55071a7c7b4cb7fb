//! Checks across files: what is mentioned exists, and what exists is well formed.

use super::tree::{Finding, Text, Tree};

/// Folders whose files are mentioned by path in prose, comments and recipes.
const MENTIONED: [&str; 2] = ["docs/", "recipes/"];

/// The checks themselves mention files that do not exist.
const EXEMPT: &str = "xtask/src/tidy/";

/// All findings of this module.
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let mut found = decisions(tree);
    for file in &tree.texts {
        if file.ending() == "md" {
            found.extend(links(tree, file));
        }
        if ["md", "rs", "toml", "py", "sh"].contains(&file.ending()) && !file.path.starts_with(EXEMPT) {
            found.extend(mentions(tree, file));
        }
        if file.path.starts_with("recipes/") {
            found.extend(recipe(file));
        }
    }
    found
}

/// Links of a Markdown page to files, from where the page lies.
fn links(tree: &Tree, page: &Text) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (line, text) in page.text.lines().enumerate() {
        in_code ^= text.trim_start().starts_with("```");
        if in_code {
            continue;
        }
        for target in link_targets(text) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path = if path.is_empty() { page.path.clone() } else { beside(&page.path, path) };
            if !tree.paths.contains(&path) {
                found.push(Finding::on_line(&page.path, line, format!("the link `{target}` leads nowhere")));
            } else if !anchor.is_empty() && !has_heading(tree, &path, anchor) {
                found.push(Finding::on_line(
                    &page.path,
                    line,
                    format!("`{path}` has no heading `#{anchor}`"),
                ));
            }
        }
    }
    found
}

/// The targets of `[text](target)` in a line that are not web addresses.
fn link_targets(line: &str) -> Vec<&str> {
    let after = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    let targets =
        after.filter_map(|rest| rest.split(')').next()).filter_map(|inside| inside.split(' ').next());
    targets.filter(|target| !target.contains("://") && !target.starts_with("mailto:")).collect()
}

/// `path` as seen from the folder of `page`.
fn beside(page: &str, path: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn has_heading(tree: &Tree, path: &str, anchor: &str) -> bool {
    let page = tree.texts.iter().find(|file| file.path == path);
    page.is_some_and(|page| page.text.lines().any(|line| line.starts_with('#') && slug(line) == anchor))
}

/// The anchor that a heading gets on the usual renderers.
fn slug(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

/// Mentions of files, such as `docs/log.md`, wherever text says them.
fn mentions(tree: &Tree, file: &Text) -> Vec<Finding> {
    let mut found = Vec::new();
    for (line, text) in file.text.lines().enumerate() {
        for folder in MENTIONED {
            for (at, _) in text.match_indices(folder) {
                let Some(path) = mentioned(text, at) else { continue };
                if !tree.paths.contains(path) {
                    found.push(Finding::on_line(
                        &file.path,
                        line,
                        format!("`{path}` is mentioned and missing"),
                    ));
                }
            }
        }
    }
    found
}

/// The file mentioned at `at`, unless that is the middle of another path or a pattern.
fn mentioned(text: &str, at: usize) -> Option<&str> {
    let in_path = |character: char| character.is_alphanumeric() || "._-/".contains(character);
    if text[..at].chars().next_back().is_some_and(|before| in_path(before) || "{}<>*$".contains(before)) {
        return None;
    }
    let rest = &text[at..];
    let end = rest.find(|character| !in_path(character)).unwrap_or(rest.len());
    if rest[end..].starts_with(['<', '*', '{', '$']) {
        return None;
    }
    let path = rest[..end].trim_end_matches('.');
    (path.ends_with(".md") || path.ends_with(".toml")).then_some(path)
}

fn recipe(file: &Text) -> Option<Finding> {
    if file.ending() != "toml" {
        return None;
    }
    let error = file.text.parse::<toml::Table>().err()?;
    Some(Finding::at(&file.path, format!("not TOML: {}", error.message())))
}

/// Decision records are numbered without gaps, named by their question and carry a title.
fn decisions(tree: &Tree) -> Vec<Finding> {
    let records: Vec<&Text> =
        tree.texts.iter().filter(|file| file.path.starts_with("docs/decisions/")).collect();
    let mut names: Vec<&str> = records.iter().filter_map(|file| file.path.rsplit('/').next()).collect();
    names.sort_unstable();
    let mut found = Vec::new();
    for (name, number) in names.iter().zip(1..) {
        if !is_decision_name(name, number) {
            let message = format!("the name should be {number:04}-<question in small letters>.md");
            found.push(Finding::at(&format!("docs/decisions/{name}"), message));
        }
    }
    for file in records.iter().filter(|file| !file.text.starts_with("# ")) {
        found.push(Finding::at(&file.path, "the first line should be the title, `# ...`"));
    }
    found
}

fn is_decision_name(name: &str, number: usize) -> bool {
    let words = name.strip_prefix(&format!("{number:04}-")).and_then(|rest| rest.strip_suffix(".md"));
    let is_word = |word: &str| {
        let plain = |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
        !word.is_empty() && word.chars().all(plain)
    };
    words.is_some_and(|words| words.split('-').all(is_word))
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::findings;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        findings(&Tree::made_of(files))
            .into_iter()
            .map(|finding| format!("{}: {}", finding.place, finding.message))
            .collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn links_lead_somewhere() {
        let page = "[a](b.md) [c](../README.md#two-words) [d](https://e.org/f) [g](#here)\n# Here\n```\n[x](y)\n```\n";
        let readme = ("README.md", "## Two `words`\n");
        assert_eq!(found(&[("docs/a.md", page), ("docs/b.md", ""), readme]), NOTHING);
        assert_eq!(found(&[("docs/a.md", page), readme]), ["docs/a.md:1: the link `b.md` leads nowhere"]);
        let other = found(&[("docs/a.md", page), ("docs/b.md", ""), ("README.md", "## Two\n")]);
        assert_eq!(other, ["docs/a.md:1: `README.md` has no heading `#two-words`"]);
    }

    #[test]
    fn a_link_to_a_folder_is_a_link() {
        assert_eq!(found(&[("README.md", "[a](crates/math)\n"), ("crates/math/src/lib.rs", "")]), NOTHING);
    }

    #[test]
    fn mentioned_pages_and_recipes_exist() {
        let text = "//! See `docs/a.md`, recipes/b.toml. Not docs/<name>.md, other/docs/c.md or docs/*.md.\n";
        assert_eq!(found(&[("x.rs", text), ("docs/a.md", ""), ("recipes/b.toml", "")]), NOTHING);
        let missing = found(&[("x.rs", text)]);
        assert_eq!(
            missing,
            [
                "x.rs:1: `docs/a.md` is mentioned and missing",
                "x.rs:1: `recipes/b.toml` is mentioned and missing"
            ]
        );
    }

    #[test]
    fn recipes_are_toml() {
        assert_eq!(found(&[("recipes/a.toml", "[train]\nsteps = 3\n")]), NOTHING);
        assert!(found(&[("recipes/a.toml", "steps = = 3\n")])[0].starts_with("recipes/a.toml: not TOML"));
    }

    #[test]
    fn decisions_are_numbered_named_and_titled() {
        let first = ("docs/decisions/0001-engine.md", "# Which engine\n");
        assert_eq!(found(&[first]), NOTHING);
        for name in ["0003-x.md", "0002-Big.md", "0002_x.md", "0002-.md", "0002-x.txt"] {
            let path = format!("docs/decisions/{name}");
            assert!(found(&[first, (&path, "# T\n")])[0].contains("the name should be 0002-"), "{name}");
        }
        assert!(found(&[("docs/decisions/0001-engine.md", "No title\n")])[0].contains("the title"));
    }
}
