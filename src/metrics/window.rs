//! Latency over the last minutes: stores the histograms' sums at certain times, so that differences can be taken. A timer calls
//! [`Windows::note`] every few seconds. The workers do not know of it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::counter::Totals;

/// Interval of [`Windows::note`]. A window is longer than its name says by at most this.
pub const EVERY: Duration = Duration::from_secs(5);

/// The longest window.
const LONGEST: Duration = Duration::from_secs(600);

/// The sums at certain times, the oldest first.
#[derive(Debug, Default)]
pub struct Windows(VecDeque<(Instant, Totals)>);

impl Windows {
    /// Stores the sums of this moment.
    pub fn note(&mut self, now: Instant, totals: Totals) {
        self.0.push_back((now, totals));
        // The longest window begins at the newest of those that are older than it.
        while self.0.get(1).is_some_and(|(at, _)| now.saturating_duration_since(*at) >= LONGEST) {
            self.0.pop_front();
        }
    }

    /// What was counted in the last `length`, or since the start if that is shorter.
    pub fn over(&self, now: Instant, length: Duration, totals: &Totals) -> Totals {
        let begins = self.0.iter().rev().find(|(at, _)| now.saturating_duration_since(*at) >= length);
        begins.map_or_else(|| totals.clone(), |(_, earlier)| totals.since(earlier))
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::counter::{Histogram, Totals};
    use super::{EVERY, LONGEST, Windows};

    #[test]
    fn a_window_forgets_what_was_before_it() {
        let histogram = Histogram::default();
        let totals = || Totals::of([&histogram].into_iter());
        let mut windows = Windows::default();
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        histogram.record(Duration::from_millis(100), 1000);
        assert_eq!(windows.over(start, minute, &totals()), totals(), "since the start");
        windows.note(start, totals());
        histogram.record(Duration::from_micros(100), 10);
        let (p50, now) = (|length, now| windows.over(now, length, &totals()).quantile(0.5), start + minute);
        assert!(p50(minute, now) < Duration::from_millis(1));
        assert!(p50(LONGEST, now) > Duration::from_millis(90), "that window is longer than it runs");
        // A time without a note, for example while the machine sleeps, makes a window longer but never wrong.
        assert!(p50(minute, start + LONGEST * 2) < Duration::from_millis(1));
    }

    #[test]
    fn no_more_is_remembered_than_the_longest_window_needs() {
        let mut windows = Windows::default();
        let start = Instant::now();
        (0..1000).for_each(|round| windows.note(start + EVERY * round, Totals::default()));
        let most = LONGEST.as_secs() / EVERY.as_secs() + 1;
        assert_eq!(windows.0.len() as u64, most);
    }
}
