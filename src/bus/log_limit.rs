//! A rate limit for log lines about faults that can repeat at any rate.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Interval of log lines for one kind of fault.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Lets one fault through every [`LOG_EVERY`] and counts the rest.
#[derive(Debug, Default)]
pub(super) struct LogLimit(Mutex<(Option<Instant>, u64)>);

impl LogLimit {
    /// `Some(times)`: write a line that stands for this many faults.
    pub(super) fn allow(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        let now = Instant::now();
        if state.0.is_some_and(|last| now < last + LOG_EVERY) {
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

#[cfg(test)]
mod tests {
    use super::LogLimit;

    #[test]
    fn a_fault_that_repeats_is_logged_once() {
        let limit = LogLimit::default();
        assert_eq!(limit.allow(), Some(1));
        assert_eq!((0..100).filter_map(|_| limit.allow()).count(), 0);
    }
}
