//! The skeleton of pages that a server keeps.

use tastemaker_pages::{Markup, PreEscaped, html};

use crate::assets::address;

/// A page: `kind` is the class of its body, `script` the module that makes it work.
pub fn shell(title: &str, kind: &str, styles: &[&str], script: Option<&str>, body: &Markup) -> Markup {
    html! {
        (PreEscaped("<!DOCTYPE html>"))
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1, viewport-fit=cover";
                meta name="color-scheme" content="light dark";
                title { (title) }
                link rel="icon" href=(address("icon.svg"));
                link rel="stylesheet" href=(address("base.css"));
                link rel="stylesheet" href=(address("app.css"));
                @for style in styles { link rel="stylesheet" href=(address(style)); }
                script type="module" src=(address("app.js")) {}
                @if let Some(script) = script { script type="module" src=(address(script)) {} }
            }
            body class=(kind) { (body) }
        }
    }
}

/// A page that says one thing.
pub fn message(title: &str, text: &Markup) -> Markup {
    let body = html! { main.message { h1 { (title) } (text) } };
    shell(title, "plain", &[], None, &body)
}

/// The button that changes between light and dark.
pub fn theme_button() -> Markup {
    html! { button #theme type="button" hidden { "Light or dark" } }
}
