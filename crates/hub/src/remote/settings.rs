//! How to reach what is elsewhere.

use std::fmt;
use std::time::Duration;

use crate::Retry;

/// How to reach object storage and web servers.
#[derive(Clone)]
pub struct Settings {
    /// Regions, endpoints and credentials by the names that the services' own tools read from the environment:
    /// `AWS_ACCESS_KEY_ID`, `GOOGLE_SERVICE_ACCOUNT`, `AZURE_STORAGE_ACCOUNT_NAME` and so on. Others are of no effect.
    pub options: Vec<(String, String)>,
    /// How patiently to try again.
    pub retry: Retry,
    /// The longest wait for the beginning of an answer.
    pub wait: Duration,
    /// Whether connections go through the proxy that `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
    pub proxy_from_environment: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            options: Vec::new(),
            retry: Retry::default(),
            wait: Duration::from_secs(60),
            proxy_from_environment: false,
        }
    }
}

impl fmt::Debug for Settings {
    // Names of options without their values, for some are secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.options.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Settings")
            .field("options", &names)
            .field("retry", &self.retry)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
