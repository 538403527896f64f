//! Tickets and guards under loom: every interleaving of small scenarios. Compiles the stripes a second time, with loom's locks in
//! place of the standard library's.

/// The part of the near cache that the stripes use.
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

/// A question about the one key.
fn asked(variant: u64) -> EntryId {
    EntryId::new(KeyId::new(0, b"k"), variant)
}

fn dropped(flag: &Flag) -> bool {
    flag.0.load(Ordering::SeqCst)
}

/// Fills from Redis if no guard is raised. Returns the value that was read, and the entry if it landed.
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

/// A fill, and a write with its guard: after the write's reply no live entry has the old value.
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
        // The write has its reply: a fill with the old value must have been dropped by now, or must never land.
        if let Some((0, entry)) = filler.join().expect("no panic") {
            assert!(dropped(&entry));
        }
    });
}

/// A fill, and a flush by generation: an entry that landed under the old generation contains that generation, and is dead.
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

/// Two fills of one key and an external invalidation: at most the later fill survives.
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
        // Another client writes to Redis, and an invalidation follows.
        redis.store(1, Ordering::SeqCst);
        stripes.poison(id.key());
        for fill in fills {
            if let Some((0, entry)) = fill.join().expect("no panic") {
                assert!(dropped(&entry));
            }
        }
    });
}

/// Two questions about one key, one of them kept already, and a write with its guard: neither keeps the old reply.
#[test]
fn a_write_drops_the_entries_of_every_question() {
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

/// A fill, and a write that blocks until an event: after the event nothing old is kept, even before the write's reply.
#[test]
fn no_old_value_while_a_write_blocks() {
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
