//! Pieces that pages are put together from.

use maud::{Markup, html};

use crate::Thumbnail;

/// Colors of the stylesheet besides gray.
const PALETTE: usize = 6;

/// The CSS class of a color: 0 is gray, the others take the palette in order.
pub fn color(index: usize) -> String {
    match index {
        0 => "c0".to_owned(),
        other => format!("c{}", (other - 1) % PALETTE + 1),
    }
}

/// A name after a dot of its color.
pub fn named(color: &str, name: &str) -> Markup {
    html! { span class={ "dot " (color) } {} (name) }
}

/// A word in a small box, `class` giving its color: `error`, `warning` or another for gray.
pub fn tag(class: &str, word: &str) -> Markup {
    html! { span class={ "tag " (class) } { (word) } }
}

/// A named value, shown as given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is.
    pub name: String,
    /// Its value.
    pub value: String,
}

impl Fact {
    /// A fact from anything that can be printed.
    pub fn new(name: &str, value: impl ToString) -> Self {
        Self { name: name.to_owned(), value: value.to_string() }
    }
}

/// A list of facts.
pub fn facts<'a>(facts: impl IntoIterator<Item = &'a Fact>) -> Markup {
    html! { dl { @for Fact { name, value } in facts { div { dt { (name) } dd { (value) } } } } }
}

/// A table whose rows become blocks on a narrow screen, each cell after the head of its column. `class` may be `narrow`, for one as
/// wide as what it holds, or `stacks`, for one whose cells need no heads there.
pub fn table(class: &str, heads: &[&str], rows: impl IntoIterator<Item = Markup>) -> Markup {
    html! {
        div.scroll {
            table class=(class) style=(column_heads(heads)) {
                thead { tr { @for head in heads { th scope="col" { (head) } } } }
                tbody { @for row in rows { tr { (row) } } }
            }
        }
    }
}

/// The heads of a table's columns, for the stylesheet to put before cells where rows are blocks.
pub fn column_heads(heads: &[impl AsRef<str>]) -> String {
    let quoted = |head: &str| {
        let is_plain = |letter: &char| !matches!(letter, '"' | '\\') && !letter.is_control();
        head.chars().filter(is_plain).collect::<String>()
    };
    let heads = heads.iter().enumerate();
    heads.map(|(at, head)| format!("--h{}:\"{}\";", at + 1, quoted(head.as_ref()))).collect()
}

/// A cell with a number, and beside it, smaller, what belongs to it.
pub fn number(value: impl AsRef<str>, beside: Option<String>) -> Markup {
    html! { td.number { (value.as_ref()) @if let Some(beside) = beside { " " i { (beside) } } } }
}

/// A cell without a value.
pub fn nothing() -> Markup {
    html! { td.none { "\u{2013}" } }
}

/// An image of a row.
#[derive(Clone, Debug)]
pub struct RowImage<'a> {
    /// What it is called in its row, and when it is enlarged.
    pub name: &'a str,
    /// What it shows, in words.
    pub alt: String,
    /// The image; `None` for one that cannot be shown.
    pub image: Option<&'a Thumbnail>,
    /// What stands below it.
    pub caption: Markup,
}

/// Images side by side; the script enlarges them and flips between them.
pub fn image_row<'a>(images: impl IntoIterator<Item = RowImage<'a>>) -> Markup {
    html! {
        div.row {
            @for RowImage { name, alt, image, caption } in images {
                figure data-name=(name) {
                    @match image {
                        Some(image) => button type="button" { img loading="lazy" alt=(alt) src=(image.address()); },
                        None => span.missing { "does not decode" },
                    }
                    figcaption { (caption) }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_repeat_after_the_palette() {
        assert_eq!([0, 1, 6, 7].map(color), ["c0", "c1", "c6", "c1"]);
    }

    #[test]
    fn heads_of_columns_stay_inside_their_quotes() {
        assert_eq!(column_heads(&["a", "b\"}\\\n; c"]), "--h1:\"a\";--h2:\"b}; c\";");
    }

    #[test]
    fn values_are_escaped() {
        let facts = [Fact::new("a<b", "\"c\" & d")];
        let list = super::facts(&facts).into_string();
        assert_eq!(list, "<dl><div><dt>a&lt;b</dt><dd>&quot;c&quot; &amp; d</dd></div></dl>");
    }
}
