//! The one HTTP client.

use std::time::Duration;

use ureq::{Agent, Proxy};

use crate::HubError;

/// How a client behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// Whether connections go through the proxy that the environment names.
    pub proxy_from_environment: bool,
    /// Redirects that it follows by itself. It never takes an `Authorization` along.
    pub redirects: u32,
    /// Whether it speaks TLS only, also where a redirect leads.
    pub https_only: bool,
    /// The longest wait for the beginning of an answer.
    pub wait: Duration,
}

/// Whether a proxy of this address can be spoken to: one of HTTP, HTTPS or SOCKS.
///
/// The client takes no notice of any other and would connect directly.
///
/// # Errors
/// [`HubError::Name`], without the address, which may hold a password.
pub fn check_proxy(variable: &'static str, address: &str) -> Result<(), HubError> {
    let found = address.split_once("://").map_or("no scheme", |(scheme, _)| scheme);
    Proxy::new(address).map(drop).map_err(|_| HubError::Name {
        what: variable,
        found: format!("{found}://..."),
        wanted: "the address of a proxy, such as http://host:3128 or socks5://host:1080",
    })
}

/// A client that returns whatever status a server answers.
pub(crate) fn agent(manner: Manner) -> Agent {
    let proxy = if manner.proxy_from_environment { Proxy::try_from_env() } else { None };
    let config = Agent::config_builder()
        .proxy(proxy)
        .http_status_as_error(false)
        .max_redirects(manner.redirects)
        .max_redirects_will_error(manner.redirects > 0)
        .https_only(manner.https_only)
        .accept_encoding("identity")
        .user_agent(concat!("tastemaker/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(manner.wait.min(Duration::from_secs(20))))
        .timeout_recv_response(Some(manner.wait))
        .timeout_per_read(Some(manner.wait.min(Duration::from_secs(30))))
        .build();
    config.new_agent()
}
