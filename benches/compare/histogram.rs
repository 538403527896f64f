//! Durations counted into buckets that are 3 % wide. Fixed size, no allocation while counting.

use std::time::Duration;

/// Buckets per doubling: 1/32 ≈ 3 %.
const PER_DOUBLING_BITS: u32 = 5;
/// Enough for every `u64` of nanoseconds.
const BUCKETS: usize = (64 - PER_DOUBLING_BITS as usize) << PER_DOUBLING_BITS;

/// Counts of durations.
pub struct Histogram {
    counts: Box<[u64; BUCKETS]>,
    total: u64,
}

impl Histogram {
    /// Empty.
    pub fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }

    /// Counts one. Durations over 584 years count as that.
    pub fn add(&mut self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)] += 1;
        self.total += 1;
    }

    /// The duration that this share (0.5, 0.99) of all stayed within, as the lower edge of its bucket; zero when empty.
    pub fn percentile(&self, share: f64) -> Duration {
        let wanted = (self.total as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted && seen > 0 {
                return Duration::from_nanos(lower_edge(index));
            }
        }
        Duration::ZERO
    }
}

/// Below 2⁵ each value has its own bucket; above, the highest bit picks the doubling and the next five the bucket.
fn bucket(nanos: u64) -> usize {
    let top = 63 - (nanos | 1).leading_zeros();
    let shift = top.saturating_sub(PER_DOUBLING_BITS);
    // With shift > 0 the shifted value lies in 32..64, so the doublings follow each other without a gap.
    ((shift as usize) << PER_DOUBLING_BITS) + (nanos >> shift) as usize
}

fn lower_edge(index: usize) -> u64 {
    let per_doubling = 1 << PER_DOUBLING_BITS;
    let shift = (index >> PER_DOUBLING_BITS).saturating_sub(1);
    if index < per_doubling { index as u64 } else { ((index - (shift << PER_DOUBLING_BITS)) as u64) << shift }
}
