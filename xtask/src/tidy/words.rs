//! The words of the field: terms that `docs/vocabulary.md` replaces occur in no name, help text or page.

use super::source;
use super::style::is_test;
use super::tree::{Finding, Text, Tree};

/// The page that holds the table of terms and that of exceptions.
const PLACE: &str = "docs/vocabulary.md";

/// Help of the commands as a page: every line of it is help.
const HELP: &str = "docs/reference/cli.md";

/// History keeps the words of its day.
const HISTORY: [&str; 2] = ["docs/log/", "docs/log.md"];

/// Folders whose files are named by the table.
const NAMED: [&str; 4] = ["crates/", "xtask/", "docs/", "recipes/"];

/// Items that clap reads its help from.
const CLAP: [&str; 4] = ["Parser", "Args", "Subcommand", "ValueEnum"];

/// A term and what to write instead.
struct Term {
    /// Its words in lower case; a star at the end of one stands for any ending.
    words: Vec<String>,
    instead: String,
    in_names: bool,
    in_text: bool,
}

/// Words that may stay where a path begins so.
struct Exception {
    words: Vec<String>,
    place: String,
}

/// All findings of this module.
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let page = tree.texts.iter().find(|file| file.path == PLACE).map_or("", |file| file.text.as_str());
    let (terms, mut found) = terms(page);
    if terms.is_empty() {
        return vec![Finding::at(PLACE, "there is no table of terms")];
    }
    let vocabulary = Vocabulary { terms, exceptions: exceptions(page) };
    for path in tree.paths.iter().filter(|path| is_named(path)) {
        let name = path.rsplit('/').next().unwrap_or(path);
        found.extend(vocabulary.in_name(path, name).map(|message| Finding::at(path, message)));
    }
    for file in tree.texts.iter().filter(|file| file.path != PLACE && !is_history(&file.path)) {
        match file.ending() {
            "md" if is_page(&file.path) => found.extend(vocabulary.page(file)),
            "rs" if !is_test(&file.path) && !file.path.contains("/examples/") => {
                found.extend(vocabulary.rust(file));
            }
            _ => {}
        }
    }
    found
}

/// Where the names of files are held to the table: not among snapshots, which are named after tests.
fn is_named(path: &str) -> bool {
    NAMED.iter().any(|folder| path.starts_with(folder)) && !path.contains("/snapshots/") && !is_history(path)
}

fn is_history(path: &str) -> bool {
    HISTORY.iter().any(|place| path.starts_with(place))
}

/// Pages that users and contributors read.
fn is_page(path: &str) -> bool {
    path.starts_with("docs/") || ["README.md", "CONTRIBUTING.md"].contains(&path)
}

struct Vocabulary {
    terms: Vec<Term>,
    exceptions: Vec<Exception>,
}

impl Vocabulary {
    /// What is wrong with a file's or an item's name.
    fn in_name(&self, path: &str, name: &str) -> Option<String> {
        let words = split_name(name);
        let term = self.terms.iter().find(|term| term.in_names && self.holds(path, term, &words))?;
        Some(format!("`{name}`: write {}, not `{}`", term.instead, term.words.join(" ")))
    }

    /// What is wrong with a line of prose.
    fn in_text(&self, path: &str, line: &str) -> Option<String> {
        let words = split_text(line);
        let term = self.terms.iter().find(|term| term.in_text && self.holds(path, term, &words))?;
        Some(format!("write {}, not `{}`", term.instead, term.words.join(" ")))
    }

    /// Whether the term occurs among the words, exceptions aside.
    fn holds(&self, path: &str, term: &Term, words: &[String]) -> bool {
        let excepted = |at: usize| {
            let here = self.exceptions.iter().filter(|exception| path.starts_with(&exception.place));
            here.into_iter().any(|exception| {
                let n = exception.words.len();
                (at.saturating_sub(n - 1)..=at).any(|start| matches(&exception.words, &words[start..]))
            })
        };
        (0..words.len()).any(|at| matches(&term.words, &words[at..]) && !excepted(at))
    }

    /// Prose of a page, and the flags in its code.
    fn page(&self, file: &Text) -> Vec<Finding> {
        let (mut found, mut in_code) = (Vec::new(), false);
        for (number, line) in file.text.lines().enumerate() {
            let fence = line.trim_start().starts_with("```");
            in_code ^= fence;
            let prose = if file.path == HELP { line.to_owned() } else { without_code(line) };
            let is_prose = !fence && (!in_code || file.path == HELP);
            let message = is_prose.then(|| self.in_text(&file.path, &prose)).flatten();
            let flags = line.split(|c: char| !c.is_alphanumeric() && !"-_".contains(c));
            let mut flags = flags.filter(|word| word.starts_with("--") && word.len() > 3);
            let message = message.or_else(|| flags.find_map(|flag| self.in_name(&file.path, flag)));
            found.extend(message.map(|message| Finding::on_line(&file.path, number, message)));
        }
        found
    }

    /// Public names and the text of clap's items.
    fn rust(&self, file: &Text) -> Vec<Finding> {
        let code = source::without_tests(&source::code(&file.text));
        let mut found = Vec::new();
        for (line, name) in public_names(&code) {
            found.extend(
                self.in_name(&file.path, name).map(|message| Finding::on_line(&file.path, line, message)),
            );
        }
        for (line, help) in help_lines(&file.text, &code) {
            found.extend(
                self.in_text(&file.path, help).map(|message| Finding::on_line(&file.path, line, message)),
            );
        }
        found
    }
}

/// Whether `words` begin with the words of a term.
fn matches(term: &[String], words: &[String]) -> bool {
    let fits = |(wanted, word): (&String, &String)| match wanted.strip_suffix('*') {
        Some(stem) => word.starts_with(stem),
        None => word == wanted,
    };
    term.len() <= words.len() && term.iter().zip(words).all(fits)
}

/// The terms of the first table, and rows that cannot be understood.
fn terms(page: &str) -> (Vec<Term>, Vec<Finding>) {
    let (mut terms, mut found) = (Vec::new(), Vec::new());
    for (line, cells) in table(page, "| instead of |") {
        let [old, instead, places] = cells.as_slice() else { continue };
        let places: Vec<&str> = places.split(',').map(str::trim).collect();
        if places.iter().any(|place| !["names", "text"].contains(place)) {
            found.push(Finding::on_line(PLACE, line, "the last column says `names`, `text` or both"));
        }
        let [in_names, in_text] = ["names", "text"].map(|place| places.contains(&place));
        let instead = (*instead).to_owned();
        let all = old.split(',').map(words_of).filter(|words| !words.is_empty());
        terms.extend(all.map(|words| Term { words, instead: instead.clone(), in_names, in_text }));
    }
    (terms, found)
}

fn exceptions(page: &str) -> Vec<Exception> {
    let rows = table(page, "| word |");
    let exception = |(_, cells): (usize, Vec<&str>)| {
        let (words, place) = (words_of(cells.first()?), cells.get(1)?.trim_matches('`').to_owned());
        (!words.is_empty())
            .then_some(Exception { words, place: if place == "anywhere" { String::new() } else { place } })
    };
    rows.into_iter().filter_map(exception).collect()
}

/// Line and cells of each row of the table whose head begins so.
fn table<'a>(page: &'a str, head: &str) -> Vec<(usize, Vec<&'a str>)> {
    let rows = page.lines().enumerate().skip_while(|(_, line)| !line.starts_with(head)).skip(2);
    let cells = |(number, line): (usize, &'a str)| {
        let cells = line.strip_prefix('|')?.trim_end().strip_suffix('|')?;
        Some((number, cells.split('|').map(str::trim).collect()))
    };
    rows.map_while(cells).collect()
}

fn words_of(cell: &str) -> Vec<String> {
    let words = cell.split(|c: char| !c.is_alphanumeric() && c != '*').filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// The words of an identifier or a file name: `LossScaler`, `loss_scaler` and `loss-scaler.rs` alike.
fn split_name(name: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut previous = '_';
    for character in name.chars() {
        if character.is_alphanumeric() {
            if !previous.is_alphanumeric() || (character.is_uppercase() && previous.is_lowercase()) {
                words.push(String::new());
            }
            if let Some(word) = words.last_mut() {
                word.extend(character.to_lowercase());
            }
        }
        previous = character;
    }
    words
}

fn split_text(line: &str) -> Vec<String> {
    let words = line.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect()
}

/// A line of Markdown without code spans and the targets of links.
fn without_code(line: &str) -> String {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join(" ");
    let mut pieces = outside.split("](");
    let first = pieces.next().unwrap_or_default().to_owned();
    pieces.fold(first, |text, piece| text + " " + piece.split_once(')').map_or("", |(_, rest)| rest))
}

/// Line and name of each public item, field, variant and method of a public trait.
fn public_names(code: &str) -> Vec<(usize, &str)> {
    let (mut names, mut depth, mut inside) = (Vec::new(), 0_usize, None);
    for (number, line) in code.lines().enumerate() {
        let text = line.trim_start();
        if let Some(rest) = text.strip_prefix("pub ") {
            names.extend(declared(rest).map(|name| (number, name)));
            if rest.starts_with("enum ") || rest.starts_with("trait ") {
                inside = Some((depth, rest.starts_with("enum ")));
            }
        } else if let Some((outer, is_enum)) = inside
            && depth > outer
        {
            let starts = text.starts_with(|c: char| c.is_alphabetic());
            let name = if is_enum {
                starts.then(|| identifier(text))
            } else {
                text.strip_prefix("fn ").map(identifier)
            };
            names.extend(name.filter(|name| !name.is_empty()).map(|name| (number, name)));
        }
        depth = (depth + line.matches('{').count()).saturating_sub(line.matches('}').count());
        if inside.is_some_and(|(outer, _)| depth <= outer && line.contains('}')) {
            inside = None;
        }
    }
    names
}

/// The name that follows `pub `; nothing for imports.
fn declared(mut rest: &str) -> Option<&str> {
    const KEYWORDS: [&str; 9] = ["const", "static", "unsafe", "fn", "struct", "enum", "trait", "type", "mod"];
    let mut is_item = false;
    loop {
        let word = identifier(rest);
        if word == "use" || word.is_empty() {
            return None;
        }
        if !KEYWORDS.contains(&word) {
            let after = rest[word.len()..].trim_start();
            return (is_item || after.starts_with(':')).then_some(word);
        }
        is_item = true;
        rest = rest[word.len()..].trim_start();
    }
}

fn identifier(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

/// Doc comments of items that clap derives from, with their lines.
fn help_lines<'a>(text: &'a str, code: &str) -> Vec<(usize, &'a str)> {
    let lines: Vec<&str> = text.lines().collect();
    let is_comment = |line: &str| line.trim_start().starts_with("///");
    let mut found = Vec::new();
    for (start, _) in code.match_indices("#[derive(") {
        let derives = code[start..].split(']').next().unwrap_or_default();
        if !split_at_commas(derives).any(|name| CLAP.contains(&name)) {
            continue;
        }
        let first = code[..start].matches('\n').count();
        let before = lines[..first].iter().rev().take_while(|line| is_comment(line)).count();
        let last = code[..source::item_end(code, start)].matches('\n').count();
        let inside = (first - before..=last).filter(|&number| is_comment(lines[number]));
        found.extend(inside.map(|number| (number, lines[number].trim_start().trim_start_matches('/'))));
    }
    found
}

fn split_at_commas(derives: &str) -> impl Iterator<Item = &str> {
    derives.split(['(', ')', ',']).map(|name| name.trim().rsplit("::").next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::{PLACE, findings, public_names, split_name};

    const TABLE: &str = "# Words\n\n| instead of | write | where |\n|---|---|---|\n| picture* | image | names, text |\n\
                         | frame | bucket resolution | names |\n| behind step, what learns | after step | text |\n\n\
                         | word | place | why |\n|---|---|---|\n| data frame | `crates/data/` | a table |\n";

    /// Places where a tree with one file breaks the table.
    fn places(path: &str, text: &str) -> Vec<String> {
        let found = findings(&Tree::made_of(&[(PLACE, TABLE), (path, text)]));
        found.into_iter().map(|finding| finding.place).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn a_planted_word_in_a_file_name_is_found() {
        assert_eq!(places("crates/a/src/the_pictures.rs", ""), ["crates/a/src/the_pictures.rs"]);
        assert_eq!(places("docs/guide/picture-grid/a.md", ""), ["docs/guide/picture-grid"]);
        assert_eq!(places("golden/picture.json", ""), NOTHING);
        assert_eq!(places("crates/a/src/images.rs", ""), NOTHING);
    }

    #[test]
    fn a_planted_word_in_a_public_name_is_found() {
        for item in [
            "pub fn picture_of() {}",
            "pub struct SomePictures;",
            "pub const fn frame() {}",
            "pub mod frame;",
            "pub struct A {\n    pub picture: B,\n}",
            "pub enum A {\n    Frame,\n}",
            "pub trait A {\n    fn frame(&self);\n}",
        ] {
            assert_eq!(places("crates/a/src/lib.rs", item).len(), 1, "{item}");
        }
        for item in [
            "fn picture() {}",
            "pub(crate) fn frame() {}",
            "pub use a::picture;",
            "// pub fn frame()",
            "pub fn framed() {}",
        ] {
            assert_eq!(places("crates/a/src/lib.rs", item), NOTHING, "{item}");
        }
        assert_eq!(places("crates/a/tests/a.rs", "pub fn picture() {}"), NOTHING);
    }

    #[test]
    fn a_planted_word_in_help_is_found() {
        let item = |derive: &str| {
            format!(
                "/// What learns.\n#[derive({derive})]\nstruct A {{\n    /// Behind step 3.\n    b: C,\n}}\n"
            )
        };
        let found = places("crates/cli/src/args.rs", &item("Debug, clap::Args"));
        assert_eq!(found, ["crates/cli/src/args.rs:1", "crates/cli/src/args.rs:4"]);
        assert_eq!(places("crates/cli/src/args.rs", &item("Debug")), NOTHING);
    }

    #[test]
    fn a_planted_word_on_a_page_is_found() {
        let page = "All pictures\nA `picture` and [a](picture.md)\n```text\npicture --picture_size\n```\nthe frame\n";
        assert_eq!(places("docs/guide/a.md", page), ["docs/guide/a.md:1", "docs/guide/a.md:4"]);
        assert_eq!(
            places("docs/reference/cli.md", "```text\n  behind step 4\n```\n"),
            ["docs/reference/cli.md:2"]
        );
        assert_eq!(places("docs/log/a.md", page), NOTHING);
    }

    #[test]
    fn an_exception_holds_at_its_place() {
        assert_eq!(places("crates/data/src/lib.rs", "pub fn data_frame() {}"), NOTHING);
        assert_eq!(places("crates/data/src/lib.rs", "pub fn frame_data() {}").len(), 1);
        assert_eq!(places("crates/eval/src/lib.rs", "pub fn data_frame() {}").len(), 1);
    }

    #[test]
    fn the_table_has_to_be_there_and_understood() {
        let found = |page: &str| findings(&Tree::made_of(&[(PLACE, page)])).len();
        assert_eq!(found("# Words\n"), 1);
        assert_eq!(found("| instead of | write | where |\n|---|---|---|\n| a | b | nowhere |\n"), 1);
        assert_eq!(found(TABLE), 0);
    }

    #[test]
    fn names_are_split_into_words() {
        for name in ["LossScaler", "loss_scaler", "--loss-scaler"] {
            assert_eq!(split_name(name), ["loss", "scaler"]);
        }
        assert_eq!(
            public_names("pub enum A {\n    B(C),\n    D { e: F },\n}\npub fn g() {}"),
            [(0, "A"), (1, "B"), (2, "D"), (4, "g")]
        );
    }
}
