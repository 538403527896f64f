//! The sections `tls` and `upstream_tls`: names of PEM files. Nothing here reads them.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

use super::error::ConfigError;
use super::units::Wrong;
use super::yaml;

/// TLS for clients.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct Tls {
    /// Where clients connect with TLS; none: nowhere.
    #[serde(deserialize_with = "yaml::optional_address")]
    pub listen: Option<SocketAddr>,
    /// The certificate that clients are shown. Set when `listen` is.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub certificate: Option<PathBuf>,
    /// Its private key. Set when `listen` is.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub key: Option<PathBuf>,
    /// The authority of the certificates that clients have to show; none: they need none.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let wrong = |at, what, remedy| Err(ConfigError::new(at, Wrong::new(what, remedy)));
        match self {
            Tls { listen: None, certificate: None, key: None, client_ca: None } => Ok(()),
            Tls { listen: None, .. } => {
                wrong("tls.listen", "it is not set, but other keys of tls are", "an address, for example 0.0.0.0:6390")
            }
            Tls { certificate: None, .. } => {
                wrong("tls.certificate", "it is not set, but tls.listen is", "the path of a PEM file")
            }
            Tls { key: None, .. } => wrong("tls.key", "it is not set, but tls.listen is", "the path of a PEM file"),
            _ => Ok(()),
        }
    }
}

/// TLS to Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct UpstreamTls {
    /// The authority of Redis's certificate; none: those that the system trusts.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub ca: Option<PathBuf>,
    /// The certificate that Redis is shown; none: none.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub certificate: Option<PathBuf>,
    /// Its private key. Set if and only if `certificate` is.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub key: Option<PathBuf>,
    /// The name that Redis's certificate has to be for; none: the host in the URL.
    #[serde(deserialize_with = "yaml::optional_text")]
    pub server_name: Option<String>,
    /// Any server is taken for Redis.
    #[serde(deserialize_with = "yaml::switch")]
    pub insecure: bool,
}

impl UpstreamTls {
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let missing = match (&self.certificate, &self.key) {
            (None, Some(_)) => "upstream_tls.certificate",
            (Some(_), None) => "upstream_tls.key",
            _ => return Ok(()),
        };
        let what = "a certificate and its key go together, and one of them is not set";
        Err(ConfigError::new(missing, Wrong::new(what, "the path of a PEM file")))
    }
}
