//! The pairs of a task, as a folder any trainer can read.

use std::collections::BTreeMap;
use std::path::Path;

use image::RgbImage;
use tastemaker_math::keyed::{Keyed, Stream};
use tastemaker_store::atomic;

use crate::task::Preference;
use crate::{DemoError, clear};

/// Writes images and `metadata.jsonl` in invoke-training's layout; returns the number of pairs.
///
/// Which of a pair's images comes first is drawn, so that nothing can be learned from the order.
pub fn write(folder: &Path, preferences: &[Preference], seed: u64) -> Result<usize, DemoError> {
    clear(folder)?;
    atomic::create_folder(folder.join("images"))?;
    let mut written: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut save = |image: &RgbImage| -> Result<String, DemoError> {
        if let Some(name) = written.get(image.as_raw()) {
            return Ok(name.clone());
        }
        let name = format!("images/{:05}.png", written.len());
        image.save(folder.join(&name))?;
        written.insert(image.as_raw().clone(), name.clone());
        Ok(name)
    };
    let mut lines = String::new();
    for (row, preference) in preferences.iter().enumerate() {
        let (winner, loser) = (save(&preference.winner)?, save(&preference.loser)?);
        let winner_first = Keyed::new(seed, Stream::Data, row as u64, 2).bernoulli(0.5);
        let (first, second) = if winner_first { (&winner, &loser) } else { (&loser, &winner) };
        let line = serde_json::json!({
            "image_0": first, "image_1": second, "prompt": preference.caption,
            "prefer_0": winner_first, "prefer_1": !winner_first,
        });
        lines += &format!("{line}\n");
    }
    atomic::write_bytes(folder.join("metadata.jsonl"), lines.as_bytes())?;
    Ok(preferences.len())
}
