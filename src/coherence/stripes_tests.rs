//! Tests of the stripes one step at a time; `tests/loom.rs` tries every interleaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::stripes::{Mark, Stripes};
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
