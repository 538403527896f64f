//! One stream type for TCP, TLS and Unix sockets.
//!
//! Writes to plain sockets take one system call, and check for readiness only when the socket is full. TLS buffers bytes before
//! they are sent, so a writer must flush: see [`AsyncWrite::poll_flush`].

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, RawFd};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

use super::Address;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
    /// A Unix socket.
    Unix(UnixStream),
}

impl Stream {
    /// The address of the other end. A client on a Unix socket has no address; then this is the path of the socket, as in Redis.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn peer_address(&self) -> io::Result<Address> {
        match self {
            Stream::Unix(socket) => path_of(&socket.peer_addr()?).map_or_else(|| self.local_address(), Ok),
            _ => self
                .tcp()
                .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpStream::peer_addr)
                .map(Address::from),
        }
    }

    /// The address of this end.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn local_address(&self) -> io::Result<Address> {
        match self {
            Stream::Unix(socket) => Ok(path_of(&socket.local_addr()?).unwrap_or_else(|| PathBuf::new().into())),
            _ => self
                .tcp()
                .map_or_else(|| Err(io::ErrorKind::NotConnected.into()), TcpStream::local_addr)
                .map(Address::from),
        }
    }

    /// Whether the other end has presented a certificate that was accepted.
    pub fn has_peer_certificate(&self) -> bool {
        match self {
            Stream::Tls(tls) => tls.get_ref().1.peer_certificates().is_some(),
            Stream::Tcp(_) | Stream::Unix(_) => false,
        }
    }

    /// Whether written bytes may still be in a buffer of the stream.
    pub fn is_buffered(&self) -> bool {
        matches!(self, Stream::Tls(_))
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Stream::Tcp(socket) => Some(socket),
            Stream::Tls(tls) => Some(tls.get_ref().0),
            Stream::Unix(_) => None,
        }
    }
}

fn path_of(address: &tokio::net::unix::SocketAddr) -> Option<Address> {
    address.as_pathname().map(|path| Address::Unix(path.into()))
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(socket) => socket.as_raw_fd(),
            Stream::Tls(tls) => tls.get_ref().0.as_raw_fd(),
            Stream::Unix(socket) => socket.as_raw_fd(),
        }
    }
}

impl AsyncRead for Stream {
    #[inline]
    fn poll_read(self: Pin<&mut Self>, task: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_read(task, buffer),
            Stream::Unix(socket) => Pin::new(socket).poll_read(task, buffer),
            Stream::Tls(tls) => match ready!(Pin::new(tls).poll_read(task, buffer)) {
                // The connection ended without close_notify. RESP frames have explicit ends, so a truncated frame cannot count as
                // complete.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                read => Poll::Ready(read),
            },
        }
    }
}

/// Writes to a plain socket, and waits until that is possible.
macro_rules! write_plain {
    ($socket:ident.$write:ident($bytes:ident), $task:ident) => {
        loop {
            match $socket.$write($bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!($socket.poll_write_ready($task))?,
                written => return Poll::Ready(written),
            }
        }
    };
}

impl AsyncWrite for Stream {
    #[inline]
    fn poll_write(self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => write_plain!(socket.try_write(bytes), task),
            Stream::Unix(socket) => write_plain!(socket.try_write(bytes), task),
            Stream::Tls(tls) => Pin::new(tls).poll_write(task, bytes),
        }
    }

    #[inline]
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        task: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Tcp(socket) => write_plain!(socket.try_write_vectored(slices), task),
            Stream::Unix(socket) => write_plain!(socket.try_write_vectored(slices), task),
            Stream::Tls(tls) => Pin::new(tls).poll_write_vectored(task, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(_) | Stream::Unix(_) => Poll::Ready(Ok(())),
            Stream::Tls(tls) => Pin::new(tls).poll_flush(task),
        }
    }

    /// Ends the output, with TLS after a close_notify. The input stays open.
    fn poll_shutdown(self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Tcp(socket) => Pin::new(socket).poll_shutdown(task),
            Stream::Unix(socket) => Pin::new(socket).poll_shutdown(task),
            Stream::Tls(tls) => Pin::new(tls).poll_shutdown(task),
        }
    }
}
