//! Binds the listeners in the configuration. Accepts no client: the acceptor does.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use crate::config::{Config, Finding, Tls};
use crate::net::{Address, Listener, tls};

/// A configured listener cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {error}; type another address for {key}{}", self.or_else())]
pub struct ListenError {
    /// As configured.
    address: Address,
    /// The key of the configuration.
    key: &'static str,
    error: io::Error,
}

impl ListenError {
    /// What else the user can do.
    fn or_else(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::AddrInUse => ", or stop what listens there",
            io::ErrorKind::PermissionDenied => ", or give Shortstop the right to use this one",
            _ => "",
        }
    }
}

/// The addresses for clients.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    /// Without TLS.
    pub plain: Option<SocketAddr>,
    /// With TLS.
    pub tls: Option<SocketAddr>,
    /// The path of the Unix socket.
    pub unix: Option<Address>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = self.plain.map(|address| address.to_string());
        let tls = self.tls.map(|address| format!("tls://{address}"));
        let unix = self.unix.as_ref().map(|path| format!("unix://{path}"));
        f.write_str(&[plain, tls, unix].into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

/// Binds all listeners. The flag beside each says whether it uses TLS.
///
/// # Errors
/// A listener cannot be bound.
pub fn bind(config: &Config) -> Result<(Vec<(Listener, bool)>, Addresses), ListenError> {
    let plain = config.listen.map(|address| tcp("listen", address)).transpose()?;
    let tls = config.tls.listen.map(|address| tcp("tls.listen", address)).transpose()?;
    let unix = config.listen_unix.as_deref().map(unix).transpose()?;
    let addresses = Addresses {
        plain: plain.as_ref().map(|(_, address)| *address),
        tls: tls.as_ref().map(|(_, address)| *address),
        unix: unix.as_ref().map(|(_, address)| address.clone()),
    };
    let plain = plain.map(|(listener, _)| (listener, false));
    let tls = tls.map(|(listener, _)| (listener, true));
    let unix = unix.map(|(listener, _)| (listener, false));
    Ok(([plain, tls, unix].into_iter().flatten().collect(), addresses))
}

/// Binds an address. The returned address has the actual port if the port was 0.
fn tcp(key: &'static str, address: SocketAddr) -> Result<(Listener, SocketAddr), ListenError> {
    let bound = Listener::tcp(address).and_then(|listener| {
        let bound = listener.address()?.ip().unwrap_or(address);
        Ok((listener, bound))
    });
    bound.map_err(|error| ListenError { address: address.into(), key, error })
}

fn unix(path: &Path) -> Result<(Listener, Address), ListenError> {
    let address = Address::from(path.to_owned());
    match Listener::unix(path) {
        Ok(listener) => Ok((listener, address)),
        Err(error) => Err(ListenError { address, key: "listen_unix", error }),
    }
}

/// The certificate for TLS clients. `None` if TLS is not configured.
///
/// # Errors
/// A certificate or a key cannot be used.
pub fn server(tls: &Tls) -> Result<Option<tls::Server>, Finding> {
    match tls {
        Tls { listen: Some(_), certificate: Some(certificate), key: Some(key), client_ca } => {
            tls::Server::load(certificate, key, client_ca.as_deref()).map(Some)
        }
        _ => Ok(None),
    }
}
