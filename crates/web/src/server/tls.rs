//! TLS, with a certificate and key of the user.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{Error, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};

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
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| match error {
        Error::NoItemsFound if is_encrypted(key) => {
            let what =
                "the key has a password; wanted one without, as openssl pkey -in KEY -out PLAIN writes it";
            refuse(key, what.into())
        }
        Error::NoItemsFound => refuse(key, "there is no private key in it; wanted one in PEM".into()),
        error => unread(key, error, "a private key"),
    })?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, private))
        .map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                refuse(key, format!("it is not the key of the certificate {}", certificate.display()))
            }
            error => refuse(certificate, format!("{error}, with the key {}", key.display())),
        })?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn is_encrypted(key: &Path) -> bool {
    tastemaker_store::json::read_text(key).is_ok_and(|text| text.contains("ENCRYPTED"))
}
