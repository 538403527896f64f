//! Values that L1 may keep: what is asked of Redis for them, and how it is kept that there is none.

use crate::coherence::Ticket;
use crate::near_cache::{Asked, EntryId};
use crate::reads::Absent;
use crate::resp::{Chunks, build};
use crate::rules::CacheRule;

/// What GET says when there is no such key, as L1 keeps it.
pub(crate) const NO_VALUE: Absent = Absent::Only(b"$-1\r\n");

/// The keys of an MGET.
pub struct Values {
    pub(crate) keys: Vec<ValueKey>,
}

/// One of them.
pub struct ValueKey {
    pub(crate) id: EntryId,
    pub(crate) keep: Option<(Ticket, CacheRule, Asked)>,
}

/// What goes behind a read whose answer is to be kept.
pub(crate) fn ask_ttl(out: &mut Chunks, key: &[u8]) {
    out.push_with(|out| build::request(out, [&b"PTTL"[..], key].into_iter()));
}
