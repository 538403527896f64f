//! A sample of a worker's accesses to L1, for the [`super::Curve`]: all accesses to some of the keys, chosen by their hash, in a buffer of
//! fixed size that is emptied about once a second. A hit of any other key costs one comparison.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::coherence::ServePermit;
use crate::metrics::rules::RulePlace;
use crate::near_cache::{Entry, EntryId, KeyId};

/// Number of accesses that a worker holds. Further ones are lost, and counted.
pub const ROOM: usize = 1 << 12;

/// An entry is noted once in an eighth of a second for a hit, so that a few hot keys do not fill the buffer. Only an L1 that replaces all
/// of its entries in this time could have let it go.
const ONCE_IN_MS: u64 = 128;

/// Number of entries of which it is known when they were noted last.
const RECENT: usize = 1 << 12;

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// L1 has answered a read.
    Hit(Kept),
    /// L1 has not answered a read whose reply may be kept.
    Miss,
    /// The reply to a read was kept.
    Filled(Kept),
    /// The key was written, or may have been: all of its entries are dropped.
    Written,
    /// A read that L1 could answer if it were not only observed, with the entry that it would keep then.
    Observed(Option<Kept>),
    /// The same, of a key that does not exist.
    Absent,
}

/// An entry that L1 keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its size in memory, as L1 counts it.
    pub bytes: u32,
    /// For how long it is good.
    pub life_ms: u32,
}

impl Kept {
    /// An entry of this size that is good for so long.
    pub fn new(bytes: usize, life: Duration) -> Self {
        let life_ms = u32::try_from(life.as_millis()).unwrap_or(u32::MAX);
        Kept { bytes: u32::try_from(bytes).unwrap_or(u32::MAX), life_ms }
    }
}

/// One access.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    /// The entry. For a write, any entry of the key.
    pub id: EntryId,
    /// Milliseconds after the start of L1.
    pub at_ms: u64,
    /// L1's generation. A flush raises it.
    pub generation: u64,
    /// The rule of the key. Not known for a write.
    pub place: RulePlace,
    /// What happened.
    pub what: What,
}

/// What a worker has noted since it was asked last.
#[derive(Debug, Default)]
pub struct Noted {
    /// In the order in which it happened.
    pub accesses: Vec<Access>,
    /// Accesses for which there was no room.
    pub lost: usize,
}

/// An entry and a time in one number. If two of them have the same, one access is not noted.
#[inline]
fn stamp(permit: &ServePermit, id: EntryId) -> u64 {
    id.bits() ^ (permit.millis() / ONCE_IN_MS)
}

/// The largest number that the bits of a key in the sample may have, if the sample has one in 2^`shift` keys.
pub(super) fn bound(shift: u32) -> u64 {
    u64::MAX >> shift
}

/// The sample of one worker.
#[derive(Debug)]
pub struct Accesses {
    /// Keys whose bits are not above this are in the sample.
    bound: Cell<u64>,
    buffer: RefCell<Vec<Access>>,
    lost: Cell<usize>,
    /// By their keys, the entries that were noted last, and when: see [`stamp`].
    recent: Box<[Cell<u64>]>,
}

impl Default for Accesses {
    fn default() -> Self {
        Accesses {
            bound: Cell::new(bound(0)),
            buffer: RefCell::new(Vec::with_capacity(ROOM)),
            lost: Cell::default(),
            recent: vec![Cell::default(); RECENT].into_boxed_slice(),
        }
    }
}

impl Accesses {
    /// Whether a key is in the sample.
    #[inline(always)]
    pub fn has(&self, key: KeyId) -> bool {
        key.bits() <= self.bound.get()
    }

    /// L1 has answered a read with an entry of the sample.
    #[cold]
    #[inline(never)]
    pub fn note_hit(&self, permit: &ServePermit, id: EntryId, entry: &Entry) {
        if self.is_recent(permit, id) {
            return;
        }
        self.remember(permit, id);
        let times = entry.times();
        let kept = Kept::new(entry.weight(), Duration::from_nanos(times.deadline.saturating_sub(times.sent)));
        self.note(permit, id, entry.place(), What::Hit(kept));
    }

    /// Whether a read that is only observed is to be noted.
    #[inline]
    pub fn notes_observed(&self, permit: &ServePermit, id: EntryId) -> bool {
        self.has(id.key()) && !self.is_recent(permit, id)
    }

    /// A read of the sample that is only observed, once its reply is here.
    pub fn note_observed(&self, permit: &ServePermit, id: EntryId, place: RulePlace, what: What) {
        if matches!(what, What::Observed(Some(_))) {
            self.remember(permit, id);
        }
        self.note(permit, id, place, what);
    }

    fn is_recent(&self, permit: &ServePermit, id: EntryId) -> bool {
        self.recent(id.key()).get() == stamp(permit, id)
    }

    fn remember(&self, permit: &ServePermit, id: EntryId) {
        self.recent(id.key()).set(stamp(permit, id));
    }

    #[inline]
    fn recent(&self, key: KeyId) -> &Cell<u64> {
        &self.recent[key.bits() as usize % RECENT]
    }

    /// A key of the sample was written, or may have been.
    pub fn note_written(&self, permit: &ServePermit, key: KeyId) {
        self.recent(key).set(0);
        self.note(permit, EntryId::new(key, 0), RulePlace::DEFAULTS, What::Written);
    }

    /// An access to a key of the sample.
    pub fn note(&self, permit: &ServePermit, id: EntryId, place: RulePlace, what: What) {
        let access = Access { id, at_ms: permit.millis(), generation: permit.generation(), place, what };
        let mut buffer = self.buffer.borrow_mut();
        if buffer.len() < ROOM {
            buffer.push(access);
        } else {
            self.lost.set(self.lost.get() + 1);
        }
    }

    /// What was noted. From now on the sample has one in 2^`shift` keys.
    pub fn take(&self, shift: u32) -> Noted {
        self.bound.set(bound(shift));
        let mut buffer = self.buffer.borrow_mut();
        // A copy, so that the buffer keeps its memory.
        let accesses = buffer.to_vec();
        buffer.clear();
        Noted { accesses, lost: self.lost.take() }
    }
}
