//! The fields of CLIENT LIST that are not in the profile, and what WAIT has to know about the client's writes.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::time::Instant;

use crate::net::{Address, Stream};

/// The fields of CLIENT LIST that are not in the profile. They are updated by plain stores, because L1 hits update them too.
#[derive(Default)]
pub struct ClientInfo {
    /// The client id (CLIENT ID), unique in this process.
    pub id: u64,
    pub(crate) addr: Option<Address>,
    pub(crate) local_addr: Option<Address>,
    pub(crate) fd: i32,
    pub(crate) since: Option<Instant>,
    /// CLIENT SETINFO: lib-name and lib-ver.
    pub(crate) library: RefCell<[Vec<u8>; 2]>,
    /// The row number of the last command in the worker's table.
    pub(crate) last: Cell<u32>,
    /// Which writes WAIT must find on replicas.
    pub(crate) covered: Cell<Covered>,
    killed: Cell<bool>,
    /// A client of Shortstop's own that fills L1: what it reads is kept at the first request.
    pub(crate) is_warming: bool,
    /// The client waits for a session, so it does not count as idle.
    pub in_line: Cell<bool>,
    /// Bytes received but not yet taken as requests.
    pub unread: Cell<usize>,
    /// Bytes received since the client connected.
    pub received: Cell<u64>,
    /// Bytes sent since the client connected.
    pub sent: Cell<u64>,
    /// Requests taken since the client connected.
    pub commands: Cell<u64>,
}

impl ClientInfo {
    /// The info of a client that has just connected.
    pub fn new(id: u64, stream: &Stream, now: Instant) -> Self {
        ClientInfo {
            id,
            addr: stream.peer_address().ok(),
            local_addr: stream.local_address().ok(),
            fd: stream.as_raw_fd(),
            since: Some(now),
            ..ClientInfo::default()
        }
    }

    /// Whether the client connected after this time.
    pub(crate) fn came_after(&self, moment: Instant) -> bool {
        self.since.is_some_and(|since| since > moment)
    }

    /// CLIENT KILL closes the connection.
    pub(crate) fn kill(&self) {
        self.killed.set(true);
    }

    /// Whether CLIENT KILL has closed the connection.
    #[inline]
    pub fn is_killed(&self) -> bool {
        self.killed.get()
    }
}

/// Increases a counter of a [`ClientInfo`].
#[inline]
pub fn count(counter: &Cell<u64>, by: u64) {
    counter.set(counter.get().wrapping_add(by));
}

/// The replication offset that a replica must have reached to have all of a client's writes.
#[derive(Clone, Copy, Debug, Default)]
pub enum Covered {
    /// The client has written nothing.
    #[default]
    Nothing,
    /// The client has written since its last WAIT. `losses` is the value of `Context::losses` before that write.
    WriteGuard { losses: u64 },
    /// This offset.
    Offset { offset: i64, losses: u64 },
}
