//! Styles and scripts, carried by the program.

use std::sync::OnceLock;

use axum::Router;
use axum::body::Body;
use axum::extract::Path;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::routing::get;
use tastemaker_store::checksum::sha256_bytes;

use crate::server::plain;

const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Every file: name, kind, contents.
static ASSETS: &[(&str, &str, &str)] = &[
    ("icon.svg", "image/svg+xml", include_str!("assets/icon.svg")),
    ("base.css", CSS, tastemaker_pages::STYLE),
    ("app.css", CSS, include_str!("assets/app.css")),
    ("vote.css", CSS, include_str!("assets/vote.css")),
    ("app.js", JS, include_str!("assets/app.js")),
    ("vote.js", JS, include_str!("assets/vote.js")),
    ("votes.js", JS, include_str!("assets/votes.js")),
    ("curate.css", CSS, include_str!("assets/curate.css")),
    ("curate.js", JS, include_str!("assets/curate.js")),
    ("watch.css", CSS, include_str!("assets/watch.css")),
    ("watch.js", JS, include_str!("assets/watch.js")),
    ("zoom.js", JS, include_str!("assets/zoom.js")),
];

/// What changes whenever one of them does: part of their addresses, so that browsers may keep them.
fn version() -> &'static str {
    static VERSION: OnceLock<String> = OnceLock::new();
    VERSION.get_or_init(|| {
        let all: String = ASSETS.iter().flat_map(|(name, _, text)| [*name, *text]).collect();
        sha256_bytes(all.as_bytes())[..12].to_owned()
    })
}

/// The address of a file.
pub fn address(name: &str) -> String {
    format!("/assets/{}/{name}", version())
}

/// The contents of a file; nothing for one that is not there.
pub fn text(name: &str) -> &'static str {
    ASSETS.iter().find(|(known, ..)| *known == name).map_or("", |(_, _, text)| text)
}

/// Every file at its address, for all pages. Scripts import each other by name alone, which leads to the same version.
pub fn router() -> Router {
    Router::new().route("/assets/{version}/{name}", get(answer))
}

async fn answer(Path((of_version, name)): Path<(String, String)>) -> Response<Body> {
    let Some((_, kind, text)) = ASSETS.iter().find(|(known, ..)| *known == name) else {
        return plain(StatusCode::NOT_FOUND, "no such file\n");
    };
    let mut response = Response::new(Body::from(*text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    if of_version == version() {
        let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
        response.headers_mut().insert(header::CACHE_CONTROL, forever);
    }
    response
}
