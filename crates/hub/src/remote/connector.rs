//! The HTTP client of this crate in the clothes of `object_store`.

use std::fmt;
use std::io::{self, Read};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::{ClientConfigKey, ClientOptions};
use ureq::Agent;
use ureq::http::{Response, Uri};

use super::settings::Settings;
use crate::http::{Manner, agent};
use crate::paced::Paced;

/// The most pages of one list: far more than of the files that are taken from one.
const MOST_PAGES: u32 = 10_000;

/// How many waits for an answer one list may take altogether.
const WAITS: u32 = 20;

/// The longest answer that is read: a block of a file, or a page of a listing.
const LONGEST: u64 = 64 << 20;

const REDIRECTS: u32 = 10;

/// Makes clients.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    settings: Settings,
}

impl Connector {
    pub fn new(settings: &Settings) -> Self {
        Self { settings: settings.clone() }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let plain_too = options.get_config_value(&ClientConfigKey::AllowHttp).as_deref() == Some("true");
        let manner = Manner {
            proxy_from_environment: self.settings.proxy_from_environment,
            redirects: REDIRECTS,
            https_only: !plain_too,
            wait: self.settings.wait,
        };
        let (wait, list) = (self.settings.wait, Mutex::default());
        Ok(HttpClient::new(Client { agent: agent(manner), wait, list }))
    }
}

struct Client {
    agent: Agent,
    wait: Duration,
    /// The list that is being read: when its first page was asked for, and how many were.
    list: Mutex<Option<(Instant, u32)>>,
}

impl Client {
    /// Counts the pages of a list, which a server may let go on for ever, with or without files.
    fn count_page(&self, uri: &Uri) -> Result<(), HttpError> {
        let query = uri.query().unwrap_or_default();
        let has = |names: &[&str]| {
            query.split('&').any(|part| names.contains(&part.split('=').next().unwrap_or_default()))
        };
        if !has(&["list-type", "restype", "prefix", "delimiter"]) {
            return Ok(());
        }
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let goes_on = has(&["continuation-token", "marker", "pageToken"]);
        let (began, n_pages) = list.filter(|_| goes_on).unwrap_or_else(|| (Instant::now(), 0));
        *list = Some((began, n_pages + 1));
        if n_pages < MOST_PAGES && began.elapsed() < self.wait * WAITS {
            return Ok(());
        }
        let text = format!("a list of files that has no end: {n_pages} pages in {:.0?}", began.elapsed());
        Err(HttpError::new(HttpErrorKind::Decode, io::Error::other(text)))
    }
}

impl fmt::Debug for Client {
    // Without the agent, which may know the password of a proxy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, body) = request.into_parts();
        self.count_page(&parts.uri)?;
        let body = body.as_bytes().cloned().unwrap_or_default();
        let request = ureq::http::Request::from_parts(parts, ());
        let response = if body.is_empty() {
            self.agent.run(request)
        } else {
            self.agent.run(request.map(|()| body.as_ref().to_vec()))
        };
        let (parts, body) = response.map_err(fault)?.into_parts();
        // Whole before it is handed on, so that an answer that is cut is an attempt that failed.
        let mut bytes = Vec::new();
        let body = Paced::new(body.into_reader(), self.wait);
        let read = body.take(LONGEST + 1).read_to_end(&mut bytes);
        read.map_err(|error| HttpError::new(kind(&error), error))?;
        if bytes.len() as u64 > LONGEST {
            let message = format!("an answer of more than {LONGEST} bytes");
            return Err(HttpError::new(HttpErrorKind::Decode, io::Error::other(message)));
        }
        Ok(Response::from_parts(parts, Bytes::from(bytes).into()))
    }
}

fn fault(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Io(error) => kind(error),
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Protocol(_) => HttpErrorKind::Interrupted,
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

fn kind(error: &io::Error) -> HttpErrorKind {
    match error.kind() {
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpErrorKind::Timeout,
        // A certificate that is not trusted.
        io::ErrorKind::InvalidData => HttpErrorKind::Unknown,
        io::ErrorKind::ConnectionRefused => HttpErrorKind::Connect,
        _ => HttpErrorKind::Interrupted,
    }
}
