//! Counters: one slot per worker, written by that worker alone and summed when somebody asks.
//!
//! A worker's counter is an atomic only so that others may read it: adding is a plain load and store, never a shared
//! write. What happens outside the workers is in [`Shared`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::errors::Side;

/// A number that one thread counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts `by` more. Only the thread that the slot belongs to may call this.
    #[inline]
    pub fn add(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(by), Ordering::Relaxed);
    }

    /// Counts one less; for gauges.
    #[inline]
    pub fn sub(&self, by: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(by), Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Buckets of a power of two: relative error of a quantile at most 1/8.
const STEPS: usize = 8;
const BUCKETS: usize = 64 * STEPS;

/// Durations in nanoseconds, in buckets that grow with the value.
#[derive(Debug)]
pub struct Histogram(Box<[Counter]>);

impl Default for Histogram {
    fn default() -> Self {
        Histogram((0..BUCKETS).map(|_| Counter::default()).collect())
    }
}

impl Histogram {
    /// Counts `times` events that took `duration` each.
    #[inline]
    pub fn record(&self, duration: Duration, times: u64) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket(nanos)].add(times);
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

/// The least value that is in no lower bucket.
fn upper_bound(bucket: usize) -> u64 {
    let next = bucket + 1;
    if next < STEPS {
        return next as u64;
    }
    let (exponent, step) = (next / STEPS + 2, next % STEPS);
    ((STEPS + step) as u64).checked_shl(exponent as u32 - 3).unwrap_or(u64::MAX)
}

/// The upper bound of the `quantile` (0 to 1) of all the histograms together; zero when they are empty.
pub fn quantile<'a>(histograms: impl Iterator<Item = &'a Histogram> + Clone, quantile: f64) -> Duration {
    let total: u64 = histograms.clone().flat_map(|one| one.0.iter()).map(Counter::get).sum();
    let wanted = (total as f64 * quantile).ceil().max(1.0) as u64;
    let mut seen = 0;
    for at in 0..BUCKETS {
        seen += histograms.clone().map(|one| one.0[at].get()).sum::<u64>();
        if seen >= wanted && seen > 0 {
            return Duration::from_nanos(upper_bound(at));
        }
    }
    Duration::ZERO
}

/// Declares the counters of a worker: name and description, once.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// What one worker counts. Aligned so that two workers never write to one cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Worker {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// From the read of the request to the write of the reply, for requests answered from L1.
            pub hit: Histogram,
            /// From the send to the upstream to its reply, for reads.
            pub miss: Histogram,
        }
    };
}

counters! {
    /// Client connections open now.
    clients,
    /// Client connections accepted since the start.
    clients_accepted,
    /// Client connections closed because a limit was reached.
    clients_dropped,
    /// Requests of clients.
    commands,
    /// GETs answered from L1, and keys of MGETs answered from L1.
    l1_hits,
    /// GETs sent to Redis, and keys of MGETs sent to Redis, while caching was allowed.
    l1_misses,
    /// Values compressed.
    compressed_values,
    /// Bytes of the values that were compressed.
    compressed_bytes_in,
    /// Bytes of the envelopes that they became.
    compressed_bytes_out,
    /// Envelopes opened.
    opened_values,
    /// Envelopes that could not be opened.
    damaged_values,
    /// Commands sent to Redis.
    upstream_commands,
    /// Errors in Shortstop's own words for which the client is to blame.
    errors_client,
    /// Errors in Shortstop's own words because of Redis, or of what Redis holds.
    errors_upstream,
    /// Errors in Shortstop's own words because of Shortstop itself, its limits among it.
    errors_us,
    /// Requests answered with an error because Redis could not be asked.
    upstream_errors,
    /// Upstream connections made again after one was lost.
    upstream_reconnects,
    /// Reads sent again after a connection was lost.
    upstream_repeats,
    /// Upstream connections open now, lanes and sessions.
    upstream_connections,
    /// Private upstream connections in the hands of clients now.
    sessions,
    /// Writes whose outcome is not known, because the connection was lost before the reply.
    writes_unknown,
}

impl Worker {
    /// Counts an error in Shortstop's own words.
    pub fn count_error(&self, side: Side) {
        let counter = match side {
            Side::Client => &self.errors_client,
            Side::Upstream => &self.errors_upstream,
            Side::Us => &self.errors_us,
        };
        counter.add(1);
    }
}

/// Why everything in L1 was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushReason {
    /// A script or a function that may have written any key, here or at a peer.
    Scripts,
    /// A command that may have changed any key (FLUSHALL, FUNCTION LOAD, …), here or at a peer.
    Commands,
    /// The bus may have lost a message, or a service asked for it over NATS.
    Bus,
    /// A connection to Redis was lost, or the server is another one or has another role.
    Upstream,
    /// Everything else: changed rights, a reload, `PROXY FLUSH`.
    Other,
}

impl FlushReason {
    /// All of them, in the order in which they are declared.
    pub const ALL: [FlushReason; 5] =
        [FlushReason::Scripts, FlushReason::Commands, FlushReason::Bus, FlushReason::Upstream, FlushReason::Other];
}

/// What is counted outside the workers, or by several threads.
#[derive(Debug, Default)]
pub struct Shared {
    /// Entries made in L1.
    pub fills: AtomicU64,
    /// Values that were not kept because something happened to their key while they were fetched.
    pub fills_poisoned: AtomicU64,
    /// Entries in L1 now.
    pub entries: AtomicU64,
    /// Bytes of memory that they take.
    pub entry_bytes: AtomicU64,
    /// Entries that the eviction policy took out.
    pub evictions: AtomicU64,
    /// How often all connections to Redis moved to another server.
    pub upstream_moves: AtomicU64,
    /// Drops of everything in L1.
    pub flushes: AtomicU64,
    /// `flushes`, by [`FlushReason`].
    pub flushes_by: [AtomicU64; FlushReason::ALL.len()],
    /// Bytes in the buffers of all clients, as of each worker's last update.
    pub buffers: AtomicU64,
    /// The bound of `buffers`: `limits.buffers_total` in bytes.
    pub buffers_max: AtomicU64,
    /// Connections refused because there are too many.
    pub clients_refused: AtomicU64,
    /// Connections that ended in a panic of ours.
    pub panics: AtomicU64,
}

impl Shared {
    /// Counts a flush.
    pub fn flushed(&self, reason: FlushReason) {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        self.flushes_by[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many flushes there were for a reason.
    pub fn flushes_for(&self, reason: FlushReason) -> u64 {
        self.flushes_by[reason as usize].load(Ordering::Relaxed)
    }
}

/// All counters of one proxy.
#[derive(Debug)]
pub struct Stats {
    /// One per worker.
    pub workers: Box<[Worker]>,
    /// The rest.
    pub shared: Shared,
    /// When the proxy was started.
    pub started: Instant,
}

impl Stats {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Stats {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            shared: Shared::default(),
            started: Instant::now(),
        }
    }

    /// One counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Worker) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).get()).fold(0, u64::wrapping_add)
    }

    /// A quantile over all workers.
    pub fn quantile(&self, histogram: impl Fn(&Worker) -> &Histogram + Clone, at: f64) -> Duration {
        quantile(self.workers.iter().map(histogram), at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{BUCKETS, Histogram, bucket, quantile, upper_bound};

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
    fn quantiles_over_two() {
        let (one, two) = (Histogram::default(), Histogram::default());
        assert_eq!(quantile([&one, &two].into_iter(), 0.5), Duration::ZERO);
        one.record(Duration::from_micros(10), 98);
        two.record(Duration::from_millis(5), 2);
        let p50 = quantile([&one, &two].into_iter(), 0.5);
        let p99 = quantile([&one, &two].into_iter(), 0.99);
        assert!((10.0..11.5).contains(&(p50.as_nanos() as f64 / 1e3)), "{p50:?}");
        assert!((5.0..5.7).contains(&(p99.as_nanos() as f64 / 1e6)), "{p99:?}");
    }
}
