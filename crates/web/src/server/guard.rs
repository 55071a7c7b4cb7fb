//! What every request passes: who is asked for, where a page came from, how much is sent; and what every answer carries.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::{Next, from_fn};
use bytes::Bytes;

use super::{BODY_BYTES, plain};

/// What browsers may do with a page of ours: load what comes from here, and nothing else.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    // Not `no-referrer`: forms would then say that they come from nowhere.
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()"),
];

/// How long what a page sends may take to arrive; it is short.
const BODY: Duration = Duration::from_secs(10);

/// Whom requests may ask for. A page elsewhere can point a name of its own at this machine, so names have to be known; an address
/// cannot be pointed anywhere.
#[derive(Debug, Clone)]
pub struct Hosts {
    address: SocketAddr,
    names: Vec<String>,
    scheme: &'static str,
}

impl Hosts {
    /// Addresses, and these names.
    pub fn new(address: SocketAddr, names: &[String], is_secure: bool) -> Self {
        let names = names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { address, names, scheme: if is_secure { "https" } else { "http" } }
    }

    /// Whether a `Host` header asks for us.
    pub fn knows(&self, host: &str) -> bool {
        let Some((name, port)) = split(host) else { return false };
        let default = if self.scheme == "https" { 443 } else { 80 };
        // Behind a name there may be a proxy with a port of its own.
        if self.names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return true;
        }
        if port.unwrap_or(default) != self.address.port() {
            return false;
        }
        match name.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(ip) if self.address.ip().is_loopback() => ip.is_loopback(),
            Ok(_) => true,
            Err(_) => name.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether whoever sends this may change something: a page of ours, or no browser.
    fn may_change(&self, headers: &HeaderMap) -> bool {
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(&header::HOST).unwrap_or_default();
        let site = text(&HeaderName::from_static("sec-fetch-site"));
        let of_ours = |origin: &str| {
            let behind_proxy =
                self.names.iter().any(|name| split(host).is_some_and(|(host, _)| host == name));
            let rest = match origin.split_once("://") {
                Some((scheme, rest)) if scheme == self.scheme || (behind_proxy && scheme == "https") => rest,
                _ => return false,
            };
            rest.eq_ignore_ascii_case(host)
        };
        text(&header::ORIGIN).is_none_or(of_ours) && site.is_none_or(|site| site == "same-origin")
    }
}

/// A host name and its port.
fn split(host: &str) -> Option<(&str, Option<u16>)> {
    let end = if host.starts_with('[') { host.find(']')? + 1 } else { host.find(':').unwrap_or(host.len()) };
    let (name, rest) = host.split_at(end);
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Some((name, None)),
        Some(port) => Some((name, Some(port.parse().ok()?))),
        None => None,
    }
}

/// A router with all checks before it.
pub fn guarded(router: Router, hosts: Hosts) -> Router {
    let hosts = Arc::new(hosts);
    router.layer(DefaultBodyLimit::max(BODY_BYTES)).layer(from_fn(move |request: Request, next: Next| {
        let hosts = Arc::clone(&hosts);
        async move { with_headers(checked(&hosts, request, next).await) }
    }))
}

async fn checked(hosts: &Hosts, request: Request, next: Next) -> Response<Body> {
    let headers = request.headers();
    let mut host = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (host.next(), host.next()) else {
        return plain(StatusCode::BAD_REQUEST, "a request names one host\n");
    };
    if !host.to_str().is_ok_and(|host| hosts.knows(host)) {
        let text = "this server is not known by that name; --host NAME makes it known\n";
        return plain(StatusCode::MISDIRECTED_REQUEST, text);
    }
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::POST if hosts.may_change(headers) => {
            let (head, body) = request.into_parts();
            return match whole(body, BODY).await {
                Ok(body) => next.run(Request::from_parts(head, body.into())).await,
                Err(status) => plain(status, "wanted a shorter request, and all of it sooner\n"),
            };
        }
        Method::POST => return plain(StatusCode::FORBIDDEN, "this page belongs to another server\n"),
        _ => return plain(StatusCode::METHOD_NOT_ALLOWED, "wanted GET or POST\n"),
    }
    next.run(request).await
}

/// What was sent, before anything is done about it: whoever sends it byte by byte keeps others out.
async fn whole(body: Body, patience: Duration) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(patience, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

fn with_headers(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(address: &str, names: &[&str]) -> Hosts {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::new(address.parse().unwrap(), &names, false)
    }

    #[test]
    fn a_name_that_is_not_ours_is_not_answered() {
        let local = hosts("127.0.0.1:7007", &[]);
        for host in ["127.0.0.1:7007", "localhost:7007", "LOCALHOST:7007", "[::1]:7007"] {
            assert!(local.knows(host), "{host}");
        }
        for host in [
            "evil.example:7007",
            "localhost",
            "localhost:80",
            "10.0.0.1:7007",
            "localhost.evil:7007",
            "",
            ":7007",
            "[::1",
        ] {
            assert!(!local.knows(host), "{host}");
        }
        let open = hosts("0.0.0.0:7007", &["vote.example"]);
        for host in ["192.168.1.4:7007", "vote.example", "Vote.Example:443"] {
            assert!(open.knows(host), "{host}");
        }
        assert!(!open.knows("evil.example:7007"));
    }

    #[test]
    fn what_arrives_byte_by_byte_or_never_ends_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let whole = |body: Body| runtime.block_on(whole(body, Duration::from_millis(50)));
        let drops = futures_util::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            Some((Ok::<_, std::io::Error>("x"), ()))
        });
        assert_eq!(whole(Body::from_stream(drops)), Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(whole(Body::from(vec![0; BODY_BYTES + 1])), Err(StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(whole(Body::from("vote")), Ok(Bytes::from("vote")));
    }

    #[test]
    fn pages_of_others_change_nothing() {
        let hosts = hosts("127.0.0.1:7007", &[]);
        let may = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            headers.insert("host", HeaderValue::from_static("localhost:7007"));
            for (name, value) in pairs {
                headers.insert(*name, HeaderValue::from_static(value));
            }
            hosts.may_change(&headers)
        };
        assert!(may(&[]) && may(&[("origin", "http://localhost:7007"), ("sec-fetch-site", "same-origin")]));
        for origin in [
            "http://evil.example",
            "null",
            "https://localhost:7007",
            "http://localhost",
            "http://127.0.0.1:7007",
        ] {
            assert!(!may(&[("origin", origin)]), "{origin}");
        }
        assert!(!may(&[("sec-fetch-site", "cross-site")]) && !may(&[("sec-fetch-site", "same-site")]));
    }
}
