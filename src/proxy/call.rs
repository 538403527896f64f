//! One call of a command: its row, its arguments, where it goes, and what is sent.

use std::rc::Rc;

use smallvec::SmallVec;

use crate::command::{Keys, Row};
use crate::exchange::pending::{Link, Session};
use crate::proxy::request::{Replacements, Request};
use crate::resp::Chunks;

/// Where a request goes.
pub(super) enum Target {
    /// A connection that clients share.
    Lane(Link),
    /// The client's own.
    Session(Rc<Session>),
}

impl Target {
    /// The connection.
    pub(super) fn link(&self) -> &Link {
        match self {
            Target::Lane(link) => link,
            Target::Session(session) => &session.link,
        }
    }
}

/// What is sent in the place of a request.
pub(super) enum Wire {
    /// The request itself.
    AsIs,
    /// These bytes.
    Instead(Vec<u8>),
}

/// One call: the row, the request, its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'a Row,
    pub(super) request: Request<'a>,
    pub(super) args: &'a [&'a [u8]],
    /// Its keys, which are looked for once.
    pub(super) keys: &'a FoundKeys,
}

/// Which arguments of a call are keys.
pub(super) struct FoundKeys {
    /// Whether these are all keys that it may touch.
    pub(super) all: Keys,
    /// Their places.
    pub(super) places: SmallVec<[u32; 4]>,
}

impl FoundKeys {
    /// The keys of a call; `args` is the whole call.
    #[inline]
    pub(super) fn of(row: &Row, args: &[&[u8]]) -> Self {
        let mut places = SmallVec::new();
        let all = row.keys(args, &mut places);
        FoundKeys { all, places }
    }
}

/// Appends a request, or what is sent in its place.
pub(super) fn write_wire(out: &mut Chunks, request: &Request<'_>, wire: Wire) {
    match wire {
        Wire::AsIs => request.write(out, Replacements::new()),
        Wire::Instead(bytes) => out.push_bytes(bytes.into()),
    }
}
