//! Addresses: what is asked for, and where.

use std::fmt;

use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::connector::Connector;
use super::settings::Settings;
use crate::HubError;

/// An address, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub scheme: ObjectStoreScheme,
    pub url: Url,
    /// Bucket, container or server: the address without `path`, without a slash at its end.
    pub root: String,
    /// The place in it, not escaped; empty for all of it.
    pub path: String,
    /// Whether it ends in a slash, or is the root itself.
    pub is_folder: bool,
}

impl Address {
    /// Takes one address apart.
    ///
    /// # Errors
    /// [`HubError::Name`] for another scheme, for `..`, for passwords and for queries: these end up in plans and logs.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let fail = |wanted| HubError::Name { what: "address", found: shown(text), wanted };
        let wanted =
            "s3://bucket/path, gs://bucket/path, az://container/path, https://host/path or file:///path";
        let url = Url::parse(text).map_err(|_| fail(wanted))?;
        let is_web = matches!(url.scheme(), "http" | "https");
        if url.password().is_some() || is_web && !url.username().is_empty() {
            return Err(fail("one without a password; credentials are taken from the environment"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(fail("one without `?` and `#`; signed addresses are not read"));
        }
        // The parser resolves them silently.
        let steps = text.to_ascii_lowercase().replace("%2e", ".");
        if steps.split(['/', '\\']).any(|part| part == "." || part == "..") {
            return Err(fail("one without `.` and `..`"));
        }
        let (scheme, path) = ObjectStoreScheme::parse(&url).map_err(|_| fail(wanted))?;
        if matches!(scheme, ObjectStoreScheme::Memory) {
            return Err(fail(wanted));
        }
        let n_parts = path.parts().count();
        let whole = text.trim_end_matches('/');
        let root = match n_parts {
            0 => whole,
            _ => whole.rmatch_indices('/').nth(n_parts - 1).map_or(whole, |(at, _)| &whole[..at]),
        };
        let is_folder = text.ends_with('/') || n_parts == 0;
        Ok(Self { root: root.to_owned(), path: path.as_ref().to_owned(), is_folder, scheme, url })
    }

    /// Whether a server of this kind says which files it has.
    pub fn can_list(&self) -> bool {
        !matches!(self.scheme, ObjectStoreScheme::Http)
    }

    /// The bucket, container or server, ready to ask. Opens no connection.
    ///
    /// # Errors
    /// [`HubError::Name`] for options that contradict each other or lack something.
    pub fn store(&self, settings: &Settings) -> Result<Box<dyn ObjectStore>, HubError> {
        macro_rules! built {
            ($builder:ty) => {{
                let plain = <$builder>::new().with_url(self.url.as_str());
                let builder = settings.options.iter().fold(plain, |builder, (name, value)| {
                    match name.to_ascii_lowercase().parse() {
                        Ok(key) => builder.with_config(key, value),
                        Err(_) => builder,
                    }
                });
                builder
                    .with_retry(retry(settings))
                    .with_http_connector(Connector::new(settings))
                    .build()
                    .map(|store| Box::new(store) as Box<dyn ObjectStore>)
            }};
        }
        let built = match self.scheme {
            ObjectStoreScheme::AmazonS3 => built!(object_store::aws::AmazonS3Builder),
            ObjectStoreScheme::GoogleCloudStorage => built!(object_store::gcp::GoogleCloudStorageBuilder),
            ObjectStoreScheme::MicrosoftAzure => built!(object_store::azure::MicrosoftAzureBuilder),
            _ => object_store::http::HttpBuilder::new()
                .with_url(&self.url[..url::Position::BeforePath])
                .with_client_options(ClientOptions::new().with_allow_http(self.url.scheme() == "http"))
                .with_retry(retry(settings))
                .with_http_connector(Connector::new(settings))
                .build()
                .map(|store| Box::new(store) as Box<dyn ObjectStore>),
        };
        built.map_err(|error| HubError::Answer {
            url: self.root.clone(),
            found: error.to_string(),
            wanted: "credentials and options in the environment that fit this address".into(),
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.root, self.path)
    }
}

/// A path below a folder of a bucket, container or server; `None` for one that leads out of the folder or is none.
pub(super) fn below(folder: &str, path: &str) -> Option<Path> {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains('\\');
    if path.len() > 4096 || !path.split('/').all(plain) {
        return None;
    }
    Path::parse(format!("{folder}{path}")).ok()
}

fn retry(settings: &Settings) -> RetryConfig {
    let retry = settings.retry;
    let most = retry.longest_wait.max(retry.first_wait);
    RetryConfig {
        backoff: object_store::BackoffConfig { init_backoff: retry.first_wait, max_backoff: most, base: 2.0 },
        max_retries: retry.attempts.saturating_sub(1) as usize,
        retry_timeout: std::time::Duration::from_secs(600),
    }
}

/// An address without what may be a secret, for messages.
fn shown(text: &str) -> String {
    let plain = text.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) if rest.split('/').next().is_some_and(|host| host.contains('@')) => {
            let after = rest.split_once('@').map_or("", |(_, after)| after);
            format!("{scheme}://(hidden)@{after}")
        }
        _ => plain.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_root_and_a_path() {
        for (text, root, path, is_folder) in [
            ("s3://bucket/a/b.tar", "s3://bucket", "a/b.tar", false),
            ("s3://bucket/a/", "s3://bucket", "a", true),
            ("s3://bucket", "s3://bucket", "", true),
            ("gs://bucket/a", "gs://bucket", "a", false),
            ("az://container/a", "az://container", "a", false),
            (
                "abfss://c@account.dfs.core.windows.net/a/b",
                "abfss://c@account.dfs.core.windows.net",
                "a/b",
                false,
            ),
            ("https://host:8080/a/b%20c.tar", "https://host:8080", "a/b c.tar", false),
            ("https://xn--bcher-kva.example/a", "https://xn--bcher-kva.example", "a", false),
            ("https://x.blob.core.windows.net/c/a/b", "https://x.blob.core.windows.net/c", "a/b", false),
        ] {
            let address = Address::parse(text).unwrap();
            assert_eq!(
                (&*address.root, &*address.path, address.is_folder),
                (root, path, is_folder),
                "{text}"
            );
        }
    }

    #[test]
    fn addresses_with_secrets_or_steps_out_are_refused_without_showing_them() {
        for text in [
            "https://user:secret@host/a",
            "https://secret@host/a",
            "https://host/a?sig=secret",
            "https://host/a#secret",
            "https://host/a/../b",
            "s3://bucket/%2e%2E/b",
            "ftp://host/a",
            "memory:///a",
            "https://b\u{fc}cher.example/a",
            "s3:///a",
        ] {
            let error = Address::parse(text).unwrap_err();
            assert!(matches!(error, HubError::Name { .. }), "{text}");
            assert!(!format!("{error} {error:?}").contains("secret"), "{error}");
        }
    }

    #[test]
    fn paths_stay_below_their_folder() {
        assert_eq!(below("set/", "a/b c.png").unwrap().as_ref(), "set/a/b c.png");
        for path in ["", "../x", "a/../x", "/x", "a//b", "./a", "a\\b", "a/", "a\nb"] {
            assert!(below("set/", path).is_none(), "{path:?}");
        }
    }
}
