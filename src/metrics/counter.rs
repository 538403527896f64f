//! A counter that one thread writes and any thread may read, and a histogram made of such counters. Adding is a plain load and
//! store. The number is atomic only so that other threads may read it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A counter that one thread writes.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `by`. Only the thread that owns the slot may call this.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Subtracts `by`, for gauges.
    #[inline]
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    /// The current number.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets per power of two: the relative error of a quantile is at most 1/8.
const STEPS: usize = 8;
const BUCKETS: usize = 64 * STEPS;

/// Durations in nanoseconds, in buckets that grow with the value, and their sum.
#[derive(Debug)]
pub struct Histogram {
    buckets: Box<[Counter]>,
    sum: Counter,
}

impl Default for Histogram {
    fn default() -> Self {
        Histogram { buckets: (0..BUCKETS).map(|_| Counter::default()).collect(), sum: Counter::default() }
    }
}

impl Histogram {
    /// Counts `times` events that took `duration` each.
    #[inline]
    pub fn record(&self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanos)].add(times);
        self.sum.add(nanos.wrapping_mul(times));
    }
}

fn bucket(nanos: u64) -> usize {
    if nanos < STEPS as u64 {
        return nanos as usize;
    }
    let exponent = nanos.ilog2() as usize;
    let step = (nanos >> (exponent - 3)) as usize & (STEPS - 1);
    (exponent - 2) * STEPS + step
}

/// The lowest value above this bucket.
fn upper_bound(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < STEPS {
        return next as u64;
    }
    let (exponent, step) = (next / STEPS + 2, next % STEPS);
    ((STEPS + step) as u64).checked_shl(exponent as u32 - 3).unwrap_or(u64::MAX)
}

/// The sums of several histograms, at one time or between two times.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Buckets that are not empty, in order, with their counts.
    counts: Vec<(u16, u64)>,
    /// Nanoseconds of all durations together.
    sum: u64,
}

impl Totals {
    /// The sums of these histograms.
    pub fn of<'a>(histograms: impl Iterator<Item = &'a Histogram> + Clone) -> Totals {
        let counts =
            (0..BUCKETS).map(|at| (at as u16, histograms.clone().map(|one| one.buckets[at].get()).sum::<u64>()));
        Totals {
            counts: counts.filter(|(_, count)| *count > 0).collect(),
            sum: histograms.clone().map(|one| one.sum.get()).fold(0, u64::wrapping_add),
        }
    }

    /// What has been counted since `earlier`.
    pub fn since(&self, earlier: &Totals) -> Totals {
        let mut before = earlier.counts.iter().peekable();
        let left = self.counts.iter().filter_map(|(at, count)| {
            while before.next_if(|(earlier, _)| earlier < at).is_some() {}
            let gone = before.next_if(|(earlier, _)| earlier == at).map_or(0, |(_, count)| *count);
            // Workers continue to count during the read, so a difference could be negative.
            Some((*at, count.saturating_sub(gone))).filter(|(_, count)| *count > 0)
        });
        Totals { counts: left.collect(), sum: self.sum.saturating_sub(earlier.sum) }
    }

    /// Both together.
    pub fn and(&self, other: &Totals) -> Totals {
        let (mut ones, mut others) = (self.counts.iter().peekable(), other.counts.iter().peekable());
        let mut counts = Vec::new();
        while let Some(at) = [ones.peek(), others.peek()].into_iter().flatten().map(|(at, _)| *at).min() {
            let next = [ones.next_if(|(one, _)| *one == at), others.next_if(|(other, _)| *other == at)];
            counts.push((at, next.into_iter().flatten().map(|(_, count)| count).sum()));
        }
        Totals { counts, sum: self.sum.wrapping_add(other.sum) }
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.counts.iter().map(|(_, count)| count).sum()
    }

    /// All durations together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }

    /// How many durations were counted up to each bound and above the one before it. A bucket counts where its upper bound is, so that
    /// a duration may be counted one bound too high, never too low.
    pub fn split(&self, bounds: &[Duration]) -> Vec<u64> {
        let mut counts = self.counts.iter().peekable();
        let below = |bound: u64| move |(at, _): &&(u16, u64)| upper_bound(usize::from(*at)) <= bound;
        bounds
            .iter()
            .map(|bound| {
                let bound = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
                std::iter::from_fn(|| counts.next_if(below(bound))).map(|(_, count)| count).sum()
            })
            .collect()
    }

    /// The upper bound of the `quantile` (0 to 1). Zero if nothing was counted.
    pub fn quantile(&self, quantile: f64) -> Duration {
        let total = self.count();
        let wanted = (total as f64 * quantile).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.counts.iter().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        found.map_or(Duration::ZERO, |(at, _)| Duration::from_nanos(upper_bound(usize::from(*at))))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Histogram, Totals, bucket, upper_bound};

    #[test]
    fn buckets_are_in_order_and_bound_their_values() {
        let near_powers = (0..64).flat_map(|exponent| [0, 1, 3].map(|more| (1u64 << exponent).saturating_add(more)));
        for value in (0..100).chain(near_powers) {
            let at = bucket(value);
            assert!(at < BUCKETS, "{value}");
            assert!(upper_bound(at) > value || upper_bound(at) == u64::MAX, "{value}");
            assert!(at == 0 || upper_bound(at - 1) <= value, "{value}");
        }
    }

    #[test]
    fn quantiles_over_two_and_since_then() {
        let (one, two) = (Histogram::default(), Histogram::default());
        let totals = || Totals::of([&one, &two].into_iter());
        assert_eq!(totals().quantile(0.5), Duration::ZERO);
        one.record(Duration::from_micros(10), 98);
        two.record(Duration::from_millis(5), 2);
        let first = totals();
        let (p50, p99) = (first.quantile(0.5), first.quantile(0.99));
        assert!((10.0..11.5).contains(&(p50.as_nanos() as f64 / 1e3)), "{p50:?}");
        assert!((5.0..5.7).contains(&(p99.as_nanos() as f64 / 1e6)), "{p99:?}");
        assert_eq!(first.since(&Totals::default()), first);
        assert_eq!(first.since(&first), Totals::default());
        two.record(Duration::from_millis(5), 1);
        one.record(Duration::from_nanos(5), 1);
        let later = totals().since(&first);
        assert_eq!((later.quantile(0.5), later.quantile(1.0)), (Duration::from_nanos(6), p99));
        assert_eq!((later.count(), later.sum()), (2, Duration::from_nanos(5_000_005)));
        let sums = Totals::of([&one].into_iter()).and(&Totals::of([&two].into_iter()));
        assert_eq!((sums, Totals::default().and(&first)), (totals(), first.clone()));
        let split = first.split(&[Duration::from_micros(5), Duration::from_micros(50), Duration::from_secs(1)]);
        assert_eq!(split, [0, 98, 2]);
    }
}
