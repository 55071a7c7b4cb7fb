//! Checks that look at one file at a time.

use super::source;
use super::tree::{Finding, Text, Tree};

/// Lines after which a file no longer fits one sitting.
const LONGEST: usize = 500;

/// The beginnings of parameter names in checkpoints that are not in diffusers layout.
const FOREIGN_KEYS: [&str; 8] = [
    "lora_unet_",
    "lora_te_",
    "lora_te1_",
    "lora_te2_",
    "model.diffusion_model",
    "first_stage_model",
    "cond_stage_model",
    "conditioner.embedders",
];

/// What a library must leave to the program: printing, the environment and the network.
const NOT_IN_LIBRARIES: [(&str, &str); 11] = [
    ("println!", "libraries do not print: return the value"),
    ("eprintln!", "libraries do not print: return the value"),
    ("print!", "libraries do not print: return the value"),
    ("eprint!", "libraries do not print: return the value"),
    ("env::var", "libraries do not read the environment: take a setting"),
    ("env::var_os", "libraries do not read the environment: take a setting"),
    ("TcpStream", "libraries do not touch the network"),
    ("UdpSocket", "libraries do not touch the network"),
    ("ureq", "libraries do not touch the network"),
    ("object_store", "libraries do not touch the network"),
    ("tokio", "libraries do not touch the network"),
];

/// The places that touch the network, by what they touch it with.
const MAY: [(&str, &str); 6] = [
    ("ureq", "crates/hub/src/"),
    ("object_store", "crates/hub/src/remote/"),
    ("tokio", "crates/hub/src/remote/"),
    ("tokio", "crates/web/src/"),
    ("TcpStream", "crates/web/src/server/"),
    ("UdpSocket", "crates/web/src/server/"),
];

/// All findings of this module.
pub fn findings(tree: &Tree) -> Vec<Finding> {
    let checks = [rust, length, unnumbered_work, machine_paths];
    checks.iter().flat_map(|check| tree.texts.iter().flat_map(check)).collect()
}

/// Words that may not occur in Rust code, by where the code lies.
fn rust(file: &Text) -> Vec<Finding> {
    if file.ending() != "rs" {
        return Vec::new();
    }
    let path = file.path.as_str();
    let code = source::code(&file.text);
    let mut found = Vec::new();
    let mut forbid = |text: &str, word: &str, message: &str| {
        for (line, text) in text.lines().enumerate() {
            if contains_word(text, word) {
                found.push(Finding::on_line(path, line, format!("`{word}`: {message}")));
            }
        }
    };
    if !path.starts_with("crates/torch/") {
        forbid(&code, "unsafe", "only crates/torch may hold unsafe code");
    }
    forbid(&code, "[allow(", "write `#[expect(lint, reason = \"...\")]`");
    let plain = if is_test(path) { String::new() } else { source::without_tests(&code) };
    forbid(&plain, ".unwrap()", "return an error, or `expect` with the reason it cannot fail");
    if is_library(path) {
        for (word, message) in NOT_IN_LIBRARIES {
            if MAY.iter().any(|(known, place)| *known == word && path.starts_with(place)) {
                continue;
            }
            forbid(&plain, word, message);
        }
    }
    if path.starts_with("crates/") && !path.ends_with("/keys.rs") {
        let literals = source::code_and_literals(&file.text);
        for key in FOREIGN_KEYS {
            forbid(&literals, key, "foreign checkpoint keys belong into a keys.rs");
        }
    }
    found
}

fn length(file: &Text) -> Vec<Finding> {
    let lines = file.text.lines().count();
    let long = file.ending() == "rs" && lines > LONGEST;
    let message = format!("{lines} lines, and {LONGEST} is the most: split it by reason to change");
    long.then(|| Finding::at(&file.path, message)).into_iter().collect()
}

/// Notes about work to do that name no issue.
fn unnumbered_work(file: &Text) -> Vec<Finding> {
    // The words are put together here so that this file does not hold them.
    let words = [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("XX", "X")];
    let commented = ["rs", "py", "toml", "sh", "css", "js", "html"].contains(&file.ending());
    let lines = file.text.lines().enumerate().filter(|_| commented);
    let open = lines.filter(|(_, line)| {
        words.iter().any(|word| contains_word(line, word) && !line.contains(&format!("{word}(#")))
    });
    let message = format!("work to do needs the number of its issue: {}(#12)", words[0]);
    open.map(|(line, _)| Finding::on_line(&file.path, line, message.as_str())).collect()
}

/// Absolute paths that exist on one machine only.
fn machine_paths(file: &Text) -> Vec<Finding> {
    let folders = [
        concat!("/ro", "ot/"),
        concat!("/ho", "me/"),
        concat!("/Us", "ers/"),
        concat!("/tm", "p/w"),
        concat!("/wo", "rk/"),
    ];
    let is_start = |text: &str, at: usize| {
        let before = text[..at].chars().next_back();
        !before.is_some_and(|character| character.is_alphanumeric() || "._-~/})".contains(character))
    };
    let mut found = Vec::new();
    for (line, text) in file.text.lines().enumerate() {
        for folder in folders {
            if text.match_indices(folder).any(|(at, _)| is_start(text, at)) {
                found.push(Finding::on_line(
                    &file.path,
                    line,
                    format!("`{folder}` is a path of one machine"),
                ));
            }
        }
    }
    found
}

/// Whether the file holds tests only.
pub(super) fn is_test(path: &str) -> bool {
    path.contains("/tests/") || path.ends_with("/tests.rs")
}

/// Whether the file is part of a library crate: build scripts, programs and the test kit are not.
fn is_library(path: &str) -> bool {
    let mut parts = path.split('/');
    let (crates, name, folder) = (parts.next(), parts.next(), parts.next());
    let program = path.ends_with("/main.rs") || path.contains("/src/bin/");
    crates == Some("crates")
        && !matches!(name, Some("cli" | "testkit" | "testkit-torch"))
        && folder == Some("src")
        && !program
}

/// Whether `word` occurs in `line` and is not a part of a longer name.
fn contains_word(line: &str, word: &str) -> bool {
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    let (opens, closes) = (word.starts_with(is_name), word.ends_with(is_name) && !word.ends_with('_'));
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        let cut = opens && before.is_some_and(is_name) || closes && after.is_some_and(is_name);
        !cut
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::Tree;
    use super::findings;

    /// The places that are found in one made-up file.
    fn places(path: &str, text: &str) -> Vec<String> {
        findings(&Tree::made_of(&[(path, text)])).into_iter().map(|finding| finding.place).collect()
    }

    const NOTHING: [&str; 0] = [];

    #[test]
    fn unsafe_code_lives_in_the_torch_crate_only() {
        let text = "//! unsafe in a comment\nfn a() { unsafe { b() } }\nfn unsafe_name() {}\n";
        assert_eq!(places("crates/math/src/lib.rs", text), ["crates/math/src/lib.rs:2"]);
        assert_eq!(places("crates/torch/src/lib.rs", text), NOTHING);
    }

    #[test]
    fn lints_are_expected_and_never_allowed() {
        assert_eq!(places("xtask/src/a.rs", "#[allow(dead_code)]\nfn a() {}\n"), ["xtask/src/a.rs:1"]);
        assert_eq!(places("xtask/src/a.rs", "#![allow(dead_code)]\n"), ["xtask/src/a.rs:1"]);
        assert_eq!(places("xtask/src/a.rs", "#[expect(dead_code, reason = \"[allow(\")]\n"), NOTHING);
    }

    #[test]
    fn unwrap_is_for_tests() {
        let text =
            "fn a() { b.unwrap(); c.unwrap_or(1); }\n#[cfg(test)]\nmod tests { fn d() { e.unwrap(); } }\n";
        assert_eq!(places("crates/cli/src/main.rs", text), ["crates/cli/src/main.rs:1"]);
        assert_eq!(places("crates/cli/tests/demo.rs", text), NOTHING);
    }

    #[test]
    fn libraries_neither_print_nor_look_around() {
        let text = "fn a() { println!(); std::env::var(\"A\"); std::env::args(); TcpStream::connect(b); env!(\"C\"); }\n";
        assert_eq!(places("crates/data/src/lib.rs", text).len(), 3);
        for program in ["crates/cli/src/run.rs", "crates/torch/link.rs", "xtask/src/main.rs"] {
            assert_eq!(places(program, text), NOTHING);
        }
    }

    #[test]
    fn one_crate_touches_the_network() {
        let text = "fn a() { ureq::get(b); }\n";
        assert_eq!(places("crates/store/src/json.rs", text), ["crates/store/src/json.rs:1"]);
        assert_eq!(places("crates/hub/src/client.rs", text), NOTHING);
        for text in ["use object_store::path::Path;\n", "fn a() { tokio::time::sleep(b); }\n"] {
            assert_eq!(places("crates/data/src/lib.rs", text), ["crates/data/src/lib.rs:1"]);
            assert_eq!(places("crates/hub/src/client.rs", text), ["crates/hub/src/client.rs:1"]);
            assert_eq!(places("crates/hub/src/remote/tree.rs", text), NOTHING);
        }
    }

    #[test]
    fn foreign_keys_are_named_in_key_tables_only() {
        for key in super::FOREIGN_KEYS {
            let text = format!("const K: &str = \"{key}.x\"; // {key}\n");
            assert_eq!(
                places("crates/models/src/unet/model.rs", &text),
                ["crates/models/src/unet/model.rs:1"]
            );
            assert_eq!(places("crates/models/src/unet/keys.rs", &text), NOTHING);
        }
    }

    #[test]
    fn a_file_of_501_lines_is_too_long() {
        assert_eq!(places("crates/run/src/lib.rs", &"\n".repeat(501)), ["crates/run/src/lib.rs"]);
        assert_eq!(places("crates/run/src/lib.rs", &"\n".repeat(500)), NOTHING);
        assert_eq!(places("golden/a.json", &"\n".repeat(501)), NOTHING);
    }

    #[test]
    fn work_to_do_carries_its_number() {
        let word = concat!("TO", "DO");
        assert_eq!(places("golden/a/make.py", &format!("# {word}: later\n")), ["golden/a/make.py:1"]);
        assert_eq!(places("golden/a/make.py", &format!("# {word}(#12): later\n")), NOTHING);
        assert_eq!(places("CONTRIBUTING.md", &format!("No {word} without a number.\n")), NOTHING);
    }

    #[test]
    fn paths_of_one_machine_are_found_and_lookalikes_are_not() {
        let path = concat!("/ro", "ot/x");
        assert_eq!(
            places("docs/log.md", &format!("at {path}\n`{path}`\n")),
            ["docs/log.md:1", "docs/log.md:2"]
        );
        assert_eq!(places("docs/log.md", &format!("target{path} and ~{path}\n")), NOTHING);
    }
}
