//! Settings that the environment and flags can change, each from one text. `sources` decides which source wins.

use std::time::Duration;

use super::compression::Compression;
use super::units::{self, Wrong};
use super::{Coherence, Config, MonitorAddress, Secret};

/// A setting that the environment or a flag can change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `listen`. Empty: none.
    Listen,
    /// `protected_mode`
    ProtectedMode,
    /// `upstream`
    Upstream,
    /// `nats`. Empty: none.
    Nats,
    /// `monitor`. Empty: none.
    Monitor,
    /// `monitor_token`
    MonitorToken,
    /// `workers`
    Workers,
    /// `fleet`
    Fleet,
    /// `log.level`
    Log,
    /// `l1.enabled`
    CacheEnabled,
    /// `defaults.cache.ttl`, in seconds or with a unit.
    CacheTtl,
    /// `l1.max_entries`
    CacheMaxSize,
    /// `compression`: a switch, or `read`.
    CompressionEnabled,
    /// False removes `nats`.
    DistributedEnabled,
    /// False removes `monitor`.
    MonitoringEnabled,
}

/// The variable that names the configuration file. `--config` beats it.
pub const CONFIG_VARIABLE: &str = "SHORTSTOP_CONFIG";

/// The variable that names a file of defaults for images and packages. Every other source beats it.
pub const DEFAULTS_VARIABLE: &str = "SHORTSTOP_DEFAULTS";

/// The variables, in the order in which they are applied. The switches come last, since they overrule addresses.
pub(super) const VARIABLES: [(&str, Setting); 15] = [
    ("SHORTSTOP_LISTEN", Setting::Listen),
    ("SHORTSTOP_PROTECTED_MODE", Setting::ProtectedMode),
    ("SHORTSTOP_MONITOR", Setting::Monitor),
    ("SHORTSTOP_MONITOR_TOKEN", Setting::MonitorToken),
    ("SHORTSTOP_WORKERS", Setting::Workers),
    ("SHORTSTOP_FLEET", Setting::Fleet),
    ("SHORTSTOP_LOG", Setting::Log),
    ("REDIS_URL", Setting::Upstream),
    ("NATS_URL", Setting::Nats),
    ("CACHE_ENABLED", Setting::CacheEnabled),
    ("CACHE_TTL", Setting::CacheTtl),
    ("CACHE_MAX_SIZE", Setting::CacheMaxSize),
    ("CACHE_COMPRESSION_ENABLED", Setting::CompressionEnabled),
    ("CACHE_DISTRIBUTED_ENABLED", Setting::DistributedEnabled),
    ("CACHE_MONITORING_ENABLED", Setting::MonitoringEnabled),
];

impl Setting {
    /// Whether an empty text is a value.
    pub(super) fn may_be_empty(self) -> bool {
        matches!(self, Setting::Nats | Setting::Monitor)
    }

    /// Changes the setting, and returns the keys that were set.
    pub(super) fn change(self, config: &mut Config, text: &str) -> Result<&'static [&'static str], Wrong> {
        Ok(match self {
            Setting::Listen => {
                config.listen = units::optional(text, units::address)?;
                &["listen"]
            }
            Setting::ProtectedMode => {
                config.protected_mode = units::switch(text)?;
                &["protected_mode"]
            }
            Setting::Upstream => {
                config.upstream = text.parse()?;
                &["upstream"]
            }
            Setting::Nats => {
                config.nats = units::optional(text, str::parse)?;
                &["nats"]
            }
            Setting::Monitor => {
                config.monitor = text.parse()?;
                &["monitor"]
            }
            Setting::MonitorToken => {
                config.monitor_token = Some(Secret::new(text));
                &["monitor_token"]
            }
            Setting::Workers => {
                config.workers = units::number(text)?;
                &["workers"]
            }
            Setting::Fleet => {
                config.fleet = text.to_owned();
                &["fleet"]
            }
            Setting::Log => {
                config.log.level = text.to_owned();
                &["log.level"]
            }
            Setting::CacheEnabled => {
                config.l1.enabled = units::switch(text)?;
                &["l1.enabled"]
            }
            Setting::CacheTtl => {
                config.defaults.cache.ttl = seconds(text)?;
                &["defaults.cache.ttl"]
            }
            Setting::CacheMaxSize => {
                config.l1.max_entries = units::number(text)?;
                &["l1.max_entries"]
            }
            Setting::CompressionEnabled => {
                config.compression = match text.to_ascii_lowercase().as_str() {
                    "read" => Compression::Read,
                    _ => Compression::of_switch(units::switch(text)?),
                };
                &["compression"]
            }
            Setting::DistributedEnabled if !units::switch(text)? => {
                config.nats = None;
                // The file's `nats` asks for what the switch has removed. The switch was set later, so it wins.
                if config.coherence == Coherence::Nats {
                    config.coherence = Coherence::Auto;
                }
                &["nats", "coherence"]
            }
            Setting::MonitoringEnabled if !units::switch(text)? => {
                config.monitor = MonitorAddress::Off;
                &["monitor"]
            }
            Setting::DistributedEnabled | Setting::MonitoringEnabled => &[],
        })
    }
}

/// `CACHE_TTL` was a number of seconds before Shortstop existed. A unit is accepted too.
fn seconds(text: &str) -> Result<Duration, Wrong> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { units::time(&format!("{text}s")) } else { units::time(text) }
}

#[cfg(test)]
mod tests {
    use super::{Config, Setting, VARIABLES};
    use crate::config::{ConfigError, Sources};

    fn applied(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut sources = Sources::default();
        sources.add_yaml("nats: nats://file:4222\nmonitor: 127.0.0.1:8083\nl1: { enabled: false }");
        sources.add_env(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned()));
        sources.done(|_| Vec::new()).map(|loaded| loaded.config)
    }

    #[test]
    fn nothing_set_changes_nothing() {
        let config = applied(&[]).expect("good");
        let empty: Vec<(&str, &str)> = VARIABLES
            .iter()
            .filter(|(_, setting)| !matches!(setting, Setting::Nats | Setting::Monitor))
            .map(|(name, _)| (*name, ""))
            .collect();
        assert_eq!(applied(&empty).expect("good"), config);
    }

    #[test]
    fn each_variable_sets_its_key() {
        type Look = fn(&Config) -> String;
        let table: &[(&str, &str, Look, &str)] = &[
            ("SHORTSTOP_LISTEN", "0.0.0.0:7000", |c| format!("{:?}", c.listen), "Some(0.0.0.0:7000)"),
            ("SHORTSTOP_PROTECTED_MODE", "no", |c| c.protected_mode.to_string(), "false"),
            ("SHORTSTOP_MONITOR", "0.0.0.0:9000", |c| c.monitor.to_string(), "0.0.0.0:9000"),
            ("SHORTSTOP_MONITOR", "", |c| c.monitor.to_string(), ""),
            ("SHORTSTOP_MONITOR_TOKEN", "s3cret", |c| format!("{:?}", c.monitor_token), "Some(***)"),
            ("SHORTSTOP_WORKERS", "3", |c| c.workers.to_string(), "3"),
            ("SHORTSTOP_FLEET", "blue", |c| c.fleet.clone(), "blue"),
            ("SHORTSTOP_LOG", "debug", |c| c.log.level.clone(), "debug"),
            ("REDIS_URL", "redis://redis:6379/2", |c| c.upstream.to_string(), "redis://redis:6379/2"),
            ("NATS_URL", "nats://nats:4222", |c| format!("{:?}", c.nats), "Some(nats://nats:4222)"),
            ("NATS_URL", "", |c| format!("{:?}", c.nats), "None"),
            ("CACHE_ENABLED", "yes", |c| c.l1.enabled.to_string(), "true"),
            ("CACHE_TTL", "3600", |c| format!("{:?}", c.defaults.cache.ttl), "3600s"),
            ("CACHE_TTL", "250ms", |c| format!("{:?}", c.defaults.cache.ttl), "250ms"),
            ("CACHE_MAX_SIZE", "1000", |c| c.l1.max_entries.to_string(), "1000"),
            ("CACHE_COMPRESSION_ENABLED", "0", |c| c.compression.to_string(), "read"),
            ("CACHE_DISTRIBUTED_ENABLED", "off", |c| format!("{:?}", c.nats), "None"),
            ("CACHE_DISTRIBUTED_ENABLED", "on", |c| format!("{:?}", c.nats), "Some(nats://file:4222)"),
            ("CACHE_MONITORING_ENABLED", "false", |c| c.monitor.to_string(), ""),
            ("CACHE_MONITORING_ENABLED", "true", |c| c.monitor.to_string(), "127.0.0.1:8083"),
        ];
        for (name, text, look, expected) in table {
            let config = applied(&[(name, text)]).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(look(&config), *expected, "{name}={text}");
        }
    }

    #[test]
    fn a_switch_overrules_an_address() {
        let config = applied(&[("CACHE_DISTRIBUTED_ENABLED", "false"), ("NATS_URL", "nats://nats")]).expect("good");
        assert_eq!(config.nats, None);

        let mut sources = Sources::default();
        sources.add_yaml("{coherence: nats, nats: nats}");
        sources.set(Setting::DistributedEnabled, "no", "CACHE_DISTRIBUTED_ENABLED");
        assert!(sources.done(|_| Vec::new()).is_ok(), "the bus is off by the user's word");
    }

    #[test]
    fn errors_name_the_variable_and_what_to_type() {
        let table = [
            ("SHORTSTOP_LISTEN", "6380", "127.0.0.1:6380"),
            ("SHORTSTOP_WORKERS", "many", "digits only"),
            ("REDIS_URL", "redis:hunter2", "redis://host:port"),
            ("NATS_URL", "http://hunter2@h", "nats://"),
            ("CACHE_ENABLED", "maybe", "true or false"),
            ("CACHE_TTL", "soon", "ms, s, m or h"),
            ("CACHE_MAX_SIZE", "10mb", "digits only"),
        ];
        for (name, text, hint) in table {
            let error = applied(&[(name, text)]).expect_err(name);
            let message = error.to_string();
            assert!(message.starts_with(&format!("{name}: ")) && message.contains(hint), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
        }
        for (name, message) in [
            ("CACHE_TTL", "CACHE_TTL: 0 is too small; type 1ms or more"),
            ("CACHE_MAX_SIZE", "CACHE_MAX_SIZE: 0 is too small; type 1 or more"),
        ] {
            assert_eq!(applied(&[(name, "0")]).expect_err(name).to_string(), message);
        }
    }
}
