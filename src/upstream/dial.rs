//! The one way to connect to Redis: for lanes and sessions, for logins, and for all that the control plane asks.
//!
//! Knows where Redis is configured to be and how it is spoken to there (TCP, TLS, a Unix socket). Which server to dial now is decided by
//! [`super::endpoint`], who the connection becomes by its caller.

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

/// A request: its words.
pub(super) type Request<'a> = Vec<&'a [u8]>;

/// Connects to Redis.
#[derive(Debug)]
pub struct Dialer {
    upstream: UpstreamUrl,
    timeouts: Live<Timeouts>,
    /// None: the URL does not ask for TLS.
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

    /// Reads the certificates again, for connections that are made from now on.
    ///
    /// # Errors
    /// A certificate or a key cannot be used; the old ones stay in use.
    pub fn reload(&self, tls: &UpstreamTls) -> Result<(), Finding> {
        warn(&self.upstream, tls);
        if let (Some(known), Some(loaded)) = (&self.tls, load(&self.upstream, tls)?) {
            *known.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        }
        Ok(())
    }

    /// Where Redis is configured to be, and who Shortstop is there.
    pub fn upstream(&self) -> &UpstreamUrl {
        &self.upstream
    }

    /// How long a server may take to take a connection (`timeouts.connect`), and to answer when it is looked for.
    pub(super) fn limit(&self) -> Duration {
        self.timeouts.get().connect
    }

    /// Shortstop's own login; none: the URL has none.
    pub(super) fn login(&self) -> Option<Login> {
        Login::of(&self.upstream)
    }

    /// Connects. A server that takes the connection may be busy, and then answers nothing: see [`Dialed::greet`].
    ///
    /// # Errors
    /// The server cannot be reached, or has not taken the connection within the limit.
    ///
    /// # Cancel safety
    /// Dropped, there is no connection.
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

    /// Whether the URL asks for TLS and the server answers without. Such a server may take a TLS handshake for the beginning of a
    /// request, and wait for its end: from outside it looks busy.
    pub(super) async fn is_without_tls(&self, address: &Address) -> bool {
        if self.tls.is_none() {
            return false;
        }
        let asked = async {
            let Dialed::Tcp(socket, _) = self.dial(address).await? else { return Ok(false) };
            let mut connection = Connection { stream: Stream::Tcp(socket), inbox: BytesMut::new() };
            // What comes is RESP, or it is an error here.
            connection.ask(vec![b"PING"]).await.map(|_| true)
        };
        matches!(timeout(self.limit(), asked).await, Ok(Ok(true)))
    }
}

/// What is wrong with the files that TLS to Redis needs.
pub fn check_files(config: &Config) -> Option<Finding> {
    load(&config.upstream, &config.upstream_tls).err()
}

/// Reads the certificates; none: the URL does not ask for TLS.
fn load(upstream: &UpstreamUrl, tls: &UpstreamTls) -> Result<Option<tls::Client>, Finding> {
    match &upstream.target {
        Target::Tls { host, .. } => tls::Client::load(tls, host).map(Some),
        Target::Tcp { .. } | Target::Unix(_) => Ok(None),
    }
}

/// Says in the log when TLS protects less than somebody may think.
fn warn(upstream: &UpstreamUrl, tls: &UpstreamTls) {
    let has_tls = matches!(upstream.target, Target::Tls { .. });
    if has_tls && tls.insecure {
        tracing::warn!(
            "upstream_tls.insecure is true: whoever answers is taken for Redis, and anybody on the way there can read and change \
             everything, passwords included. Set upstream_tls.ca in place of it"
        );
    }
    if !has_tls && *tls != UpstreamTls::default() {
        tracing::warn!(
            "upstream_tls is set, but the upstream URL does not begin with rediss://: the connection to Redis has no TLS"
        );
    }
}

/// A connection that a server has taken, and on which nothing has been said.
pub(super) enum Dialed<'a> {
    Tcp(TcpStream, &'a Dialer),
    Unix(UnixStream),
}

impl Dialed<'_> {
    /// Does the TLS handshake, where there is one. Waits as long as the server takes.
    ///
    /// # Errors
    /// There is no TLS with that server.
    ///
    /// # Cancel safety
    /// Dropped, there is no connection.
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

/// A connection on which one thing is asked after the other: a handshake, a probe, the control plane's questions.
pub(super) struct Connection {
    stream: Stream,
    inbox: BytesMut,
}

/// Some requests were not answered, because the connection has ended.
pub(super) struct Unanswered {
    /// The replies that came.
    pub(super) replies: Vec<Bytes>,
    pub(super) error: io::Error,
}

impl Connection {
    /// Sends some requests in one piece.
    pub(super) async fn send(&mut self, requests: &[Request<'_>]) -> io::Result<()> {
        let mut out = Vec::new();
        requests.iter().for_each(|words| own::request(&mut out, words.iter().copied()));
        self.stream.write_all(&out).await?;
        self.stream.flush().await
    }

    /// The next frame, a push included.
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

    /// Sends some requests in one piece, and gives as many replies.
    pub(super) async fn ask_all(&mut self, requests: &[Request<'_>]) -> Result<Vec<Bytes>, Unanswered> {
        let mut replies = Vec::with_capacity(requests.len());
        let asked = async {
            self.send(requests).await?;
            while replies.len() < requests.len() {
                let frame = self.frame().await?;
                // Anybody may publish to a connection that is subscribed.
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

    /// Sends one request and gives its reply.
    pub(super) async fn ask(&mut self, request: Request<'_>) -> io::Result<Bytes> {
        let replies = self.ask_all(&[request]).await.map_err(|unanswered| unanswered.error)?;
        replies.into_iter().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// Waits until something comes that nobody asked for: in most cases the end of the connection, and why.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn ended(&mut self) -> io::Error {
        match self.read().await {
            Ok(()) => io::Error::new(io::ErrorKind::InvalidData, "it sent something that nobody asked for"),
            Err(error) => error,
        }
    }

    /// The connection, for other uses; only when every request has been answered.
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

/// No answer came in time.
pub(super) fn silent(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}
