//! Tests of the stripes one step at a time; `tests/loom.rs` tries every interleaving.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::stripes::{Dropped, MOST_ENTRIES, Mark, Stripes};
use crate::near_cache::{EntryId, KeyId};

/// An entry whose reply is one byte.
#[derive(Clone, Debug, Default)]
struct Flag {
    dropped: Arc<AtomicBool>,
    says: u8,
}

impl Mark for Flag {
    fn mark_dropped(&self) {
        self.dropped.store(true, Ordering::SeqCst);
    }

    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.dropped, &other.dropped)
    }

    fn differs(&self, other: &Self) -> bool {
        self.says != other.says
    }
}

fn dropped(flag: &Flag) -> bool {
    flag.dropped.load(Ordering::SeqCst)
}

/// One stripe, an entry id, and the time.
fn one() -> (Stripes<Flag>, EntryId, Instant) {
    (Stripes::new(1), asked(0), Instant::now())
}

/// A question about the key.
fn asked(variant: u64) -> EntryId {
    EntryId::new(KeyId::new(0, b"k"), variant)
}

fn fill(stripes: &Stripes<Flag>, id: EntryId, number: u64, now: Instant, says: u8) -> (Flag, Dropped) {
    let entry = Flag { says, ..Flag::default() };
    assert!(stripes.open_flight(id, number, now));
    let left = stripes.land(id, number, &entry, || true).expect("nothing happened to it");
    (entry, left)
}

#[test]
fn a_fill_without_a_write_in_between_is_kept() {
    let (stripes, id, now) = one();
    let (entry, left) = fill(&stripes, id, 1, now, 0);
    assert!(!dropped(&entry) && left.is_empty());
    assert_eq!(stripes.poison(id.key())[..], [id]);
    assert!(dropped(&entry));
}

#[test]
fn a_write_in_between_kills_the_fill() {
    let (stripes, id, now) = one();
    assert!(stripes.open_flight(id, 1, now));
    stripes.begin(id.key());
    assert!(!stripes.open_flight(id, 2, now), "no ticket under a guard");
    stripes.end(id.key());
    assert!(stripes.land(id, 1, &Flag::default(), || true).is_none());
}

/// The key is invalidated and fetched again while the first reply is under way. A flag per key would keep the first reply.
#[test]
fn the_older_of_two_fetches_is_not_kept() {
    let (stripes, id, now) = one();
    assert!(stripes.open_flight(id, 1, now));
    stripes.poison(id.key());
    assert!(stripes.open_flight(id, 2, now));
    assert!(stripes.land(id, 1, &Flag::default(), || true).is_none());
    assert!(stripes.land(id, 2, &Flag::default(), || true).is_some());
}

#[test]
fn a_flight_that_lands_ends_the_other_flights() {
    let (stripes, id, now) = one();
    assert!(stripes.open_flight(id, 1, now) && stripes.open_flight(id, 2, now));
    assert!(stripes.land(id, 2, &Flag::default(), || true).is_some());
    assert!(!stripes.is_live(id, 1));
    assert!(stripes.land(id, 1, &Flag::default(), || true).is_none());
}

#[test]
fn an_older_generation_does_not_land() {
    let (stripes, id, now) = one();
    assert!(stripes.open_flight(id, 1, now));
    assert!(stripes.land(id, 1, &Flag::default(), || false).is_none());
    assert!(!stripes.is_live(id, 1));
}

#[test]
fn quarantine_ends_by_itself() {
    let (stripes, id, now) = one();
    stripes.quarantine(id.key(), now + Duration::from_secs(60));
    stripes.quarantine(id.key(), now + Duration::from_secs(1));
    assert!(!stripes.open_flight(id, 1, now + Duration::from_secs(59)));
    assert!(stripes.open_flight(id, 1, now + Duration::from_secs(60)));
}

#[test]
fn an_equal_reply_leaves_the_entry() {
    let (stripes, id, now) = one();
    let (entry, _) = fill(&stripes, id, 1, now, 0);
    assert!(stripes.compare(id, |_| true).is_empty() && !dropped(&entry));
    assert_eq!(stripes.compare(id, |_| false)[..], [id]);
    assert!(dropped(&entry));
}

#[test]
fn forgetting_an_old_entry_leaves_the_new_one() {
    let (stripes, id, now) = one();
    let (old, _) = fill(&stripes, id, 1, now, 0);
    let (new, left) = fill(&stripes, id, 2, now, 0);
    assert!(left.is_empty(), "its place is the new one's");
    stripes.forget(id, &old);
    assert!(dropped(&old) && !dropped(&new));
    assert_eq!(stripes.poison(id.key())[..], [id]);
    assert!(dropped(&new));
}

#[test]
fn entries_of_a_key_live_side_by_side_and_are_dropped_together() {
    let (stripes, id, now) = one();
    let other = asked(1);
    assert!(stripes.open_flight(other, 1, now));
    let (first, _) = fill(&stripes, id, 2, now, 0);
    assert!(stripes.is_live(other, 1), "its answer is nobody else's");
    let second = Flag { says: 9, ..Flag::default() };
    assert!(stripes.land(other, 1, &second, || true).is_some_and(|left| left.is_empty()));
    assert!(!dropped(&first) && !dropped(&second));
    // An entry of another key in the same stripe stays.
    let neighbour = EntryId::new(KeyId::new(0, b"other"), 0);
    let (stays, _) = fill(&stripes, neighbour, 3, now, 0);
    assert!(stripes.open_flight(other, 4, now));
    assert_eq!(stripes.begin(id.key())[..], [id, other]);
    assert!(dropped(&first) && dropped(&second) && !dropped(&stays) && !stripes.is_live(other, 4));
    stripes.end(id.key());
}

/// A key was written without any Shortstop: its earlier entries must not be served any more.
#[test]
fn a_different_reply_drops_all_entries_of_the_key() {
    let (stripes, id, now) = one();
    let (bystander, _) = fill(&stripes, asked(1), 1, now, 5);
    let (old, _) = fill(&stripes, id, 2, now, 0);
    assert!(stripes.open_flight(asked(2), 3, now));
    let (same, left) = fill(&stripes, id, 4, now, 0);
    assert!(dropped(&old) && !dropped(&bystander) && left.is_empty() && stripes.is_live(asked(2), 3));
    let (new, left) = fill(&stripes, id, 5, now, 1);
    assert!(dropped(&same) && dropped(&bystander) && !dropped(&new));
    assert_eq!(left[..], [asked(1)]);
    assert!(!stripes.is_live(asked(2), 3));
    // The same for a reply that was read without a ticket.
    let (bystander, _) = fill(&stripes, asked(1), 6, now, 5);
    assert_eq!(stripes.compare(id, |entry| entry.says == 2).len(), 2);
    assert!(dropped(&new) && dropped(&bystander));
}

#[test]
fn the_oldest_entry_makes_room() {
    let (stripes, _, now) = one();
    let all: Vec<(Flag, Dropped)> =
        (0..MOST_ENTRIES as u64).map(|number| fill(&stripes, asked(number), number, now, 0)).collect();
    assert!(all.iter().all(|(entry, left)| !dropped(entry) && left.is_empty()));
    // Filled again, it is no longer the oldest.
    fill(&stripes, asked(0), 100, now, 0);
    let (_, left) = fill(&stripes, asked(200), 200, now, 0);
    assert_eq!(left[..], [asked(1)]);
    assert!(dropped(&all[1].0) && !dropped(&all[2].0));
    assert_eq!(stripes.poison(asked(0).key()).len(), MOST_ENTRIES);
}

/// BLMOVE blocks, and writes when another client does.
#[test]
fn a_held_key_is_not_filled_while_others_of_its_stripe_are() {
    let (stripes, id, now) = one();
    let neighbour = EntryId::new(KeyId::new(0, b"other"), 0);
    let (entry, _) = fill(&stripes, id, 1, now, 0);
    assert!(stripes.open_flight(asked(1), 2, now));
    assert_eq!(stripes.hold(id.key())[..], [id]);
    assert!(stripes.hold(id.key()).is_empty());
    assert!(dropped(&entry) && !stripes.is_live(asked(1), 2));
    assert!(stripes.open_flight(neighbour, 3, now));
    stripes.release(id.key());
    assert!(!stripes.open_flight(id, 4, now), "one of two is still waiting");
    stripes.release(id.key());
    assert!(stripes.open_flight(id, 5, now));
}
