//! All keys of `config.yaml`, and their defaults. Each section has a file of its own. `sources` reads and checks them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::alerts::Alerts;
use super::body::{RuleBody, RuleSpec};
use super::compression::Compression;
use super::fields::{Fields, Section};
use super::monitor::{HOSTS, MonitorAddress, MonitorAuth};
use super::scripts::{self, Scripts};
use super::secret::Secret;
use super::sections::{Bus, ClientsWithoutAuth, Coherence, L1, Limits, Log, SlowLog, Timeouts};
use super::tls::{Tls, UpstreamTls};
use super::units::{
    OPTIONAL_ADDRESS, OPTIONAL_PATH, OPTIONAL_SECRET, SIZE, SWITCH, TEXT, TIME, count, optional_parsed, parsed,
};
use super::url::{NatsUrl, UpstreamUrl};

/// All of `config.yaml`. `Debug` shows no password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The address for clients. `None`: clients connect only through `tls` or `listen_unix`.
    pub listen: Option<SocketAddr>,
    /// The address for clients with TLS.
    pub tls: Tls,
    /// The Unix socket for clients.
    pub listen_unix: Option<PathBuf>,
    /// Refuse clients from other machines while no password or certificate is required.
    pub protected_mode: bool,
    /// The Redis server.
    pub upstream: UpstreamUrl,
    /// TLS to Redis, if the URL asks for it.
    pub upstream_tls: UpstreamTls,
    /// What clients may do that have not authenticated.
    pub clients_without_auth: ClientsWithoutAuth,
    /// The bus. `None` for a single instance.
    pub nats: Option<NatsUrl>,
    /// The name shared by the Shortstops that invalidate each other. One token of a NATS subject.
    pub fleet: String,
    /// Where files are kept over a restart. `None`: there are none.
    pub data_dir: Option<PathBuf>,
    /// The address of the monitor's web server.
    pub monitor: MonitorAddress,
    /// The token that the monitor requires before it changes anything. `None`: it changes nothing, unless `monitor_token_file` has a
    /// token.
    pub monitor_token: Option<Secret>,
    /// A file with the token.
    pub monitor_token_file: Option<PathBuf>,
    /// For what the token is required.
    pub monitor_auth: MonitorAuth,
    /// Names under which browsers may ask for the monitor, beside IP addresses and localhost. In lower case.
    pub monitor_hosts: Vec<String>,
    /// True: the monitor and the PROXY command show no keys.
    pub redact_keys: bool,
    /// Thresholds of alerts, and where alerts are published.
    pub alerts: Alerts,
    /// At the start, read the keys into L1 that peers name as their hottest.
    pub warm: bool,
    /// Maximum number of keys per second that a warm-up reads.
    pub warm_rate: usize,
    /// What the slow log keeps.
    pub slowlog: SlowLog,
    /// Number of threads that serve clients. 0: one per core.
    pub workers: usize,
    /// The log.
    pub log: Log,
    /// Which feeds keep L1 coherent.
    pub coherence: Coherence,
    /// Maximum staleness while a feed is live. At least 1 ms.
    pub max_staleness: Duration,
    /// Maximum staleness while no feed is live. Zero: nothing is served from L1 then. Never above `max_staleness`.
    pub degraded_staleness: Duration,
    /// Bounds of the near cache.
    pub l1: L1,
    /// Details of the bus.
    pub bus: Bus,
    /// Bounds of buffers and queues.
    pub limits: Limits,
    /// Timeouts.
    pub timeouts: Timeouts,
    /// Larger values are compressed and decompressed on another thread.
    pub offload_above: usize,
    /// Whether values are compressed, and whether stored values may be.
    pub compression: Compression,
    /// How long a string is not compressed again after it was turned to plain for a command that looks into it.
    pub plain_for: Duration,
    /// True: nothing is cached or compressed, and it is measured what that would do.
    pub observe: bool,
    /// Which keys a script may write when its text does not prove it.
    pub scripts: Scripts,
    /// Allows `PROXY DEBUG`.
    pub enable_debug_command: bool,
    /// What happens to keys that no rule matches, and the values for what rules leave out.
    pub defaults: RuleBody,
    /// First match wins.
    pub rules: Vec<RuleSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 6380))),
            tls: Tls::default(),
            listen_unix: None,
            protected_mode: true,
            upstream: UpstreamUrl::default(),
            upstream_tls: UpstreamTls::default(),
            clients_without_auth: ClientsWithoutAuth::Nobody,
            nats: None,
            fleet: "default".to_owned(),
            data_dir: None,
            monitor: MonitorAddress::Auto,
            monitor_token: None,
            monitor_token_file: None,
            monitor_auth: MonitorAuth::Changes,
            monitor_hosts: Vec::new(),
            redact_keys: false,
            alerts: Alerts::default(),
            warm: false,
            warm_rate: 2_000,
            slowlog: SlowLog::default(),
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
            compression: Compression::On,
            plain_for: Duration::from_secs(600),
            observe: false,
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
            tls,
            listen_unix,
            protected_mode,
            upstream,
            upstream_tls,
            clients_without_auth,
            nats,
            fleet,
            data_dir,
            monitor,
            monitor_token,
            monitor_token_file,
            monitor_auth,
            monitor_hosts,
            redact_keys,
            alerts,
            warm,
            warm_rate,
            slowlog,
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
            plain_for,
            observe,
            scripts,
            enable_debug_command,
            defaults,
            rules,
        } = self;
        fields.value("listen", listen, OPTIONAL_ADDRESS);
        fields.section("tls", tls);
        fields.value("listen_unix", listen_unix, OPTIONAL_PATH);
        fields.value("protected_mode", protected_mode, SWITCH);
        fields.value("upstream", upstream, parsed());
        fields.section("upstream_tls", upstream_tls);
        fields.value("clients_without_auth", clients_without_auth, parsed());
        fields.value("nats", nats, optional_parsed());
        fields.value("fleet", fleet, TEXT);
        fields.value("data_dir", data_dir, OPTIONAL_PATH);
        fields.value("monitor", monitor, parsed());
        fields.value("monitor_token", monitor_token, OPTIONAL_SECRET);
        fields.value("monitor_token_file", monitor_token_file, OPTIONAL_PATH);
        fields.value("monitor_auth", monitor_auth, parsed());
        fields.words("monitor_hosts", monitor_hosts, HOSTS);
        fields.value("redact_keys", redact_keys, SWITCH);
        fields.section("alerts", alerts);
        fields.value("warm", warm, SWITCH);
        fields.value("warm_rate", warm_rate, count());
        fields.section("slowlog", slowlog);
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
        fields.value("compression", compression, parsed());
        fields.value("plain_for", plain_for, TIME);
        fields.value("observe", observe, SWITCH);
        fields.words("scripts", scripts, scripts::SCRIPTS);
        fields.value("enable_debug_command", enable_debug_command, SWITCH);
        fields.section("defaults", defaults);
        fields.list("rules", rules, "match");
    }
}
