//! The page of whoever watches, live or as one file.

use serde_json::Value;
use tastemaker_pages::{Markup, PreEscaped, html};

use crate::assets::text;
use crate::page::{shell, theme_button};

/// What an exported page may do: show what it carries.
const POLICY: &str =
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'";

/// The live page.
pub fn live(names: &[&str]) -> Markup {
    let title = format!("Watch {}", names.join(", "));
    shell(&title, "watch", &["watch.css"], Some("watch.js"), &body())
}

/// The page as one file.
pub fn exported(about: &Value, events: &Value) -> Markup {
    // Nothing in it can end the element that carries it.
    let data = serde_json::json!({ "about": about, "events": events }).to_string().replace('<', "\\u003c");
    let styles = ["base.css", "app.css", "watch.css"].map(text).concat();
    html! {
        (PreEscaped("<!DOCTYPE html>"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta http-equiv="Content-Security-Policy" content=(POLICY);
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="generator" content="tastemaker";
                title { "Runs" }
                style { (PreEscaped(styles)) }
            }
            body.watch {
                (body())
                script #data type="application/json" { (PreEscaped(data)) }
                script type="module" { (PreEscaped(text("watch.js"))) }
            }
        }
    }
}

fn body() -> Markup {
    html! {
        header.top {
            h1 { "Runs" }
            span #state role="status" {}
            nav aria-label="Page" {
                label { "Smooth " input #smooth type="range" min="0" max="40" value="8"; }
                (theme_button())
            }
        }
        main.wide {
            ul #runs .legend {}
            section #alarms-section hidden { h2 { "Alarms" } ul #alarms .alarms {} }
            div #charts {}
            section #images-section hidden {
                h2 { "Validation images" }
                p { label { "Step " input #step type="range" min="0" max="0" value="0"; } " " output #step-now {} }
                div #images {}
            }
            section { h2 { "Plan" } div #plan {} }
            section { h2 { "Log" } ol #log tabindex="0" {} }
        }
        noscript { p.message { "This page needs JavaScript, from this server alone." } }
    }
}
