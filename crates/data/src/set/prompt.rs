//! What an image says it was generated from.
//!
//! Source: the text chunks that AUTOMATIC1111's web UI (`parameters`) and ComfyUI (`prompt`, a graph as JSON) write into PNG
//! files.

use std::collections::BTreeMap;
use std::io::{BufRead, Seek};
use std::panic::{AssertUnwindSafe, catch_unwind};

use png::{Decoder, Limits};
use serde_json::{Map, Value};

use super::MAX_CAPTION_BYTES;

/// Text of all chunks of an image that are unpacked; a graph of ComfyUI has some tens of kilobytes.
const MAX_TEXT_BYTES: usize = 4 << 20;

/// What the header of an image may take, packed.
const MAX_HEADER_BYTES: usize = 16 << 20;

/// The chunk of the web UI, and that of ComfyUI.
const KEYWORDS: [&str; 2] = ["parameters", "prompt"];

/// Links followed in all from a sampler to its text: nodes may link in circles.
const MAX_LINKS: usize = 200;

/// The prompt of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePrompt {
    /// What it shall show.
    pub text: String,
    /// The prompt as it was typed, where networks were named in it: `a fox <lora:snow:0.8>`.
    pub original: Option<String>,
}

impl ImagePrompt {
    fn of(typed: &str) -> Self {
        let typed = typed.trim();
        let text = without_networks(typed);
        Self { original: (text != typed).then(|| typed.to_owned()), text }
    }

    /// Whether two images have one prompt, but for networks and the commas that are left where they were.
    pub fn agrees(&self, other: &Self) -> bool {
        let end = |prompt: &str| prompt.trim_end_matches([',', ' ']).len();
        self.text[..end(&self.text)] == other.text[..end(&other.text)]
    }
}

/// The prompt in the header of a PNG, `None` in whatever else, and where it says nothing that can be read. Pixels are not
/// decoded.
pub fn prompt_of(file: impl BufRead + Seek) -> Option<ImagePrompt> {
    let mut texts = png_texts(file, &KEYWORDS);
    let prompt = match texts.remove("parameters") {
        Some(parameters) => of_parameters(&parameters),
        None => of_graph(&serde_json::from_str(&texts.remove("prompt")?).ok()?)?,
    };
    Some(ImagePrompt::of(&prompt)).filter(|prompt| prompt.text.len() <= MAX_CAPTION_BYTES)
}

/// The first text under each of these keywords in the chunks of a PNG before its pixels. Texts that together unpack to more than
/// 4 MiB are not read.
pub fn png_texts(file: impl BufRead + Seek, keywords: &[&str]) -> BTreeMap<String, String> {
    // The decoder meets bytes of strangers: whatever it does with them, there is no text.
    catch_unwind(AssertUnwindSafe(|| read_texts(file, keywords))).ok().flatten().unwrap_or_default()
}

fn read_texts(file: impl BufRead + Seek, keywords: &[&str]) -> Option<BTreeMap<String, String>> {
    let reader = Decoder::new_with_limits(file, Limits { bytes: MAX_HEADER_BYTES }).read_info().ok()?;
    let info = reader.info();
    let mut texts = BTreeMap::new();
    let mut left = MAX_TEXT_BYTES;
    let mut keep = |keyword: &str, unpack: &mut dyn FnMut(usize) -> Option<String>| {
        if keywords.contains(&keyword)
            && !texts.contains_key(keyword)
            && let Some(text) = unpack(left)
            && let Some(rest) = left.checked_sub(text.len())
        {
            left = rest;
            texts.insert(keyword.to_owned(), text);
        }
    };
    for chunk in &info.uncompressed_latin1_text {
        keep(&chunk.keyword, &mut |_| Some(chunk.text.clone()));
    }
    for chunk in &info.compressed_latin1_text {
        keep(&chunk.keyword, &mut |left| {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(left).ok()?;
            chunk.get_text().ok()
        });
    }
    for chunk in &info.utf8_text {
        keep(&chunk.keyword, &mut |left| {
            let mut chunk = chunk.clone();
            chunk.decompress_text_with_limit(left).ok()?;
            chunk.get_text().ok()
        });
    }
    Some(texts)
}

/// A prompt without the networks that it names, `<lora:snow:0.8>`, and without the space and the comma that each leaves behind.
///
/// Source: `re_extra_net` of `AUTOMATIC1111/stable-diffusion-webui`, `modules/extra_networks.py`.
fn without_networks(prompt: &str) -> String {
    let (mut text, mut rest) = (String::with_capacity(prompt.len()), prompt);
    while let Some((before, after)) = network(rest) {
        text += before;
        text.truncate(text.trim_end().len());
        rest = after.trim_start();
        if text.is_empty() {
            rest = rest.trim_start_matches([',', ' ']);
        } else if rest.is_empty() || rest.starts_with(',') {
            text.truncate(text.trim_end_matches([',', ' ']).len());
        } else {
            text.push(' ');
        }
    }
    text + rest
}

/// What is before and after the first network that a text names.
fn network(text: &str) -> Option<(&str, &str)> {
    let mut from = 0;
    while let Some(at) = text[from..].find('<').map(|at| from + at) {
        let inside = &text[at + 1..];
        let kind = inside.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(inside.len());
        if kind > 0
            && let Some(named) = inside[kind..].strip_prefix(':')
            && let Some(end) = named.find('>').filter(|end| *end > 0)
        {
            let end = at + 1 + kind + 1 + end + 1;
            return Some((&text[..at], &text[end..]));
        }
        from = at + 1;
    }
    None
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
        Some(prompt_of(Cursor::new(image(keyword, text, kind)))?.text)
    }

    #[test]
    fn networks_are_no_part_of_a_caption_and_the_original_is_kept() {
        let of = |typed: &str| prompt_of(Cursor::new(image("parameters", typed, 2))).unwrap();
        for (typed, text) in [
            ("a fox <lora:snow:0.8>", "a fox"),
            ("a fox, <lora:snow:0.8>, in snow", "a fox, in snow"),
            ("a fox <lora:snow:0.8>, in snow", "a fox, in snow"),
            ("a fox <lora:a:1> in snow", "a fox in snow"),
            ("<lora:a:1><lyco:b c:0.5:lbw=OUTALL>, a fox", "a fox"),
            ("a fox,\n<hypernet:x:1> <lora:y:-1>\nNegative prompt: <lora:z:1>", "a fox"),
            ("a fox,<lora:a:1><lora:b:1>in snow", "a fox, in snow"),
            ("<lora:a:1>", ""),
        ] {
            let prompt = of(typed);
            assert_eq!(prompt.text, text, "{typed}");
            let original = typed.split("\nNegative").next().unwrap();
            assert_eq!(prompt.original.as_deref(), Some(original), "{typed}");
        }
        for typed in ["a fox", "1 < 2: x > 0", "a <b> c", "<:a>", "<lora:>", "(fox:1.2)"] {
            assert_eq!((of(typed).text.as_str(), of(typed).original), (typed, None));
        }
        assert!(of("a fox, <lora:a:1>").agrees(&of("a fox,")));
        assert!(!of("a fox <lora:a:1>").agrees(&of("a cat")));
    }

    #[test]
    fn texts_are_unpacked_within_one_limit_for_all() {
        let mut bytes = Vec::new();
        let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
        let half = "a".repeat(MAX_TEXT_BYTES / 2 + 1);
        for keyword in ["other", "parameters", "parameters", "prompt"] {
            encoder.add_ztxt_chunk(keyword.into(), half.clone()).unwrap();
        }
        encoder.write_header().unwrap().write_image_data(&[0]).unwrap();
        let texts = png_texts(Cursor::new(bytes), &KEYWORDS);
        assert_eq!(texts.keys().collect::<Vec<_>>(), ["parameters"]);
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
