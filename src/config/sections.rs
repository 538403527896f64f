//! The sections of `config.yaml` as plain data with their defaults. What each key means to a user is written in
//! `config.yaml`; here stands what code has to know. Limits of the values are in `check`.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;

use super::units::{Memory, Wrong};
use super::yaml;

/// An enum whose variants are typed as words.
macro_rules! words {
    ($name:ident, $kind:literal, $remedy:literal, $($word:literal => $variant:ident),+ $(,)?) => {
        impl FromStr for $name {
            type Err = Wrong;

            fn from_str(text: &str) -> Result<Self, Wrong> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(Wrong::not(text, $kind, $remedy)),
                }
            }
        }

        impl $name {
            /// The word that is typed for it.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }
        }
    };
}
pub(super) use words;

/// What keeps L1 right (COHERENCE §4–6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Coherence {
    /// All feeds that can be had.
    #[default]
    Auto,
    /// Redis's own invalidations only; refused by `Config::check`, since this version has no tracking feed.
    Tracking,
    /// The bus only.
    Nats,
    /// Both feeds; refused as `Tracking` is.
    Both,
    /// No feed is listened to and nothing is served from L1.
    Off,
}
words!(Coherence, "a coherence mode", "auto, nats or off",
    "auto" => Auto, "tracking" => Tracking, "nats" => Nats, "both" => Both, "off" => Off);

/// What a client may do that has not authenticated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientsWithoutAuth {
    /// What Redis lets a connection do that has not authenticated.
    #[default]
    Nobody,
    /// What the user of the upstream URL may.
    Upstream,
}
words!(ClientsWithoutAuth, "a kind of client", "nobody or upstream", "nobody" => Nobody, "upstream" => Upstream);

/// Who stays in L1 when it is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// By frequency and recency: scans do not flush what is hot.
    #[default]
    TinyLfu,
    /// By recency alone.
    Lru,
}
words!(Policy, "an eviction policy", "tinylfu or lru", "tinylfu" => TinyLfu, "lru" => Lru);

/// The shape of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}
words!(LogFormat, "a log format", "text or json", "text" => Text, "json" => Json);

/// What goes to the log, on stderr.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct Log {
    /// `info`, or `target=level` pairs, as `tracing_subscriber::EnvFilter` reads them.
    #[serde(deserialize_with = "yaml::text")]
    pub level: String,
    /// Text or JSON.
    #[serde(deserialize_with = "yaml::parsed")]
    pub format: LogFormat,
}

impl Default for Log {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}

/// Bounds of the near cache and the hot sets.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct L1 {
    /// False: nothing is cached.
    #[serde(deserialize_with = "yaml::switch")]
    pub enabled: bool,
    /// Bytes of all entries.
    #[serde(deserialize_with = "yaml::size")]
    pub max_memory: usize,
    /// Number of entries.
    #[serde(deserialize_with = "yaml::number")]
    pub max_entries: usize,
    /// Who stays.
    #[serde(deserialize_with = "yaml::parsed")]
    pub policy: Policy,
    /// Slots of each worker's hot set.
    #[serde(deserialize_with = "yaml::number")]
    pub hot_entries: usize,
    /// Bytes of the largest value in a hot set.
    #[serde(deserialize_with = "yaml::size")]
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

/// What goes over NATS beside the fleet's own subject, and how to log in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct Bus {
    /// Speak the JSON of services that are not proxies, both ways.
    #[serde(deserialize_with = "yaml::switch")]
    pub json: bool,
    /// Its subject.
    #[serde(deserialize_with = "yaml::text")]
    pub json_subject: String,
    /// A NATS `.creds` file.
    #[serde(deserialize_with = "yaml::optional_path")]
    pub credentials: Option<PathBuf>,
}

impl Default for Bus {
    fn default() -> Self {
        Self { json: true, json_subject: "cache.invalidate".to_owned(), credentials: None }
    }
}

/// Bounds of every buffer and queue.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct Limits {
    /// Bytes of one argument of a request.
    #[serde(deserialize_with = "yaml::size")]
    pub max_bulk_length: usize,
    /// Arguments of one request.
    #[serde(deserialize_with = "yaml::number")]
    pub max_arguments: usize,
    /// Bytes of an inline request or of a length line.
    #[serde(deserialize_with = "yaml::size")]
    pub max_inline_length: usize,
    /// Client connections at once.
    #[serde(deserialize_with = "yaml::number")]
    pub max_clients: usize,
    /// A client silent for this long is dropped; zero: never.
    #[serde(deserialize_with = "yaml::time")]
    pub idle_timeout: Duration,
    /// Bytes of replies waiting for one client; near this no more requests are taken from it, above it is dropped.
    #[serde(deserialize_with = "yaml::size")]
    pub output_buffer: usize,
    /// Bytes in the buffers of all clients together; near this the clients with the largest buffers are not read from.
    #[serde(deserialize_with = "yaml::memory")]
    pub buffers_total: Memory,
    /// A client with replies waiting that takes nothing and sends nothing for this long is dropped.
    #[serde(deserialize_with = "yaml::time")]
    pub stall_timeout: Duration,
    /// Bytes of what a client has sent and that is not a whole request yet; above, it is dropped.
    #[serde(deserialize_with = "yaml::size")]
    pub query_buffer: usize,
    /// Bytes that an envelope may declare to open to.
    #[serde(deserialize_with = "yaml::size")]
    pub max_inflated: usize,
    /// Private upstream connections at once, per worker.
    #[serde(deserialize_with = "yaml::number")]
    pub max_sessions: usize,
    /// Bytes waiting for the upstream, per connection; above, a request is refused.
    #[serde(deserialize_with = "yaml::size")]
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
            buffers_total: Memory::Percent(25),
            stall_timeout: Duration::from_secs(60),
            query_buffer: 1 << 30,
            max_inflated: 512 << 20,
            max_sessions: 1_000,
            upstream_pending: 256 << 20,
        }
    }
}

/// How long to wait for others.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines below it")]
pub struct Timeouts {
    /// For an upstream connection to be taken.
    #[serde(deserialize_with = "yaml::time")]
    pub connect: Duration,
    /// For a reply from Redis; above, the connection is given up. Zero: for ever.
    #[serde(deserialize_with = "yaml::time")]
    pub reply: Duration,
    /// Before the first attempt to connect again.
    #[serde(deserialize_with = "yaml::time")]
    pub backoff_min: Duration,
    /// Between attempts, at most.
    #[serde(deserialize_with = "yaml::time")]
    pub backoff_max: Duration,
    /// For what is under way at shutdown; zero: leave at once.
    #[serde(deserialize_with = "yaml::time")]
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
