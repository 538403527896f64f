//! Shortstop inside the test's own process, started with `App::start`.

use std::net::SocketAddr;

use shortstop::app::App;
use shortstop::config::Config;

use super::{Client, Nats, Redis, field, stat, wait_until};

/// A running Shortstop. It ends at once on drop.
pub struct Shortstop {
    app: App,
    upstream: SocketAddr,
}

impl Shortstop {
    /// In front of one Redis, without NATS. `yaml` has the settings that the test needs.
    #[track_caller]
    pub fn start(redis: &Redis, yaml: &str) -> Shortstop {
        Shortstop::to(redis.addr(), yaml)
    }

    /// In front of anything that listens at `upstream`: a fault proxy, or nothing yet.
    ///
    /// Two workers unless `yaml` says otherwise, so that faults between workers show on any machine.
    #[track_caller]
    pub fn to(upstream: SocketAddr, yaml: &str) -> Shortstop {
        let config = config_text(upstream, yaml);
        let parsed = Config::from_yaml(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
        let app = App::start(parsed).unwrap_or_else(|error| panic!("{error}\n{config}"));
        Shortstop { app, upstream }
    }

    /// A member of a fleet on this Redis and NATS. Returns when its bus is live.
    #[track_caller]
    pub fn in_fleet(redis: &Redis, nats: &Nats, yaml: &str) -> Shortstop {
        let proxy = Shortstop::start(redis, &format!("nats: {}\n{yaml}", nats.url()));
        proxy.wait_mode("live");
        proxy
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.app.addresses().plain.expect("it listens without TLS")
    }

    /// Its address for TLS.
    pub fn tls_addr(&self) -> SocketAddr {
        self.app.addresses().tls.expect("it listens with TLS")
    }

    /// The address of its monitor, if the test has named one.
    pub fn monitor(&self) -> SocketAddr {
        self.app.monitor().expect("the test has named an address")
    }

    /// A client of Shortstop.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// A number of `PROXY INFO`.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        stat(self.addr(), name)
    }

    /// Waits until a number of `PROXY INFO` satisfies `right`.
    #[track_caller]
    pub fn wait_stat(&self, name: &str, right: impl Fn(u64) -> bool) {
        wait_until(&format!("{name} of PROXY INFO, last seen at {}", self.stat(name)), || right(self.stat(name)));
    }

    /// The mode of `docs/coherence.md`: `live`, `degraded`, `single`, …
    #[track_caller]
    pub fn mode(&self) -> String {
        let info = self.client().cmd("PROXY INFO");
        field(&info, "mode").expect("PROXY INFO has the mode")
    }

    /// Waits for a mode.
    #[track_caller]
    pub fn wait_mode(&self, mode: &str) {
        wait_until(&format!("mode {mode}, first seen as {}", self.mode()), || self.mode() == mode);
    }

    /// Reads `key` until the reply comes from L1, and returns it.
    #[track_caller]
    pub fn warm(&self, client: &mut Client, key: &str) -> Vec<u8> {
        super::warm(self.addr(), client, key.as_bytes())
    }

    /// Sends a line such as `"HGET k f"` until the reply comes from L1, and returns it.
    #[track_caller]
    pub fn warm_line(&self, client: &mut Client, line: &str) -> Vec<u8> {
        let request: Vec<&[u8]> = line.split_ascii_whitespace().map(str::as_bytes).collect();
        super::warm_request(self.addr(), client, &request)
    }

    /// Waits until L1 answers for `key` and keeps its entry, and returns the reply. Redis then has another value, written directly:
    /// a client that reads that value did not read from L1.
    ///
    /// For a fleet, where an invalidation or a flush may still be in flight.
    #[track_caller]
    pub fn settle(&self, redis: &Redis, client: &mut Client, key: &str) -> Vec<u8> {
        let mut direct = redis.client();
        let mut kept = Vec::new();
        let mut round = 0;
        wait_until(&format!("{key} stays in L1"), || {
            kept = self.warm(client, key);
            round += 1;
            direct.cmd(&format!("SET {key} around{round}"));
            client.cmd(&format!("GET {key}")) == kept
        });
        kept
    }

    /// Reloads with other settings, like SIGHUP.
    #[track_caller]
    pub fn reload(&self, yaml: &str) {
        let config = config_text(self.upstream, yaml);
        let parsed = Config::from_yaml(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
        self.app.reload_from(&parsed).unwrap_or_else(|error| panic!("{error}\n{config}"));
    }
}

/// A config file: `yaml`, and the settings that every test needs where `yaml` has none.
pub fn config_text(upstream: SocketAddr, yaml: &str) -> String {
    let mut text = String::new();
    let upstream = format!("redis://{upstream}");
    for (name, value) in [("listen", "127.0.0.1:0"), ("upstream", &upstream), ("monitor", "\"\""), ("workers", "2")] {
        if !yaml.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    text + yaml
}
