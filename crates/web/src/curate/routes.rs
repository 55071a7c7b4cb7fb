//! What the browser of whoever curates asks for.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Path, Query, State};
use axum::http::{Response, StatusCode};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::{Deserialize, Deserializer};
use serde_json::json;
use tastemaker_data::Side;
use tastemaker_data::exclusions::Correction;

use super::desk::{Desk, Wanted};
use super::pages;
use crate::WebError;
use crate::server::{ImageBudget, page, plain};

/// Rows that are sent at once.
const AT_ONCE: usize = 200;

struct Shared {
    desk: Desk,
    budget: ImageBudget,
}

type Ours = State<Arc<Shared>>;

#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    words: String,
    #[serde(default)]
    check: String,
    #[serde(default)]
    state: String,
    #[serde(default)]
    order: String,
    #[serde(default)]
    from: usize,
    #[serde(default)]
    again: bool,
}

#[derive(Deserialize)]
struct Said {
    position: usize,
    /// The desk that the page is of.
    tag: Option<String>,
    /// What the page takes to stand; absent where whoever says it does not care.
    #[serde(default, deserialize_with = "given")]
    before: Option<Option<Correction>>,
    #[serde(flatten)]
    correction: Correction,
}

/// Null as something that was given.
fn given<'de, D: Deserializer<'de>>(value: D) -> Result<Option<Option<Correction>>, D::Error> {
    Option::deserialize(value).map(Some)
}

/// The pages of a desk.
pub fn router(desk: Desk) -> Router {
    let shared = Arc::new(Shared { desk, budget: ImageBudget::default() });
    Router::new()
        .route("/", get(home))
        .route("/api/rows", get(rows))
        .route("/api/correct", post(correct))
        .route("/image/{position}/{side}", get(image))
        .route("/thumbnail/{position}/{side}", get(thumbnail))
        .with_state(shared)
}

async fn home(State(shared): Ours) -> Response<Body> {
    page(StatusCode::OK, pages::desk(&shared.desk))
}

async fn rows(State(shared): Ours, Query(asked): Query<Asked>) -> Response<Body> {
    let Asked { words, check, state, order, from, again } = asked;
    let wanted = Wanted { words, check, state, order };
    // Looking through a million captions takes its time.
    let found = tokio::task::spawn_blocking(move || {
        let desk = &shared.desk;
        let positions = desk.wanted(&wanted, again);
        let part = positions.iter().skip(from).take(AT_ONCE);
        let rows: Vec<_> = part.map(|position| desk.row(*position as usize)).collect();
        let (said, changed) = desk.counts();
        json!({ "total": positions.len(), "from": from, "rows": rows, "said": said, "changed": changed })
    });
    match found.await {
        Ok(found) => Json(found).into_response(),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the rows cannot be read\n"),
    }
}

async fn correct(State(shared): Ours, Json(said): Json<Said>) -> Response<Body> {
    use tastemaker_data::PairSource;
    let Said { position, tag, before, correction } = said;
    if tag.is_some_and(|tag| tag != shared.desk.tag()) {
        return plain(StatusCode::GONE, "this page is of another set; load it again\n");
    }
    if position >= shared.desk.set().len() {
        return plain(StatusCode::BAD_REQUEST, "no such row\n");
    }
    let written = tokio::task::spawn_blocking(move || {
        shared.desk.correct(position, correction, before.as_ref()).map(|taken| {
            let (said, changed) = shared.desk.counts();
            let status = if taken { StatusCode::OK } else { StatusCode::CONFLICT };
            let row = json!({ "row": shared.desk.row(position), "said": said, "changed": changed });
            (status, Json(row)).into_response()
        })
    });
    match written.await {
        Ok(Ok(answer)) => answer,
        Ok(Err(WebError::Study(what))) => plain(StatusCode::BAD_REQUEST, what + "\n"),
        Ok(Err(error @ WebError::OtherStudy { .. })) => plain(StatusCode::GONE, format!("{error}\n")),
        _ => plain(StatusCode::INSUFFICIENT_STORAGE, "the list cannot be written\n"),
    }
}

/// The side of an address, if the position is one.
fn side(shared: &Shared, position: usize, name: &str) -> Option<Side> {
    use tastemaker_data::PairSource;
    let side = Side::BOTH.into_iter().find(|side| side.name() == name)?;
    (position < shared.desk.set().len()).then_some(side)
}

async fn image(State(shared): Ours, Path((position, name)): Path<(usize, String)>) -> Response<Body> {
    let Some(side) = side(&shared, position, &name) else {
        return plain(StatusCode::NOT_FOUND, "no such image\n");
    };
    let budget = shared.budget.clone();
    budget.send(move || shared.desk.image(position, side)).await
}

async fn thumbnail(State(shared): Ours, Path((position, name)): Path<(usize, String)>) -> Response<Body> {
    let Some(side) = side(&shared, position, &name) else {
        return plain(StatusCode::NOT_FOUND, "no such image\n");
    };
    let budget = shared.budget.clone();
    budget.send_small(move || shared.desk.image(position, side)).await
}
