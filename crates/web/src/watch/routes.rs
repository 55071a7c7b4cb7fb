//! What the browser of whoever watches asks for.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Json, Path, State};
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures_util::stream;
use serde_json::json;
use tastemaker_data::set::read_encoded;

use super::tail::{Found, Tail};
use super::{Runs, pages};
use crate::server::{ImageBudget, page, plain};

/// How often logs are looked at.
const POLL: Duration = Duration::from_millis(400);

/// After so many looks without news a sign of life is sent.
const QUIET: u32 = 30;

struct Shared {
    runs: Runs,
    budget: ImageBudget,
}

type Ours = State<Arc<Shared>>;

/// The pages of runs.
pub fn router(runs: Runs) -> Router {
    let shared = Arc::new(Shared { runs, budget: ImageBudget::default() });
    Router::new()
        .route("/", get(home))
        .route("/api/about", get(about))
        .route("/api/events", get(events))
        .route("/image/{run}/{*name}", get(image))
        .with_state(shared)
}

async fn home(State(shared): Ours) -> Response<Body> {
    let names: Vec<&str> = shared.runs.runs.iter().map(|run| run.name.as_str()).collect();
    page(StatusCode::OK, pages::live(&names))
}

async fn about(State(shared): Ours) -> Response<Body> {
    match tokio::task::spawn_blocking(move || shared.runs.about()).await {
        Ok(about) => Json(about).into_response(),
        Err(_) => plain(StatusCode::INTERNAL_SERVER_ERROR, "the plans cannot be read\n"),
    }
}

/// What is still to be sent to one page.
struct Feed {
    tails: Vec<Tail>,
    quiet: u32,
    begun: bool,
}

/// Server-sent events: everything the logs hold, then what is added to them.
async fn events(State(shared): Ours) -> Response<Body> {
    let n = shared.runs.runs.len();
    let tails = (0..n).map(|run| Tail::new(shared.runs.log(run))).collect();
    let feed = Feed { tails, quiet: 0, begun: false };
    let chunks = stream::unfold(feed, |mut feed| async move {
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let found: Vec<Found> = feed.tails.iter_mut().map(Tail::next).collect();
                (feed, found)
            });
            let (back, found) = read.await.ok()?;
            feed = back;
            let mut text: String = found.into_iter().enumerate().filter_map(message).collect();
            feed.quiet = if text.is_empty() { feed.quiet + 1 } else { 0 };
            if !feed.begun && text.is_empty() || feed.quiet >= QUIET {
                (feed.quiet, feed.begun) = (0, true);
                text = ": here\n\n".into();
            }
            if !text.is_empty() {
                return Some((Ok::<_, std::io::Error>(text), feed));
            }
            tokio::time::sleep(POLL).await;
        }
    });
    let mut response = Response::new(Body::from_stream(chunks));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    response
}

fn message((run, Found { is_new, lines, is_gone, age, .. }): (usize, Found)) -> Option<String> {
    // The lines are JSON each, so that with commas between them they are a list.
    let lines = (is_new || is_gone || !lines.is_empty()).then(|| lines.join(","))?;
    let head = json!({ "run": run, "reset": is_new, "gone": is_gone, "age": age }).to_string();
    Some(format!("data: {},\"lines\":[{lines}]}}\n\n", &head[..head.len() - 1]))
}

async fn image(State(shared): Ours, Path((run, name)): Path<(usize, String)>) -> Response<Body> {
    let Some(path) = shared.runs.image(run, &name) else {
        return plain(StatusCode::NOT_FOUND, "no such image\n");
    };
    shared.budget.send(move || read_encoded(&path)).await
}
