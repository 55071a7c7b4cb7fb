//! Requests to a hub: redirects, tokens, retries.

use std::fmt;
use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::{Agent, Body};

use crate::HubError;
use crate::event::{Event, OnEvent};
use crate::http::{Manner, agent};
use crate::names::{RepoId, blob_name};
use crate::paced::Paced;
use crate::settings::{Retry, Settings};
use crate::token::Token;
use crate::url::{Endpoint, origin, redirected, shown};

/// Bytes after which an attempt that was cut counts as progress.
const PROGRESS: u64 = 1 << 20;

const MAX_REDIRECTS: u32 = 10;

/// How an attempt failed.
pub(crate) enum Fault {
    /// The next attempt may succeed.
    Passing { reason: io::Error, after: Option<Duration>, n_bytes: u64 },
    /// It will not.
    Final(HubError),
}

impl From<HubError> for Fault {
    fn from(error: HubError) -> Self {
        Self::Final(error)
    }
}

impl Fault {
    pub fn passing(reason: impl Into<String>) -> Self {
        Self::Passing { reason: io::Error::other(reason.into()), after: None, n_bytes: 0 }
    }
}

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// The headers, following redirects on the hub itself and stopping at one that leads away.
    Headers,
    /// The contents from this byte on, following redirects.
    Contents { from: u64 },
}

/// What is asked about, for messages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct About<'a> {
    pub repo: &'a RepoId,
    pub revision: &'a str,
    /// `None` for the revision itself.
    pub file: Option<&'a str>,
}

/// What the headers say about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub blob: String,
    pub size: Option<u64>,
}

/// A connection to a hub.
pub(crate) struct Client {
    agent: Agent,
    pub endpoint: Endpoint,
    token: Option<Token>,
    retry: Retry,
    wait: Duration,
}

impl fmt::Debug for Client {
    // Without the agent, which may know the password of a proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self, HubError> {
        let endpoint = Endpoint::new(&settings.endpoint)?;
        // Redirects are followed here, so that it is plain to see where a token goes.
        let manner = Manner {
            proxy_from_environment: settings.proxy_from_environment,
            redirects: 0,
            https_only: false,
            wait: settings.wait,
        };
        let agent = agent(manner);
        let (token, retry, wait) = (settings.token.clone(), settings.retry, settings.wait);
        Ok(Self { agent, endpoint, token, retry, wait })
    }

    /// The body of an answer, which ends in an error where it arrives too slowly.
    pub fn body(&self, response: Response<Body>) -> impl Read {
        Paced::new(response.into_body().into_reader(), self.wait)
    }

    /// Repeats an attempt until it succeeds, fails for good, or has failed too often in a row.
    pub fn retrying<T>(
        &self,
        url: &str,
        on_event: &mut OnEvent<'_>,
        mut attempt: impl FnMut(&mut OnEvent<'_>) -> Result<T, Fault>,
    ) -> Result<T, HubError> {
        let mut failed = 0;
        loop {
            let (reason, after, n_bytes) = match attempt(on_event) {
                Ok(value) => return Ok(value),
                Err(Fault::Final(error)) => return Err(error),
                Err(Fault::Passing { reason, after, n_bytes }) => (reason, after, n_bytes),
            };
            failed = if n_bytes >= PROGRESS { 1 } else { failed + 1 };
            if failed >= self.retry.attempts {
                let url = shown(url).to_owned();
                return Err(HubError::Connection { url, attempts: failed, source: reason });
            }
            let doubled = self.retry.first_wait.saturating_mul(1 << (failed - 1).min(16));
            let wait = after.unwrap_or(doubled).min(self.retry.longest_wait);
            on_event(Event::Retrying { reason: &reason.to_string(), wait });
            thread::sleep(wait);
        }
    }

    /// One request, with its redirects. Of other statuses than success only 416 is returned.
    pub fn ask(&self, ask: Ask, url: &str, about: About<'_>) -> Result<Response<Body>, Fault> {
        let home = origin(self.endpoint.as_str());
        let mut url = url.to_owned();
        for _ in 0..=MAX_REDIRECTS {
            let at_home = origin(&url) == home;
            let response = self.request(ask, &url, at_home)?;
            let status = response.status().as_u16();
            match status {
                200 | 206 => return Ok(response),
                416 if matches!(ask, Ask::Contents { from: 1.. }) => return Ok(response),
                301 | 302 | 303 | 307 | 308 => {
                    let next = redirected(&url, header(response.headers(), "location").unwrap_or_default())
                        .map_err(|found| self.answer(&url, found, "a redirect to a web address"))?;
                    if matches!(ask, Ask::Headers) && origin(&next) != home {
                        return Ok(response);
                    }
                    url = next;
                }
                408 | 429 | 500.. => {
                    let after =
                        header(response.headers(), "retry-after").and_then(|text| text.trim().parse().ok());
                    let reason = io::Error::other(format!("status {status}"));
                    return Err(Fault::Passing { reason, after: after.map(Duration::from_secs), n_bytes: 0 });
                }
                // A signed address elsewhere has run out; the hub gives a new one.
                400.. if !at_home => {
                    return Err(Fault::passing(format!("status {status} from {}", shown(&url))));
                }
                401 | 403 => {
                    let page = self.endpoint.page(about.repo);
                    return Err(HubError::Refused { page, status, with_token: self.token.is_some() }.into());
                }
                404 => return Err(self.not_found(response.headers(), about).into()),
                _ => {
                    let found = format!("with status {status}");
                    return Err(self.answer(&url, &found, "a file, or a redirect to one").into());
                }
            }
        }
        Err(self.answer(&url, &format!("with more than {MAX_REDIRECTS} redirects"), "a file").into())
    }

    fn request(&self, ask: Ask, url: &str, at_home: bool) -> Result<Response<Body>, Fault> {
        let mut request = match ask {
            Ask::Headers => self.agent.head(url),
            Ask::Contents { from: 0 } => self.agent.get(url),
            Ask::Contents { from } => self.agent.get(url).header("Range", format!("bytes={from}-")),
        };
        if at_home && let Some(token) = &self.token {
            request = request.header("Authorization", token.bearer());
        }
        request.call().map_err(|error| match error {
            ureq::Error::Rustls(_) | ureq::Error::Tls(_) | ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                let url = shown(url).to_owned();
                HubError::Connection { url, attempts: 1, source: error.into_io() }.into()
            }
            // A certificate that is not trusted.
            ureq::Error::Io(source) if source.kind() == io::ErrorKind::InvalidData => {
                HubError::Connection { url: shown(url).to_owned(), attempts: 1, source }.into()
            }
            other => Fault::Passing { reason: other.into_io(), after: None, n_bytes: 0 },
        })
    }

    /// What the hub says about a file of a commit.
    pub fn metadata(&self, about: About<'_>, on_event: &mut OnEvent<'_>) -> Result<Metadata, HubError> {
        let name = about.file.unwrap_or_default();
        let url = self.endpoint.file(about.repo, about.revision, name);
        let response = self.retrying(&url, on_event, |_| self.ask(Ask::Headers, &url, about))?;
        let headers = response.headers();
        let complain = |found: String, wanted: &str| self.answer(&url, &found, wanted);

        if let Some(commit) = header(headers, "x-repo-commit").filter(|commit| *commit != about.revision) {
            return Err(complain(format!("for commit {commit:?}"), &format!("commit {}", about.revision)));
        }
        let etag = header(headers, "x-linked-etag").or_else(|| header(headers, "etag"));
        let etag =
            etag.ok_or_else(|| complain("without an entity tag".into(), "one, to name the file by"))?;
        let blob =
            blob_name(etag).map_err(|_| complain(format!("with entity tag {etag:?}"), "a plain one"))?;
        let length = if response.status().is_success() { header(headers, "content-length") } else { None };
        let size = header(headers, "x-linked-size").or(length).map(|text| {
            text.trim().parse().map_err(|_| complain(format!("with size {text:?}"), "a number of bytes"))
        });
        Ok(Metadata { blob: blob.to_owned(), size: size.transpose()? })
    }

    /// The complaint about an answer that makes no sense. A token that the server sends back is not shown.
    pub fn answer(&self, url: &str, found: &str, wanted: &str) -> HubError {
        let hide = |text: &str| match &self.token {
            Some(token) => token.hidden_in(text),
            None => text.to_owned(),
        };
        HubError::Answer { url: hide(shown(url)), found: hide(found), wanted: wanted.to_owned() }
    }

    fn not_found(&self, headers: &HeaderMap, about: About<'_>) -> HubError {
        let About { repo, revision, file } = about;
        let what = match (header(headers, "x-error-code"), file) {
            (Some("RepoNotFound"), _) => repo.to_string(),
            (Some("RevisionNotFound"), _) => format!("revision {revision} of {repo}"),
            (_, Some(file)) => format!("file {file} in {repo} at revision {revision}"),
            (_, None) => format!("{repo} at revision {revision}"),
        };
        HubError::NotOnHub { server: self.endpoint.as_str().to_owned(), what }
    }
}

pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
