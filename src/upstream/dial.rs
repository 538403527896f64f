//! The only way to connect to Redis: for lanes, sessions, logins, and the control plane.
//!
//! Knows the configured address of Redis and the transport (TCP, TLS, Unix socket). [`super::endpoint`] decides which server to
//! dial now, and the caller decides about the login.

use std::io;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::config::{Config, Finding, Live, Target, Timeouts, UpstreamTls, UpstreamUrl};
use crate::net::{self, Address, Stream, tls};
use crate::resp::ReplyScanner;

use super::login::Login;
use super::own;

/// A request: its arguments.
pub(super) type Request<'a> = Vec<&'a [u8]>;

/// Connects to Redis.
#[derive(Debug)]
pub struct Dialer {
    upstream: UpstreamUrl,
    timeouts: Live<Timeouts>,
    /// `None` if the URL does not ask for TLS.
    tls: Option<RwLock<tls::Client>>,
}

impl Dialer {
    /// Reads the certificates if the URL asks for TLS.
    ///
    /// # Errors
    /// A certificate or a key cannot be used.
    pub fn new(upstream: UpstreamUrl, tls: &UpstreamTls, timeouts: Live<Timeouts>) -> Result<Arc<Dialer>, Finding> {
        warn(&upstream, tls);
        let tls = load(&upstream, tls)?.map(RwLock::new);
        Ok(Arc::new(Dialer { upstream, timeouts, tls }))
    }

    /// Reads the certificates again, for future connections.
    ///
    /// # Errors
    /// A certificate or a key cannot be used. The old ones stay in use.
    pub fn reload(&self, tls: &UpstreamTls) -> Result<(), Finding> {
        warn(&self.upstream, tls);
        if let (Some(known), Some(loaded)) = (&self.tls, load(&self.upstream, tls)?) {
            *known.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
        Ok(())
    }

    /// The configured address of Redis and Shortstop's own login.
    pub fn upstream(&self) -> &UpstreamUrl {
        &self.upstream
    }

    /// The timeout for establishing a connection (`timeouts.connect`), and for replies while a server is being looked for.
    pub(super) fn limit(&self) -> Duration {
        self.timeouts.get().connect
    }

    /// Shortstop's own login, if the URL has one.
    pub(super) fn login(&self) -> Option<Login> {
        Login::of(&self.upstream)
    }

    /// Connects. The server may be busy and may not reply for now: see [`Dialed::greet`].
    ///
    /// # Errors
    /// The server cannot be reached, or the connection was not established within the limit.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn dial(&self, address: &Address) -> io::Result<Dialed<'_>> {
        let connecting = async {
            match address {
                Address::Tcp(address) => {
                    let socket = TcpStream::connect(address).await?;
                    net::for_upstream(&socket)?;
                    Ok(Dialed::Tcp(socket, self))
                }
                Address::Unix(path) => UnixStream::connect(path).await.map(Dialed::Unix),
            }
        };
        let limit = self.limit();
        timeout(limit, connecting).await.unwrap_or_else(|_| Err(silent(limit)))
    }

    /// Whether the URL asks for TLS, but the server speaks plain RESP. Such a server may take a TLS handshake for the beginning of
    /// a request and wait for the rest, so it looks busy.
    pub(super) async fn is_without_tls(&self, address: &Address) -> bool {
        if self.tls.is_none() {
            return false;
        }
        let asked = async {
            let Dialed::Tcp(socket, _) = self.dial(address).await? else { return Ok(false) };
            let mut connection = Connection { stream: Stream::Tcp(socket), inbox: BytesMut::new() };
            // The reply is either RESP or an error.
            connection.ask(vec![b"PING"]).await.map(|_| true)
        };
        matches!(timeout(self.limit(), asked).await, Ok(Ok(true)))
    }
}

/// Checks the files that TLS to Redis needs.
pub fn check_files(config: &Config) -> Option<Finding> {
    load(&config.upstream, &config.upstream_tls).err()
}

/// Reads the certificates. `None` if the URL does not ask for TLS.
fn load(upstream: &UpstreamUrl, tls: &UpstreamTls) -> Result<Option<tls::Client>, Finding> {
    match &upstream.target {
        Target::Tls { host, .. } => tls::Client::load(tls, host).map(Some),
        Target::Tcp { .. } | Target::Unix(_) => Ok(None),
    }
}

/// Logs a warning if TLS protects less than the user may think.
fn warn(upstream: &UpstreamUrl, tls: &UpstreamTls) {
    let has_tls = matches!(upstream.target, Target::Tls { .. });
    if has_tls && tls.insecure {
        tracing::warn!(
            "upstream_tls.insecure is true: any server is accepted as Redis, and anyone on the network path can \
             read and change everything, including passwords. Set upstream_tls.ca instead"
        );
    }
    if !has_tls && *tls != UpstreamTls::default() {
        tracing::warn!(
            "upstream_tls is set, but the upstream URL does not begin with rediss://: the connection to Redis has no TLS"
        );
    }
}

/// An established connection on which nothing has been sent yet.
pub(super) enum Dialed<'a> {
    Tcp(TcpStream, &'a Dialer),
    Unix(UnixStream),
}

impl Dialed<'_> {
    /// Does the TLS handshake, if there is one. Waits as long as the server takes.
    ///
    /// # Errors
    /// The TLS handshake failed.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub(super) async fn greet(self) -> io::Result<Connection> {
        let stream = match self {
            Dialed::Unix(socket) => Stream::Unix(socket),
            Dialed::Tcp(socket, Dialer { tls: None, .. }) => Stream::Tcp(socket),
            Dialed::Tcp(socket, Dialer { tls: Some(tls), .. }) => {
                let tls = tls.read().unwrap_or_else(PoisonError::into_inner).clone();
                tls.connect(socket).await?
            }
        };
        Ok(Connection { stream, inbox: BytesMut::new() })
    }
}

/// A connection for one request at a time: handshakes, probes, and the control plane's requests.
pub(super) struct Connection {
    stream: Stream,
    inbox: BytesMut,
}

/// Some requests have no reply, because the connection has ended.
pub(super) struct Unanswered {
    /// The replies that arrived.
    pub(super) replies: Vec<Bytes>,
    pub(super) error: io::Error,
}

impl Connection {
    /// Sends requests in one piece.
    pub(super) async fn send(&mut self, requests: &[Request<'_>]) -> io::Result<()> {
        let mut out = Vec::new();
        requests.iter().for_each(|words| own::request(&mut out, words.iter().copied()));
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    /// The next frame, which may be a push.
    pub(super) async fn frame(&mut self) -> io::Result<Bytes> {
        let mut scanner = ReplyScanner::default();
        loop {
            match scanner.scan(&self.inbox) {
                Ok(Some(end)) => return Ok(self.inbox.split_to(end).freeze()),
                Ok(None) => self.read().await?,
                Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
            }
        }
    }

    /// Sends requests in one piece, and returns as many replies.
    pub(super) async fn ask_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Bytes>, Unanswered> {
        let mut replies = Vec::with_capacity(requests.len());
        let asked = async {
            self.send(requests).await?;
            while replies.len() < requests.len() {
                let frame = self.frame().await?;
                // Other clients may publish to a subscribed connection at any time.
                if frame.first() != Some(&b'>') {
                    replies.push(frame);
                }
            }
            Ok(())
        };
        match asked.await {
            Ok(()) => Ok(replies),
            Err(error) => Err(Unanswered { replies, error }),
        }
    }

    /// Sends one request and returns its reply.
    pub(super) async fn ask(&mut self, request: Request<'_>) -> io::Result<Bytes> {
        let replies = self.ask_all(&[request]).await.map_err(|unanswered| unanswered.error)?;
        replies.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits until something arrives without a request: in most cases the end of the connection, and its reason.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ended(&mut self) -> io::Error {
        match self.read().await {
            Ok(()) => io::Error::new(io::ErrorKind::InvalidData, "it sent something unexpected"),
            Err(error) => error,
        }
    }

    /// The stream, for other uses. Call this only when every request has its reply.
    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    async fn read(&mut self) -> io::Result<()> {
        // With TLS 1.3 a server says only here that it wants a certificate.
        match self.stream.read_buf(&mut self.inbox).await.map_err(tls::explain)? {
            0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection")),
            _ => Ok(()),
        }
    }
}

/// The error for a reply that did not arrive in time.
pub(super) fn silent(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}
