//! Where things are counted: one slot per worker, written by that worker alone and summed when somebody asks. What happens outside the
//! workers is in [`Shared`] and [`BusStats`]. Nothing reads a counter to decide by it.

use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::errors::Side;

use super::counter::{Counter, Histogram, Totals};
use super::outcome::{DropReason, FlushReason, NotKept, Outcome, SharedTally, Tally, UnknownWrite};
use super::window::Windows;

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
            /// Errors in Shortstop's own words.
            pub errors: Tally<Side>,
            /// Replies that were not kept.
            pub not_kept: Tally<NotKept>,
            /// Clients that were dropped.
            pub clients_dropped: Tally<DropReason>,
            /// Writes whose outcome is not known.
            pub writes_unknown: Tally<UnknownWrite>,
        }
    };
}

counters! {
    /// Client connections open now.
    clients,
    /// Client connections accepted since the start.
    clients_accepted,
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
    /// Envelopes decompressed.
    opened_values,
    /// Envelopes that could not be decompressed.
    damaged_values,
    /// Commands sent to Redis.
    upstream_commands,
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
}

/// What is counted outside the workers, or by several threads.
#[derive(Debug, Default)]
pub struct Shared {
    /// Entries made in L1.
    pub fills: AtomicU64,
    /// Entries in L1 now.
    pub entries: AtomicU64,
    /// Bytes of memory that they take.
    pub entry_bytes: AtomicU64,
    /// Entries that the eviction policy took out.
    pub evictions: AtomicU64,
    /// How often all connections to Redis moved to another server.
    pub upstream_moves: AtomicU64,
    /// Drops of everything in L1.
    pub flushes: SharedTally<FlushReason>,
    /// The last of them.
    last_flush: Mutex<Option<LastFlush>>,
    /// Connections refused because there are too many.
    pub clients_refused: AtomicU64,
    /// Connections that ended in a panic of ours.
    pub panics: AtomicU64,
}

/// A drop of everything in L1.
#[derive(Clone, Debug)]
pub struct LastFlush {
    /// When it was.
    pub at: Instant,
    /// Why, in a word.
    pub reason: FlushReason,
    /// Why, as the log says it.
    pub why: String,
}

impl Shared {
    /// Counts a flush.
    pub fn flushed(&self, reason: FlushReason, why: &str) {
        self.flushes.count(reason);
        let mut last = self.last_flush.lock().unwrap_or_else(PoisonError::into_inner);
        // The memory of the text is used again: scripts may flush often.
        let mut text = last.take().map(|last| last.why).unwrap_or_default();
        text.clear();
        text.push_str(why);
        *last = Some(LastFlush { at: Instant::now(), reason, why: text });
    }

    /// The last flush; none: there was none.
    pub fn last_flush(&self) -> Option<LastFlush> {
        self.last_flush.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counters and gauges of the bus. An event is one key, or one flush.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Events handed to NATS on the fleet's subject.
    pub published: AtomicU64,
    /// Events received from peers on the fleet's subject.
    pub received: AtomicU64,
    /// Events handed to the cache, from the fleet's subject and from the JSON subject.
    pub applied: AtomicU64,
    /// Holes seen in a peer's numbers.
    pub gaps: AtomicU64,
    /// Peers known now, lost ones included (gauge).
    pub peers: AtomicU64,
    /// Instances of the fleet that Redis shows and whose messages do not arrive (gauge).
    pub unheard: AtomicU64,
    /// Peers that have another Redis than this instance (gauge).
    pub other_upstream: AtomicU64,
    /// Connected to NATS and the inbound path proven by an echo (gauge).
    pub connected: AtomicBool,
    /// JSON messages handed to NATS.
    pub json_published: AtomicU64,
    /// JSON messages received, without those of Shortstops (this one included).
    pub json_received: AtomicU64,
    /// JSON messages that could not be understood.
    pub json_bad: AtomicU64,
    /// JSON messages that could not be sent; one `clear` makes up for them.
    pub json_dropped: AtomicU64,
    /// Messages on the fleet's subject that could not be understood.
    pub unreadable: AtomicU64,
    /// Events that were never sent on the fleet's subject: queue full, not connected, or NATS too slow.
    pub dropped: AtomicU64,
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
    windows: Mutex<Latencies<Windows>>,
}

/// Of hits, and of reads that went to Redis.
#[derive(Debug, Default)]
pub struct Latencies<T> {
    /// From the read of the request to the write of the reply, for requests answered from L1.
    pub hit: T,
    /// From the send to the upstream to its reply, for reads.
    pub miss: T,
}

impl Stats {
    /// For so many workers.
    pub fn new(workers: usize) -> Self {
        Stats {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            shared: Shared::default(),
            started: Instant::now(),
            windows: Mutex::default(),
        }
    }

    /// One counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Worker) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).get()).fold(0, u64::wrapping_add)
    }

    /// How often an outcome came, over all workers.
    pub fn tally<O: Outcome>(&self, tally: impl Fn(&Worker) -> &Tally<O>, outcome: O) -> u64 {
        self.workers.iter().map(|worker| tally(worker).get(outcome)).fold(0, u64::wrapping_add)
    }

    /// Remembers what the latencies are now, so that later windows can begin here.
    pub fn note_latencies(&self, now: Instant) {
        let Latencies { hit, miss } = self.latencies();
        let mut windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        windows.hit.note(now, hit);
        windows.miss.note(now, miss);
    }

    /// The latencies since the start.
    pub fn latencies(&self) -> Latencies<Totals> {
        Latencies {
            hit: Totals::of(self.workers.iter().map(|worker| &worker.hit)),
            miss: Totals::of(self.workers.iter().map(|worker| &worker.miss)),
        }
    }

    /// The latencies of the last `length`.
    pub fn latencies_over(&self, now: Instant, length: Duration) -> Latencies<Totals> {
        let Latencies { hit, miss } = self.latencies();
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        Latencies { hit: windows.hit.over(now, length, &hit), miss: windows.miss.over(now, length, &miss) }
    }
}
