//! The sections of `config.yaml` as plain data with their defaults. `config.yaml` explains each key to users; the comments here say
//! what code has to know. `check` has the limits of the values.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::fields::{Fields, Section};
use super::units::{self, MEMORY, Memory, OPTIONAL_PATH, SIZE, SWITCH, TEXT, TIME, Wrong, count, parsed};

/// An enum whose variants are typed as words. Upper and lower case are the same.
macro_rules! words {
    ($name:ident, $kind:literal, $remedy:literal, $($word:literal => $variant:ident),+ $(,)?) => {
        impl FromStr for $name {
            type Err = Wrong;

            fn from_str(text: &str) -> Result<Self, Wrong> {
                match text.to_ascii_lowercase().as_str() {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(units::no_such_word(text, $kind, &[$($word),+], $remedy)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl $name {
            /// The word for the variant.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}
pub(super) use words;

/// Which feeds keep L1 coherent (`docs/coherence.md`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coherence {
    /// All feeds that are available.
    #[default]
    Auto,
    /// Redis's own invalidations only. `Config::check` refuses it, since this version has no tracking feed.
    Tracking,
    /// The bus only.
    Nats,
    /// Both feeds. Refused like `Tracking`.
    Both,
    /// No feed is used, and nothing is served from L1.
    Off,
}
words!(Coherence, "a coherence mode", "auto, nats or off",
    "auto" => Auto, "tracking" => Tracking, "nats" => Nats, "both" => Both, "off" => Off);

/// What clients may do that have not authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientsWithoutAuth {
    /// What Redis allows an unauthenticated connection.
    #[default]
    Nobody,
    /// What the user in the upstream URL is allowed.
    Upstream,
}
words!(ClientsWithoutAuth, "a kind of client", "nobody or upstream", "nobody" => Nobody, "upstream" => Upstream);

/// Which entries stay in L1 when it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By frequency and recency: scans do not evict hot entries.
    #[default]
    TinyLfu,
    /// By recency alone.
    Lru,
}
words!(Policy, "an eviction policy", "tinylfu or lru", "tinylfu" => TinyLfu, "lru" => Lru);

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
words!(LogFormat, "a log format", "text or json", "text" => Text, "json" => Json);

/// The log, on stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// `info`, or `target=level` pairs, as `tracing_subscriber::EnvFilter` reads them.
    pub level: String,
    /// Text or JSON.
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

impl Section for Log {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { level, format } = self;
        fields.value("level", level, TEXT);
        fields.value("format", format, parsed());
    }
}

/// What the slow log keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowLog {
    /// Requests to Redis that take at least this long are kept. Zero: all.
    pub slower_than: Duration,
    /// Maximum number of requests. 0: none are kept.
    pub max_len: usize,
}

impl Default for SlowLog {
    fn default() -> Self {
        Self { slower_than: Duration::from_millis(10), max_len: 128 }
    }
}

impl SlowLog {
    /// From when on a request is slow. `None`: none is kept.
    pub fn limit(self) -> Option<Duration> {
        (self.max_len > 0).then_some(self.slower_than)
    }
}

impl Section for SlowLog {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { slower_than, max_len } = self;
        fields.value("slower_than", slower_than, TIME);
        fields.value("max_len", max_len, count());
    }
}

/// Bounds of the near cache and the hot sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct L1 {
    /// False: nothing is cached.
    pub enabled: bool,
    /// Total size of all entries.
    pub max_memory: usize,
    /// Number of entries.
    pub max_entries: usize,
    /// Which entries stay.
    pub policy: Policy,
    /// Slots of each worker's hot set.
    pub hot_entries: usize,
    /// Size of the largest value in a hot set.
    pub hot_max_value: usize,
}

impl Default for L1 {
    fn default() -> Self {
        Self {
            enabled: true,
            max_memory: 256 << 20,
            max_entries: 100_000,
            policy: Policy::TinyLfu,
            hot_entries: 32_768,
            hot_max_value: 1 << 10,
        }
    }
}

impl Section for L1 {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { enabled, max_memory, max_entries, policy, hot_entries, hot_max_value } = self;
        fields.value("enabled", enabled, SWITCH);
        fields.value("max_memory", max_memory, SIZE);
        fields.value("max_entries", max_entries, count());
        fields.value("policy", policy, parsed());
        fields.value("hot_entries", hot_entries, count());
        fields.value("hot_max_value", hot_max_value, SIZE);
    }
}

/// What goes over NATS beside the fleet's own subject, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bus {
    /// Exchange JSON messages with services that are not Shortstops.
    pub json: bool,
    /// The subject of the JSON messages.
    pub json_subject: String,
    /// The subject of the values that are announced.
    pub update_subject: String,
    /// A NATS `.creds` file.
    pub credentials: Option<PathBuf>,
}

impl Default for Bus {
    fn default() -> Self {
        Self {
            json: true,
            json_subject: "cache.invalidate".to_owned(),
            update_subject: "cache.update".to_owned(),
            credentials: None,
        }
    }
}

impl Section for Bus {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { json, json_subject, update_subject, credentials } = self;
        fields.value("json", json, SWITCH);
        fields.value("json_subject", json_subject, TEXT);
        fields.value("update_subject", update_subject, TEXT);
        fields.value("credentials", credentials, OPTIONAL_PATH);
    }
}

/// Bounds of every buffer and queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Size of one argument of a request.
    pub max_bulk_length: usize,
    /// Number of arguments of one request.
    pub max_arguments: usize,
    /// Size of an inline request or of a length line.
    pub max_inline_length: usize,
    /// Number of client connections.
    pub max_clients: usize,
    /// A client that is silent for this long is dropped. Zero: never.
    pub idle_timeout: Duration,
    /// Bytes of replies that wait for one client. Near this no more requests are taken from it; above it the client is dropped.
    pub output_buffer: usize,
    /// Bytes of messages that wait for a subscribed client. Above this it is dropped. Zero: only `output_buffer` counts.
    pub pubsub_buffer: usize,
    /// The same for a client that stays above this for `pubsub_buffer_time`.
    pub pubsub_buffer_soft: usize,
    /// See `pubsub_buffer_soft`.
    pub pubsub_buffer_time: Duration,
    /// Bytes in the buffers of all clients together. Near this the clients with the largest buffers are not read from.
    pub buffers_total: Memory,
    /// A client with waiting replies that reads and sends nothing for this long is dropped.
    pub stall_timeout: Duration,
    /// Bytes of an incomplete request. Above this the client is dropped.
    pub query_buffer: usize,
    /// Maximum decompressed size that an envelope may declare.
    pub max_inflated: usize,
    /// Number of private upstream connections per worker.
    pub max_sessions: usize,
    /// Bytes that wait for the upstream, per connection. Above this a request is refused.
    pub upstream_pending: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bulk_length: 512 << 20,
            max_arguments: 1_048_576,
            max_inline_length: 64 << 10,
            max_clients: 10_000,
            idle_timeout: Duration::ZERO,
            output_buffer: 1 << 30,
            pubsub_buffer: 32 << 20,
            pubsub_buffer_soft: 8 << 20,
            pubsub_buffer_time: Duration::from_secs(60),
            buffers_total: Memory::Percent(25),
            stall_timeout: Duration::from_secs(60),
            query_buffer: 1 << 30,
            max_inflated: 512 << 20,
            max_sessions: 1_000,
            upstream_pending: 256 << 20,
        }
    }
}

impl Section for Limits {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self {
            max_bulk_length,
            max_arguments,
            max_inline_length,
            max_clients,
            idle_timeout,
            output_buffer,
            pubsub_buffer,
            pubsub_buffer_soft,
            pubsub_buffer_time,
            buffers_total,
            stall_timeout,
            query_buffer,
            max_inflated,
            max_sessions,
            upstream_pending,
        } = self;
        fields.value("max_bulk_length", max_bulk_length, SIZE);
        fields.value("max_arguments", max_arguments, count());
        fields.value("max_inline_length", max_inline_length, SIZE);
        fields.value("max_clients", max_clients, count());
        fields.value("idle_timeout", idle_timeout, TIME);
        fields.value("output_buffer", output_buffer, SIZE);
        fields.value("pubsub_buffer", pubsub_buffer, SIZE);
        fields.value("pubsub_buffer_soft", pubsub_buffer_soft, SIZE);
        fields.value("pubsub_buffer_time", pubsub_buffer_time, TIME);
        fields.value("buffers_total", buffers_total, MEMORY);
        fields.value("stall_timeout", stall_timeout, TIME);
        fields.value("query_buffer", query_buffer, SIZE);
        fields.value("max_inflated", max_inflated, SIZE);
        fields.value("max_sessions", max_sessions, count());
        fields.value("upstream_pending", upstream_pending, SIZE);
    }
}

/// Timeouts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To establish an upstream connection.
    pub connect: Duration,
    /// For a reply from Redis. After it the connection is given up. Zero: no timeout.
    pub reply: Duration,
    /// Before the first attempt to reconnect.
    pub backoff_min: Duration,
    /// Maximum time between two attempts.
    pub backoff_max: Duration,
    /// For in-flight requests at shutdown. Zero: leave at once.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            reply: Duration::from_secs(60),
            backoff_min: Duration::from_millis(50),
            backoff_max: Duration::from_secs(2),
            shutdown: Duration::from_secs(10),
        }
    }
}

impl Section for Timeouts {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self { connect, reply, backoff_min, backoff_max, shutdown } = self;
        fields.value("connect", connect, TIME);
        fields.value("reply", reply, TIME);
        fields.value("backoff_min", backoff_min, TIME);
        fields.value("backoff_max", backoff_max, TIME);
        fields.value("shutdown", shutdown, TIME);
    }
}
