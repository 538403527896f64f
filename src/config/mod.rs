//! The configuration: one struct per section, defaults, `config.yaml`, the environment.
//!
//! A flag beats the environment, the environment beats the file, the file beats the default. Each part of the proxy is
//! handed its own section; nothing here is global, and nothing here does I/O but [`Config::load`].
//!
//! What each key means is written for its user in `config.yaml`, which parses to [`Config::default`].

mod body;
mod check;
mod error;
mod reads;
mod scripts;
mod sections;
mod setting;
pub mod units;
mod url;
mod yaml;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

pub use body::{CacheBody, CachePatch, Codec, CompressBody, CompressPatch, RuleBody, RuleSpec, Switch};
pub use error::ConfigError;
pub use scripts::Scripts;
pub use sections::{Bus, ClientsWithoutAuth, Coherence, L1, Limits, Log, LogFormat, Policy, Timeouts};
pub use setting::Setting;
pub use units::Memory;
pub use url::{NatsUrl, Secret, UpstreamUrl};

/// All of `config.yaml`. `Debug` shows no password.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "`key: value` lines, a space after the colon")]
pub struct Config {
    /// Where clients connect.
    #[serde(deserialize_with = "yaml::address")]
    pub listen: SocketAddr,
    /// The Redis behind.
    #[serde(deserialize_with = "yaml::parsed")]
    pub upstream: UpstreamUrl,
    /// What a client may do that has not authenticated.
    #[serde(deserialize_with = "yaml::parsed")]
    pub clients_without_auth: ClientsWithoutAuth,
    /// The bus; none: a single instance.
    #[serde(deserialize_with = "yaml::optional_parsed")]
    pub nats: Option<NatsUrl>,
    /// Name shared by the proxies that invalidate each other; one token of a NATS subject.
    #[serde(deserialize_with = "yaml::text")]
    pub fleet: String,
    /// Address of the monitor's web server; accepted, but this version has no monitor.
    #[serde(deserialize_with = "yaml::optional_address")]
    pub monitor: Option<SocketAddr>,
    /// Threads that serve clients; 0: one per core.
    #[serde(deserialize_with = "yaml::number")]
    pub workers: usize,
    /// What goes to the log.
    pub log: Log,
    /// Which feeds keep L1 right.
    #[serde(deserialize_with = "yaml::parsed")]
    pub coherence: Coherence,
    /// Bound on staleness while a feed is live; at least 1 ms.
    #[serde(deserialize_with = "yaml::time")]
    pub max_staleness: Duration,
    /// Bound on staleness while no feed is; zero: nothing is served from L1 then. Never above `max_staleness`.
    #[serde(deserialize_with = "yaml::time")]
    pub degraded_staleness: Duration,
    /// Bounds of the near cache.
    pub l1: L1,
    /// Details of the bus.
    pub bus: Bus,
    /// Bounds of buffers and queues.
    pub limits: Limits,
    /// How long to wait for others.
    pub timeouts: Timeouts,
    /// Bytes above which a value is compressed and opened off the worker's thread.
    #[serde(deserialize_with = "yaml::size")]
    pub offload_above: usize,
    /// False: nothing is compressed anywhere; what is compressed is still opened.
    #[serde(deserialize_with = "yaml::switch")]
    pub compression: bool,
    /// Which keys a script may write when its text does not prove it.
    pub scripts: Scripts,
    /// Allows `PROXY DEBUG`.
    #[serde(deserialize_with = "yaml::switch")]
    pub enable_debug_command: bool,
    /// What happens to keys that no rule matches, and what rules leave out.
    pub defaults: RuleBody,
    /// First match wins.
    pub rules: Vec<RuleSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 6380)),
            upstream: UpstreamUrl::default(),
            clients_without_auth: ClientsWithoutAuth::Nobody,
            nats: None,
            fleet: "default".to_owned(),
            monitor: None,
            workers: 0,
            log: Log::default(),
            coherence: Coherence::Auto,
            max_staleness: Duration::from_secs(60),
            degraded_staleness: Duration::from_secs(1),
            l1: L1::default(),
            bus: Bus::default(),
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            offload_above: 64 << 10,
            compression: true,
            scripts: Scripts::Any,
            enable_debug_command: false,
            defaults: RuleBody::default(),
            rules: Vec::new(),
        }
    }
}

impl Config {
    /// Reads a configuration; what it leaves out is at its default.
    ///
    /// # Errors
    /// Names line, key and what to type: for what is no YAML, unknown keys, values that cannot be read, and values that
    /// no environment could make good. [`Config::check`] looks at the whole once more when all sources are applied.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let config: Self = yaml::parse(text)?;
        check::fields(&config).map_err(|error| {
            let line = yaml::line_of(text, error.at()).or_else(|| yaml::line_of(text, other_side(error.at())?));
            error.with_line(line)
        })?;
        Ok(config)
    }

    /// Reads a file, see [`Config::from_yaml`].
    ///
    /// # Errors
    /// As there, with the file's name in front; and when the file cannot be read or is not UTF-8.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigError> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|error| {
            ConfigError::new("", format!("cannot be read ({error}); type the path of a readable UTF-8 file"))
                .with_file(path)
        })?;
        Self::from_yaml(&text).map_err(|error| error.with_file(path))
    }

    /// Everything that must hold before the proxy starts; after file, environment and flags are applied.
    ///
    /// # Errors
    /// Names the key and what to type; no line, since the value may not come from the file.
    pub fn check(&self) -> Result<(), ConfigError> {
        check::fields(self)?;
        check::together(self)
    }

    /// The keys in which another configuration differs and that are only read at the start.
    pub fn waits_for_restart(&self, other: &Config) -> Vec<&'static str> {
        macro_rules! differing {
            ($($key:ident),+; changes at once: $($changes:ident),+) => {{
                // Whoever adds a key has to say which it is.
                let Config { $($key,)+ $($changes: _,)+ } = self;
                [$((*$key != other.$key).then_some(stringify!($key))),+].into_iter().flatten().collect()
            }};
        }
        differing!(
            listen, upstream, clients_without_auth, nats, fleet, monitor, workers, log, coherence, max_staleness,
            degraded_staleness, l1, bus, timeouts;
            changes at once: limits, offload_above, compression, scripts, enable_debug_command, defaults, rules
        )
    }
}

/// The other key of a pair that does not fit together, for when the first is not in the file but at its default.
fn other_side(at: &str) -> Option<&'static str> {
    match at {
        "degraded_staleness" => Some("max_staleness"),
        "timeouts.backoff_max" => Some("timeouts.backoff_min"),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
