//! Reports as HTML: one skeleton, one stylesheet and one script for all pages, charts, thumbnails, and numbers as readers see them.
//!
//! A page is one file that asks the network for nothing: it carries its style, its script and its images, and forbids the browser
//! to load anything else. Without the script it still shows everything. Equal contents give equal bytes.

pub mod charts;
pub mod format;
mod parts;
mod thumbnail;

pub use maud::{Markup, PreEscaped, html};
pub use parts::{Fact, RowImage, color, column_heads, facts, image_row, named, nothing, number, table, tag};
pub use thumbnail::{Thumbnail, png};

use maud::DOCTYPE;

/// The stylesheet of every page: colors, type, tables, charts.
pub const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");
const POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// A whole page.
#[derive(Clone, Debug)]
pub struct Page {
    /// Small print above the heading: the command and what it was asked.
    pub eyebrow: String,
    /// Heading of the page, and title of its window.
    pub heading: String,
    /// The result in a sentence or two.
    pub lede: Markup,
    /// What can be chosen in the bar, such as a scorer.
    pub controls: Markup,
    /// Its sections, top to bottom.
    pub sections: Vec<Section>,
}

/// A section of a page.
#[derive(Clone, Debug)]
pub struct Section {
    /// Its anchor.
    pub id: &'static str,
    /// Its name in the bar.
    pub link: &'static str,
    /// Its heading.
    pub heading: String,
    /// What follows the heading.
    pub body: Markup,
}

impl Section {
    /// A section whose name in the bar is its heading.
    pub fn new(id: &'static str, heading: &'static str, body: Markup) -> Self {
        Self { id, link: heading, heading: heading.to_owned(), body }
    }

    /// The same under another heading.
    pub fn headed(self, heading: String) -> Self {
        Self { heading, ..self }
    }
}

impl Page {
    /// The file.
    pub fn render(&self) -> String {
        let page = html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta http-equiv="Content-Security-Policy" content=(POLICY);
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="generator" content="tastemaker";
                    title { (self.heading) }
                    style { (PreEscaped(STYLE)) }
                }
                body {
                    nav #bar {
                        div {
                            @for section in &self.sections { a href={ "#" (section.id) } { (section.link) } }
                            span.gap {}
                            (self.controls)
                            button #theme type="button" hidden { "Light or dark" }
                        }
                    }
                    main {
                        header {
                            p.eyebrow { (self.eyebrow) }
                            h1 { (self.heading) }
                            p.lede { (self.lede) }
                        }
                        @for section in &self.sections {
                            section #(section.id) { h2 { (section.heading) } (section.body) }
                        }
                    }
                    dialog #zoom aria-label="Enlarged image" {
                        p #zoom-title {}
                        img alt="";
                        div #zoom-names {}
                        p.small.keys {
                            kbd { "\u{2190}" } " " kbd { "\u{2192}" } " image, " kbd { "\u{2191}" } " " kbd { "\u{2193}" } " row, "
                            kbd { "Esc" } " close"
                        }
                    }
                    script { (PreEscaped(SCRIPT)) }
                }
            }
        };
        page.into_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> String {
        let body = html! { p { "<script>alert(1)</script> & more" } };
        Page {
            eyebrow: "a <b> \"c\"".into(),
            heading: "Fox & hen".into(),
            lede: html! { "x" },
            controls: html! {},
            sections: vec![Section::new("one", "One", body)],
        }
        .render()
    }

    #[test]
    fn text_cannot_become_markup() {
        let page = page();
        assert!(page.contains("<title>Fox &amp; hen</title>"));
        assert!(page.contains("a &lt;b&gt; &quot;c&quot;") && !page.contains("<b>"));
        assert!(page.contains("&lt;script&gt;alert(1)") && page.matches("<script>").count() == 1);
    }

    #[test]
    fn a_page_asks_the_network_for_nothing() {
        let page = page();
        for asking in ["http:", "https:", "url(", "@import", "<link", "src=\"/", "fetch("] {
            assert!(!page.contains(asking), "{asking}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn the_bar_leads_to_every_section() {
        assert!(
            page().contains("<a href=\"#one\">One</a>")
                && page().contains("<section id=\"one\"><h2>One</h2>")
        );
    }
}
