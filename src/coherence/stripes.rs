//! Write guards and fill tickets (`docs/coherence.md`): a small locked state per stripe of keys.
//!
//! The stripes also hold a handle to every entry that may be served: an entry must be found and dropped even if the near cache has
//! evicted it and only a hot set still holds it. A key has one entry for each user and each request that reads it. A write drops
//! all of them; a fill replaces one. No I/O, no clock. Hits do not use the stripes.

use std::time::Instant;

use smallvec::SmallVec;

// loom's types in `tests/loom.rs`, which compiles this file a second time.
use super::sync::{Mutex, MutexGuard};
use crate::near_cache::{Entry, EntryId, KeyId};

/// Maximum number of entries per key. One more replaces the oldest. Bounds the work under a lock.
pub(super) const MOST_ENTRIES: usize = 64;

/// Maximum number of in-flight fetches per stripe whose replies may be kept. One more is not kept. Bounds the work under a lock,
/// too.
const MOST_FLIGHTS: usize = 1024;

/// The ids of entries that were dropped and that the near cache must remove.
pub(super) type Dropped = SmallVec<[EntryId; 1]>;

/// A handle to an entry that can be dropped.
pub(super) trait Mark: Clone {
    /// Drops the entry for every reader.
    fn mark_dropped(&self);

    /// Whether both are handles to the same entry.
    fn is_same(&self, other: &Self) -> bool;

    /// Whether two replies to one question differ.
    fn differs(&self, other: &Self) -> bool;
}

impl Mark for Entry {
    fn mark_dropped(&self) {
        self.invalidate();
    }

    fn is_same(&self, other: &Self) -> bool {
        self.is(other)
    }

    fn differs(&self, other: &Self) -> bool {
        self.reply() != other.reply()
    }
}

/// Small, because a write to a key without entries needs only this.
#[derive(Debug)]
struct Stripe<E> {
    /// In-flight writes to keys of this stripe.
    writers: u32,
    /// `cached` may contain something to drop. Most writes can skip it.
    occupied: bool,
    /// Allocated on first use.
    cached: Option<Box<Cached<E>>>,
}

#[derive(Debug)]
struct Cached<E> {
    /// No fills before then, because a write of unknown outcome may still run.
    quarantined_until: Option<Instant>,
    /// Keys that are not filled, once for each in-flight write that may block.
    held: SmallVec<[KeyId; 1]>,
    /// In-flight fetches whose replies may be kept: the entry's id and the fetch's number.
    flights: SmallVec<[(EntryId, u64); 1]>,
    /// The entries of one key are in order, the oldest first.
    entries: SmallVec<[(EntryId, E); 1]>,
}

impl<E> Default for Stripe<E> {
    fn default() -> Self {
        Stripe { writers: 0, occupied: false, cached: None }
    }
}

impl<E> Default for Cached<E> {
    fn default() -> Self {
        Cached { quarantined_until: None, held: SmallVec::new(), flights: SmallVec::new(), entries: SmallVec::new() }
    }
}

impl<E: Mark> Stripe<E> {
    fn poison(&mut self, key: KeyId) -> Dropped {
        let Some(cached) = self.cached.as_mut().filter(|_| self.occupied) else { return Dropped::new() };
        let dropped = cached.poison(key);
        self.occupied = !cached.flights.is_empty() || !cached.entries.is_empty();
        dropped
    }

    fn cached(&mut self) -> &mut Cached<E> {
        self.cached.get_or_insert_default()
    }
}

impl<E: Mark> Cached<E> {
    fn poison(&mut self, key: KeyId) -> Dropped {
        let mut dropped = Dropped::new();
        self.flights.retain(|(flight, _)| flight.key() != key);
        self.entries.retain(|(id, entry)| {
            let goes = id.key() == key;
            if goes {
                entry.mark_dropped();
                dropped.push(*id);
            }
            !goes
        });
        dropped
    }

    /// Adds an entry. Returns the entries that it replaces: the older reply to the same question, or all entries of the key if the
    /// older reply differs. In that case the key has changed without an invalidation.
    fn keep(&mut self, id: EntryId, entry: &E) -> Dropped {
        let known = self.entries.iter().position(|(known, _)| *known == id);
        let mut dropped = Dropped::new();
        match known {
            Some(at) if self.entries[at].1.differs(entry) => {
                dropped = self.poison(id.key());
                // The near cache has replaced this one with the new entry.
                dropped.retain(|left| *left != id);
            }
            Some(at) => self.entries.remove(at).1.mark_dropped(),
            None => {
                let mut of_key = (0..self.entries.len()).filter(|at| self.entries[*at].0.key() == id.key());
                let oldest = of_key.next();
                if let Some(oldest) = oldest.filter(|_| of_key.count() + 1 >= MOST_ENTRIES) {
                    let (left, oldest) = self.entries.remove(oldest);
                    oldest.mark_dropped();
                    dropped.push(left);
                }
            }
        }
        self.entries.push((id, entry.clone()));
        dropped
    }
}

/// What is known of a key.
#[derive(Debug)]
pub(super) struct Found<E> {
    /// Its entries, the oldest first.
    pub entries: Vec<E>,
    /// A write of the key, or of another key of its stripe, is in flight.
    pub written: bool,
    /// No fills before then.
    pub quarantined: Option<Instant>,
    /// Fetches of the key are in flight.
    pub fetched: bool,
}

#[derive(Debug)]
pub(super) struct Stripes<E>(Box<[Mutex<Stripe<E>>]>);

impl<E: Mark> Stripes<E> {
    /// `count` is a power of two.
    pub(super) fn new(count: usize) -> Self {
        debug_assert!(count.is_power_of_two());
        Stripes((0..count).map(|_| Mutex::new(Stripe::default())).collect())
    }

    fn lock(&self, key: KeyId) -> MutexGuard<'_, Stripe<E>> {
        self.lock_at(key.bits() as usize & (self.0.len() - 1))
    }

    fn lock_at(&self, at: usize) -> MutexGuard<'_, Stripe<E>> {
        // No operation under this lock can panic half way through a change.
        self.0[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins a fetch whose reply may be kept, unless a write is in flight. `number` is unique.
    pub(super) fn open_flight(&self, id: EntryId, number: u64, now: Instant) -> bool {
        let mut stripe = self.lock(id.key());
        if stripe.writers > 0 {
            return false;
        }
        let cached = stripe.cached();
        if cached.quarantined_until.is_some_and(|until| now >= until) {
            cached.quarantined_until = None;
        }
        if cached.quarantined_until.is_some() || cached.held.contains(&id.key()) || cached.flights.len() >= MOST_FLIGHTS
        {
            return false;
        }
        cached.flights.push((id, number));
        stripe.occupied = true;
        true
    }

    /// Whether the key cannot have changed since the flight was opened.
    pub(super) fn is_live(&self, id: EntryId, number: u64) -> bool {
        self.lock(id.key()).cached().flights.contains(&(id, number))
    }

    /// Ends a flight. Adds `entry`, if the flight is still live and `current()` holds under the lock, and returns what it replaces.
    /// Other flights of the same question end too: their replies may be older.
    pub(super) fn land(&self, id: EntryId, number: u64, entry: &E, current: impl FnOnce() -> bool) -> Option<Dropped> {
        let mut stripe = self.lock(id.key());
        let written = stripe.writers > 0;
        let cached = stripe.cached();
        if !cached.flights.contains(&(id, number)) {
            return None;
        }
        if written || cached.quarantined_until.is_some() || !current() {
            cached.flights.retain(|flight| *flight != (id, number));
            return None;
        }
        cached.flights.retain(|(flight, _)| *flight != id);
        let dropped = cached.keep(id, entry);
        stripe.occupied = true;
        Some(dropped)
    }

    /// Ends a flight whose reply is not kept.
    pub(super) fn close_flight(&self, id: EntryId, number: u64) {
        self.lock(id.key()).cached().flights.retain(|flight| *flight != (id, number));
    }

    /// Drops the key's entries and ends its flights.
    pub(super) fn poison(&self, key: KeyId) -> Dropped {
        self.lock(key).poison(key)
    }

    /// A reply was read that will not be kept. Flights of its question end, because their replies may be older. If there is an
    /// entry that is not the `same`, all entries of the key are dropped, because the key has changed without an invalidation.
    pub(super) fn compare(&self, id: EntryId, same: impl FnOnce(&E) -> bool) -> Dropped {
        let mut stripe = self.lock(id.key());
        let Some(cached) = &mut stripe.cached else { return Dropped::new() };
        let known = cached.entries.iter().find(|(known, _)| *known == id);
        if known.is_some_and(|(_, entry)| !same(entry)) {
            return cached.poison(id.key());
        }
        cached.flights.retain(|(flight, _)| *flight != id);
        Dropped::new()
    }

    /// Raises the guard before a write is sent, and drops the key's entries.
    pub(super) fn begin(&self, key: KeyId) -> Dropped {
        let mut stripe = self.lock(key);
        stripe.writers += 1;
        stripe.poison(key)
    }

    /// Lowers the guard when the reply has arrived. Under a guard no flight opens and none lands, so there is nothing to drop.
    pub(super) fn end(&self, key: KeyId) {
        let mut stripe = self.lock(key);
        debug_assert!(stripe.writers > 0, "begin and end come in pairs");
        stripe.writers = stripe.writers.saturating_sub(1);
    }

    /// Raises a guard for this key alone, for a write that may block: other keys of the stripe can be filled.
    pub(super) fn hold(&self, key: KeyId) -> Dropped {
        let mut stripe = self.lock(key);
        stripe.cached().held.push(key);
        stripe.poison(key)
    }

    /// Lowers such a guard once. No flight was opened under it, so there is nothing to drop.
    pub(super) fn release(&self, key: KeyId) {
        let mut stripe = self.lock(key);
        let held = &mut stripe.cached().held;
        let at = held.iter().position(|known| *known == key);
        debug_assert!(at.is_some(), "hold and release come in pairs");
        if let Some(at) = at {
            held.swap_remove(at);
        }
    }

    /// Allows no fills of the key until then.
    pub(super) fn quarantine(&self, key: KeyId, until: Instant) -> Dropped {
        let mut stripe = self.lock(key);
        let cached = stripe.cached();
        cached.quarantined_until = cached.quarantined_until.max(Some(until));
        cached.poison(key)
    }

    /// What is known of the key. Changes nothing.
    pub(super) fn look(&self, key: KeyId, now: Instant) -> Found<E> {
        let stripe = self.lock(key);
        let Some(cached) = &stripe.cached else {
            return Found { entries: Vec::new(), written: stripe.writers > 0, quarantined: None, fetched: false };
        };
        Found {
            entries: cached.entries.iter().filter(|(id, _)| id.key() == key).map(|(_, entry)| entry.clone()).collect(),
            written: stripe.writers > 0 || cached.held.contains(&key),
            quarantined: cached.quarantined_until.filter(|until| now < *until),
            fetched: cached.flights.iter().any(|(id, _)| id.key() == key),
        }
    }

    /// The near cache has removed this entry. Returns whether it could have been served until then.
    pub(super) fn forget(&self, id: EntryId, entry: &E) -> bool {
        entry.mark_dropped();
        let mut stripe = self.lock(id.key());
        let entries = &mut stripe.cached().entries;
        let before = entries.len();
        entries.retain(|(_, known)| !known.is_same(entry));
        entries.len() < before
    }

    /// Drops the entries for which `chosen` returns true, and ends every flight, because the keys of flights are not known here.
    pub(super) fn poison_where(&self, chosen: impl Fn(&E) -> bool) -> Vec<EntryId> {
        let mut dropped = Vec::new();
        for at in 0..self.0.len() {
            let mut stripe = self.lock_at(at);
            let Some(cached) = &mut stripe.cached else { continue };
            cached.flights.clear();
            cached.entries.retain(|(id, entry)| {
                let goes = chosen(entry);
                if goes {
                    entry.mark_dropped();
                    dropped.push(*id);
                }
                !goes
            });
        }
        dropped
    }
}
