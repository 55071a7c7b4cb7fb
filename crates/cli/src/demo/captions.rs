//! The captions of the embedded art, for whoever generates them.

use anyhow::Result;

use super::art::{Art, Split};

/// The captions that preference training may use, `demo:train`, or those it never sees, `demo:held-out`; `None` for another name.
///
/// # Errors
/// If the art in this program cannot be read.
pub fn captions(name: &str) -> Result<Option<Vec<String>>> {
    let side = match name {
        "demo:train" => Split::Train,
        "demo:held-out" => Split::HeldOut,
        _ => return Ok(None),
    };
    let art = Art::open()?;
    let label = |caption: usize| art.captions[caption].label.clone();
    Ok(Some(art.on(side).into_iter().map(label).collect()))
}
