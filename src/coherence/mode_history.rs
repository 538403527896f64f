//! Since when L1 has been in its current mode. The mode changes with the clock, without an event, so any code that reads the mode
//! reports it here.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::Mode;

/// The mode that was observed last, and since when.
#[derive(Debug, Default)]
pub struct ModeHistory(Mutex<Option<Since>>);

#[derive(Clone, Copy, Debug)]
struct Since {
    mode: Mode,
    began: Instant,
    /// The same moment as wall-clock time.
    date: SystemTime,
}

/// A mode that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The mode.
    pub mode: Mode,
    /// How long it lasted.
    pub lasted: Duration,
}

impl ModeHistory {
    /// Reports the current mode. If it has changed, returns the mode that ended.
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

    /// When the current mode began. `None` if no mode was reported so far.
    pub fn since(&self) -> Option<SystemTime> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).map(|last| last.date)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Ended, Mode, ModeHistory};

    #[test]
    fn each_change_is_reported_once_with_the_length_of_the_former_mode() {
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
