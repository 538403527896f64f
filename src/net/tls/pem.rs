//! Reads certificates and keys from PEM files. Does not decide what they are used for.

use std::path::Path;
use std::sync::Arc;

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::config::Finding;
use crate::config::units::Wrong;

/// An error about the file of a configuration key.
pub(super) fn wrong(key: &str, what: impl Into<String>, remedy: &str) -> Finding {
    Finding::new(key, Wrong::new(what, remedy))
}

/// The crypto provider of every configuration.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates in a file, in their order.
pub(super) fn certificates(key: &'static str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Finding> {
    read(
        key,
        file,
        "the path of a readable PEM file with the certificate, followed by those that lead to its authority",
    )
}

fn read(key: &'static str, file: &Path, remedy: &str) -> Result<Vec<CertificateDer<'static>>, Finding> {
    let unreadable = |what: String| wrong(key, format!("{} {what}", file.display()), remedy);
    let parsed = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = parsed.map_err(|error| unreadable(format!("cannot be read ({error})")))?;
    if certificates.is_empty() {
        return Err(unreadable("has no certificate".to_owned()));
    }
    Ok(certificates)
}

/// The private key in a file.
pub(super) fn private_key(key: &'static str, file: &Path) -> Result<PrivateKeyDer<'static>, Finding> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| {
        let what = format!("{} cannot be read ({error})", file.display());
        wrong(key, what, "the path of a readable PEM file with a private key that has no password")
    })
}

/// The authorities in a file.
pub(super) fn authorities(key: &'static str, file: &Path) -> Result<RootCertStore, Finding> {
    const REMEDY: &str = "the path of a readable PEM file with the certificates of authorities";
    let mut roots = RootCertStore::empty();
    for certificate in read(key, file, REMEDY)? {
        roots.add(certificate).map_err(|error| {
            let what = format!("{} contains an invalid certificate ({error})", file.display());
            wrong(key, what, REMEDY)
        })?;
    }
    Ok(roots)
}
