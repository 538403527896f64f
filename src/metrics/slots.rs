//! The counters: one slot per worker, which only that worker writes. Reading sums the slots. [`Shared`] and [`BusStats`] count what
//! happens outside the workers. No decision depends on a counter.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::errors::Side;

use super::counter::{Counter, Histogram, Totals};
use super::journal::Journal;
use super::outcome::{
    DropReason, Durations, EventKind, Family, FlushReason, NotKept, Outcome, SharedTally, Skipped, Tally, UnknownWrite,
};
use super::rules::{RuleTotals, WorkerRules};
use super::slow_log::SlowLog;
use super::stored::Stored;
use super::window::Windows;

/// Declares the counters of a worker, with a name and a description for each.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// The counters of one worker. Aligned so that two workers never write to the same cache line.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Worker {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// Latency of requests answered from L1, from reading the request to writing the reply.
            pub hit: Histogram,
            /// Latency of reads sent to Redis, from sending the request to receiving the reply.
            pub miss: Histogram,
            /// Latency of requests sent to Redis, from reading the request to receiving the reply, by family of commands. Those that
            /// are in `miss` are left out.
            pub families: Durations<Family>,
            /// What is counted for each rule.
            pub rules: WorkerRules,
            /// Shortstop's own errors.
            pub errors: Tally<Side>,
            /// Replies that were not kept.
            pub not_kept: Tally<NotKept>,
            /// Values that a rule compresses and that were stored as they came.
            pub compression_skipped: Tally<Skipped>,
            /// Clients that were dropped.
            pub clients_dropped: Tally<DropReason>,
            /// Writes with an unknown outcome.
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
    /// Of these, those compressed with zstd.
    zstd_values,
    /// Bytes of the values that were compressed.
    compressed_bytes_in,
    /// Bytes of the resulting envelopes.
    compressed_bytes_out,
    /// Nanoseconds that compressing took, also where it did not save enough.
    compress_nanos,
    /// Nanoseconds that decompressing took.
    decode_nanos,
    /// Envelopes decompressed.
    opened_values,
    /// Envelopes replaced in Redis by their values.
    converted_values,
    /// Envelopes that could not be decompressed.
    damaged_values,
    /// Commands sent to Redis.
    upstream_commands,
    /// Requests answered with an error because Redis could not answer them.
    upstream_errors,
    /// Upstream connections opened again after one was lost.
    upstream_reconnects,
    /// Reads repeated after a connection was lost.
    upstream_repeats,
    /// Upstream connections open now, lanes and sessions.
    upstream_connections,
    /// Private upstream connections in use by clients.
    sessions,
}

/// Counters of events outside the workers, or written by several threads.
#[derive(Debug, Default)]
pub struct Shared {
    /// Entries added to L1.
    pub fills: AtomicU64,
    /// Entries in L1 now.
    pub entries: AtomicU64,
    /// Memory that they take.
    pub entry_bytes: AtomicU64,
    /// Entries that the eviction policy removed.
    pub evictions: AtomicU64,
    /// How often all connections to Redis moved to another server.
    pub upstream_moves: AtomicU64,
    /// Flushes of L1.
    pub flushes: SharedTally<FlushReason>,
    /// The last flush.
    last_flush: Mutex<Option<LastFlush>>,
    /// Connections refused because of `limits.max_clients`.
    pub clients_refused: AtomicU64,
    /// Connections that ended in a panic.
    pub panics: AtomicU64,
    /// A compressed value has come from Redis although `compression` is off.
    pub compressed_while_off: Arc<AtomicBool>,
    /// What Redis has compressed now. `None`: not known.
    pub stored: Mutex<Option<Stored>>,
    /// Clients that use Redis directly. `None`: not known.
    pub direct_clients: Mutex<Option<u64>>,
    /// The last changes of state.
    pub journal: Arc<Journal>,
    /// The last requests that took long.
    pub slow_log: SlowLog,
    /// Alerts that are posted to `alerts.webhook`.
    pub webhook: WebhookStats,
}

/// A flush of L1.
#[derive(Clone, Debug)]
pub struct LastFlush {
    /// When it happened.
    pub at: Instant,
    /// Its reason.
    pub reason: FlushReason,
    /// The text in the log.
    pub why: String,
}

impl Shared {
    /// Counts a flush.
    pub fn flushed(&self, reason: FlushReason, why: &str) {
        self.flushes.count(reason);
        self.journal.note_for(EventKind::Flush, reason.name(), why);
        let mut last = self.last_flush.lock().unwrap_or_else(PoisonError::into_inner);
        // The text's memory is reused, because scripts may flush often.
        let mut text = last.take().map(|last| last.why).unwrap_or_default();
        text.clear();
        text.push_str(why);
        *last = Some(LastFlush { at: Instant::now(), reason, why: text });
    }

    /// Counts a client that was refused. `reason` is a word, `why` a text.
    pub fn client_refused(&self, reason: &'static str, why: &str) {
        self.clients_refused.fetch_add(1, Ordering::Relaxed);
        self.journal.note_for(EventKind::ClientRefused, reason, why);
    }

    /// The last flush, if there was one.
    pub fn last_flush(&self) -> Option<LastFlush> {
        self.last_flush.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Counters and gauges of the bus. An event is one key, or one flush.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Events published on the fleet's subject.
    pub published: AtomicU64,
    /// Events received from peers on the fleet's subject.
    pub received: AtomicU64,
    /// Events applied to the cache, from the fleet's subject and from the JSON subject.
    pub applied: AtomicU64,
    /// Gaps in peers' sequence numbers.
    pub gaps: AtomicU64,
    /// Peers known now, including lost ones (gauge).
    pub peers: AtomicU64,
    /// Instances of the fleet that Redis shows and whose messages do not arrive (gauge).
    pub unheard: AtomicU64,
    /// Peers that fell silent and may still write (gauge).
    pub lost: AtomicU64,
    /// Peers that use another Redis than this Shortstop (gauge).
    pub other_upstream: AtomicU64,
    /// NATS is connected, and an echo has proven the inbound path (gauge).
    pub connected: AtomicBool,
    /// Nanoseconds from handing the last heartbeat to NATS until it had come back (gauge). 0: none has.
    pub round_trip: AtomicU64,
    /// The same of all heartbeats. Written by the receiver alone.
    pub round_trips: Histogram,
    /// JSON messages published.
    pub json_published: AtomicU64,
    /// JSON messages received from other services, without those of Shortstops (including this one).
    pub json_received: AtomicU64,
    /// JSON messages that could not be understood.
    pub json_bad: AtomicU64,
    /// JSON messages that could not be sent. One `clear` stands for them.
    pub json_dropped: AtomicU64,
    /// Values announced to services.
    pub updates_published: AtomicU64,
    /// Values that could not be announced: too many were waiting, or NATS was not connected or too slow.
    pub updates_dropped: AtomicU64,
    /// Values that are too large to be announced.
    pub updates_too_large: AtomicU64,
    /// What this instance has told of itself on the status subject.
    pub summaries_published: AtomicU64,
    /// Summaries of instances received, including those of this one.
    pub summaries_received: AtomicU64,
    /// Messages on the status subject that were no usable summary.
    pub summaries_bad: AtomicU64,
    /// Messages on the fleet's subject that could not be understood.
    pub unreadable: AtomicU64,
    /// Events that were never sent on the fleet's subject: the queue was full, NATS was not connected, or it was too slow.
    pub dropped: AtomicU64,
    /// The last changes of state.
    pub journal: Arc<Journal>,
}

/// Counters of the webhook.
#[derive(Debug, Default)]
pub struct WebhookStats {
    sent: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl WebhookStats {
    /// Counts a message that was accepted.
    pub fn sent(&self) {
        self.sent.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an attempt that failed.
    pub fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a message that was given up.
    pub fn dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Messages that were accepted, attempts that failed, and messages that were given up.
    pub fn counts(&self) -> [u64; 3] {
        [&self.sent, &self.failed, &self.dropped].map(|count| count.load(Ordering::Relaxed))
    }
}

/// All counters of one Shortstop.
#[derive(Debug)]
pub struct Stats {
    /// One per worker.
    pub workers: Box<[Worker]>,
    /// The other counters.
    pub shared: Shared,
    /// When Shortstop was started.
    pub started: Instant,
    windows: Mutex<Latencies<Windows>>,
    before: Mutex<Option<Before>>,
}

/// What had been counted when the counters last began anew.
#[derive(Debug)]
struct Before {
    /// The numbers of each metric.
    counted: Arc<[Vec<u64>]>,
    latencies: Latencies<Totals>,
    families: Vec<Totals>,
    rules: RuleTotals,
}

/// Latencies of hits, and of reads that went to Redis.
#[derive(Debug, Default)]
pub struct Latencies<T> {
    /// Requests answered from L1, from reading the request to writing the reply.
    pub hit: T,
    /// Reads sent to Redis, from sending the request to receiving the reply.
    pub miss: T,
}

impl Stats {
    /// For this number of workers.
    pub fn new(workers: usize) -> Self {
        Stats {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            shared: Shared::default(),
            started: Instant::now(),
            windows: Mutex::default(),
            before: Mutex::default(),
        }
    }

    /// The sum of one counter over all workers.
    pub fn sum(&self, counter: impl Fn(&Worker) -> &Counter) -> u64 {
        self.workers.iter().map(|worker| counter(worker).get()).fold(0, u64::wrapping_add)
    }

    /// The count of an outcome over all workers.
    pub fn tally<O: Outcome>(&self, tally: impl Fn(&Worker) -> &Tally<O>, outcome: O) -> u64 {
        self.workers.iter().map(|worker| tally(worker).get(outcome)).fold(0, u64::wrapping_add)
    }

    /// Stores the current latencies, so that later windows can begin here.
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

    /// The latency of a family of commands since the start.
    pub fn family(&self, family: Family) -> Totals {
        let totals = Totals::of(self.workers.iter().map(|worker| worker.families.get(family)));
        match family {
            Family::Read => totals.and(&Totals::of(self.workers.iter().map(|worker| &worker.miss))),
            _ => totals,
        }
    }

    /// Counters begin anew: these are the numbers of each metric now.
    pub(super) fn reset(&self, counted: Vec<Vec<u64>>) {
        let families = Family::ALL.iter().map(|family| self.family(*family)).collect();
        let rules = self.rules();
        let before = Before { counted: counted.into(), latencies: self.latencies(), families, rules };
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
    }

    /// The numbers of each metric when the counters last began anew.
    pub(super) fn counted_before(&self) -> Option<Arc<[Vec<u64>]>> {
        let before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        before.as_ref().map(|before| Arc::clone(&before.counted))
    }

    /// The latencies since the counters last began anew.
    pub(super) fn latencies_since_reset(&self) -> Latencies<Totals> {
        let Latencies { hit, miss } = self.latencies();
        match &*self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Latencies { hit, miss },
            Some(Before { latencies, .. }) => {
                Latencies { hit: hit.since(&latencies.hit), miss: miss.since(&latencies.miss) }
            }
        }
    }

    /// The latency of a family of commands since the counters last began anew.
    pub(super) fn family_since_reset(&self, family: Family) -> Totals {
        let totals = self.family(family);
        match &*self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            None => totals,
            Some(before) => totals.since(&before.families[family.place()]),
        }
    }

    /// What was counted for each rule since the start.
    pub fn rules(&self) -> RuleTotals {
        RuleTotals::of(self.workers.iter().map(|worker| &worker.rules))
    }

    /// What was counted for each rule since the counters last began anew.
    pub fn rules_since_reset(&self) -> RuleTotals {
        let totals = self.rules();
        match &*self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            None => totals,
            Some(before) => totals.since(&before.rules),
        }
    }

    /// The workers will have these rules. Call this before they do.
    pub fn rules_change(&self, patterns: &[Box<str>]) {
        if let Some(before) = &mut *self.before.lock().unwrap_or_else(PoisonError::into_inner) {
            before.rules.keep_only(patterns);
        }
    }

    /// The latencies of the last `length`.
    pub fn latencies_over(&self, now: Instant, length: Duration) -> Latencies<Totals> {
        let Latencies { hit, miss } = self.latencies();
        let windows = self.windows.lock().unwrap_or_else(PoisonError::into_inner);
        Latencies { hit: windows.hit.over(now, length, &hit), miss: windows.miss.over(now, length, &miss) }
    }
}
