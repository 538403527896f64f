//! What CLIENT LIST tells of a client, beside its profile, and what WAIT has to know of its writes.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use tokio::net::TcpStream;

/// What CLIENT LIST tells of a connection, beside its profile. Written where it happens, by a plain store: requests that are
/// answered from L1 pass here too.
#[derive(Default)]
pub struct ClientInfo {
    /// The client's number (CLIENT ID), the only one of its kind in this proxy.
    pub id: u64,
    pub(crate) addr: Option<SocketAddr>,
    pub(crate) local_addr: Option<SocketAddr>,
    pub(crate) fd: i32,
    pub(crate) since: Option<Instant>,
    /// CLIENT SETINFO: lib-name and lib-ver.
    pub(crate) library: RefCell<[Vec<u8>; 2]>,
    /// The number of the last command's row in the worker's table.
    pub(crate) last: Cell<u32>,
    /// Which of its writes WAIT has to find on replicas.
    pub(crate) covered: Cell<Covered>,
    killed: Cell<bool>,
    /// It waits for a private connection, and so does not count as idle.
    pub in_line: Cell<bool>,
    /// Bytes that have been read and not been taken.
    pub unread: Cell<usize>,
    /// Bytes read since the start.
    pub received: Cell<u64>,
    /// Bytes written since the start.
    pub sent: Cell<u64>,
    /// Requests taken since the start.
    pub commands: Cell<u64>,
}

impl ClientInfo {
    /// Of a client that has just connected.
    pub fn new(id: u64, stream: &TcpStream, now: Instant) -> Self {
        ClientInfo {
            id,
            addr: stream.peer_addr().ok(),
            local_addr: stream.local_addr().ok(),
            fd: stream.as_raw_fd(),
            since: Some(now),
            ..ClientInfo::default()
        }
    }

    /// Whether it connected after this.
    pub(crate) fn came_after(&self, moment: Instant) -> bool {
        self.since.is_some_and(|since| since > moment)
    }

    /// CLIENT KILL ends the connection.
    pub(crate) fn kill(&self) {
        self.killed.set(true);
    }

    /// Whether CLIENT KILL has ended the connection.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.killed.get()
    }
}

/// One more on a counter of a [`ClientInfo`].
#[inline]
pub fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get().wrapping_add(by));
}

/// How much of Redis's log a replica must have, to have all that a client wrote.
#[derive(Clone, Copy, Debug, Default)]
pub enum Covered {
    /// The client has written nothing.
    #[default]
    Nothing,
    /// It has written since it last asked. `losses`: how often writes may have been lost before that (`Context::losses`).
    WriteGuard { losses: u64 },
    /// Up to this offset of the log.
    Offset { offset: i64, losses: u64 },
}
