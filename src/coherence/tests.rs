//! What may be served and kept, in every mode, as time passes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::{Coherence, Mode, ModeReason, Role};
use crate::config::Config;
use crate::metrics::outcome::FlushReason;
use crate::metrics::rules::RulePlace;
use crate::metrics::slots::Stats;
use crate::near_cache::{Entry, Question};

const SECOND: Duration = Duration::from_secs(1);

fn coherence(yaml: &str) -> Arc<Coherence> {
    let config = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    let coherence = Arc::new(Coherence::new(&config, Arc::new(Stats::new(1))));
    coherence.set_role(Role::Primary);
    coherence
}

fn fill(coherence: &Arc<Coherence>, now: Instant, lives: Duration) -> Option<Entry> {
    fill_as(coherence, &question(0), now, lives, b"$1\r\nv\r\n")
}

fn fill_as(
    coherence: &Arc<Coherence>,
    question: &Question<'_>,
    now: Instant,
    lives: Duration,
    reply: &[u8],
) -> Option<Entry> {
    let ticket = coherence.ticket(question.id(), 0, now)?;
    ticket.redeem(now, now + lives, question, reply, None, RulePlace::DEFAULTS);
    coherence.cache().get(question.id())
}

/// GET k, by a user.
fn question(user: u32) -> Question<'static> {
    Question::get(0, user, b"k")
}

#[test]
fn another_configuration_takes_effect_at_once() {
    let config = |yaml: &str| Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
    let (long, short) = (config("max_staleness: 60s"), config("max_staleness: 5s\nl1: { max_entries: 7 }"));
    let stats = Arc::new(Stats::new(1));
    let coherence = Arc::new(Coherence::new(&long, Arc::clone(&stats)));
    coherence.set_role(Role::Primary);
    let now = Instant::now();
    let old = fill(&coherence, now, 60 * SECOND).expect("kept");
    coherence.cache().tidy();
    coherence.configure(&long, &short, true);
    assert!(!coherence.permit(now).allows(&old), "L1 was flushed");
    assert!(coherence.cache().get(question(0).id()).is_none(), "and is another one");
    let held = coherence.replaced()[0].clone();
    let new = fill(&coherence, now, 60 * SECOND).expect("kept");
    coherence.tidy();
    assert_eq!(coherence.replaced().len(), 1, "somebody may still put something in");
    drop(held);
    // moka removes entries older than the flush, and its clock advances in steps.
    while !coherence.replaced().is_empty() {
        std::thread::yield_now();
        coherence.tidy();
    }
    assert_eq!(stats.shared.entries.load(Ordering::Relaxed), 1, "the old one is not counted any more");
    assert!(coherence.permit(now + 5 * SECOND - Duration::from_nanos(1)).allows(&new));
    assert!(!coherence.permit(now + 5 * SECOND).allows(&new), "the new bound");
    coherence.configure(&short, &config("l1: { enabled: false }"), true);
    assert_eq!((coherence.mode(now), coherence.max_staleness()), (Mode::Off, 60 * SECOND));
}

#[test]
fn a_permit_is_current_until_something_flushes() {
    let coherence = coherence("nats: nats://127.0.0.1:1");
    let now = Instant::now();
    let flushes: [&dyn Fn(); 5] = [
        &|| coherence.flush("a test"),
        &|| coherence.doubt(true),
        &|| coherence.set_role(Role::Replica),
        &|| coherence.lease(now + SECOND, now),
        &|| coherence.quarantine_all(now, FlushReason::Other, "a test"),
    ];
    for (at, flush) in flushes.iter().enumerate() {
        let permit = coherence.permit(now);
        assert!(coherence.is_current(&permit));
        flush();
        assert!(!coherence.is_current(&permit), "{at}");
    }
}

#[test]
fn a_single_instance_serves_until_the_deadline() {
    let coherence = coherence("max_staleness: 60s");
    let now = Instant::now();
    assert_eq!(coherence.mode(now), Mode::Single);
    let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
    assert!(coherence.permit(now + 4 * SECOND).allows(&entry));
    assert!(!coherence.permit(now + 5 * SECOND).allows(&entry));
}

#[test]
fn a_flush_drops_every_entry_at_once() {
    let coherence = coherence("");
    let now = Instant::now();
    let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
    coherence.flush("test");
    assert!(entry.is_valid() && !coherence.permit(now).allows(&entry));
}

#[test]
fn a_lost_write_of_unknown_keys_quarantines_everything() {
    let coherence = coherence("max_staleness: 10s");
    let now = Instant::now();
    let entry = fill(&coherence, now, 5 * SECOND).expect("kept");
    let ticket = coherence.ticket(question(0).id(), 0, now).expect("a ticket");
    coherence.quarantine_all(now, FlushReason::Other, "test");
    assert!(!coherence.permit(now).allows(&entry) && !ticket.is_live());
    assert!(coherence.ticket(question(0).id(), 0, now + 9 * SECOND).is_none());
    assert!(coherence.ticket(question(0).id(), 0, now + 10 * SECOND).is_some());
}

#[test]
fn entries_are_served_only_under_a_lease() {
    let coherence = coherence("nats: nats://127.0.0.1:4222");
    let now = Instant::now();
    assert_eq!(coherence.mode(now), Mode::Degraded);
    coherence.lease(now + SECOND, now);
    assert_eq!(coherence.mode(now), Mode::Live);
    let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
    assert!(coherence.permit(now + SECOND / 2).allows(&entry));
    // The process was frozen for an hour: the lease has long expired, and with it the right to serve.
    assert_eq!(coherence.mode(now + SECOND), Mode::Degraded);
    assert!(!coherence.permit(now + SECOND).allows(&entry));
    // The lease is back. Entries kept before the gap are dead.
    coherence.lease(now + 3 * SECOND, now + 2 * SECOND);
    assert!(!coherence.permit(now + 2 * SECOND).allows(&entry));
}

#[test]
fn a_doubt_degrades_and_flushes() {
    let coherence = coherence("nats: nats://127.0.0.1:4222");
    let now = Instant::now();
    coherence.lease(now + SECOND, now);
    let generation = coherence.generation();
    coherence.doubt(true);
    assert_eq!((coherence.mode(now), coherence.generation()), (Mode::Degraded, generation + 1));
    coherence.doubt(false);
    assert_eq!((coherence.mode(now), coherence.generation()), (Mode::Live, generation + 2));
}

#[test]
fn nothing_is_served_or_kept_from_a_replica() {
    let coherence = coherence("");
    let now = Instant::now();
    let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
    coherence.set_role(Role::Replica);
    assert!(!coherence.permit(now).allows(&entry));
    assert!(fill(&coherence, now, 60 * SECOND).is_none());
}

#[test]
fn nothing_is_served_before_redis_has_been_asked_for_its_role() {
    let config = Config::from_yaml("").unwrap_or_else(|error| panic!("{error}"));
    let start = || Arc::new(Coherence::new(&config, Arc::new(Stats::new(1))));
    let now = Instant::now();
    let reason = |coherence: &Coherence| coherence.mode_and_reason(now);
    for proof in [Some(Role::Primary), None] {
        let coherence = start();
        assert_eq!(reason(&coherence), (Mode::Off, ModeReason::RoleUnknown));
        let entry = fill(&coherence, now, 60 * SECOND).expect("kept for later");
        assert!(!coherence.permit(now).allows(&entry));
        match proof {
            Some(role) => coherence.set_role(role),
            None => coherence.role_is_not_told(),
        }
        assert!(coherence.permit(now).allows(&entry), "{proof:?}");
        assert_eq!(reason(&coherence), (Mode::Single, ModeReason::NoNats));
    }
    // The server was a replica all the time.
    let coherence = start();
    let entry = fill(&coherence, now, 60 * SECOND).expect("kept for later");
    coherence.set_role(Role::Replica);
    coherence.role_is_not_told();
    assert_eq!(reason(&coherence), (Mode::Off, ModeReason::Replica));
    coherence.set_role(Role::Primary);
    assert!(!coherence.permit(now).allows(&entry));
}

#[test]
fn a_lost_ticket_leaves_nothing_behind() {
    let coherence = coherence("");
    let id = question(0).id();
    let ticket = coherence.ticket(id, 0, Instant::now()).expect("a ticket");
    assert!(ticket.is_live());
    let number = ticket.number;
    drop(ticket);
    assert!(!coherence.stripes.is_live(id, number));
}

#[test]
fn a_newer_value_in_another_reply_drops_the_entry() {
    let coherence = coherence("");
    let now = Instant::now();
    let entry = fill(&coherence, now, 60 * SECOND).expect("kept");
    coherence.observe(question(0).id(), b"$1\r\nv\r\n");
    assert!(entry.is_valid());
    coherence.observe(question(0).id(), b"$1\r\nw\r\n");
    assert!(!entry.is_valid() && coherence.cache().get(question(0).id()).is_none());
}
