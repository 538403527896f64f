//! Shortstop inside the test's own process, started through `App::start`.

use std::net::SocketAddr;

use shortstop::app::App;
use shortstop::config::Config;

use super::{Client, Nats, Redis, field, stat, wait_until};

/// A running proxy; dropping it ends it at once.
pub struct Shortstop {
    app: App,
    upstream: SocketAddr,
}

impl Shortstop {
    /// In front of one Redis, without NATS, with `yaml` for what the test is about.
    #[track_caller]
    pub fn start(redis: &Redis, yaml: &str) -> Shortstop {
        Shortstop::to(redis.addr(), yaml)
    }

    /// In front of whatever listens at `upstream`: a fault proxy, or nothing yet.
    ///
    /// Two workers unless `yaml` says otherwise: what may go wrong between workers shows on any
    /// machine, and no machine has fewer cores than makes sense for that.
    #[track_caller]
    pub fn to(upstream: SocketAddr, yaml: &str) -> Shortstop {
        let config = config_text(upstream, yaml);
        let parsed = Config::from_yaml(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
        let app = App::start(parsed).unwrap_or_else(|error| panic!("{error}\n{config}"));
        Shortstop { app, upstream }
    }

    /// A member of a fleet on this Redis and NATS; returns when its bus is proven to be live.
    #[track_caller]
    pub fn in_fleet(redis: &Redis, nats: &Nats, yaml: &str) -> Shortstop {
        let proxy = Shortstop::start(redis, &format!("nats: {}\n{yaml}", nats.url()));
        proxy.wait_mode("live");
        proxy
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.app.addresses().plain.expect("it listens without TLS")
    }

    /// Where it listens with TLS.
    pub fn tls_addr(&self) -> SocketAddr {
        self.app.addresses().tls.expect("it listens with TLS")
    }

    /// Where its monitor listens, if the test has named an address.
    pub fn monitor(&self) -> SocketAddr {
        self.app.monitor().expect("the test has named an address")
    }

    /// A client of the proxy.
    #[track_caller]
    pub fn client(&self) -> Client {
        Client::connect(self.addr())
    }

    /// One number of `PROXY INFO`.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        stat(self.addr(), name)
    }

    /// Waits until a number of `PROXY INFO` is as `right` wants it.
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

    /// Asks for `key` until the answer comes from L1, and returns it.
    #[track_caller]
    pub fn warm(&self, client: &mut Client, key: &str) -> Vec<u8> {
        super::warm(self.addr(), client, key.as_bytes())
    }

    /// Asks a line like `"HGET k f"` until the answer comes from L1, and returns it.
    #[track_caller]
    pub fn warm_line(&self, client: &mut Client, line: &str) -> Vec<u8> {
        let request: Vec<&[u8]> = line.split_ascii_whitespace().map(str::as_bytes).collect();
        super::warm_request(self.addr(), client, &request)
    }

    /// Waits until L1 answers for `key` and keeps its entry, and returns the answer. Redis is left
    /// with another value, written around the proxy: whoever reads that did not read from L1.
    ///
    /// For a fleet, where an invalidation or a flush may still be on its way.
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

    /// Reloads with other settings, as SIGHUP does.
    #[track_caller]
    pub fn reload(&self, yaml: &str) {
        let config = config_text(self.upstream, yaml);
        let parsed = Config::from_yaml(&config).unwrap_or_else(|error| panic!("{error}\n{config}"));
        self.app.reload(&parsed).unwrap_or_else(|error| panic!("{error}\n{config}"));
    }
}

/// A config file: `yaml`, and what every test needs where `yaml` is silent.
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
