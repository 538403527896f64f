//! Whether Redis answers Shortstop's own requests, and since when. Logs each change, and once a minute while Redis does not answer:
//! one line per process, however many connections are affected.
//!
//! The control plane ([`super::topology`]) reports here. No client's request depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::journal::Journal;
use crate::metrics::outcome::EventKind;

use super::login::is_about_login;

/// Interval of log lines for the same reason while Redis does not answer.
const AGAIN: Duration = Duration::from_secs(60);

/// A right that Shortstop's own user should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OwnRight {
    /// To ask whether the server is a primary.
    Role,
    /// To read the server's command table.
    Command,
    /// To ask whether it is still the same server.
    Info,
}

impl OwnRight {
    /// The command.
    pub fn name(self) -> &'static str {
        match self {
            OwnRight::Role => "role",
            OwnRight::Command => "command",
            OwnRight::Info => "info",
        }
    }

    /// What Shortstop cannot do without the right.
    fn cost(self) -> &'static str {
        match self {
            OwnRight::Role => {
                "Shortstop uses INFO instead; without either, Redis counts as a primary, and L1 may serve values \
                 that a replica has not updated yet"
            }
            OwnRight::Command => {
                "Shortstop uses its built-in table: commands of modules and of newer servers get a private \
                 connection, and their replies are not kept"
            }
            OwnRight::Info => "another server at the same address is noticed only when connections break",
        }
    }
}

/// What is known of Redis's availability.
#[derive(Debug, Default)]
pub struct UpstreamStatus {
    state: Mutex<State>,
    journal: Arc<Journal>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether it answers, and since when. `None`: not asked so far.
    answers: Option<(bool, Instant)>,
    /// It has answered at least once since the start.
    accepted: bool,
    error: Option<(String, Instant)>,
    /// What the last failure is called in the journal.
    kind: Option<EventKind>,
    /// When the last log line said that it does not answer, by the kind of reason.
    said: BTreeMap<String, Instant>,
    missing: BTreeSet<OwnRight>,
    used_memory: Option<u64>,
    eviction: Option<Eviction>,
}

/// Which keys Redis evicts, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eviction {
    /// `maxmemory-policy`.
    pub policy: String,
    /// `maxmemory` in bytes. 0: none are evicted.
    pub max_memory: u64,
    /// Bytes that are in use.
    pub used_memory: u64,
}

impl State {
    /// Whether to log now: at once if the kind of reason is new, and every minute.
    fn is_due(&mut self, why: &str, now: Instant) -> bool {
        self.said.retain(|_, said| now.saturating_duration_since(*said) < AGAIN);
        // The first word is the code of an error of Redis. The whole text may contain times.
        let kind = why.split(' ').next().unwrap_or_default();
        if self.said.contains_key(kind) {
            return false;
        }
        self.said.insert(kind.to_owned(), now);
        true
    }
}

/// A snapshot of [`UpstreamStatus`].
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Redis answers and accepts Shortstop's login.
    pub up: bool,
    /// It has done so at least once since the start.
    pub accepted: bool,
    /// The last failure, and how long ago it was seen.
    pub error: Option<(String, Duration)>,
    /// The rights that Shortstop's own user lacks.
    pub missing: Vec<OwnRight>,
    /// Bytes of memory that it uses, as far as it tells.
    pub used_memory: Option<u64>,
    /// Which keys it evicts, as far as it tells.
    pub eviction: Option<Eviction>,
}

impl Seen {
    /// It does not answer because it refuses Shortstop's login.
    pub fn refuses_login(&self) -> bool {
        !self.up && self.error.as_ref().is_some_and(|(why, _)| is_about_login(why))
    }

    /// Why it is not up, as text.
    pub fn trouble(&self) -> String {
        match &self.error {
            Some((why, _)) if is_about_login(why) => format!("Redis refuses Shortstop's login: {why}"),
            Some((why, _)) => format!("Redis does not answer: {why}"),
            None => "Redis has not been asked yet".to_owned(),
        }
    }
}

impl UpstreamStatus {
    /// Nothing is known so far. Changes go into the journal.
    pub fn new(journal: Arc<Journal>) -> Self {
        UpstreamStatus { state: Mutex::default(), journal }
    }

    /// Redis has answered Shortstop's own requests.
    pub fn answered(&self, upstream: &str, now: Instant) {
        let mut state = self.lock();
        state.accepted = true;
        let since = match state.answers {
            Some((true, since)) => since,
            Some((false, since)) => {
                tracing::info!(upstream, away = ?now.saturating_duration_since(since), "Redis answers again");
                now
            }
            None => now,
        };
        if !matches!(state.answers, Some((true, _))) {
            self.journal.note(EventKind::UpstreamUp, format_args!("{upstream} answers"));
        }
        state.answers = Some((true, since));
        state.said.clear();
    }

    /// Redis has not answered, or refuses Shortstop's login, for the reason `why`.
    pub fn failed(&self, upstream: &str, why: &str, now: Instant) {
        let mut state = self.lock();
        let since = match state.answers {
            Some((false, since)) => since,
            _ => now,
        };
        let kind = if is_about_login(why) { EventKind::LoginRefused } else { EventKind::UpstreamDown };
        if state.answers.is_none_or(|(answers, _)| answers) || state.kind != Some(kind) {
            self.journal.note(kind, format_args!("{upstream}: {why}"));
        }
        state.kind = Some(kind);
        state.answers = Some((false, since));
        (state.used_memory, state.eviction) = (None, None);
        state.error = Some((why.to_owned(), now));
        if !state.is_due(why, now) {
            return;
        }
        let lasts = now.saturating_duration_since(since);
        if is_about_login(why) {
            tracing::error!(
                upstream,
                why,
                ?lasts,
                "Redis refuses Shortstop's login: correct the user and the password in `upstream` (REDIS_URL) and restart \
                 Shortstop, or correct them at Redis. Until then only clients with a login of their own are served, and \
                 Shortstop cannot see whether Redis is a replica"
            );
        } else {
            tracing::warn!(
                upstream,
                why,
                ?lasts,
                "Redis does not answer: L1 serves what it may, and all other requests get an error"
            );
        }
    }

    /// All connections move to another server.
    pub fn moved(&self, from: Option<&str>, to: &str) {
        let from = from.unwrap_or("no server");
        self.journal.note(EventKind::UpstreamMoved, format_args!("from {from} to {to}"));
    }

    /// Records whether Shortstop's own user has this right. A missing right is logged once.
    pub fn may(&self, right: OwnRight, may: bool) {
        let mut state = self.lock();
        if may {
            state.missing.remove(&right);
        } else if state.missing.insert(right) {
            let name = right.name().to_ascii_uppercase();
            tracing::warn!(
                "the user in the upstream URL has no right to {name}: {}. Grant that right (+{})",
                right.cost(),
                right.name()
            );
        }
    }

    /// Redis was asked how much memory it uses, and what it evicts. `None`: it does not tell.
    pub fn uses(&self, memory: Option<u64>, eviction: Option<Eviction>) {
        let mut state = self.lock();
        (state.used_memory, state.eviction) = (memory, eviction);
    }

    /// What is known now.
    pub fn seen(&self, now: Instant) -> Seen {
        let state = self.lock();
        Seen {
            up: matches!(state.answers, Some((true, _))),
            accepted: state.accepted,
            error: state.error.as_ref().map(|(why, when)| (why.clone(), now.saturating_duration_since(*when))),
            missing: state.missing.iter().copied().collect(),
            used_memory: state.used_memory,
            eviction: state.eviction.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{OwnRight, State, UpstreamStatus};

    #[test]
    fn redis_was_accepted_once_it_has_answered() {
        let status = UpstreamStatus::default();
        let start = Instant::now();
        assert!(!status.seen(start).up && !status.seen(start).accepted);
        status.failed("host:1", "refused", start);
        let seen = status.seen(start + Duration::from_secs(2));
        assert!(!seen.up && !seen.accepted);
        assert_eq!(seen.error, Some(("refused".to_owned(), Duration::from_secs(2))));
        status.answered("host:1", start);
        assert!(status.seen(start).up && status.seen(start).accepted);
        status.failed("host:1", "closed", start);
        assert!(!status.seen(start).up && status.seen(start).accepted);
    }

    #[test]
    fn a_failure_is_logged_at_once_and_every_minute() {
        let mut state = State::default();
        let start = Instant::now();
        let mut due = |why, seconds| state.is_due(why, start + Duration::from_secs(seconds));
        let (silent, busy) = ("no answer within 3s", "BUSY Redis is busy");
        assert!(due(silent, 0) && !due(silent, 1) && due(busy, 2), "the reason is another");
        assert!(!due(silent, 3) && !due(busy, 4), "however often they take turns");
        assert!(!due(silent, 59) && due(silent, 60) && !due(silent, 61));
    }

    #[test]
    fn missing_rights_are_listed_until_they_are_granted() {
        let status = UpstreamStatus::default();
        let now = Instant::now();
        status.may(OwnRight::Role, false);
        status.may(OwnRight::Info, true);
        assert_eq!(status.seen(now).missing, [OwnRight::Role]);
        status.may(OwnRight::Role, true);
        assert!(status.seen(now).missing.is_empty());
    }
}
