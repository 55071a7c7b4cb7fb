//! What an image was generated with, inside the image: AUTOMATIC1111's `parameters`, which viewers of that program and of others
//! read.
//!
//! Source: `create_infotext` and `parse_generation_parameters` of `AUTOMATIC1111/stable-diffusion-webui:modules/`; text that is not
//! Latin-1 goes into an iTXt chunk, as Pillow has it.

use std::fmt::Write as _;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use image::RgbImage;
use tastemaker_data::set::png_texts;

/// The chunk's keyword.
const KEYWORD: &str = "parameters";

/// The text of one image: the prompt, the negative prompt, and one line of `settings`.
pub fn text(prompt: &str, negative_prompt: Option<&str>, settings: &[(&str, String)]) -> String {
    let mut text = prompt.to_owned();
    if let Some(negative) = negative_prompt.filter(|negative| !negative.is_empty()) {
        // Writing to a String cannot fail.
        let _ = write!(text, "\nNegative prompt: {negative}");
    }
    let settings: Vec<String> =
        settings.iter().map(|(name, value)| format!("{name}: {}", quoted(value))).collect();
    format!("{text}\n{}", settings.join(", "))
}

/// A value that has the separators in it is written as a JSON string.
fn quoted(value: &str) -> String {
    if value.contains([',', ':', '\n']) {
        serde_json::Value::from(value).to_string()
    } else {
        value.to_owned()
    }
}

/// A PNG file with the text.
///
/// # Errors
/// [`png::EncodingError`] for an image without pixels.
pub fn png(image: &RgbImage, text: &str) -> Result<Vec<u8>, png::EncodingError> {
    let text = text.replace('\0', " ");
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, image.width(), image.height());
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    if text.chars().all(|letter| u32::from(letter) < 256) {
        encoder.add_text_chunk(KEYWORD.to_owned(), text)?;
    } else {
        encoder.add_itxt_chunk(KEYWORD.to_owned(), text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(image.as_raw())?;
    writer.finish()?;
    Ok(bytes)
}

/// The text of a PNG file; `None` if there is no such file or it has none.
pub fn read(path: &Path) -> Option<String> {
    png_texts(BufReader::new(File::open(path).ok()?), &[KEYWORD]).remove(KEYWORD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_the_form_that_others_read() {
        let settings = [("Steps", "20".to_owned()), ("Lora hashes", "foxes: 0123456789ab".to_owned())];
        assert_eq!(
            text("a fox,\nasleep", Some("blurry"), &settings),
            "a fox,\nasleep\nNegative prompt: blurry\nSteps: 20, Lora hashes: \"foxes: 0123456789ab\""
        );
        assert_eq!(text("a fox", Some(""), &settings[..1]), "a fox\nSteps: 20");
    }

    #[test]
    fn any_language_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        for prompt in ["a fox", "un renard à l'été", "狐 🦊"] {
            std::fs::write(&path, png(&RgbImage::new(3, 2), prompt).unwrap()).unwrap();
            assert_eq!(read(&path).as_deref(), Some(prompt));
        }
        image::RgbImage::new(1, 1).save(&path).unwrap();
        assert_eq!(read(&path), None, "an image without it");
        assert_eq!(read(&folder.path().join("b.png")), None, "no image");
    }
}
