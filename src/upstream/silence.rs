//! How long replies from Redis have been overdue, and since when Redis has no excuse. Knows no connection: each worker reports what
//! its own connections wait for.
//!
//! Redis has an excuse while it executes a long command, while it reports that it is busy or loading, and while clients are paused.
//! Replies that are due meanwhile are not overdue.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::journal::Journal;
use crate::metrics::outcome::EventKind;

/// A reply that is due for longer than this is overdue.
pub const OVERDUE: Duration = Duration::from_secs(1);

/// How long the reply to a request may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Delay {
    /// Redis replies as soon as it reads the request.
    #[default]
    None,
    /// Redis may execute the request for long, and serves no other client meanwhile.
    Long,
    /// The request waits for an event, and Redis serves other clients meanwhile.
    Blocks,
}

/// The state for all workers together.
#[derive(Debug)]
pub struct Silence {
    began: Instant,
    /// Milliseconds since `began` until which Redis has an excuse.
    excused: AtomicU64,
    overdue: Mutex<Overdue>,
    journal: Arc<Journal>,
}

#[derive(Debug, Default)]
struct Overdue {
    /// Connections on which a reply is overdue.
    connections: usize,
    /// Since when there are any.
    since: Option<Instant>,
}

impl Default for Silence {
    fn default() -> Self {
        Silence::new(Arc::default())
    }
}

impl Silence {
    /// Nothing is overdue so far. Changes go into the journal.
    pub fn new(journal: Arc<Journal>) -> Self {
        Silence { began: Instant::now(), excused: AtomicU64::new(0), overdue: Mutex::default(), journal }
    }

    /// Redis has an excuse until then.
    pub fn excuse(&self, until: Instant) {
        let until = self.millis(until);
        // Usually it is known already, and then no shared memory is written.
        if self.excused.load(Ordering::Relaxed) < until {
            self.excused.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// The excuse ends now.
    pub fn end_excuse(&self, now: Instant) {
        self.excused.store(self.millis(now), Ordering::Relaxed);
    }

    /// Until when Redis has or had an excuse.
    pub fn excused(&self) -> Instant {
        self.began + Duration::from_millis(self.excused.load(Ordering::Relaxed))
    }

    /// A worker had `before` connections with an overdue reply, and has `now`.
    pub fn count(&self, before: usize, now: usize) {
        if before == now {
            return;
        }
        let mut overdue = self.overdue.lock().unwrap_or_else(PoisonError::into_inner);
        overdue.connections = overdue.connections.saturating_sub(before) + now;
        match (overdue.connections, overdue.since) {
            (1.., None) => {
                overdue.since = Some(Instant::now());
                self.journal.note(EventKind::UpstreamOverdue, "replies from Redis are overdue by a second");
                tracing::warn!(
                    connections = overdue.connections,
                    "replies from Redis are overdue by a second: requests wait, and L1 serves what it may"
                );
            }
            (0, Some(since)) => {
                overdue.since = None;
                self.journal.note(EventKind::UpstreamInTime, "no reply from Redis is overdue any more");
                tracing::info!(lasted = ?since.elapsed() + OVERDUE, "no reply from Redis is overdue any more");
            }
            _ => {}
        }
    }

    /// Connections on which a reply is overdue.
    pub fn overdue(&self) -> usize {
        self.overdue.lock().unwrap_or_else(PoisonError::into_inner).connections
    }

    /// Waits until Redis has been silent without an excuse for this long, counted from now.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn lasts(&self, limit: Duration) {
        let start = Instant::now();
        loop {
            let end = self.excused().max(start) + limit;
            if Instant::now() >= end {
                return;
            }
            tokio::time::sleep_until(end.into()).await;
        }
    }

    fn millis(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use futures_util::FutureExt;

    use super::Silence;

    #[test]
    fn the_longest_excuse_holds_until_it_is_taken_back() {
        let silence = Silence::default();
        let now = Instant::now();
        silence.excuse(now + Duration::from_secs(60));
        silence.excuse(now + Duration::from_secs(5));
        assert!(silence.excused() > now + Duration::from_secs(59));
        silence.end_excuse(now);
        assert!(silence.excused() <= now);
    }

    #[tokio::test]
    async fn an_excused_silence_does_not_last() {
        let silence = Silence::default();
        assert!(silence.lasts(Duration::ZERO).now_or_never().is_some());
        silence.excuse(Instant::now() + Duration::from_secs(3600));
        assert!(silence.lasts(Duration::ZERO).now_or_never().is_none());
    }

    #[test]
    fn the_workers_are_counted_together() {
        let silence = Silence::default();
        silence.count(0, 2);
        silence.count(0, 1);
        assert_eq!(silence.overdue(), 3);
        silence.count(2, 0);
        assert_eq!(silence.overdue(), 1);
        silence.count(1, 0);
        assert_eq!(silence.overdue(), 0);
    }
}
