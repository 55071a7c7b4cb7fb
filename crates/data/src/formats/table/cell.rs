//! What a row holds in a column.

use std::borrow::Cow;

use crate::set::ImageRef;

/// A value of a row, in the few kinds that matter here.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'a> {
    /// Nothing, or no such column.
    Null,
    /// True or false.
    Bool(bool),
    /// A number.
    Number(f64),
    /// Text.
    Text(Cow<'a, str>),
    /// An image that is there already, in another container than files.
    Image(ImageRef),
    /// Several values.
    List(Vec<Cell<'a>>),
    /// Something else, in words.
    Other(&'static str),
}

/// What Diffusion-KTO's annotations of Pick-a-Pic say of an image: it won all its comparisons, some of them, or none. Those that won
/// some count as liked, as in the authors' run. Source: jacklishufan/diffusion-kto, `--policy gt_label_wi_l` of exps/example.sh.
const LIKED: [&str; 2] = ["exclusive_win", "intersections"];
const DISLIKED: [&str; 1] = ["exclusive_lose"];

/// A row as its container gives it.
pub trait Row {
    /// The value in a column.
    fn cell(&self, column: &str) -> Cell<'_>;
}

impl Cell<'_> {
    /// How good an image is: a number, true for 1, false for 0, text of either, or a word of Diffusion-KTO's.
    ///
    /// # Errors
    /// What was found, for a row that is skipped.
    pub fn label(&self) -> Result<f64, String> {
        let value = match self {
            Self::Bool(value) => f64::from(u8::from(*value)),
            Self::Number(value) => *value,
            Self::Text(text) => match text.trim() {
                text if LIKED.contains(&text) => 1.0,
                text if DISLIKED.contains(&text) => 0.0,
                text if ["true", "yes"].iter().any(|word| text.eq_ignore_ascii_case(word)) => 1.0,
                text if ["false", "no"].iter().any(|word| text.eq_ignore_ascii_case(word)) => 0.0,
                text => text.parse().map_err(|_| format!("the label {text:?}; wanted a number"))?,
            },
            other => return Err(format!("{} as label; wanted a number, true or false", other.kind())),
        };
        if value.is_finite() { Ok(value) } else { Err(format!("the label {value}; wanted a finite number")) }
    }

    /// What it is, in words.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "true or false",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::Image(_) => "an image",
            Self::List(_) => "a list",
            Self::Other(kind) => kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_numbers_truths_or_text_of_either() {
        for (cell, label) in [
            (Cell::Bool(true), 1.0),
            (Cell::Number(0.5), 0.5),
            (Cell::Text(" 2 ".into()), 2.0),
            (Cell::Text("False".into()), 0.0),
            (Cell::Text("exclusive_win".into()), 1.0),
            (Cell::Text("intersections".into()), 1.0),
            (Cell::Text("exclusive_lose".into()), 0.0),
        ] {
            assert_eq!(cell.label(), Ok(label), "{cell:?}");
        }
        for cell in [Cell::Null, Cell::Number(f64::NAN), Cell::Text("".into()), Cell::Text("inf".into())] {
            assert!(cell.label().is_err(), "{cell:?}");
        }
    }
}
