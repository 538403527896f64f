//! TLS set-up: certificates and keys from PEM files to what rustls wants, for the clients' side and for Redis's.
//!
//! One crypto provider, ring, for all of the process: async-nats is built with the same. It is handed to each configuration, and
//! nothing is installed for the whole process.

mod client;
mod server;

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub use client::{Client, NO_TLS};
pub use server::Server;

/// What is wrong with a certificate or a key that the configuration names.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {what}; type {remedy}")]
pub struct Error {
    key: &'static str,
    what: String,
    remedy: &'static str,
}

impl Error {
    fn new(key: &'static str, what: impl Into<String>, remedy: &'static str) -> Self {
        Error { key, what: what.into(), remedy }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a file, in their order.
fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    const REMEDY: &str =
        "the path of a readable PEM file with the certificate, and behind it those that lead to its authority";
    let unreadable = |what: String| Error::new(key, format!("{} {what}", file.display()), REMEDY);
    let parsed = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = parsed.map_err(|error| unreadable(format!("cannot be read ({error})")))?;
    if certificates.is_empty() {
        return Err(unreadable("has no certificate".to_owned()));
    }
    Ok(certificates)
}

fn private_key(key: &'static str, file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| {
        let what = format!("{} cannot be read ({error})", file.display());
        Error::new(key, what, "the path of a readable PEM file with a private key that has no password")
    })
}

/// The authorities in a file.
fn authorities(key: &'static str, file: &Path) -> Result<RootCertStore, Error> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(key, file)? {
        roots.add(certificate).map_err(|error| {
            let what = format!("{} has a certificate that is not sound ({error})", file.display());
            Error::new(key, what, "the path of a PEM file with the certificates of authorities")
        })?;
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    /// Two providers would make async-nats panic when it chooses one, and would be two implementations to keep up with.
    #[test]
    fn ring_is_the_only_crypto_provider() {
        let packages = include_str!("../../../Cargo.lock");
        for other in ["aws-lc-rs", "openssl-sys", "boring-sys"] {
            assert!(!packages.contains(&format!("name = \"{other}\"")), "{other}");
        }
    }
}
