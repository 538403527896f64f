//! One call of a command: its row, its arguments, its target, and the bytes to send.

use std::cell::OnceCell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::command::{Keys, Row};
use crate::exchange::pending::{Link, Session};
use crate::proxy::request::{Replacements, Request};
use crate::resp::Chunks;

/// The connection that a request goes to.
pub(super) enum Target {
    /// A connection that clients share.
    Lane(Link),
    /// The client's private connection.
    Session(Rc<Session>),
}

impl Target {
    pub(super) fn link(&self) -> &Link {
        match self {
            Target::Lane(link) => link,
            Target::Session(session) => &session.link,
        }
    }
}

/// The bytes to send for a request.
pub(super) enum Wire {
    /// The request itself.
    AsIs,
    /// Other bytes in its place.
    Instead(Vec<u8>),
}

/// One call: the command's row, the request, and its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'a Row,
    pub(super) request: Request<'a>,
    pub(super) args: &'a [&'a [u8]],
    /// See [`Call::keys`].
    pub(super) keys: &'a OnceCell<FoundKeys>,
}

/// Where the keys of a call are, and whether the call can touch other keys too.
pub(super) type FoundKeys = (Keys, SmallVec<[u32; 4]>);

impl Call<'_> {
    /// Where the keys are. They are located once, on first use.
    pub(super) fn keys(&self) -> &FoundKeys {
        self.keys.get_or_init(|| {
            let mut places = SmallVec::new();
            let all = self.row.keys(self.args, &mut places);
            (all, places)
        })
    }
}

/// Appends a request, or the bytes to send in its place.
pub(super) fn write_wire(out: &mut Chunks, request: &Request<'_>, wire: Wire) {
    match wire {
        Wire::AsIs => request.write(out, Replacements::new()),
        Wire::Instead(bytes) => out.push_bytes(bytes.into()),
    }
}
