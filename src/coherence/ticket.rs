//! The right to keep one reply: taken before Redis is asked, void as soon as the key may have changed.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::near_cache::{Entry, EntryId, Question, Times};

use super::Coherence;
use super::mode::Role;
use super::permit::ServePermit;

/// The right to keep one answer. Taken before the request is sent, valid until the key may have changed.
#[derive(Debug)]
pub struct Ticket {
    coherence: Arc<Coherence>,
    id: EntryId,
    pub(super) number: u64,
    generation: u64,
}

impl Coherence {
    /// A ticket for a fetch that is about to be sent; none while a write of the key is in flight, or nothing may be kept.
    pub fn ticket(self: &Arc<Self>, id: EntryId, db: u32, now: Instant) -> Option<Ticket> {
        if !self.switched_on.load(Ordering::Acquire) || matches!(self.role(), Role::Replica | Role::Changing) {
            return None;
        }
        // Before the request is sent: a message that names no database must find the flight, too.
        self.highest_db.fetch_max(db, Ordering::Relaxed);
        // Read the generation first: a quarantine or a write of any key that is missed below ends this generation.
        let generation = self.generation();
        if self.unbounded_writes.load(Ordering::Acquire) > 0 {
            return None;
        }
        if self.nanos(now) < self.quarantined_until.load(Ordering::Acquire) {
            return None;
        }
        let number = self.next_flight.fetch_add(1, Ordering::Relaxed);
        self.stripes.open_flight(id, number, now).then(|| Ticket {
            coherence: Arc::clone(self),
            id,
            number,
            generation,
        })
    }
}

impl Ticket {
    /// Whether the key cannot have changed so far.
    pub fn is_live(&self) -> bool {
        self.coherence.stripes.is_live(self.id, self.number) && self.generation == self.coherence.generation()
    }

    /// Whether an answer may be given to a reader that did not send the request itself, by the rules for an entry of L1. The request
    /// was sent at `sent`, and the answer is good until `deadline`.
    pub fn may_serve(&self, permit: &ServePermit, sent: Instant, deadline: Instant) -> bool {
        let shared = &self.coherence;
        let times = Times { generation: self.generation, sent: shared.nanos(sent), deadline: shared.nanos(deadline) };
        permit.allows_times(times) && shared.stripes.is_live(self.id, self.number)
    }

    /// Keeps the answer to the ticket's question, if the ticket is still valid. Returns whether it was.
    pub fn redeem(self, sent: Instant, deadline: Instant, question: &Question<'_>, reply: &[u8]) -> bool {
        let shared = &self.coherence;
        let times = Times { generation: self.generation, sent: shared.nanos(sent), deadline: shared.nanos(deadline) };
        let entry = Entry::new(times, question, reply);
        let current = || shared.generation() == self.generation;
        let Some(dropped) = shared.stripes.land(self.id, self.number, &entry, current) else {
            return false;
        };
        shared.stats.shared.entries.fetch_add(1, Ordering::Relaxed);
        shared.stats.shared.entry_bytes.fetch_add(entry.weight() as u64, Ordering::Relaxed);
        // Outside of the lock, because moka may call back into the stripes. An entry that was dropped in between goes in dead, and is
        // never served.
        shared.cache.load().insert(self.id, entry);
        shared.let_go(dropped);
        shared.stats.shared.fills.fetch_add(1, Ordering::Relaxed);
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.coherence.stripes.close_flight(self.id, self.number);
    }
}
