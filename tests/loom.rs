//! Tickets and guards under loom: every interleaving of small worlds. Compiles the stripes a second time, with loom's locks in the
//! place of the standard library's.

/// What the stripes use of the near cache.
mod near_cache {
    pub use shortstop::near_cache::{Entry, EntryId, KeyId};
}

mod sync {
    pub use loom::sync::{Mutex, MutexGuard};
}

#[path = "../src/coherence/stripes.rs"]
#[expect(dead_code, reason = "the models need a part of it")]
mod stripes;

use std::sync::Arc;
use std::time::Instant;

use loom::sync::Arc as Shared;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use loom::thread::{self, JoinHandle};

use self::stripes::{Mark, Stripes};
use crate::near_cache::{EntryId, KeyId};

#[derive(Clone, Debug, Default)]
struct Flag(Arc<AtomicBool>);

impl Mark for Flag {
    fn mark_dropped(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn differs(&self, _: &Self) -> bool {
        false
    }
}

/// A way to ask about the one key.
fn asked(variant: u64) -> EntryId {
    EntryId::new(KeyId::new(0, b"k"), variant)
}

fn dropped(flag: &Flag) -> bool {
    flag.0.load(Ordering::SeqCst)
}

/// Fills from Redis, if no guard is up: what was read, and the entry if it landed.
fn fill(
    stripes: &Shared<Stripes<Flag>>,
    redis: &Shared<AtomicU64>,
    id: EntryId,
    number: u64,
    now: Instant,
) -> JoinHandle<Option<(u64, Flag)>> {
    let (stripes, redis) = (Shared::clone(stripes), Shared::clone(redis));
    thread::spawn(move || {
        if !stripes.open_flight(id, number, now) {
            return None;
        }
        let read = redis.load(Ordering::SeqCst);
        let entry = Flag::default();
        stripes.land(id, number, &entry, || true).map(|_| (read, entry))
    })
}

/// A fill, and a write with its guard: after the write's reply an entry with the old value is never there undropped.
#[test]
fn no_old_value_after_a_write() {
    let now = Instant::now();
    loom::model(move || {
        let stripes = Shared::new(Stripes::<Flag>::new(1));
        let redis = Shared::new(AtomicU64::new(0));
        let id = asked(0);
        let filler = fill(&stripes, &redis, id, 1, now);
        stripes.begin(id.key());
        redis.store(1, Ordering::SeqCst);
        stripes.end(id.key());
        // The write has been answered: whatever was filled with the old value must be dropped by now or never land.
        if let Some((0, entry)) = filler.join().expect("no panic") {
            assert!(dropped(&entry));
        }
    });
}

/// A fill, and a flush by generation: an entry that landed under the old generation carries it, and is dead.
#[test]
fn no_old_generation_after_a_flush() {
    let now = Instant::now();
    loom::model(move || {
        let stripes = Shared::new(Stripes::<Flag>::new(1));
        let generation = Shared::new(AtomicU64::new(0));
        let redis = Shared::new(AtomicU64::new(0));
        let id = asked(0);
        let filler = thread::spawn({
            let (stripes, redis) = (Shared::clone(&stripes), Shared::clone(&redis));
            let generation = Shared::clone(&generation);
            move || {
                let mine = generation.load(Ordering::Acquire);
                assert!(stripes.open_flight(id, 1, now));
                let read = redis.load(Ordering::SeqCst);
                let current = || generation.load(Ordering::Acquire) == mine;
                stripes.land(id, 1, &Flag::default(), current).map(|_| (read, mine))
            }
        });
        generation.fetch_add(1, Ordering::AcqRel);
        redis.store(1, Ordering::SeqCst);
        generation.fetch_add(1, Ordering::AcqRel);
        if let Some((0, mine)) = filler.join().expect("no panic") {
            assert_ne!(mine, generation.load(Ordering::Acquire), "an old value must not carry the new generation");
        }
    });
}

/// Two fills of one key and an invalidation from outside: at most the younger survives undropped.
#[test]
fn an_invalidation_is_never_lost() {
    let now = Instant::now();
    loom::model(move || {
        let stripes = Shared::new(Stripes::<Flag>::new(1));
        let redis = Shared::new(AtomicU64::new(0));
        let id = asked(0);
        let fill_at_once = |number: u64| {
            let (stripes, redis) = (Shared::clone(&stripes), Shared::clone(&redis));
            thread::spawn(move || {
                assert!(stripes.open_flight(id, number, now), "no guard is up");
                let read = redis.load(Ordering::SeqCst);
                let entry = Flag::default();
                stripes.land(id, number, &entry, || true).map(|_| (read, entry))
            })
        };
        let fills = [1, 2].map(fill_at_once);
        // Somebody else writes to Redis, and tells.
        redis.store(1, Ordering::SeqCst);
        stripes.poison(id.key());
        for fill in fills {
            if let Some((0, entry)) = fill.join().expect("no panic") {
                assert!(dropped(&entry));
            }
        }
    });
}

/// Two ways to ask about one key, one of them kept already, and a write with its guard: neither keeps the old answer.
#[test]
fn a_write_drops_every_way_to_ask() {
    let now = Instant::now();
    loom::model(move || {
        let stripes = Shared::new(Stripes::<Flag>::new(1));
        let redis = Shared::new(AtomicU64::new(0));
        let kept = Flag::default();
        assert!(stripes.open_flight(asked(2), 2, now) && stripes.land(asked(2), 2, &kept, || true).is_some());
        let filler = fill(&stripes, &redis, asked(1), 1, now);
        stripes.begin(asked(0).key());
        redis.store(1, Ordering::SeqCst);
        stripes.end(asked(0).key());
        assert!(dropped(&kept));
        if let Some((0, entry)) = filler.join().expect("no panic") {
            assert!(dropped(&entry));
        }
    });
}

/// A fill, and a write that waits for something to happen: once it has happened nothing old is kept, though its reply is not here.
#[test]
fn no_old_value_while_a_write_waits() {
    let now = Instant::now();
    loom::model(move || {
        let stripes = Shared::new(Stripes::<Flag>::new(1));
        let redis = Shared::new(AtomicU64::new(0));
        let id = asked(0);
        let filler = fill(&stripes, &redis, id, 1, now);
        stripes.hold(id.key());
        redis.store(1, Ordering::SeqCst);
        if let Some((0, entry)) = filler.join().expect("no panic") {
            assert!(dropped(&entry));
        }
        stripes.release(id.key());
        assert!(stripes.open_flight(id, 2, now));
    });
}
