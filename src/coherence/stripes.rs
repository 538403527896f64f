//! Write guards and fill tickets (COHERENCE §2–3): a small locked state per stripe of keys.
//!
//! The stripes also hold the handle of every entry that may be served, because what must be dropped has to be found even when
//! the near cache has let go of it and only a hot set still holds it. No I/O, no clock; hits never come here.

use std::time::Instant;

use smallvec::SmallVec;

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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use super::{Mark, Stripes};
    use crate::near_cache::KeyId;

    #[derive(Clone, Debug, Default)]
    struct Flag(Arc<AtomicBool>);

    impl Mark for Flag {
        fn mark_dropped(&self) {
            self.0.store(true, Ordering::SeqCst);
        }

        fn is_same(&self, other: &Self) -> bool {
            Arc::ptr_eq(&self.0, &other.0)
        }
    }

    fn dropped(flag: &Flag) -> bool {
        flag.0.load(Ordering::SeqCst)
    }

    #[cfg(not(shortstop_loom))]
    mod plain {
        use super::{Duration, Flag, Instant, KeyId, Stripes, dropped};

        fn one() -> (Stripes<Flag>, KeyId, Instant) {
            (Stripes::new(1), KeyId::new(0, b"k"), Instant::now())
        }

        #[test]
        fn a_quiet_fill_is_kept() {
            let (stripes, id, now) = one();
            let entry = Flag::default();
            assert!(stripes.open_flight(id, 1, now));
            assert!(stripes.land(id, 1, &entry, || true));
            assert!(!dropped(&entry));
            assert!(stripes.poison(id) && dropped(&entry));
        }

        #[test]
        fn a_write_in_between_kills_the_fill() {
            let (stripes, id, now) = one();
            assert!(stripes.open_flight(id, 1, now));
            stripes.begin(id);
            assert!(!stripes.open_flight(id, 2, now), "no ticket under a guard");
            stripes.end(id);
            assert!(!stripes.land(id, 1, &Flag::default(), || true));
        }

        /// The key is dropped and fetched again while the first reply is under way: a flag per key would keep the first.
        #[test]
        fn the_older_of_two_fetches_is_not_kept() {
            let (stripes, id, now) = one();
            assert!(stripes.open_flight(id, 1, now));
            stripes.poison(id);
            assert!(stripes.open_flight(id, 2, now));
            assert!(!stripes.land(id, 1, &Flag::default(), || true));
            assert!(stripes.land(id, 2, &Flag::default(), || true));
        }

        #[test]
        fn a_landing_ends_the_other_flights() {
            let (stripes, id, now) = one();
            assert!(stripes.open_flight(id, 1, now) && stripes.open_flight(id, 2, now));
            assert!(stripes.land(id, 2, &Flag::default(), || true));
            assert!(!stripes.is_live(id, 1));
            assert!(!stripes.land(id, 1, &Flag::default(), || true));
        }

        #[test]
        fn an_older_generation_does_not_land() {
            let (stripes, id, now) = one();
            assert!(stripes.open_flight(id, 1, now));
            assert!(!stripes.land(id, 1, &Flag::default(), || false));
            assert!(!stripes.is_live(id, 1));
        }

        #[test]
        fn quarantine_ends_by_itself() {
            let (stripes, id, now) = one();
            stripes.quarantine(id, now + Duration::from_secs(60));
            stripes.quarantine(id, now + Duration::from_secs(1));
            assert!(!stripes.open_flight(id, 1, now + Duration::from_secs(59)));
            assert!(stripes.open_flight(id, 1, now + Duration::from_secs(60)));
        }

        #[test]
        fn a_reader_with_the_same_value_leaves_the_entry() {
            let (stripes, id, now) = one();
            let entry = Flag::default();
            assert!(stripes.open_flight(id, 1, now) && stripes.land(id, 1, &entry, || true));
            assert!(!stripes.poison_unless(id, |_| true) && !dropped(&entry));
            assert!(stripes.poison_unless(id, |_| false) && dropped(&entry));
        }

        #[test]
        fn forgetting_an_old_entry_leaves_the_new_one() {
            let (stripes, id, now) = one();
            let (old, new) = (Flag::default(), Flag::default());
            assert!(stripes.open_flight(id, 1, now) && stripes.land(id, 1, &old, || true));
            assert!(stripes.open_flight(id, 2, now) && stripes.land(id, 2, &new, || true));
            stripes.forget(id, &old);
            assert!(dropped(&old) && !dropped(&new));
            assert!(stripes.poison(id) && dropped(&new));
        }
    }

    /// `make loom`: every interleaving of the small worlds below.
    #[cfg(shortstop_loom)]
    mod every_interleaving {
        use loom::sync::Arc as Shared;
        use loom::sync::atomic::{AtomicU64, Ordering};
        use loom::thread;

        use super::{Flag, Instant, KeyId, Stripes, dropped};

        /// A fill, and a write with its guard: after the write's reply an entry with the old value is never there undropped.
        #[test]
        fn loom_no_old_value_after_a_write() {
            let now = Instant::now();
            loom::model(move || {
                let stripes = Shared::new(Stripes::<Flag>::new(1));
                let redis = Shared::new(AtomicU64::new(0));
                let id = KeyId::new(0, b"k");
                let filler = thread::spawn({
                    let (stripes, redis) = (Shared::clone(&stripes), Shared::clone(&redis));
                    move || {
                        if !stripes.open_flight(id, 1, now) {
                            return None;
                        }
                        let read = redis.load(Ordering::SeqCst);
                        let entry = Flag::default();
                        stripes.land(id, 1, &entry, || true).then_some((read, entry))
                    }
                });
                stripes.begin(id);
                redis.store(1, Ordering::SeqCst);
                stripes.end(id);
                // The write has been answered: whatever was filled with the old value must be dropped by now or never land.
                if let Some((0, entry)) = filler.join().expect("no panic") {
                    assert!(dropped(&entry));
                }
            });
        }

        /// A fill, and a flush by generation: an entry that landed under the old generation carries it, and is dead.
        #[test]
        fn loom_no_old_generation_after_a_flush() {
            let now = Instant::now();
            loom::model(move || {
                let stripes = Shared::new(Stripes::<Flag>::new(1));
                let generation = Shared::new(AtomicU64::new(0));
                let redis = Shared::new(AtomicU64::new(0));
                let id = KeyId::new(0, b"k");
                let filler = thread::spawn({
                    let (stripes, redis) = (Shared::clone(&stripes), Shared::clone(&redis));
                    let generation = Shared::clone(&generation);
                    move || {
                        let mine = generation.load(Ordering::Acquire);
                        assert!(stripes.open_flight(id, 1, now));
                        let read = redis.load(Ordering::SeqCst);
                        let current = || generation.load(Ordering::Acquire) == mine;
                        stripes.land(id, 1, &Flag::default(), current).then_some((read, mine))
                    }
                });
                generation.fetch_add(1, Ordering::AcqRel);
                redis.store(1, Ordering::SeqCst);
                generation.fetch_add(1, Ordering::AcqRel);
                if let Some((0, mine)) = filler.join().expect("no panic") {
                    assert_ne!(
                        mine,
                        generation.load(Ordering::Acquire),
                        "an old value must not carry the new generation"
                    );
                }
            });
        }

        /// Two fills of one key and an invalidation from outside: at most the younger survives undropped.
        #[test]
        fn loom_an_invalidation_is_never_lost() {
            let now = Instant::now();
            loom::model(move || {
                let stripes = Shared::new(Stripes::<Flag>::new(1));
                let redis = Shared::new(AtomicU64::new(0));
                let id = KeyId::new(0, b"k");
                let fill = |number: u64| {
                    let (stripes, redis) = (Shared::clone(&stripes), Shared::clone(&redis));
                    thread::spawn(move || {
                        assert!(stripes.open_flight(id, number, now));
                        let read = redis.load(Ordering::SeqCst);
                        let entry = Flag::default();
                        stripes.land(id, number, &entry, || true).then_some((read, entry))
                    })
                };
                let fills = [fill(1), fill(2)];
                // Somebody else writes to Redis, and tells.
                redis.store(1, Ordering::SeqCst);
                stripes.poison(id);
                for fill in fills {
                    if let Some((0, entry)) = fill.join().expect("no panic") {
                        assert!(dropped(&entry));
                    }
                }
            });
        }
    }
}
