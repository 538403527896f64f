//! TLS for what is compared: the certificate that servers show, and a non-blocking client side for the load generator.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

/// A certificate for 127.0.0.1 and who believes it.
pub struct Trust {
    /// PEM file.
    pub certificate: PathBuf,
    /// PEM file.
    pub key: PathBuf,
    client: Arc<ClientConfig>,
}

impl Trust {
    /// Makes one, with its files in this folder.
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn new(folder: &Path) -> std::io::Result<Self> {
        let other = std::io::Error::other::<Box<dyn std::error::Error + Send + Sync>>;
        let made = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]);
        let made = made.map_err(|error| other(error.into()))?;
        let (certificate, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        std::fs::write(&certificate, made.cert.pem())?;
        std::fs::write(&key, made.signing_key.serialize_pem())?;
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone()).map_err(|error| other(error.into()))?;
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| other(error.into()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { certificate, key, client: Arc::new(client) })
    }
}

/// A connection of the load generator.
pub enum Wire {
    /// Without TLS.
    Plain(TcpStream),
    /// With it.
    Tls(Box<ClientConnection>, TcpStream),
}

impl Wire {
    /// Connects, does the handshake where there is one, and does not block from then on.
    ///
    /// # Errors
    /// Nobody listens, or the handshake fails.
    pub fn connect(addr: SocketAddr, trust: Option<&Trust>) -> std::io::Result<Self> {
        let mut socket = std::net::TcpStream::connect(addr)?;
        socket.set_nodelay(true)?;
        let mut tls = None;
        if let Some(trust) = trust {
            let connection = ClientConnection::new(Arc::clone(&trust.client), ServerName::from(addr.ip()));
            let mut connection = connection.map_err(std::io::Error::other)?;
            while connection.is_handshaking() {
                connection.complete_io(&mut socket)?;
            }
            tls = Some(Box::new(connection));
        }
        socket.set_nonblocking(true)?;
        let socket = TcpStream::from_std(socket);
        Ok(match tls {
            None => Self::Plain(socket),
            Some(connection) => Self::Tls(connection, socket),
        })
    }

    /// Has the poll tell of it under this token.
    ///
    /// # Errors
    /// The poll's.
    pub fn register(&mut self, registry: &Registry, token: Token) -> std::io::Result<()> {
        let (Self::Plain(socket) | Self::Tls(_, socket)) = self;
        registry.register(socket, token, Interest::READABLE | Interest::WRITABLE)
    }

    /// Whether a read that did not fill the buffer has emptied the socket.
    pub fn short_reads_tell(&self) -> bool {
        matches!(self, Self::Plain(_))
    }

    /// Sends what a write has left behind.
    ///
    /// # Errors
    /// The socket's; that it takes no more is none.
    pub fn push(&mut self) -> std::io::Result<()> {
        let Self::Tls(connection, socket) = self else { return Ok(()) };
        while connection.wants_write() {
            match connection.write_tls(socket) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// As [`Write::write`].
    ///
    /// # Errors
    /// `WouldBlock` when no more is taken.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(connection, _) => {
                let taken = connection.writer().write(bytes)?;
                self.push()?;
                if taken == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(taken) }
            }
        }
    }

    /// As [`Read::read`].
    ///
    /// # Errors
    /// `WouldBlock` when there is nothing.
    pub fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(bytes),
            Self::Tls(connection, socket) => loop {
                match connection.reader().read(bytes) {
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    read => return read,
                }
                if connection.read_tls(socket)? == 0 {
                    return Ok(0);
                }
                connection.process_new_packets().map_err(std::io::Error::other)?;
            },
        }
    }
}
