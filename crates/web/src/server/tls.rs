//! TLS, with a certificate and key of the user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::WebError;

/// Files in PEM.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The certificate, and those that lead to one that browsers trust.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What makes connections secure.
///
/// # Errors
/// [`WebError::Tls`] for files that hold something else, or do not fit each other.
pub fn acceptor(files: &Certificate) -> Result<TlsAcceptor, WebError> {
    let refuse = |path: &Path, what: String| WebError::Tls { path: path.to_owned(), what };
    let unread =
        |path: &Path, error: Error, wanted: &str| refuse(path, format!("{error}; wanted {wanted} in PEM"));
    let Certificate { certificate, key } = files;
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| unread(certificate, error, "certificates"))?;
    if chain.is_empty() {
        return Err(refuse(certificate, "there is no certificate in it; wanted one in PEM".into()));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unread(key, error, "a private key"))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| refuse(certificate, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
