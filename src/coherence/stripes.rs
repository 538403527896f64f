//! Write guards and fill tickets (COHERENCE §2–3): a small locked state per stripe of keys.
//!
//! The stripes also hold the handle of every entry that may be served, because what must be dropped has to be found even when
//! the near cache has let go of it and only a hot set still holds it. No I/O, no clock; hits never come here.

use std::time::Instant;

use smallvec::SmallVec;

// loom's in `tests/loom.rs`, which compiles this file a second time.
use super::sync::{Mutex, MutexGuard};
use crate::near_cache::{Entry, KeyId};

/// A handle to what can be dropped.
pub(super) trait Mark: Clone {
    /// Drops it for every reader.
    fn mark_dropped(&self);

    /// Whether both are handles to one thing.
    fn is_same(&self, other: &Self) -> bool;
}

impl Mark for Entry {
    fn mark_dropped(&self) {
        self.invalidate();
    }

    fn is_same(&self, other: &Self) -> bool {
        self.is(other)
    }
}

/// Small, because a write to a key that nobody caches needs no more than this.
#[derive(Debug)]
struct Stripe<E> {
    /// Writes to keys of this stripe that are in flight.
    writers: u32,
    /// There may be something in `cached` to drop: spares a write the look.
    occupied: bool,
    /// Made when first needed.
    cached: Option<Box<Cached<E>>>,
}

#[derive(Debug)]
struct Cached<E> {
    /// No fills before then: a write of unknown outcome may still run.
    quarantined_until: Option<Instant>,
    /// Fetches in flight that may be kept: which key, which fetch.
    flights: SmallVec<[(KeyId, u64); 1]>,
    entries: SmallVec<[(KeyId, E); 1]>,
}

impl<E> Default for Stripe<E> {
    fn default() -> Self {
        Stripe { writers: 0, occupied: false, cached: None }
    }
}

impl<E> Default for Cached<E> {
    fn default() -> Self {
        Cached { quarantined_until: None, flights: SmallVec::new(), entries: SmallVec::new() }
    }
}

impl<E: Mark> Stripe<E> {
    fn poison(&mut self, id: KeyId) -> bool {
        let Some(cached) = self.cached.as_mut().filter(|_| self.occupied) else { return false };
        let dropped = cached.poison(id);
        self.occupied = !cached.flights.is_empty() || !cached.entries.is_empty();
        dropped
    }

    fn cached(&mut self) -> &mut Cached<E> {
        self.cached.get_or_insert_default()
    }
}

impl<E: Mark> Cached<E> {
    fn poison(&mut self, id: KeyId) -> bool {
        self.flights.retain(|(flight, _)| *flight != id);
        let Some(at) = self.entries.iter().position(|(entry, _)| *entry == id) else {
            return false;
        };
        self.entries.swap_remove(at).1.mark_dropped();
        true
    }
}

#[derive(Debug)]
pub(super) struct Stripes<E>(Box<[Mutex<Stripe<E>>]>);

impl<E: Mark> Stripes<E> {
    /// `count` is a power of two.
    pub(super) fn new(count: usize) -> Self {
        debug_assert!(count.is_power_of_two());
        Stripes((0..count).map(|_| Mutex::new(Stripe::default())).collect())
    }

    fn lock(&self, id: KeyId) -> MutexGuard<'_, Stripe<E>> {
        self.lock_at(id.bits() as usize & (self.0.len() - 1))
    }

    fn lock_at(&self, at: usize) -> MutexGuard<'_, Stripe<E>> {
        // Nothing under the lock can panic half-way through a change.
        self.0[at].lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins a fetch that may be kept, unless a write is in flight. `number` is nobody else's.
    pub(super) fn open_flight(&self, id: KeyId, number: u64, now: Instant) -> bool {
        let mut stripe = self.lock(id);
        if stripe.writers > 0 {
            return false;
        }
        let cached = stripe.cached();
        if cached.quarantined_until.is_some_and(|until| now >= until) {
            cached.quarantined_until = None;
        }
        if cached.quarantined_until.is_some() {
            return false;
        }
        cached.flights.push((id, number));
        stripe.occupied = true;
        true
    }

    /// Whether nothing has happened to the key since the flight was opened.
    pub(super) fn is_live(&self, id: KeyId, number: u64) -> bool {
        self.lock(id).cached().flights.contains(&(id, number))
    }

    /// Ends a flight: makes `entry` the key's, if the flight is still live and `current()` holds under the lock. Other
    /// flights of the key end too: what they bring may be older.
    pub(super) fn land(&self, id: KeyId, number: u64, entry: &E, current: impl FnOnce() -> bool) -> bool {
        let mut stripe = self.lock(id);
        let written = stripe.writers > 0;
        let cached = stripe.cached();
        if !cached.flights.contains(&(id, number)) {
            return false;
        }
        if written || cached.quarantined_until.is_some() || !current() {
            cached.flights.retain(|flight| *flight != (id, number));
            return false;
        }
        cached.poison(id);
        cached.entries.push((id, entry.clone()));
        stripe.occupied = true;
        true
    }

    /// Ends a flight that brings nothing to keep.
    pub(super) fn close_flight(&self, id: KeyId, number: u64) {
        self.lock(id).cached().flights.retain(|flight| *flight != (id, number));
    }

    /// Drops the key's entry and its flights. Whether there was an entry.
    pub(super) fn poison(&self, id: KeyId) -> bool {
        self.lock(id).poison(id)
    }

    /// As [`Stripes::poison`], but an entry that `same` recognizes stays.
    pub(super) fn poison_unless(&self, id: KeyId, same: impl FnOnce(&E) -> bool) -> bool {
        let mut stripe = self.lock(id);
        let Some(cached) = &mut stripe.cached else { return false };
        let known = cached.entries.iter().find(|(entry, _)| *entry == id);
        if known.is_some_and(|(_, entry)| same(entry)) {
            cached.flights.retain(|(flight, _)| *flight != id);
            return false;
        }
        cached.poison(id)
    }

    /// Raises the guard before a write is sent. Whether there was an entry.
    pub(super) fn begin(&self, id: KeyId) -> bool {
        let mut stripe = self.lock(id);
        stripe.writers += 1;
        stripe.poison(id)
    }

    /// Lowers it when the reply is here. Under a guard no flight opens and none lands, so there is nothing to drop.
    pub(super) fn end(&self, id: KeyId) {
        let mut stripe = self.lock(id);
        debug_assert!(stripe.writers > 0, "begin and end come in pairs");
        stripe.writers = stripe.writers.saturating_sub(1);
    }

    /// No fills until then. Whether there was an entry.
    pub(super) fn quarantine(&self, id: KeyId, until: Instant) -> bool {
        let mut stripe = self.lock(id);
        let cached = stripe.cached();
        cached.quarantined_until = cached.quarantined_until.max(Some(until));
        cached.poison(id)
    }

    /// The near cache has let go of this entry.
    pub(super) fn forget(&self, id: KeyId, entry: &E) {
        entry.mark_dropped();
        self.lock(id).cached().entries.retain(|(_, known)| !known.is_same(entry));
    }

    /// Drops what `chosen` chooses, and every flight: which keys they are for is not known here.
    pub(super) fn poison_where(&self, chosen: impl Fn(&E) -> bool) -> Vec<KeyId> {
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
