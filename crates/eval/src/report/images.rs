//! The image grid of the page.

use super::model::{ImageColumn, ImageRow, Report};
use super::page::color_class;
use super::text::{base64, escape};

/// The section with the grid; nothing when there are no images.
pub(super) fn section(report: &Report) -> String {
    let grid = &report.images;
    if grid.columns.is_empty() || grid.rows.is_empty() {
        return String::new();
    }
    let rows: String = grid.rows.iter().map(|row| image_row(report, row)).collect();
    format!(
        "<section id=\"images\">\n<h2>Images</h2>\n\
         <p>Each column is one prompt, and all models start from the same noise. {} Select an image to enlarge it.</p>\n\
         <div class=\"scroll\"><table class=\"images\">\n<thead>\n{}{}</thead>\n<tbody>\n{rows}</tbody>\n\
         </table></div>\n</section>\n",
        escape(&grid.choice),
        group_heads(&grid.columns),
        prompt_heads(&grid.columns)
    )
}

/// One heading over every run of columns of the same group.
fn group_heads(columns: &[ImageColumn]) -> String {
    let heads: String = columns
        .chunk_by(|left, right| left.held_out == right.held_out)
        .map(|run| {
            let label = if run[0].held_out { "held-out captions" } else { "captions in the training pairs" };
            format!(
                "<th class=\"group\" colspan=\"{}\" scope=\"colgroup\"><span>{label}</span></th>",
                run.len()
            )
        })
        .collect();
    format!("<tr><td></td>{heads}</tr>\n")
}

fn prompt_heads(columns: &[ImageColumn]) -> String {
    let heads: String =
        columns.iter().map(|column| format!("<th scope=\"col\">{}</th>", escape(&column.prompt))).collect();
    format!("<tr><td></td>{heads}</tr>\n")
}

fn image_row(report: &Report, row: &ImageRow) -> String {
    let dot = match &row.method {
        Some(name) => format!("<span class=\"dot {}\"></span>", color_class(report, name)),
        None => String::new(),
    };
    let label = escape(&row.label);
    let cells: String = row
        .images
        .iter()
        .zip(&report.images.columns)
        .map(|(image, column)| match image {
            Some(image) => format!(
                "<td><button type=\"button\"><img alt=\"{label}: {}\" src=\"data:image/png;base64,{}\"></button></td>",
                escape(&column.prompt),
                base64(&image.png)
            ),
            None => "<td><span class=\"missing\">none</span></td>".to_owned(),
        })
        .collect();
    format!("<tr><th scope=\"row\">{dot}{label}</th>{cells}</tr>\n")
}
