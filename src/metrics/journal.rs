//! The journal: the last changes of state, so that an operator can see what happened at 12:05. Bounded, and never used on the path of a
//! request that L1 answers. Must not decide anything.

use std::collections::VecDeque;
use std::fmt::Display;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::outcome::EventKind;

/// Maximum number of events.
pub const MOST: usize = 1000;

/// Maximum number of events of kinds that can repeat at a high rate ([`EventKind::repeats`]). The rest has room even after a flood.
const MOST_REPEATING: usize = MOST / 2;

/// An event that repeats within this time after the last one is counted with it.
const TOGETHER: Duration = Duration::from_secs(1);

/// How many of the latest events are searched for one to be counted with.
const SEARCHED: usize = 16;

/// Longest text of an event, in bytes.
const LONGEST: usize = 512;

/// A change of state, or several of the same kind and reason in quick succession.
#[derive(Clone, Debug)]
pub struct Event {
    /// Counted from 1 since the start.
    pub id: u64,
    /// What happened.
    pub kind: EventKind,
    /// Its reason by name. Empty if the kind has only one.
    pub reason: &'static str,
    /// Why, as text. For several: the text of the first.
    pub why: String,
    /// When it happened. For several: the first.
    pub date: SystemTime,
    /// How long the former state lasted, for kinds that end one.
    pub lasted: Option<Duration>,
    /// How many times it happened.
    pub count: u64,
    /// From the first to the last time.
    pub span: Duration,
    /// When it happened first.
    first: Instant,
}

/// The last events.
#[derive(Debug)]
pub struct Journal(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    events: VecDeque<Event>,
    /// How many of them are of kinds that repeat.
    repeating: usize,
    noted: u64,
    /// Since when each state has lasted, by [`EventKind::state`]. One that has not changed: since the start.
    since: [Instant; EventKind::STATES],
}

impl Default for Journal {
    fn default() -> Self {
        Journal(Mutex::new(Inner {
            events: VecDeque::new(),
            repeating: 0,
            noted: 0,
            since: [Instant::now(); EventKind::STATES],
        }))
    }
}

impl Journal {
    /// Adds an event.
    pub fn note(&self, kind: EventKind, why: impl Display) {
        self.note_for(kind, "", why);
    }

    /// Adds an event that has a named reason.
    pub fn note_for(&self, kind: EventKind, reason: &'static str, why: impl Display) {
        self.note_at(Instant::now(), kind, reason, why);
    }

    fn note_at(&self, now: Instant, kind: EventKind, reason: &'static str, why: impl Display) {
        let mut inner = self.lock();
        if kind.repeats() {
            let latest = inner.events.iter_mut().rev().take(SEARCHED);
            let same = latest.filter(|event| event.kind == kind && event.reason == reason).find(|event| {
                let last = event.first + event.span;
                now.saturating_duration_since(last) < TOGETHER
            });
            if let Some(event) = same {
                event.count += 1;
                event.span = now.saturating_duration_since(event.first);
                return;
            }
        }
        inner.make_room(kind);
        inner.noted += 1;
        let lasted = kind.state().map(|state| {
            let began = std::mem::replace(&mut inner.since[state], now);
            now.saturating_duration_since(began)
        });
        let mut why = why.to_string();
        let end = (0..=LONGEST.min(why.len())).rev().find(|at| why.is_char_boundary(*at));
        why.truncate(end.unwrap_or(0));
        let (id, date) = (inner.noted, SystemTime::now());
        inner.repeating += usize::from(kind.repeats());
        inner.events.push_back(Event {
            id,
            kind,
            reason,
            why,
            date,
            lasted,
            count: 1,
            span: Duration::ZERO,
            first: now,
        });
    }

    /// The last events, the newest first.
    pub fn last(&self, count: usize) -> Vec<Event> {
        self.lock().events.iter().rev().take(count).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Removes an event if there is no room for one of this kind.
    fn make_room(&mut self, kind: EventKind) {
        let gone = if kind.repeats() && self.repeating >= MOST_REPEATING {
            self.events.iter().position(|event| event.kind.repeats())
        } else {
            (self.events.len() >= MOST).then_some(0)
        };
        if let Some(event) = gone.and_then(|at| self.events.remove(at)) {
            self.repeating -= usize::from(event.kind.repeats());
        }
    }
}

impl EventKind {
    /// Number of states that events end.
    const STATES: usize = 5;

    /// The state that such an event ends, if it ends one.
    fn state(self) -> Option<usize> {
        match self {
            EventKind::Mode => Some(0),
            EventKind::UpstreamUp | EventKind::UpstreamDown | EventKind::LoginRefused => Some(1),
            EventKind::UpstreamOverdue | EventKind::UpstreamInTime => Some(2),
            EventKind::Role => Some(3),
            EventKind::NatsConnected | EventKind::NatsLost => Some(4),
            _ => None,
        }
    }

    /// Whether clients or peers can cause it at a high rate.
    fn repeats(self) -> bool {
        matches!(
            self,
            EventKind::Flush | EventKind::ClientRefused | EventKind::ClientDropped | EventKind::ClientPanicked
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::outcome::EventKind;
    use super::{Journal, LONGEST, MOST, MOST_REPEATING};

    const MOMENT: Duration = Duration::from_millis(900);

    #[test]
    fn several_flushes_within_a_second_are_one_event() {
        let journal = Journal::default();
        let start = Instant::now();
        for round in 0..5 {
            journal.note_at(start + MOMENT * round, EventKind::Flush, "scripts", "a script");
            journal.note_at(start + MOMENT * round, EventKind::Flush, "bus", "a peer");
        }
        journal.note_at(start + MOMENT * 4 + Duration::from_secs(1), EventKind::Flush, "bus", "again");
        let events = journal.last(9);
        let told: Vec<_> = events.iter().map(|event| (event.reason, &*event.why, event.count, event.span)).collect();
        assert_eq!(
            told,
            [
                ("bus", "again", 1, Duration::ZERO),
                ("bus", "a peer", 5, MOMENT * 4),
                ("scripts", "a script", 5, MOMENT * 4)
            ]
        );
    }

    #[test]
    fn an_event_tells_how_long_the_former_state_lasted() {
        let journal = Journal::default();
        let start = Instant::now();
        journal.note_at(start, EventKind::UpstreamUp, "", "");
        journal.note_at(start + MOMENT, EventKind::NatsLost, "", "");
        journal.note_at(start + MOMENT * 2, EventKind::UpstreamDown, "", "");
        journal.note_at(start + MOMENT * 2, EventKind::Started, "", "");
        let lasted: Vec<_> = journal.last(2).iter().map(|event| event.lasted).collect();
        assert_eq!(lasted, [None, Some(MOMENT * 2)]);
    }

    #[test]
    fn a_flood_of_flushes_leaves_the_other_events() {
        let journal = Journal::default();
        let start = Instant::now();
        journal.note(EventKind::Started, "x".repeat(2 * LONGEST));
        for round in 0..3 * MOST as u32 {
            journal.note_at(start + round * Duration::from_secs(2), EventKind::Flush, "scripts", "a script");
        }
        let events = journal.last(usize::MAX);
        assert_eq!(events.len(), MOST_REPEATING + 1);
        let first = events.last().expect("an event");
        assert_eq!((first.id, first.kind, first.why.len()), (1, EventKind::Started, LONGEST));
        (0..2 * MOST).for_each(|_| journal.note(EventKind::Role, "a replica"));
        let events = journal.last(usize::MAX);
        assert_eq!(events.len(), MOST);
        assert!(events.iter().all(|event| event.kind == EventKind::Role));
    }
}
