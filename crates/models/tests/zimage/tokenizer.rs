//! Token ids of prompts in their chat against transformers' `Qwen2Tokenizer` (`golden/zimage/tokenizer`).

use tastemaker_models::tokenizer::{QwenTokenizer, TokenizerFiles};
use tastemaker_testkit_torch::{Golden, recorded_prompts, tokenizer_prompts};
use tch::Kind;

#[test]
fn ids_equal_transformers_on_every_recorded_prompt() {
    let golden = Golden::load("zimage", "tokenizer");
    let prompts: Vec<String> = tokenizer_prompts().into_iter().chain(recorded_prompts("sd3")).collect();
    let length: usize = golden.note("length").unwrap().parse().unwrap();
    let tokenizer = QwenTokenizer::from_files(&TokenizerFiles::in_folder(golden.path("")), length).unwrap();
    let lengths = Vec::<i64>::try_from(golden.tensor("lengths").to_kind(Kind::Int64)).unwrap();
    assert_eq!(lengths.len(), prompts.len());
    let mut wrong = Vec::new();
    for (i, (prompt, length)) in prompts.iter().zip(lengths).enumerate() {
        let row = golden.tensor("input_ids").get(i as i64).narrow(0, 0, length);
        let wanted = Vec::<i64>::try_from(row.to_kind(Kind::Int64)).unwrap();
        let found = tokenizer.encode(prompt);
        if found != wanted {
            wrong.push(format!("{prompt:?}\n  found  {found:?}\n  wanted {wanted:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} prompts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn the_tokenizer_of_another_encoder_is_refused() {
    let other = TokenizerFiles::in_folder(Golden::load("sd3", "tokenizer").path(""));
    let refused = QwenTokenizer::from_files(&other, 8).unwrap_err().to_string();
    assert!(refused.contains("another model than BPE; wanted the tokenizer of a Qwen encoder"), "{refused}");
}
