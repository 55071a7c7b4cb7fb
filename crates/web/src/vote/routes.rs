//! What a voter's browser asks for.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Form, Json, Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};

use super::answer::{Answer, Task};
use super::booth::{Booth, Refusal};
use super::dealer::Progress;
use super::pages;
use crate::server::{ImageBudget, page, plain};

/// Tasks that a page knows ahead, so that images are there before they are shown.
const AHEAD: usize = 4;

/// Who may vote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Whoever sits at this machine.
    Open,
    /// Whoever has a link.
    Invited,
}

struct Shared {
    booth: Booth,
    access: Access,
    is_secure: bool,
    budget: ImageBudget,
}

type Ours = State<Arc<Shared>>;

#[derive(Serialize)]
struct Asked {
    task: String,
    question: String,
    prompt: Option<String>,
    left: String,
    right: String,
}

/// What a page shows.
#[derive(Serialize)]
struct Shown {
    tasks: Vec<Asked>,
    /// What was answered last, to take back.
    last: Option<String>,
    progress: Progress,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vote {
    task: String,
    answer: String,
    seconds: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Undo {
    task: String,
}

#[derive(Deserialize)]
struct Who {
    voter: u32,
}

#[derive(Deserialize)]
struct From {
    #[serde(default)]
    from: usize,
}

/// The pages of a study.
pub fn router(booth: Booth, access: Access, is_secure: bool) -> Router {
    let shared = Arc::new(Shared { booth, access, is_secure, budget: ImageBudget::default() });
    Router::new()
        .route("/", get(home))
        .route("/who", get(who))
        .route("/enter", post(enter))
        .route("/invite/{secret}", get(invite))
        .route("/votes", get(votes))
        .route("/api/state", get(state))
        .route("/api/vote", post(vote))
        .route("/api/undo", post(undo))
        .route("/image/{name}", get(image))
        .with_state(shared)
}

impl Shared {
    fn cookie(&self) -> String {
        format!("tastemaker-{}", self.booth.tag())
    }

    /// The voter of a request.
    fn voter(&self, headers: &HeaderMap) -> Option<u32> {
        let name = self.cookie();
        let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
        let (_, secret) = pairs.find(|(key, _)| *key == name)?;
        self.booth.voter_of(secret)
    }

    fn entered(&self, voter: u32, mut response: Response<Body>) -> Response<Body> {
        let (name, secret) = (self.cookie(), &self.booth.voters()[voter as usize].secret);
        let secure = if self.is_secure { "; Secure" } else { "" };
        let cookie = format!("{name}={secret}; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax{secure}");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().insert(header::SET_COOKIE, cookie);
        }
        response
    }

    fn shown(&self, voter: u32) -> Shown {
        let booth = &self.booth;
        let asked = |task: Task| {
            let (item, question) = (booth.item(task), &booth.settings().questions[task.question as usize]);
            let [a, b] = item.images.map(|image| format!("/image/{}", booth.image_name(image)));
            let [left, right] = if booth.a_is_left(voter, task) { [a, b] } else { [b, a] };
            let prompt = || booth.study().prompts[item.prompt as usize].text.clone();
            Asked {
                task: task.to_string(),
                question: question.text.clone(),
                prompt: question.shows_prompt.then(prompt),
                left,
                right,
            }
        };
        let tasks = booth.upcoming(voter, AHEAD).into_iter().map(asked).collect();
        let last = booth.last(voter).map(|task| task.to_string());
        Shown { tasks, last, progress: booth.progress(voter) }
    }
}

fn see_other(to: &'static str) -> Response<Body> {
    let mut response = plain(StatusCode::SEE_OTHER, "");
    response.headers_mut().insert(header::LOCATION, HeaderValue::from_static(to));
    response
}

async fn home(State(shared): Ours, headers: HeaderMap) -> Response<Body> {
    let vote = |voter| page(StatusCode::OK, pages::vote(&shared.booth, voter, shared.access == Access::Open));
    match (shared.voter(&headers), shared.access) {
        (Some(voter), _) => vote(voter),
        (None, Access::Open) if shared.booth.voters().len() == 1 => shared.entered(0, vote(0)),
        (None, Access::Open) => page(StatusCode::OK, pages::who(&shared.booth)),
        (None, Access::Invited) => page(StatusCode::FORBIDDEN, pages::uninvited()),
    }
}

async fn who(State(shared): Ours) -> Response<Body> {
    match shared.access {
        Access::Open => page(StatusCode::OK, pages::who(&shared.booth)),
        Access::Invited => page(StatusCode::FORBIDDEN, pages::uninvited()),
    }
}

async fn enter(State(shared): Ours, Form(Who { voter }): Form<Who>) -> Response<Body> {
    if shared.access != Access::Open || voter as usize >= shared.booth.voters().len() {
        return page(StatusCode::FORBIDDEN, pages::uninvited());
    }
    shared.entered(voter, see_other("/"))
}

async fn invite(State(shared): Ours, Path(secret): Path<String>) -> Response<Body> {
    match shared.booth.voter_of(&secret) {
        Some(voter) => shared.entered(voter, see_other("/")),
        None => page(StatusCode::FORBIDDEN, pages::uninvited()),
    }
}

async fn votes(State(shared): Ours, headers: HeaderMap, Query(From { from }): Query<From>) -> Response<Body> {
    match shared.voter(&headers) {
        Some(voter) => page(StatusCode::OK, pages::votes(&shared.booth, voter, from)),
        None => see_other("/"),
    }
}

fn stranger() -> Response<Body> {
    plain(StatusCode::UNAUTHORIZED, "open your link again\n")
}

async fn state(State(shared): Ours, headers: HeaderMap) -> Response<Body> {
    match shared.voter(&headers) {
        Some(voter) => Json(shared.shown(voter)).into_response(),
        None => stranger(),
    }
}

async fn vote(State(shared): Ours, headers: HeaderMap, Json(vote): Json<Vote>) -> Response<Body> {
    let Some(voter) = shared.voter(&headers) else { return stranger() };
    let Ok(task) = vote.task.parse::<Task>() else { return refused(&shared, voter, Refusal::NoSuchTask) };
    let known = (task.item as usize) < shared.booth.study().items.len();
    let answer = known.then(|| Answer::of_side(&vote.answer, shared.booth.a_is_left(voter, task))).flatten();
    let Some(answer) = answer else { return refused(&shared, voter, Refusal::NoSuchTask) };
    match shared.booth.vote(voter, task, answer, vote.seconds).await {
        Ok(()) => Json(shared.shown(voter)).into_response(),
        Err(refusal) => refused(&shared, voter, refusal),
    }
}

async fn undo(State(shared): Ours, headers: HeaderMap, Json(Undo { task }): Json<Undo>) -> Response<Body> {
    let Some(voter) = shared.voter(&headers) else { return stranger() };
    let Ok(task) = task.parse::<Task>() else { return refused(&shared, voter, Refusal::NoSuchTask) };
    match shared.booth.undo(voter, task).await {
        Ok(()) => Json(shared.shown(voter)).into_response(),
        Err(refusal) => refused(&shared, voter, refusal),
    }
}

/// What is shown instead, where there is something; a page goes on with it.
fn refused(shared: &Shared, voter: u32, refusal: Refusal) -> Response<Body> {
    match refusal {
        Refusal::NoSuchTask => plain(StatusCode::BAD_REQUEST, "no such task or answer\n"),
        Refusal::NotWritten => plain(StatusCode::INSUFFICIENT_STORAGE, "the vote could not be written\n"),
        Refusal::Full | Refusal::Nothing => (StatusCode::CONFLICT, Json(shared.shown(voter))).into_response(),
    }
}

async fn image(State(shared): Ours, headers: HeaderMap, Path(name): Path<String>) -> Response<Body> {
    if shared.voter(&headers).is_none() {
        return stranger();
    }
    let Some(image) = shared.booth.image_of(&name) else {
        return plain(StatusCode::NOT_FOUND, "no such image\n");
    };
    let images = Arc::clone(&shared.booth.study().images);
    shared.budget.send(move || images.read(image)).await
}
