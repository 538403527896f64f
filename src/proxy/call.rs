//! One call of a command: its row, its arguments, where it goes, and what is sent.

use std::cell::OnceCell;
use std::rc::Rc;

use smallvec::SmallVec;

use crate::command::{Keys, Row};
use crate::exchange::pending::{Link, Session};
use crate::proxy::request::{Replacements, Request};
use crate::resp::Chunks;

/// Where a request goes.
pub(super) enum Target {
    Lane(Link),
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

/// What is sent in the place of a request.
pub(super) enum Wire {
    AsIs,
    Instead(Vec<u8>),
}

/// The arguments of a call that are keys, by place, and whether these are all.
pub(super) type FoundKeys = (SmallVec<[u32; 4]>, Keys);

/// One call: the row, the request, its arguments.
#[derive(Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) row: &'a Row,
    pub(super) request: Request<'a>,
    pub(super) args: &'a [&'a [u8]],
    /// Its keys, once they were looked for.
    pub(super) keys: &'a OnceCell<FoundKeys>,
}

impl<'a> Call<'a> {
    /// The places of the keys, found once.
    pub(super) fn found_keys(&self) -> &'a FoundKeys {
        self.keys.get_or_init(|| {
            let mut places = SmallVec::new();
            let known = self.row.keys(self.args, &mut places);
            (places, known)
        })
    }

    /// The keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        let args = self.args;
        self.found_keys().0.iter().map(move |at| args[*at as usize])
    }
}

pub(super) fn write_wire(out: &mut Chunks, request: &Request<'_>, wire: Wire) {
    match wire {
        Wire::AsIs => request.write(out, Replacements::new()),
        Wire::Instead(bytes) => out.push_bytes(bytes.into()),
    }
}
