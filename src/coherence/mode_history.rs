//! Since when L1 has been in its mode. Whoever looks at the mode says so here; the mode itself changes by the clock, and nobody is told.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Mode;

/// The mode that was seen last, and since when.
#[derive(Debug, Default)]
pub struct ModeHistory(Mutex<Option<Since>>);

#[derive(Clone, Copy, Debug)]
struct Since {
    mode: Mode,
    began: Instant,
    /// The same, for people.
    date: SystemTime,
}

/// A mode has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Which.
    pub mode: Mode,
    /// How long it was there.
    pub lasted: Duration,
}

impl ModeHistory {
    /// This is the mode now. Returns the one that has ended with that, once.
    pub fn observe(&self, mode: Mode, now: Instant) -> Option<Ended> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *last {
            Some(known) if known.mode == mode => None,
            before => {
                *last = Some(Since { mode, began: now, date: SystemTime::now() });
                before.map(|ended| Ended { mode: ended.mode, lasted: now.saturating_duration_since(ended.began) })
            }
        }
    }

    /// When the mode that was seen last began; none: nobody has looked so far.
    pub fn since(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.date)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Ended, Mode, ModeHistory};

    #[test]
    fn each_change_is_told_once_with_the_length_of_what_was_before() {
        let history = ModeHistory::default();
        let start = Instant::now();
        let second = Duration::from_secs(1);
        assert_eq!(history.since(), None);
        assert_eq!(history.observe(Mode::Degraded, start), None);
        assert!(history.since().is_some());
        assert_eq!(history.observe(Mode::Degraded, start + second), None);
        let ended = Ended { mode: Mode::Degraded, lasted: 3 * second };
        assert_eq!(history.observe(Mode::Live, start + 3 * second), Some(ended));
        assert_eq!(history.observe(Mode::Live, start + 4 * second), None);
    }
}
