//! How to reach a hub, and how patiently.

use std::time::Duration;

use crate::token::Token;

/// How to reach a hub.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it answers: `https://huggingface.co`, or a mirror.
    pub endpoint: String,
    /// What opens gated and private repositories. Only the endpoint itself ever sees it.
    pub token: Option<Token>,
    /// Whether to make do with what is in the cache, and open no connection.
    pub offline: bool,
    /// How patiently to try again.
    pub retry: Retry,
    /// The longest wait for the beginning of an answer, and the time in which some of it must arrive.
    pub wait: Duration,
    /// Whether connections go through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
    pub proxy_from_environment: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: "https://huggingface.co".into(),
            token: None,
            offline: false,
            retry: Retry::default(),
            wait: Duration::from_secs(60),
            proxy_from_environment: false,
        }
    }
}

/// How patiently to try again when a connection is cut or a server is busy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in a row without progress.
    pub attempts: u32,
    /// Wait before the second attempt; it doubles with each.
    pub first_wait: Duration,
    /// The longest wait, also where a server asks for more.
    pub longest_wait: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self { attempts: 5, first_wait: Duration::from_secs(1), longest_wait: Duration::from_secs(60) }
    }
}
