//! Token ids against transformers' `T5Tokenizer` (`golden/sd3/tokenizer`), and files that are something else.

use std::fs;

use serde_json::{Value, json};
use tastemaker_models::tokenizer::{T5Tokenizer, TokenizerFiles};
use tastemaker_testkit_torch::{Golden, recorded_prompts, tokenizer_prompts};
use tch::Kind;
use tempfile::TempDir;

#[test]
fn ids_equal_transformers_on_every_recorded_prompt() {
    let golden = Golden::load("sd3", "tokenizer");
    let prompts: Vec<String> = tokenizer_prompts().into_iter().chain(recorded_prompts("sd3")).collect();
    let length: usize = golden.note("length").unwrap().parse().unwrap();
    let tokenizer = T5Tokenizer::from_files(&TokenizerFiles::in_folder(golden.path("")), length).unwrap();
    let ids = golden.tensor("input_ids");
    assert_eq!(ids.size(), [prompts.len() as i64, length as i64]);
    let mut wrong = Vec::new();
    for (i, prompt) in prompts.iter().enumerate() {
        let wanted = Vec::<i64>::try_from(ids.get(i as i64).to_kind(Kind::Int64)).unwrap();
        let found = tokenizer.encode(prompt);
        if found != wanted {
            wrong.push(format!("{prompt:?}\n  found  {found:?}\n  wanted {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} prompts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_no_unigram_tokenizer_is_refused() {
    let golden = Golden::load("sd3", "tokenizer");
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut value = golden.json("tokenizer.json");
        change(&mut value);
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("tokenizer.json"), value.to_string()).unwrap();
        T5Tokenizer::from_files(&TokenizerFiles::in_folder(folder.path()), 8).unwrap_err().to_string()
    };
    let bpe = json!({"type": "BPE", "vocab": {"a": 0}, "merges": []});
    assert!(changed(&|value| value["model"] = bpe.clone()).contains("another model than Unigram"));
    assert!(
        changed(&|value| value["model"]["unk_id"] = Value::Null).contains("no id for what it does not know")
    );
    let without_end = changed(&|value| {
        value["added_tokens"] = json!([]);
        value["model"]["vocab"][1][0] = json!("<end>");
    });
    assert!(without_end.contains("`</s>` has no id"), "{without_end}");
    let empty = TempDir::new().unwrap();
    let missing =
        T5Tokenizer::from_files(&TokenizerFiles::in_folder(empty.path()), 8).unwrap_err().to_string();
    assert!(missing.contains("tokenizer.json"), "{missing}");
}
