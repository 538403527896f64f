//! The properties of a metric, and the sources from which metrics are read. `table` lists the metrics.

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
    /// Compression of values.
    Compression,
    /// Invalidations published and received.
    Invalidation,
    /// Redis.
    Upstream,
    /// How far L1 may be trusted.
    Coherence,
    /// The duration of requests.
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

/// The unit of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A plain number, or a text.
    None,
    /// Bytes.
    Bytes,
    /// Whole seconds.
    Seconds,
    /// Whole milliseconds.
    Milliseconds,
    /// Microseconds, with three decimals.
    Microseconds,
    /// A ratio. 1 means all.
    Ratio,
}

/// The definition of a metric, without its value.
#[derive(Debug)]
pub struct Metric {
    /// The section that shows it.
    pub section: Section,
    /// The name of its field in INFO. Metrics by outcome have one field each: this name, `_`, and the outcome's name.
    pub name: &'static str,
    /// Counter, gauge or text.
    pub kind: Kind,
    /// Its unit.
    pub unit: Unit,
    /// Its meaning, in one line.
    pub help: &'static str,
    /// Reads its value.
    pub(super) read: fn(&Sources<'_>) -> Value,
}

/// The value of a metric.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A number.
    Count(u64),
    /// A number, if it is known.
    Known(Option<u64>),
    /// A number with decimals.
    Ratio(f64),
    /// A duration, in the metric's unit.
    Time(Duration),
    /// A text.
    Text(String),
    /// A number for each outcome, by its name.
    ByOutcome(Vec<(&'static str, u64)>),
}

/// The state of other parts, copied for one snapshot.
#[derive(Clone, Debug)]
pub struct Facts {
    /// This start's incarnation.
    pub incarnation: u64,
    /// The name of the fleet.
    pub fleet: String,
    /// The addresses for clients.
    pub listen: String,
    /// The configured upstream, without its password.
    pub upstream: String,
    /// Bytes of memory that this process takes, if the system tells, and that are available to it.
    pub memory: (Option<u64>, u64),
    /// The names of the alerts that fire.
    pub alerts_firing: Vec<&'static str>,
    /// Log lines that could not be written.
    pub log_lines_dropped: u64,
    /// Bytes in the buffers of clients including `buffers_offloaded`, and their bound.
    pub buffers: (u64, u64),
    /// Bytes of memory that offloaded compression and decompression takes.
    pub buffers_offloaded: u64,
    /// The mode of compression in force.
    pub compression: &'static str,
    /// The bounds of L1.
    pub l1_max: L1Bounds,
    /// The server to which connections lead.
    pub server: Option<Server>,
    /// Connections on which a reply is overdue.
    pub upstream_overdue: u64,
    /// Redis answers and accepts Shortstop's login.
    pub upstream_up: bool,
    /// It does not answer because it refuses Shortstop's login.
    pub upstream_refuses_login: bool,
    /// Bytes of memory that Redis uses, if it tells.
    pub upstream_used_memory: Option<u64>,
    /// The last failure, and how long ago it was seen.
    pub upstream_error: Option<(String, Duration)>,
    /// The commands that Shortstop's own user has no right to use.
    pub upstream_missing_rights: Vec<&'static str>,
    /// A bus is configured.
    pub nats_configured: bool,
    /// The feed that keeps L1 coherent.
    pub coherence: &'static str,
    /// How far L1 may be trusted.
    pub mode: &'static str,
    /// Why L1 is in this mode.
    pub mode_reason: ModeReason,
    /// When this mode began.
    pub mode_since: SystemTime,
    /// Time since the lease was renewed, at least.
    pub lease_age: Option<Duration>,
    /// As configured.
    pub max_staleness: Duration,
    /// As configured.
    pub degraded_staleness: Duration,
    /// The generation of L1.
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

/// A Redis server.
#[derive(Clone, Debug)]
pub struct Server {
    /// Its address.
    pub address: String,
    /// Its run id. Empty if it does not tell.
    pub run_id: String,
}

/// The sources from which metrics are read.
pub struct Sources<'a> {
    /// The slots of the workers, and the shared counters.
    pub stats: &'a Stats,
    /// The slots of the bus.
    pub bus: &'a BusStats,
    /// The state of other parts.
    pub facts: Facts,
    /// The time of the snapshot.
    pub now: Instant,
}

impl Sources<'_> {
    /// Number of flushes, for all reasons together.
    pub(super) fn flushes(&self) -> u64 {
        FlushReason::ALL.iter().map(|reason| self.stats.shared.flushes.get(*reason)).sum()
    }

    /// A latency: which one, at which quantile, and over how long. `None`: since the start or the last reset.
    pub(super) fn latency<T>(&self, which: impl Fn(Latencies<Totals>) -> T, window: Option<Duration>) -> T {
        which(match window {
            Some(length) => self.stats.latencies_over(self.now, length),
            None => self.stats.latencies_since_reset(),
        })
    }
}
