//! What the two servers that this program can be itself ([`crate::stand_in`], [`crate::floor`]) share: how they listen,
//! take clients in and send. Knows nothing of what is asked or answered.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;

use mio::event::Source;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};

/// The listener's, among the events.
pub const LISTENER: Token = Token(usize::MAX);

/// Listens on a free port of the loopback, prints where, and registers the listener as [`LISTENER`].
///
/// # Errors
/// When there is no port or the poll refuses it.
pub fn listen(poll: &Poll, name: &str) -> std::io::Result<TcpListener> {
    let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
    println!("{name} listening on {}", listener.local_addr()?);
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    Ok(listener)
}

/// Everyone who is waiting, until nobody is; each is registered with the number that `add` gave it.
///
/// # Errors
/// When accepting fails or the poll refuses a client.
pub fn accept_all(
    listener: &TcpListener,
    registry: &Registry,
    mut next: usize,
    mut add: impl FnMut(TcpStream),
) -> std::io::Result<()> {
    loop {
        let (mut stream, _) = match listener.accept() {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        stream.set_nodelay(true)?;
        register(registry, &mut stream, Token(next))?;
        add(stream);
        next += 1;
    }
}

/// For both directions.
///
/// # Errors
/// When the poll refuses it.
pub fn register(registry: &Registry, source: &mut impl Source, token: Token) -> std::io::Result<()> {
    registry.register(source, token, Interest::READABLE | Interest::WRITABLE)
}

/// Waits for events; a signal is no event and no error.
///
/// # Errors
/// When the poll fails.
pub fn wait(poll: &mut Poll, events: &mut Events) -> std::io::Result<()> {
    match poll.poll(events, None) {
        Err(error) if error.kind() != ErrorKind::Interrupted => Err(error),
        _ => Ok(()),
    }
}

/// Hands the socket what it takes and returns how much that was; the poll tells when it takes more.
///
/// # Errors
/// When the connection is broken.
pub fn send(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<usize> {
    let mut written = 0;
    while written < bytes.len() {
        match stream.write(&bytes[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
