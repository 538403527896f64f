//! Values that L1 may keep: what is asked of Redis for them, and how it is kept that there is none.

use crate::coherence::Ticket;
use crate::near_cache::{Asked, EntryId};
use crate::reads::Absent;
use crate::resp::{Chunks, Version, build};
use crate::rules::CacheRule;

/// What GET says when there is no such key, as L1 keeps it.
pub(crate) const NO_VALUE: Absent = Absent::Only(b"$-1\r\n");

/// The keys of an MGET.
pub struct Values {
    pub(crate) keys: Vec<ValueKey>,
}

pub struct ValueKey {
    pub(crate) id: EntryId,
    pub(crate) keep: Option<(Ticket, CacheRule, Asked)>,
}

/// A value of L1 in a client's protocol. It is the same in both; that there is none is kept as RESP2 says it.
#[inline]
pub(crate) fn in_version(reply: &[u8], version: Version) -> &[u8] {
    if reply == Version::Resp2.null() { version.null() } else { reply }
}

/// As L1 keeps it: that there is no value, in the words of RESP2.
pub(crate) fn kept_as(reply: &[u8]) -> &[u8] {
    if reply == Version::Resp3.null() { Version::Resp2.null() } else { reply }
}

/// What goes behind a read whose answer is to be kept.
pub(crate) fn ask_ttl(out: &mut Chunks, key: &[u8]) {
    out.push_with(|out| build::request(out, [&b"PTTL"[..], key].into_iter()));
}
