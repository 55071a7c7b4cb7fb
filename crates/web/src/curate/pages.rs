//! The page of whoever curates.

use tastemaker_data::PairSource;
use tastemaker_pages::format::count;
use tastemaker_pages::{Markup, html};

use super::desk::Desk;
use crate::page::{shell, theme_button};

/// The desk: the list, and the pair that is chosen in it.
pub fn desk(desk: &Desk) -> Markup {
    let n = count(desk.set().len() as u64);
    let checks = desk.checks();
    let orders = desk.orders();
    let body = html! {
        header.top {
            h1 { (desk.name().display()) }
            span #counts { (n) " pairs" }
            nav aria-label="Page" { button #help type="button" aria-haspopup="dialog" { "Keys" } (theme_button()) }
        }
        main.desk data-tag=(desk.tag()) {
            section.chosen aria-label="Chosen pair" {
                div.stage #stage {
                    (side("winner"))
                    (side("loser"))
                }
                div.actions role="group" aria-label="What becomes of this pair" {
                    (action("keep", "K", "Keep"))
                    (action("exclude", "X", "Exclude"))
                    (action("swap", "S", "Swap"))
                    (action("tie", "T", "Tie"))
                }
                label for="caption" { "Caption" }
                textarea #caption rows="2" dir="auto" {}
                label for="note" { "Note" }
                input #note type="text" dir="auto";
                ul #findings {}
                p #status role="status" {}
            }
            section.rows aria-label="Pairs" {
                form #filter role="search" {
                    input #words type="search" placeholder="Words of captions" aria-label="Words of captions";
                    @if !checks.is_empty() {
                        select #check aria-label="Found by a check" {
                            option value="" { "all pairs" }
                            option value="any" { "with findings" }
                            @for (check, n) in &checks { option value=(check) { (check) " (" (n) ")" } }
                        }
                    }
                    select #state aria-label="Decided" {
                        option value="" { "decided or not" }
                        option value="open" { "not decided" } option value="done" { "decided" }
                        option value="exclude" { "excluded" } option value="swap" { "swapped" } option value="tie" { "ties" }
                        option value="edited" { "captions edited" }
                    }
                    @if !orders.is_empty() {
                        select #order aria-label="Order" {
                            option value="" { "in order" }
                            @for (name, words) in &orders { option value=(name) { (words) } }
                        }
                    }
                    output #found {}
                }
                div #list tabindex="0" role="listbox" aria-label="Pairs" { div #sizer {} }
            }
        }
        noscript { p.message { "This page needs JavaScript, from this server alone." } }
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keys" }
            dl.keys-list {
                @for (keys, words) in KEYS { div { dt { @for key in *keys { kbd { (key) } " " } } dd { (words) } } }
            }
            form method="dialog" { button.primary { "Close" } }
        }
    };
    shell("Curate", "curate", &["vote.css", "curate.css"], Some("curate.js"), &body)
}

const KEYS: &[(&[&str], &str)] = &[
    (&["\u{2191}", "\u{2193}"], "the pair before, the next one"),
    (&["K"], "keep, and on to the next"),
    (&["X"], "exclude"),
    (&["S"], "swap winner and loser"),
    (&["T"], "neither is better"),
    (&["C"], "edit the caption"),
    (&["N"], "write a note"),
    (&["U"], "undo the last decision"),
    (&["Z"], "zoom both images"),
    (&["/"], "search captions"),
];

fn side(name: &str) -> Markup {
    html! {
        figure.side id=(name) {
            div.pane { img alt=(name) draggable="false"; }
            figcaption.named { (name) }
        }
    }
}

fn action(name: &str, key: &str, words: &str) -> Markup {
    html! {
        button type="button" data-action=(name) aria-pressed="false" aria-keyshortcuts=(key) { kbd { (key) } span { (words) } }
    }
}
