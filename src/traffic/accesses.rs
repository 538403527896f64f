//! A sample of a worker's accesses to L1, for the [`super::Curve`]: all accesses to some of the keys, chosen by their hash, in a buffer of
//! fixed size that is emptied about once a second. A hit of any other key costs one comparison.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use crate::coherence::ServePermit;
use crate::near_cache::{Entry, EntryId, KeyId};

/// Number of accesses that a worker holds. Further ones are lost, and counted.
pub const ROOM: usize = 1 << 12;

/// An entry that was noted this recently is not noted again for a hit, so that a few hot keys do not fill the buffer. Only an L1 that
/// replaces all of its entries in this time could have let it go.
const AGAIN_AFTER_MS: u64 = 100;

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
    /// The bits of entries, and when they were noted last.
    recent: RefCell<Box<[(u64, u64)]>>,
}

impl Default for Accesses {
    fn default() -> Self {
        Accesses {
            bound: Cell::new(bound(0)),
            buffer: RefCell::new(Vec::with_capacity(ROOM)),
            lost: Cell::default(),
            recent: RefCell::new(vec![(0, 0); RECENT].into_boxed_slice()),
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
        let at_ms = permit.millis();
        let mut recent = self.recent.borrow_mut();
        let (noted, when) = &mut recent[id.bits() as usize % RECENT];
        if *noted == id.bits() && at_ms < *when + AGAIN_AFTER_MS {
            return;
        }
        (*noted, *when) = (id.bits(), at_ms);
        let times = entry.times();
        let kept = Kept::new(entry.weight(), Duration::from_nanos(times.deadline.saturating_sub(times.sent)));
        self.note(permit, id, What::Hit(kept));
    }

    /// A key of the sample was written, or may have been.
    pub fn note_written(&self, permit: &ServePermit, key: KeyId) {
        self.note(permit, EntryId::new(key, 0), What::Written);
    }

    /// An access to a key of the sample.
    pub fn note(&self, permit: &ServePermit, id: EntryId, what: What) {
        let access = Access { id, at_ms: permit.millis(), generation: permit.generation(), what };
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
