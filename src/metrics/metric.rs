//! What a metric is, and the sources from which metrics are read. Which metrics there are is in `table`.

use std::time::{Duration, Instant, SystemTime};

use super::counter::Totals;
use super::outcome::{FlushReason, ModeReason, Outcome};
use super::slots::{BusStats, Latencies, Stats};

/// A group of metrics: a section of INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// This process.
    Proxy,
    /// Its clients.
    ProxyClients,
    /// The near cache.
    L1,
    /// Values on their way to Redis and back.
    Compression,
    /// What is told and heard of writes.
    Invalidation,
    /// Redis.
    Upstream,
    /// How far L1 may be trusted.
    Coherence,
    /// How long requests take.
    Latency,
}

impl Section {
    /// All of them, in INFO's order.
    pub const ALL: [Section; 8] = [
        Section::Proxy,
        Section::ProxyClients,
        Section::L1,
        Section::Compression,
        Section::Invalidation,
        Section::Upstream,
        Section::Coherence,
        Section::Latency,
    ];

    /// Its title in INFO.
    pub fn title(self) -> &'static str {
        match self {
            Section::Proxy => "Proxy",
            Section::ProxyClients => "ProxyClients",
            Section::L1 => "L1",
            Section::Compression => "Compression",
            Section::Invalidation => "Invalidation",
            Section::Upstream => "Upstream",
            Section::Coherence => "Coherence",
            Section::Latency => "Latency",
        }
    }
}

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, from 0 at the start.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is a text.
    Text,
}

/// In what a metric is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A number of things, or a text.
    None,
    /// Bytes.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
    /// Microseconds, with three decimals.
    Microseconds,
    /// 1 means all, or as much as.
    Ratio,
}

/// A metric, whatever its value is.
#[derive(Debug)]
pub struct Metric {
    /// Where it is shown.
    pub section: Section,
    /// The name of its field in INFO. Metrics by outcome have one field for each: this name, `_`, and the outcome's name.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// In what it is measured.
    pub unit: Unit,
    /// What it says, in one line.
    pub help: &'static str,
    /// How it is read.
    pub(super) read: fn(&Sources<'_>) -> Value,
}

/// What a metric says.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Count(u64),
    /// A number, or that it is not known.
    Known(Option<u64>),
    /// A number with a part behind the point.
    Ratio(f64),
    /// A duration, in the metric's unit.
    Time(Duration),
    /// A text.
    Text(String),
    /// A number for each outcome, by its name.
    ByOutcome(Vec<(&'static str, u64)>),
}

/// What other parts know of themselves, copied for one snapshot.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This start's number.
    pub incarnation: u64,
    /// The name of the fleet.
    pub fleet: String,
    /// Where clients connect.
    pub listen: String,
    /// The upstream as it was configured, without its password.
    pub upstream: String,
    /// Lines of the log that could not be written.
    pub log_lines_dropped: u64,
    /// Bytes in the buffers of clients with `buffers_offloaded`, and their bound.
    pub buffers: (u64, u64),
    /// Bytes that values take which are being compressed or decompressed on other threads.
    pub buffers_offloaded: u64,
    /// The bounds of L1.
    pub l1_max: L1Bounds,
    /// The server that connections lead to.
    pub server: Option<Server>,
    /// Connections on which a reply is overdue.
    pub upstream_overdue: u64,
    /// Redis answers, and lets Shortstop in.
    pub upstream_up: bool,
    /// Why it did not, the last time that it did not, and how long ago that was seen.
    pub upstream_error: Option<(String, Duration)>,
    /// What Shortstop's own user may not ask, by the names of the commands.
    pub upstream_missing_rights: Vec<&'static str>,
    /// A bus is configured.
    pub nats_configured: bool,
    /// What keeps L1 right.
    pub coherence: &'static str,
    /// How far L1 may be trusted.
    pub mode: &'static str,
    /// Why.
    pub mode_reason: ModeReason,
    /// Since when.
    pub mode_since: SystemTime,
    /// How long ago the lease was renewed at least.
    pub lease_age: Option<Duration>,
    /// As configured.
    pub max_staleness: Duration,
    /// As configured.
    pub degraded_staleness: Duration,
    /// Of L1.
    pub generation: u64,
}

/// The bounds of L1.
#[derive(Clone, Copy, Debug)]
pub struct L1Bounds {
    /// In bytes.
    pub bytes: u64,
    /// In entries.
    pub entries: u64,
}

/// A server of Redis.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where it is.
    pub address: String,
    /// What it calls itself; empty: it does not say.
    pub run_id: String,
}

/// Where metrics are read.
pub struct Sources<'a> {
    /// The slots of the workers, and what is counted beside them.
    pub stats: &'a Stats,
    /// The slots of the bus.
    pub bus: &'a BusStats,
    /// What other parts know.
    pub facts: Facts,
    /// The moment.
    pub now: Instant,
}

impl Sources<'_> {
    /// How often L1 was dropped for each reason, all together.
    pub(super) fn flushes(&self) -> u64 {
        FlushReason::ALL.iter().map(|reason| self.stats.shared.flushes.get(*reason)).sum()
    }

    /// A latency: which, at which quantile, and over how long; none: since the start.
    pub(super) fn latency<T>(&self, which: impl Fn(Latencies<Totals>) -> T, window: Option<Duration>) -> T {
        which(match window {
            Some(length) => self.stats.latencies_over(self.now, length),
            None => self.stats.latencies(),
        })
    }
}
