//! Addresses on a hub, and where a redirect leads.

use ureq::http::Uri;

use crate::HubError;
use crate::names::{RepoId, RepoKind};

/// Where a hub answers, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint(String);

/// Scheme, host and port: who gets to see a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Origin {
    scheme: String,
    host: String,
    port: u16,
}

impl Endpoint {
    pub fn new(text: &str) -> Result<Self, HubError> {
        let text = text.trim().trim_end_matches('/');
        let usable = origin(text).is_some() && !text.contains(['?', '#']);
        if usable {
            return Ok(Self(text.to_owned()));
        }
        // Whatever stands before the @ is a secret.
        let found = if text.contains('@') { "(not shown: it holds an @)" } else { text };
        let wanted = "http:// or https://, a host, and nothing but a path behind it";
        Err(HubError::Name { what: "endpoint", found: found.to_owned(), wanted })
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What a revision is, and which files it has.
    pub fn listing(&self, repo: &RepoId, revision: &str) -> String {
        format!("{}/api/{}/{}/revision/{}", self.0, repo.kind().plural(), repo.name(), escaped(revision, ""))
    }

    /// A file of a commit.
    pub fn file(&self, repo: &RepoId, commit: &str, name: &str) -> String {
        format!("{}/resolve/{commit}/{}", self.page(repo), escaped(name, "/"))
    }

    /// The page for people.
    pub fn page(&self, repo: &RepoId) -> String {
        let prefix = match repo.kind() {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        format!("{}/{prefix}{}", self.0, repo.name())
    }
}

/// Whom an address belongs to; `None` for one that is not plain `http` or `https`, or that carries a user or a password.
pub(crate) fn origin(url: &str) -> Option<Origin> {
    let uri: Uri = url.parse().ok()?;
    let authority = uri.authority()?;
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return None;
    }
    let scheme = uri.scheme_str()?.to_ascii_lowercase();
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    Some(Origin {
        port: uri.port_u16().unwrap_or(usual),
        host: authority.host().to_ascii_lowercase(),
        scheme,
    })
}

/// Where a redirect leads, or what is wrong with it.
pub(crate) fn redirected(from: &str, location: &str) -> Result<String, &'static str> {
    let start = origin(from).ok_or("a redirect from nowhere")?;
    let to = match location {
        _ if location.starts_with("//") => format!("{}:{location}", start.scheme),
        _ if location.starts_with('/') => {
            let root = from.split('/').take(3).collect::<Vec<_>>().join("/");
            format!("{root}{location}")
        }
        _ => location.to_owned(),
    };
    match origin(&to) {
        None => Err("a redirect to no web address"),
        Some(end) if start.scheme == "https" && end.scheme != "https" => Err("a redirect from https to http"),
        Some(_) => Ok(to),
    }
}

/// An address for messages: the query may hold a signature.
pub(crate) fn shown(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or(url)
}

/// Percent-escapes everything but unreserved characters and those in `kept`.
fn escaped(text: &str, kept: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || kept.contains(c) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_of_the_hub() {
        let endpoint = Endpoint::new("https://huggingface.co/").unwrap();
        let model = RepoId::model("org/name").unwrap();
        assert_eq!(
            endpoint.listing(&model, "refs/pr/1"),
            "https://huggingface.co/api/models/org/name/revision/refs%2Fpr%2F1"
        );
        assert_eq!(
            endpoint.file(&model, "main", "unet/a b#é.json"),
            "https://huggingface.co/org/name/resolve/main/unet/a%20b%23%C3%A9.json"
        );
        let dataset = RepoId::dataset("org/name").unwrap();
        assert_eq!(
            endpoint.listing(&dataset, "main"),
            "https://huggingface.co/api/datasets/org/name/revision/main"
        );
        assert_eq!(endpoint.page(&dataset), "https://huggingface.co/datasets/org/name");
    }

    #[test]
    fn an_endpoint_is_a_plain_web_address() {
        for text in ["", "huggingface.co", "ftp://a", "https://", "https://a?x=1", "https://a#x", "file:///x"]
        {
            assert!(Endpoint::new(text).is_err(), "{text}");
        }
        let error = Endpoint::new("https://user:secret@a").unwrap_err();
        assert!(!format!("{error} {error:?}").contains("secret"));
    }

    #[test]
    fn scheme_host_and_port_make_an_origin() {
        assert_eq!(origin("https://A.b/x"), origin("https://a.B:443/y"));
        for other in ["http://a.b/x", "https://a.b:444/x", "https://b.a/x"] {
            assert_ne!(origin("https://a.b/x"), origin(other), "{other}");
        }
    }

    #[test]
    fn redirects_are_resolved_and_never_leave_https() {
        let from = "https://a.b:8/c/d?e";
        assert_eq!(redirected(from, "/x?y").unwrap(), "https://a.b:8/x?y");
        assert_eq!(redirected(from, "//c.d/x").unwrap(), "https://c.d/x");
        assert_eq!(redirected(from, "https://c.d/x").unwrap(), "https://c.d/x");
        for location in ["http://a.b/x", "file:///x", "x", "", "https://u:p@c.d/x"] {
            assert!(redirected(from, location).is_err(), "{location}");
        }
        assert!(redirected("http://a.b/c", "http://c.d/x").is_ok());
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(shown("https://a/b?Signature=c"), "https://a/b");
    }
}
