//! Values that L1 may keep: the requests to Redis, and how the absence of a value is kept.

use crate::coherence::Ticket;
use crate::exchange::observed::Observed;
use crate::near_cache::{Asked, EntryId};
use crate::reads::Absent;
use crate::resp::{Chunks, build};
use crate::rules::CacheRule;

/// GET's reply for a key that does not exist, in the form that L1 keeps.
pub(crate) const NO_VALUE: Absent = Absent::Only(b"$-1\r\n");

/// The keys of an MGET.
pub struct Values {
    pub(crate) keys: Vec<ValueKey>,
}

/// A key of an MGET.
pub struct ValueKey {
    pub(crate) id: EntryId,
    /// It is only observed.
    pub(crate) observed: Option<Box<Observed>>,
    pub(crate) keep: Option<(Ticket, CacheRule, Asked)>,
}

/// Appends the PTTL that follows a read whose reply is to be kept.
pub(crate) fn ask_ttl(out: &mut Chunks, key: &[u8]) {
    out.push_with(|out| build::request(out, [&b"PTTL"[..], key].into_iter()));
}
