//! Sets of prompts in the layouts that benchmarks publish.

#![expect(clippy::unwrap_used, reason = "a test stops at the first thing that is not as it should be")]

use std::path::Path;

use tastemaker_generate::prompts::{PromptSet, read, select};
use tempfile::TempDir;

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn texts(set: &PromptSet) -> Vec<&str> {
    set.prompts.iter().map(|prompt| prompt.text.as_str()).collect()
}

fn read_one(name: &str, text: &str) -> PromptSet {
    read(folder(&[(name, text)]).path().join(name)).unwrap()
}

#[test]
fn parti_prompts_are_a_table_without_quotes() {
    let set = read_one(
        "PartiPrompts.tsv",
        "Prompt\tCategory\tChallenge\tNote\nbond\tAbstract\tBasic\tBiology\n\
         The words \"Fly an airplane\" on a wall\tOutdoor Scenes\tComplex\t\n\"quoted\" at the start\tArts\tBasic\n",
    );
    assert_eq!(texts(&set), ["bond", "The words \"Fly an airplane\" on a wall", "\"quoted\" at the start"]);
    assert_eq!(set.categories(), [("Abstract", 1), ("Outdoor Scenes", 1), ("Arts", 1)]);
    assert_eq!((set.name.as_str(), set.prompts[2].id.as_str()), ("PartiPrompts", "2"));
}

#[test]
fn the_lists_of_hpsv2_are_categories_and_keep_what_repeats() {
    let list = |style: &str| {
        let prompts: Vec<String> = (0..800).map(|i| format!("{style} {}", i.min(797))).collect();
        serde_json::to_string(&prompts).unwrap()
    };
    let styles = ["anime", "concept-art", "paintings", "photo"];
    let lists = styles.map(|style| (format!("{style}.json"), list(style)));
    let files: Vec<(&str, &str)> = lists.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let folder = folder(&files);
    let set = read(folder.path()).unwrap();
    assert_eq!(set.categories(), styles.map(|style| (style, 800)));
    assert_eq!(
        (set.prompts[801].id.as_str(), set.prompts[801].text.as_str()),
        ("concept-art/00001", "concept-art 1")
    );
    assert_eq!(set.summary(), "3200 prompts in 4 categories, 8 of which repeat an earlier one");
    let one = read(folder.path().join("photo.json")).unwrap();
    assert_eq!((one.prompts.len(), one.prompts[7].id.as_str()), (800, "photo/00007"));
}

#[test]
fn lists_of_objects_and_of_texts_are_read() {
    let of_objects = read_one(
        "papv2.json",
        r#"[{"prompt": "a fox", "metadata": {}}, {"prompt": "rain", "metadata": {}}]"#,
    );
    assert_eq!(texts(&of_objects), ["a fox", "rain"]);
    let by_style = read_one("all.json", r#"{"photo": ["a fox"], "anime": ["rain", "sun"]}"#);
    assert_eq!(by_style.categories(), [("photo", 1), ("anime", 2)]);
    let lines = read_one("own.jsonl", "{\"prompt\": \"a fox\", \"category\": \"animals\"}\n\n\"rain\"\n");
    assert_eq!((texts(&lines), lines.categories()), (vec!["a fox", "rain"], vec![("animals", 1)]));
}

#[test]
fn plain_lists_skip_blank_lines_and_csv_may_quote() {
    assert_eq!(texts(&read_one("p.txt", "\u{feff}a fox\r\n\n  rain \n")), ["a fox", "rain"]);
    let csv = read_one("p.csv", "id,caption,style\n1,\"a fox, asleep\",photo\n2,,photo\n");
    assert_eq!((texts(&csv), csv.n_rows), (vec!["a fox, asleep"], 2));
    assert_eq!(csv.summary(), "1 prompt in one category out of 2 rows, the others being repeated or empty");
}

#[test]
fn a_folder_with_one_list_is_that_list() {
    let one = folder(&[("prompts.txt", "a fox\n"), ("README.md", "#")]);
    assert_eq!(texts(&read(one.path()).unwrap()), ["a fox"]);
    let two = folder(&[("a.txt", "a fox\n"), ("b.txt", "rain\n")]);
    let error = read(two.path()).unwrap_err().to_string();
    assert!(error.ends_with("is no set of prompts: it holds 2 lists; name one of them"), "{error}");
}

#[test]
fn the_built_in_set_has_eight_prompts_of_each_kind() {
    let set = PromptSet::small().unwrap();
    let kinds = ["people", "animals", "scenes", "things", "text", "counting", "relations", "styles"];
    assert_eq!(set.categories(), kinds.map(|kind| (kind, 8)));
    assert_eq!(set.summary(), "64 prompts in 8 categories");
    assert!(set.prompts.iter().any(|prompt| prompt.text.contains("\"OPEN LATE\"")));
}

#[test]
fn a_fingerprint_is_that_of_texts_and_categories() {
    let of = |text: &str| read_one("p.tsv", text).fingerprint();
    let first = of("prompt\tcategory\na fox\tanimals\n");
    assert_eq!(first, of("category\tprompt\nanimals\ta fox\n"));
    assert_ne!(first, of("prompt\tcategory\na fox\tbeasts\n"));
    assert_ne!(first, of("prompt\na fox\n"));
}

#[test]
fn what_holds_no_prompts_is_refused_with_what_it_holds() {
    let refusal = |name: &str, text: &str| {
        let folder = folder(&[(name, text)]);
        let error = read(folder.path().join(name)).unwrap_err().to_string();
        error.replace(&format!("{}/", folder.path().display()), "")
    };
    insta::assert_snapshot!(
        [
            refusal("p.tsv", "a\tb\n1\t2\n"),
            refusal("p.txt", "\n \n"),
            refusal("p.json", "[3]"),
            refusal("p.json", "[{\"name\": \"a\"}]"),
            refusal("p.json", "7"),
            refusal("p.jsonl", "b\n3\n"),
            refusal("p.csv", ""),
            refusal("p.docx", "a"),
        ]
        .join("\n"),
        @r"
    p.tsv is no set of prompts: its columns are a, b; wanted one called prompt, caption, text, description
    p.txt is no set of prompts: there is no prompt in it
    p.json is no set of prompts: there is no prompt in it; item 0 (counted from 0) is neither a text nor an object
    p.json is no set of prompts: there is no prompt in it; item 0 (counted from 0) has no text called prompt, caption, text, description
    p.json is no set of prompts: it holds neither a list nor an object of lists
    p.jsonl is no set of prompts: there is no prompt in it; line 1 is not valid JSON: expected value at column 1
    p.csv is no set of prompts: it is empty; wanted a column called prompt, caption, text, description
    p.docx is no set of prompts: its name does not end in .txt, .tsv, .csv, .json, .jsonl or .parquet
    "
    );
    let error = read(Path::new("nowhere.txt")).unwrap_err().to_string();
    assert_eq!(
        error,
        "nowhere.txt does not exist; wanted a file or a folder of prompts, or one of the names small, demo, demo:train, demo:held-out and demo:TASK"
    );
}

#[test]
fn a_malformed_row_is_skipped_by_name_and_the_others_keep_their_numbers() {
    let cases: [(&str, &[u8], &str); 11] = [
        ("p.txt", b"a fox\n\ncaf\xe9\nrain\n", "line 3 is not UTF-8"),
        ("p.tsv", b"prompt\tstyle\na fox\tx\ncaf\xe9\ty\nrain\tz\n", "line 3 is not UTF-8"),
        ("p.csv", b"prompt\na fox\ncaf\xe9\nrain\n", "line 3 is not UTF-8"),
        (
            "p.csv",
            b"prompt,style\na fox,x\nan owl, asleep,y\nrain,z\n",
            "line 3 has 3 cells; put a prompt with commas",
        ),
        ("p.csv", b"prompt,style\na fox,x\n\"an owl,y\nrain,z\n", "line 3 opens a quote that is not closed"),
        (
            "p.csv",
            b"prompt,style\na fox,x\n\n\"an owl,y\n\nrain,z\n",
            "line 4 opens a quote that is not closed",
        ),
        (
            "p.json",
            b"[\"a fox\", 3, {\"prompt\": \"rain\"}]",
            "item 1 (counted from 0) is neither a text nor an object",
        ),
        ("p.json", b"[\"a fox\", \"caf\xe9\", \"rain\"]", "item 1 (counted from 0) is not UTF-8"),
        (
            "p.json",
            b"{\"x\": [\"a fox\", {\"name\": 1}], \"y\": [\"rain\"]}",
            "`x`: item 1 (counted from 0) has no text called",
        ),
        ("p.jsonl", b"\"a fox\"\n\n{\"prompt\": \n\"rain\"\n", "line 3 is not valid JSON"),
        ("p.jsonl", b"\"a fox\"\n{\"prompt\": 7}\n{\"text\": \"rain\"}\n", "line 2 has no text called"),
    ];
    for (name, bytes, wanted) in cases {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let set = read(folder.path().join(name)).unwrap();
        let used: Vec<(usize, &str)> =
            set.used().map(|(number, prompt)| (number, prompt.text.as_str())).collect();
        assert_eq!(used, [(0, "a fox"), (2, "rain")], "{wanted}");
        assert!(set.skipped.len() == 1 && set.skipped[&1].starts_with(wanted), "{wanted}: {:?}", set.skipped);
        assert!(
            set.summary().starts_with("2 prompts") && set.summary().ends_with("; 1 malformed, skipped"),
            "{}",
            set.summary()
        );
        assert_eq!(select(&set, &[], None).unwrap(), [0, 2]);
    }
    // A quote within a cell, and a quoted cell of two lines, are none.
    let set = read_one("p.csv", "prompt,style\na 5\" pipe,x\n\"two\nlines\",y\nrain,,\n");
    assert_eq!((texts(&set), set.skipped.len()), (vec!["a 5\" pipe", "two\nlines", "rain"], 0));
}
