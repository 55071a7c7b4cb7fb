//! The image grid of the report.

use anyhow::Result;
use image::RgbImage;
use tastemaker_eval::report::{Image, ImageColumn, ImageGrid, ImageRow};

use super::art::Art;
use super::task::Task;

const HELD_OUT_SHOWN: usize = 10;
const SEEN_SHOWN: usize = 4;

/// Rows: real art, then each generator; columns: prompts spread evenly over what was generated.
///
/// `questions` are (caption, held out) of each image; every generator in `rows` generated all of them.
pub fn grid(
    task: &Task<'_>,
    art: &Art,
    questions: &[(usize, bool)],
    rows: &[(String, Option<String>, &[RgbImage])],
) -> Result<ImageGrid> {
    let on = |held_out: bool| -> Vec<usize> {
        let mut seen_captions = std::collections::BTreeSet::new();
        (0..questions.len())
            .filter(|&i| questions[i].1 == held_out && seen_captions.insert(questions[i].0))
            .collect()
    };
    let spread = |indices: Vec<usize>, n: usize| -> Vec<usize> {
        let n = n.min(indices.len());
        (0..n).map(|k| indices[k * indices.len() / n]).collect()
    };
    let shown: Vec<usize> =
        spread(on(true), HELD_OUT_SHOWN).into_iter().chain(spread(on(false), SEEN_SHOWN)).collect();
    let columns = shown
        .iter()
        .map(|&i| ImageColumn {
            prompt: art.captions[questions[i].0].label.clone(),
            held_out: questions[i].1,
        })
        .collect();
    let real =
        shown.iter().map(|&i| Ok(Some(Image::new(&task.real(questions[i].0))?))).collect::<Result<_>>()?;
    let mut all =
        vec![ImageRow { label: format!("real art ({})", task.real_style()), method: None, images: real }];
    for (label, method, images) in rows {
        let images = shown.iter().map(|&i| Ok(Some(Image::new(&images[i])?))).collect::<Result<_>>()?;
        all.push(ImageRow { label: label.clone(), method: method.clone(), images });
    }
    Ok(ImageGrid {
        choice: "Prompts are every n-th of those asked, not chosen by their looks; everyone starts from the same noise."
            .into(),
        columns,
        rows: all,
    })
}
