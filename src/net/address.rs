//! The address of one end of a stream.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An IP address with a port, or the path of a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, with or without TLS.
    Tcp(SocketAddr),
    /// A Unix socket.
    Unix(Arc<Path>),
}

impl Address {
    /// The IP address and the port. `None` for a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        }
    }

    /// Whether the other end must be on this machine: a loopback address, or a Unix socket.
    pub fn is_local(&self) -> bool {
        match self {
            // A socket that listens on IPv6 sees 127.0.0.1 as ::ffff:127.0.0.1.
            Address::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Address::Unix(_) => true,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Address::Tcp(address)
    }
}

impl From<PathBuf> for Address {
    fn from(path: PathBuf) -> Self {
        Address::Unix(path.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::Tcp(address) => address.fmt(f),
            Address::Unix(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::path::PathBuf;

    use super::Address;

    #[test]
    fn loopback_addresses_and_unix_sockets_are_local() {
        let local = |text: &str| Address::from(text.parse::<SocketAddr>().expect("an address")).is_local();
        for (text, expected) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("10.0.0.1:1", false),
            ("0.0.0.0:1", false),
            ("[fe80::1]:1", false),
            ("[::ffff:10.0.0.1]:1", false),
        ] {
            assert_eq!(local(text), expected, "{text}");
        }
        assert!(Address::from(PathBuf::from("/run/s")).is_local());
    }
}
