//! What an image says it was generated from.
//!
//! Source: the text chunks that AUTOMATIC1111's web UI (`parameters`) and ComfyUI (`prompt`, a graph as JSON) write into PNG
//! files.

use std::io::{BufRead, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use png::{Decoder, Limits};
use serde_json::{Map, Value};

use super::MAX_CAPTION_BYTES;

/// Text of one chunk, unpacked; a graph of ComfyUI has some tens of kilobytes.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// Links followed in all from a sampler to its text: nodes may link in circles.
const MAX_LINKS: usize = 200;

/// The prompt in the header of a PNG, `None` in whatever else, and where it says nothing that can be read. Pixels are not
/// decoded.
pub fn prompt_of(file: impl BufRead + Seek) -> Option<String> {
    // The decoder meets bytes of strangers: whatever it does with them, there is no prompt.
    let texts = catch_unwind(AssertUnwindSafe(|| texts(file))).ok().flatten()?;
    let find = |wanted: &str| texts.iter().find(|(keyword, _)| keyword == wanted).map(|(_, text)| text);
    let prompt = match find("parameters") {
        Some(parameters) => Some(of_parameters(parameters)),
        None => of_graph(&serde_json::from_str(find("prompt")?).ok()?),
    };
    prompt.map(|prompt| prompt.trim().to_owned()).filter(|prompt| prompt.len() <= MAX_CAPTION_BYTES)
}

/// Keyword and text of the text chunks before the pixels.
fn texts(file: impl BufRead + Seek) -> Option<Vec<(String, String)>> {
    let reader = Decoder::new_with_limits(file, Limits { bytes: 16 << 20 }).read_info().ok()?;
    let info = reader.info();
    let mut texts: Vec<(String, String)> = info
        .uncompressed_latin1_text
        .iter()
        .map(|chunk| (chunk.keyword.clone(), chunk.text.clone()))
        .collect();
    for chunk in &info.compressed_latin1_text {
        let mut chunk = chunk.clone();
        if chunk.decompress_text_with_limit(MAX_TEXT_BYTES).is_ok() {
            texts.extend(chunk.get_text().ok().map(|text| (chunk.keyword, text)));
        }
    }
    for chunk in &info.utf8_text {
        let mut chunk = chunk.clone();
        if chunk.decompress_text_with_limit(MAX_TEXT_BYTES).is_ok() {
            texts.extend(chunk.get_text().ok().map(|text| (chunk.keyword, text)));
        }
    }
    Some(texts)
}

/// The web UI's text: the prompt, then a line of what is not wanted, then a line of settings.
fn of_parameters(text: &str) -> String {
    let lines =
        text.lines().take_while(|line| !line.starts_with("Negative prompt:") && !line.starts_with("Steps:"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The text that the sampler of a graph is conditioned on. Graphs with several samplers must agree.
fn of_graph(graph: &Value) -> Option<String> {
    let nodes = graph.as_object()?;
    let samplers =
        nodes.values().filter(|node| class(node).is_some_and(|class| class.starts_with("KSampler")));
    let mut prompts = samplers
        .filter_map(|sampler| text(nodes, sampler.get("inputs")?.get("positive")?, &mut { MAX_LINKS }));
    let first = prompts.next()?;
    prompts.all(|other| other == first).then_some(first)
}

fn class(node: &Value) -> Option<&str> {
    node.get("class_type")?.as_str()
}

/// The text at the end of a link `[node, output]`, through nodes that pass conditioning or text on.
fn text(nodes: &Map<String, Value>, link: &Value, links: &mut usize) -> Option<String> {
    if let Some(text) = link.as_str() {
        return Some(text.to_owned());
    }
    *links = links.checked_sub(1)?;
    let inputs = nodes.get(link.get(0)?.as_str()?)?.get("inputs")?;
    ["text", "positive", "conditioning", "string", "value"]
        .into_iter()
        .find_map(|name| text(nodes, inputs.get(name)?, links))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn image(keyword: &str, text: &str, kind: u8) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        match kind {
            0 => encoder.add_text_chunk(keyword.into(), text.into()).unwrap(),
            1 => encoder.add_ztxt_chunk(keyword.into(), text.into()).unwrap(),
            _ => encoder.add_itxt_chunk(keyword.into(), text.into()).unwrap(),
        }
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
        bytes
    }

    fn prompt(keyword: &str, text: &str, kind: u8) -> Option<String> {
        prompt_of(Cursor::new(image(keyword, text, kind)))
    }

    #[test]
    fn the_web_uis_prompt_ends_where_its_settings_begin() {
        let text = "a fox,\nin snow\nNegative prompt: blurry\nSteps: 20, Sampler: Euler";
        for kind in 0..3 {
            assert_eq!(prompt("parameters", text, kind).as_deref(), Some("a fox,\nin snow"), "{kind}");
        }
        assert_eq!(prompt("parameters", "a fox\nSteps: 20", 0).as_deref(), Some("a fox"));
        assert_eq!(prompt("parameters", "Steps: 20", 0).as_deref(), Some(""));
        assert_eq!(prompt("parameters", "ein Füchslein", 2).as_deref(), Some("ein Füchslein"));
    }

    #[test]
    fn a_graphs_prompt_is_what_its_sampler_follows() {
        let graph = r#"{
            "3": {"class_type": "KSampler", "inputs": {"seed": 1, "positive": ["9", 0], "negative": ["7", 0]}},
            "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["8", 0], "clip": ["4", 1]}},
            "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "blurry", "clip": ["4", 1]}},
            "8": {"class_type": "PrimitiveString", "inputs": {"value": "a fox"}},
            "9": {"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}}
        }"#;
        assert_eq!(prompt("prompt", graph, 0).as_deref(), Some("a fox"));
    }

    #[test]
    fn links_in_a_circle_and_other_nonsense_are_no_prompt() {
        let circle = r#"{"1": {"class_type": "KSampler", "inputs": {"positive": ["2", 0]}},
            "2": {"inputs": {"text": ["2", 0], "positive": ["2", 0], "string": ["2", 0]}}}"#;
        for text in [circle, "{}", "[", "7", r#"{"1": {"class_type": "KSampler"}}"#] {
            assert_eq!(prompt("prompt", text, 0), None, "{text}");
        }
        assert_eq!(prompt("workflow", "{}", 0), None);
        assert_eq!(prompt_of(Cursor::new(b"\xff\xd8\xff\xe0".to_vec())), None);
        let mut cut = image("parameters", "a fox", 0);
        cut.truncate(40);
        assert_eq!(prompt_of(Cursor::new(cut)), None);
    }

    #[test]
    fn text_that_unpacks_without_end_is_no_prompt() {
        assert_eq!(prompt("parameters", &"a".repeat(50 << 20), 1), None);
    }
}
