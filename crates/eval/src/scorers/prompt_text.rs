//! What OpenCLIP's tokenizer does to a prompt before it splits it.
//!
//! Prompts typed by people have curly quotes and entities of HTML in them, and other ids mean another score. What ftfy does
//! beyond that, above all undoing text that was decoded wrongly, is skipped.
//!
//! Source: `basic_clean` in `mlfoundations/open_clip:src/open_clip/tokenizer.py`; ftfy's `uncurl_quotes`,
//! `fix_latin_ligatures` and `fix_character_width`.

use html_escape::decode_html_entities;

/// A prompt as OpenCLIP tokenizes it; lower case and white space are the tokenizer's own work.
pub(super) fn open_clip_text(prompt: &str) -> String {
    // ftfy takes text with a `<` for HTML itself and leaves its entities alone, but the tokenizer then decodes them twice.
    let mut plain = String::with_capacity(prompt.len());
    prompt.chars().for_each(|letter| push_plain(letter, &mut plain));
    decode_html_entities(&decode_html_entities(&plain)).trim().to_owned()
}

fn push_plain(letter: char, text: &mut String) {
    match letter {
        '\u{2bc}' | '\u{2018}'..='\u{201b}' => text.push('\''),
        '\u{201c}'..='\u{201f}' => text.push('"'),
        '\u{fb00}' => text.push_str("ff"),
        '\u{fb01}' => text.push_str("fi"),
        '\u{fb02}' => text.push_str("fl"),
        '\u{fb03}' => text.push_str("ffi"),
        '\u{fb04}' => text.push_str("ffl"),
        '\u{fb05}' => text.push_str("\u{17f}t"),
        '\u{fb06}' => text.push_str("st"),
        '\u{3000}' => text.push(' '),
        '\u{ff01}'..='\u{ff5e}' => text.extend(char::from_u32(u32::from(letter) - 0xfee0)),
        _ => text.push(letter),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_cleaned_as_open_clip_does() {
        let recorded = include_str!("../../../../golden/scorers/hps/cleaned.json");
        let recorded: Vec<(String, String)> = serde_json::from_str(recorded).unwrap();
        assert!(recorded.len() > 10);
        for (typed, cleaned) in recorded {
            // The tokenizer makes one space of each run of white space.
            let ours = open_clip_text(&typed);
            assert_eq!(ours.split_whitespace().collect::<Vec<_>>().join(" "), cleaned, "{typed:?}");
        }
    }
}
