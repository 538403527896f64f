//! Settings that take effect only at a restart, and why. All others take effect when the configuration is read again.

use std::collections::{BTreeMap, BTreeSet};

use super::Config;
use super::print::values;

/// A setting whose new value takes effect at the next restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The key, or the section in which at least one key has changed.
    pub key: &'static str,
    /// Completes "it waits because".
    pub why: &'static str,
}

impl Config {
    /// The configuration in force after `new` was read: `new`, except for settings that need a restart, which are returned by name.
    pub fn reloaded(&self, new: &Config) -> (Config, Vec<Waiting>) {
        let mut config = new.clone();
        let mut waiting = Vec::new();
        macro_rules! waits {
            ($($($key:ident).+: $why:literal,)+) => {
                $(if config.$($key).+ != self.$($key).+ {
                    config.$($key).+.clone_from(&self.$($key).+);
                    waiting.push(Waiting { key: concat!($(".", stringify!($key)),+).trim_start_matches('.'), why: $why });
                })+
            };
        }
        waits! {
            listen: "the address is bound once, so that no client is refused in between",
            tls.listen: "the address is bound once, so that no client is refused in between",
            listen_unix: "the socket is bound once, so that no client is refused in between",
            upstream: "connections and in-flight requests belong to the server and the user for which they were made",
            clients_without_auth: "it decided about the clients that are already connected",
            nats: "the other Shortstops know this one by its connection",
            fleet: "connections to Redis and NATS carry the name",
            data_dir: "its files are opened once",
            monitor: "the address is bound once, so that no reader is refused in between",
            workers: "each thread owns its clients and their connections to Redis",
            log.format: "the log would change its format in the middle",
            bus: "the other Shortstops know this one by its connection",
        }
        (config, waiting)
    }
}

impl Config {
    /// Whether replies that L1 has kept may not be served under `new`. True for every setting that is not known to leave them alone.
    pub fn empties_l1(&self, new: &Config) -> bool {
        let mut rest = new.clone();
        macro_rules! leave_l1_alone {
            ($($key:ident),+ $(,)?) => {
                $(rest.$key.clone_from(&self.$key);)+
            };
        }
        leave_l1_alone!(
            tls,
            protected_mode,
            upstream_tls,
            monitor_token,
            monitor_token_file,
            monitor_auth,
            monitor_hosts,
            redact_keys,
            alerts,
            warm,
            warm_rate,
            slowlog,
            log,
            limits,
            timeouts,
            offload_above,
            plain_for,
            enable_debug_command,
        );
        rest != *self
    }

    /// A secret that differs in `new`. The URL of a webhook often has one in its path.
    pub fn changed_secret(&self, new: &Config) -> Option<&'static str> {
        let differs = [
            ("monitor_token", self.monitor_token != new.monitor_token),
            ("alerts.webhook", self.alerts.webhook != new.alerts.webhook),
            ("alerts.webhook_token", self.alerts.webhook_token != new.alerts.webhook_token),
        ];
        differs.into_iter().find(|(_, differs)| *differs).map(|(key, _)| key)
    }

    /// The keys that have a secret now, and are printed as if they had none.
    pub(super) fn hidden(&self) -> impl Iterator<Item = &'static str> {
        let tokens = [("monitor_token", &self.monitor_token), ("alerts.webhook_token", &self.alerts.webhook_token)];
        tokens.into_iter().filter(|(_, token)| token.is_some()).map(|(key, _)| key)
    }

    /// What differs in `new`: each key with its former and its new value. Secrets are not shown.
    pub fn changed(&self, new: &Config) -> Vec<String> {
        let [old, now] = [self, new].map(|config| BTreeMap::from_iter(values(&mut config.clone())));
        let keys: BTreeSet<&String> = old.keys().chain(now.keys()).collect();
        let shown = |value: Option<&String>| value.map_or("not set", |value| value).to_owned();
        let differ = keys.into_iter().filter(|key| old.get(*key) != now.get(*key));
        let mut changed: Vec<String> =
            differ.map(|key| format!("{key}: {} -> {}", shown(old.get(key)), shown(now.get(key)))).collect();
        if changed.is_empty() && self != new {
            changed.push("a secret".to_owned());
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn what_has_changed_is_named_with_both_values() {
        let read = |yaml| Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
        let old = read("max_staleness: 10s\nrules: [{ match: 'a*', cache: false }]\nmonitor_token: one");
        let new = read("l1: { max_entries: 5 }\nmax_staleness: 10s\nrules: []\nmonitor_token: two");
        assert_eq!(old.changed(&old), [""; 0]);
        assert_eq!(
            old.changed(&new),
            [
                "l1.max_entries: 100000 -> 5",
                "rules: not set -> []",
                "rules[0].cache: false -> not set",
                "rules[0].match: a* -> not set"
            ]
        );
        let other = read("max_staleness: 10s\nrules: [{ match: 'a*', cache: false }]\nmonitor_token: two");
        assert_eq!(old.changed(&other), ["a secret"]);
    }

    #[test]
    fn settings_that_need_a_restart_are_named_and_keep_their_value() {
        let start = Config::default();
        for (yaml, keys) in [
            ("", &[][..]),
            ("limits: { max_clients: 7 }\nrules: [{ match: a, cache: false }]\ncompression: false", &[]),
            ("max_staleness: 5s\nl1: { max_entries: 5 }\ntimeouts: { shutdown: 1s }\nlog: { level: debug }", &[]),
            ("data_dir: /d", &["data_dir"]),
            ("listen: 127.0.0.1:1\noffload_above: 1kb", &["listen"]),
            ("tls: { listen: 127.0.0.1:1, key: k.pem }\nlisten_unix: /s", &["tls.listen", "listen_unix"]),
            ("tls: { certificate: c.pem, key: k.pem }\nupstream_tls: { ca: ca.pem }\nprotected_mode: false", &[]),
            ("workers: 3\ntimeouts: { shutdown: 1s }\nlog: { level: debug, format: json }", &["workers", "log.format"]),
        ] {
            let new = Config::from_yaml(yaml).unwrap_or_else(|error| panic!("{error}"));
            let (config, waiting) = start.reloaded(&new);
            assert_eq!(waiting.iter().map(|waiting| waiting.key).collect::<Vec<_>>(), keys, "{yaml}");
            assert_eq!((config.listen, config.workers, config.log.format), (start.listen, 0, start.log.format));
            assert_eq!((config.timeouts, config.l1, config.log.level), (new.timeouts, new.l1, new.log.level), "{yaml}");
        }
    }
}
