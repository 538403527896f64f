//! The sections `tls` and `upstream_tls`: paths of PEM files. Nothing here reads them.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::Finding;
use super::fields::{Fields, Section};
use super::units::{OPTIONAL_ADDRESS, OPTIONAL_PATH, OPTIONAL_TEXT, SWITCH, Wrong};

/// TLS for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// The address for clients with TLS.
    pub listen: Option<SocketAddr>,
    /// Shortstop's certificate for clients. Set if `listen` is.
    pub certificate: Option<PathBuf>,
    /// Its private key. Set if `listen` is.
    pub key: Option<PathBuf>,
    /// The authority that must have issued clients' certificates. `None`: clients need no certificate.
    pub client_ca: Option<PathBuf>,
}

impl Section for Tls {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { listen, certificate, key, client_ca } = self;
        fields.value("listen", listen, OPTIONAL_ADDRESS);
        fields.value("certificate", certificate, OPTIONAL_PATH);
        fields.value("key", key, OPTIONAL_PATH);
        fields.value("client_ca", client_ca, OPTIONAL_PATH);
    }
}

impl Tls {
    /// Keys that contradict each other.
    pub(super) fn check(&self) -> Option<Finding> {
        let wrong = |at, what, remedy| Some(Finding::new(at, Wrong::new(what, remedy)));
        match self {
            Tls { listen: None, certificate: None, key: None, client_ca: None } => None,
            Tls { listen: None, .. } => {
                wrong("tls.listen", "it is not set, but other keys of tls are", "an address, for example 0.0.0.0:6390")
            }
            Tls { certificate: None, .. } => {
                wrong("tls.certificate", "it is not set, but tls.listen is", "the path of a PEM file")
            }
            Tls { key: None, .. } => wrong("tls.key", "it is not set, but tls.listen is", "the path of a PEM file"),
            _ => None,
        }
    }
}

/// TLS to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The authority of Redis's certificate. `None`: the system's authorities.
    pub ca: Option<PathBuf>,
    /// Shortstop's certificate for Redis, if any.
    pub certificate: Option<PathBuf>,
    /// Its private key. Set if and only if `certificate` is.
    pub key: Option<PathBuf>,
    /// The name in Redis's certificate. `None`: the host in the URL.
    pub server_name: Option<String>,
    /// Accept any certificate.
    pub insecure: bool,
}

impl Section for UpstreamTls {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { ca, certificate, key, server_name, insecure } = self;
        fields.value("ca", ca, OPTIONAL_PATH);
        fields.value("certificate", certificate, OPTIONAL_PATH);
        fields.value("key", key, OPTIONAL_PATH);
        fields.value("server_name", server_name, OPTIONAL_TEXT);
        fields.value("insecure", insecure, SWITCH);
    }
}

impl UpstreamTls {
    /// Keys that contradict each other.
    pub(super) fn check(&self) -> Option<Finding> {
        let missing = match (&self.certificate, &self.key) {
            (None, Some(_)) => "upstream_tls.certificate",
            (Some(_), None) => "upstream_tls.key",
            _ => return None,
        };
        let what = "a certificate and its key go together, and one of them is not set";
        Some(Finding::new(missing, Wrong::new(what, "the path of a PEM file")))
    }
}
