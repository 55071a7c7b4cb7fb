//! What goes wrong elsewhere, in this crate's words.

use std::error::Error;
use std::io;
use std::path::Path;

use object_store::client::{HttpError, HttpErrorKind};

use crate::HubError;
use tastemaker_store::{StoreError, causes, in_full};

/// Characters of a server's own words that are shown.
const SHOWN: usize = 400;

/// What an error of the foreign library means for the file or folder `place`.
pub(super) fn fault(place: &Path, error: object_store::Error) -> HubError {
    let url = place.display().to_string();
    match &error {
        object_store::Error::NotFound { .. } => {
            StoreError::Missing { path: place.to_owned(), wanted: "a file".into() }.into()
        }
        object_store::Error::PermissionDenied { .. } => HubError::Denied { url, found: "status 403".into() },
        object_store::Error::Unauthenticated { .. } => HubError::Denied { url, found: "status 401".into() },
        object_store::Error::NotSupported { .. } => HubError::Answer {
            url,
            found: "with the whole file where a part was asked for".into(),
            wanted: "a server that sends parts of files (HTTP ranges), or a copy on this machine".into(),
        },
        _ => other(place, &error),
    }
}

fn other(place: &Path, error: &object_store::Error) -> HubError {
    let url = place.display().to_string();
    let words = words(error);
    // Where no credentials are given, the machine itself is asked for some.
    if ["169.254.169.254", "metadata.google.internal"].iter().any(|host| words.contains(host)) {
        return HubError::Denied { url, found: "no credentials".into() };
    }
    if words.contains("https only") {
        let wanted = "an https address, or AWS_ALLOW_HTTP=true where that is what you want".into();
        return HubError::Answer { url, found: "without TLS".into(), wanted };
    }
    let status: Option<u16> = words
        .split_once("status code: ")
        .and_then(|(_, rest)| rest.get(..3))
        .and_then(|digits| digits.parse().ok());
    match status {
        Some(status @ (401 | 403)) => HubError::Denied { url, found: format!("status {status}") },
        Some(404) => {
            StoreError::Missing { path: place.to_owned(), wanted: "a file or a folder".into() }.into()
        }
        Some(408 | 429 | 500..) => HubError::Unreachable { url, source: io::Error::other(words) },
        None if causes(error).any(|cause| cause.downcast_ref().is_some_and(is_of_the_wire)) => {
            HubError::Unreachable { url, source: io::Error::other(words) }
        }
        Some(status) => answer(url, format!("with status {status} ({words})")),
        None => answer(url, words),
    }
}

fn is_of_the_wire(error: &HttpError) -> bool {
    error.kind() != HttpErrorKind::Decode
}

fn answer(url: String, found: String) -> HubError {
    HubError::Answer { url, found, wanted: "a file, or a list of files".into() }
}

/// The error and its causes on one line, cut.
fn words(error: &(dyn Error + 'static)) -> String {
    let text = in_full(error);
    let line: Vec<&str> =
        text.split(|c: char| c.is_control() || c.is_whitespace()).filter(|w| !w.is_empty()).collect();
    let line = line.join(" ");
    match line.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}
