//! Token ids against transformers' `CLIPTokenizer` (`golden/tokenizer`), and what folders from elsewhere do.

use std::fs;

use serde_json::{Value, json};
use tastemaker_models::ModelError;
use tastemaker_models::original::{Layout, Preset};
use tastemaker_models::tokenizer::ClipTokenizer;
use tastemaker_store::StoreError;
use tastemaker_testkit_torch::{Golden, golden_dir, tokenizer_prompts};
use tempfile::TempDir;

/// A folder with a vocabulary of a few tokens, enough to spell `ab`.
fn tiny() -> TempDir {
    let folder = TempDir::new().expect("a temporary folder");
    let vocab = json!({"a": 0, "b</w>": 1, "b": 2, "ab</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5});
    fs::write(folder.path().join("vocab.json"), vocab.to_string()).expect("written");
    fs::write(folder.path().join("merges.txt"), "#version: 0.2\na b</w>\n").expect("written");
    write_config(&folder, json!({"model_max_length": 5}));
    folder
}

fn write_config(folder: &TempDir, config: Value) {
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("written");
}

fn fault(folder: &TempDir) -> String {
    let error = ClipTokenizer::from_folder(folder.path()).expect_err("the folder is at fault");
    assert!(matches!(error, ModelError::Tokenizer { .. }), "{error:?}");
    error.to_string()
}

#[test]
fn ids_equal_transformers_on_every_recorded_prompt() {
    let golden = Golden::load("tokenizer", "");
    let prompts = tokenizer_prompts();
    for name in ["tokenizer", "tokenizer_2"] {
        let folder = TempDir::new().unwrap();
        for (file, text) in Preset::published(Layout::Sd1).tokenizer(false) {
            fs::write(folder.path().join(file), text).unwrap();
        }
        for file in ["tokenizer_config.json", "special_tokens_map.json"] {
            fs::copy(golden_dir("tokenizer", name).join(file), folder.path().join(file)).unwrap();
        }
        let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
        assert_eq!((tokenizer.max_length(), tokenizer.n_ids()), (77, 49408));
        let ids = golden.tensor(&format!("{name}.input_ids"));
        assert_eq!(ids.size(), [prompts.len() as i64, 77]);
        let mut wrong = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            let expected = Vec::<i64>::try_from(ids.get(i as i64).to_kind(tch::Kind::Int64)).unwrap();
            let found = tokenizer.encode(prompt);
            if found != expected {
                wrong.push(format!("{prompt:?}\n  found  {found:?}\n  wanted {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{name}, {} prompts:\n{}", wrong.len(), wrong.join("\n"));
    }
}

#[test]
fn a_batch_is_its_prompts_one_after_the_other() {
    let folder = tiny();
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab"), [4, 3, 5, 5, 5]);
    assert_eq!(tokenizer.encode_batch(&["AB", ""]), [4, 3, 5, 5, 5, 4, 5, 5, 5, 5]);
}

#[test]
fn a_prompt_that_is_too_long_keeps_its_end_token() {
    let folder = tiny();
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab ab ab ab"), [4, 3, 3, 3, 5]);
}

#[test]
fn one_file_says_the_same_as_two() {
    let folder = tiny();
    fs::remove_file(folder.path().join("vocab.json")).unwrap();
    fs::remove_file(folder.path().join("merges.txt")).unwrap();
    for merges in [json!(["a b</w>"]), json!([["a", "b</w>"]])] {
        let vocab =
            json!({"a": 0, "b</w>": 1, "b": 2, "ab</w>": 3, "<|startoftext|>": 4, "<|endoftext|>": 5});
        let file = json!({
            "model": {"type": "BPE", "vocab": vocab, "merges": merges},
            "added_tokens": [{"id": 5, "content": "<|endoftext|>", "special": true, "normalized": false}],
        });
        fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
        let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.encode("ab<|endoftext|>ab"), [4, 3, 5, 3, 5]);
    }
}

#[test]
fn an_added_token_takes_the_id_the_folder_gives_it() {
    let folder = tiny();
    let token = |content: &str| json!({"content": content, "special": false, "normalized": true});
    write_config(&folder, json!({"model_max_length": 5, "added_tokens_decoder": {"6": token("<ba>")}}));
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab <ba>"), [4, 3, 6, 5, 5]);
    assert_eq!(tokenizer.n_ids(), 7);

    write_config(&folder, json!({"model_max_length": 5, "added_tokens_decoder": {"9": token("<ba>")}}));
    assert!(fault(&folder).contains("`<ba>` has id 9"), "{}", fault(&folder));
    write_config(&folder, json!({"model_max_length": 5, "added_tokens_decoder": {"9": token("a")}}));
    assert!(fault(&folder).contains("the vocabulary gives it 0"), "{}", fault(&folder));
}

#[test]
fn the_special_tokens_map_overrules_the_settings() {
    let folder = tiny();
    let write_map =
        |map: Value| fs::write(folder.path().join("special_tokens_map.json"), map.to_string()).unwrap();
    write_config(&folder, json!({"model_max_length": 5, "pad_token": "<|endoftext|>"}));
    write_map(json!({"pad_token": {"content": "a", "normalized": true}}));
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab"), [4, 0, 1, 5, 0]);
    write_map(json!({"pad_token": "zebra"}));
    assert!(fault(&folder).contains("special_tokens_map.json: `pad_token` is zebra"), "{}", fault(&folder));
}

#[test]
fn tokens_of_older_folders_are_found_in_the_text() {
    let folder = tiny();
    fs::write(folder.path().join("added_tokens.json"), "{\"<ba>\": 6}").unwrap();
    let tokenizer = ClipTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.encode("ab<ba>ab"), [4, 3, 6, 3, 5]);
}

#[test]
fn a_missing_vocabulary_names_the_file() {
    let folder = tiny();
    fs::remove_file(folder.path().join("vocab.json")).unwrap();
    let error = ClipTokenizer::from_folder(folder.path()).unwrap_err();
    assert!(matches!(&error, ModelError::Store(StoreError::Missing { .. })), "{error:?}");
    assert!(error.to_string().contains("vocab.json"), "{error}");
}

#[test]
fn a_vocabulary_that_is_not_json_names_the_file() {
    for contents in ["{\"a\": 0", "[\"a\"]", "{\"a\": -1}", "{\"a\": \"b\"}"] {
        let folder = tiny();
        fs::write(folder.path().join("vocab.json"), contents).unwrap();
        let error = ClipTokenizer::from_folder(folder.path()).unwrap_err();
        assert!(matches!(&error, ModelError::Store(StoreError::Json { .. })), "{error:?}");
        assert!(error.to_string().contains("vocab.json"), "{error}");
    }
}

#[test]
fn a_bad_merge_names_the_file_and_the_line() {
    for line in ["ab", "a b c", "", "a "] {
        let folder = tiny();
        fs::write(folder.path().join("merges.txt"), format!("#version: 0.2\na b</w>\n{line}\n")).unwrap();
        assert!(fault(&folder).contains("merges.txt: line 3"), "{}", fault(&folder));
    }
    let folder = tiny();
    fs::write(folder.path().join("merges.txt"), "a zebra\n").unwrap();
    assert!(fault(&folder).contains("merges.txt") && fault(&folder).contains("zebra"), "{}", fault(&folder));
}

#[test]
fn settings_that_would_change_the_ids_are_refused() {
    for (key, value) in [
        ("tokenizer_class", json!("T5Tokenizer")),
        ("padding_side", json!("left")),
        ("do_lower_case", json!(false)),
        ("model_max_length", json!(1e30)),
        ("model_max_length", Value::Null),
        ("pad_token", json!("zebra")),
        ("unk_token", json!("<ba>")),
        ("bos_token", json!(3)),
    ] {
        let folder = tiny();
        let added = json!({"6": {"content": "<ba>"}});
        let mut config = json!({"model_max_length": 5, "added_tokens_decoder": added});
        config[key] = value;
        write_config(&folder, config);
        let text = fault(&folder);
        assert!(text.contains("tokenizer_config.json") && text.contains(key), "{text}");
    }
}
