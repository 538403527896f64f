//! The configuration: one struct per section, defaults, `config.yaml`, the environment.
//!
//! A flag beats the environment, the environment beats the file, the file beats the default ([`Sources`]). Each part of the
//! proxy is handed its own section; nothing here is global, and nothing here does I/O but reading the file.
//!
//! Each section tells its keys in one place (`fields`): reading, printing and lists of keys all go by that.
//! What each key means is written for its user in `config.yaml`, which parses to [`Config::default`].

mod body;
mod check;
mod error;
mod fields;
mod live;
mod print;
mod read;
mod reads;
mod restart;
mod scripts;
mod sections;
mod setting;
mod sources;
mod tree;
pub mod units;
mod url;
mod warn;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

pub use body::{CacheBody, CachePatch, Codec, CompressBody, CompressPatch, RuleBody, RuleSpec};
pub use error::{ConfigError, Finding};
pub use fields::Switch;
pub use live::Live;
pub use restart::Waiting;
pub use scripts::Scripts;
pub use sections::{Bus, ClientsWithoutAuth, Coherence, L1, Limits, Log, LogFormat, Policy, Timeouts};
pub use setting::{CONFIG_VARIABLE, DEFAULTS_VARIABLE, Setting};
pub use sources::{Loaded, Sources};
pub use units::Memory;
pub use url::{NatsLogin, NatsUrl, Secret, UpstreamUrl};

use fields::{Fields, Section};
use units::{ADDRESS, OPTIONAL_ADDRESS, SIZE, SWITCH, TEXT, TIME, count, optional_parsed, parsed};

/// All of `config.yaml`. `Debug` shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// The Redis behind.
    pub upstream: UpstreamUrl,
    /// What a client may do that has not authenticated.
    pub clients_without_auth: ClientsWithoutAuth,
    /// The bus; none: a single instance.
    pub nats: Option<NatsUrl>,
    /// Name shared by the proxies that invalidate each other; one token of a NATS subject.
    pub fleet: String,
    /// Address of the monitor's web server; accepted, but this version has no monitor.
    pub monitor: Option<SocketAddr>,
    /// Threads that serve clients; 0: one per core.
    pub workers: usize,
    /// What goes to the log.
    pub log: Log,
    /// Which feeds keep L1 right.
    pub coherence: Coherence,
    /// Bound on staleness while a feed is live; at least 1 ms.
    pub max_staleness: Duration,
    /// Bound on staleness while no feed is; zero: nothing is served from L1 then. Never above `max_staleness`.
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
    pub offload_above: usize,
    /// False: nothing is compressed anywhere; what is compressed is still opened.
    pub compression: bool,
    /// Which keys a script may write when its text does not prove it.
    pub scripts: Scripts,
    /// Allows `PROXY DEBUG`.
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

impl Section for Config {
    fn fields(&mut self, fields: &mut impl Fields) {
        let Self {
            listen,
            upstream,
            clients_without_auth,
            nats,
            fleet,
            monitor,
            workers,
            log,
            coherence,
            max_staleness,
            degraded_staleness,
            l1,
            bus,
            limits,
            timeouts,
            offload_above,
            compression,
            scripts,
            enable_debug_command,
            defaults,
            rules,
        } = self;
        fields.value("listen", listen, ADDRESS);
        fields.value("upstream", upstream, parsed());
        fields.value("clients_without_auth", clients_without_auth, parsed());
        fields.value("nats", nats, optional_parsed());
        fields.value("fleet", fleet, TEXT);
        fields.value("monitor", monitor, OPTIONAL_ADDRESS);
        fields.value("workers", workers, count());
        fields.section("log", log);
        fields.value("coherence", coherence, parsed());
        fields.value("max_staleness", max_staleness, TIME);
        fields.value("degraded_staleness", degraded_staleness, TIME);
        fields.section("l1", l1);
        fields.section("bus", bus);
        fields.section("limits", limits);
        fields.section("timeouts", timeouts);
        fields.value("offload_above", offload_above, SIZE);
        fields.value("compression", compression, SWITCH);
        fields.words("scripts", scripts, scripts::SCRIPTS);
        fields.value("enable_debug_command", enable_debug_command, SWITCH);
        fields.section("defaults", defaults);
        fields.list("rules", rules, "match");
    }
}

impl Config {
    /// Reads a configuration; what it leaves out is at its default.
    ///
    /// # Errors
    /// All that is wrong, each with line, key and what to type: what is no YAML, unknown keys, values that cannot be read, and
    /// values that cannot be. But `nats` may still come from elsewhere: [`Config::check`] looks at the whole.
    pub fn from_yaml(text: &str) -> Result<Self, ConfigError> {
        let mut sources = Sources::default();
        sources.add_yaml(text);
        sources.finish(check::fields).map(|loaded| loaded.config)
    }

    /// Everything that must hold before the proxy starts.
    ///
    /// # Errors
    /// Names the keys and what to type; no lines, since the values may not come from a file.
    pub fn check(&self) -> Result<(), ConfigError> {
        ConfigError::unless_empty(check::all(self))
    }

    /// As YAML that can be loaded again, with all keys. Passwords are shown as `***`.
    pub fn to_yaml(&self) -> String {
        print::print(&mut self.clone(), |_| None)
    }
}

#[cfg(test)]
mod tests;
