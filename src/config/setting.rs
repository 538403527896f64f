//! Settings that the environment and flags can change, each from one text. Precedence is the caller's order of calls:
//! file, then environment, then flags.

use std::time::Duration;

use super::error::ConfigError;
use super::units::{self, Wrong};
use super::{Coherence, Config};

/// A setting that can be changed from outside the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// `listen`; empty: none.
    Listen,
    /// `protected_mode`
    ProtectedMode,
    /// `upstream`
    Upstream,
    /// `nats`; empty: none.
    Nats,
    /// `monitor`; empty: none.
    Monitor,
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
    /// `compression`
    CompressionEnabled,
    /// False takes `nats` away.
    DistributedEnabled,
    /// False takes `monitor` away.
    MonitoringEnabled,
}

/// The variables, in the order in which they are applied: the switches last, since they overrule addresses.
const VARIABLES: [(&str, Setting); 14] = [
    ("SHORTSTOP_LISTEN", Setting::Listen),
    ("SHORTSTOP_PROTECTED_MODE", Setting::ProtectedMode),
    ("SHORTSTOP_MONITOR", Setting::Monitor),
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

impl Config {
    /// Applies what the environment sets; `get` is `|name| std::env::var(name).ok()` in a program, a table in a test.
    ///
    /// A variable that is set but empty counts as not set, as compose files leave it; but an empty `NATS_URL` or
    /// `SHORTSTOP_MONITOR` says "none", as the empty key in the file does.
    ///
    /// # Errors
    /// Names the first variable whose text cannot be read; what came before it is applied.
    pub fn apply_env(&mut self, get: impl Fn(&str) -> Option<String>) -> Result<(), ConfigError> {
        for (name, setting) in VARIABLES {
            let empty_means_none = matches!(setting, Setting::Nats | Setting::Monitor);
            match get(name) {
                Some(text) if empty_means_none || !text.is_empty() => self.set(setting, &text, name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Changes one setting; `from` is the flag or variable, for the error.
    ///
    /// # Errors
    /// When `text` cannot be read. Limits are [`Config::check`]'s.
    pub fn set(&mut self, setting: Setting, text: &str, from: &str) -> Result<(), ConfigError> {
        self.change(setting, text).map_err(|wrong| ConfigError::new(from, wrong))
    }

    fn change(&mut self, setting: Setting, text: &str) -> Result<(), Wrong> {
        match setting {
            Setting::Listen => self.listen = units::optional(text, units::address)?,
            Setting::ProtectedMode => self.protected_mode = units::switch(text)?,
            Setting::Upstream => self.upstream = text.parse()?,
            Setting::Nats => self.nats = units::optional(text, str::parse)?,
            Setting::Monitor => self.monitor = units::optional(text, units::address)?,
            Setting::Workers => self.workers = units::number(text)?,
            Setting::Fleet => self.fleet = text.to_owned(),
            Setting::Log => self.log.level = text.to_owned(),
            Setting::CacheEnabled => self.l1.enabled = units::switch(text)?,
            Setting::CacheTtl => self.defaults.cache.ttl = seconds(text)?,
            Setting::CacheMaxSize => self.l1.max_entries = units::number(text)?,
            Setting::CompressionEnabled => self.compression = units::switch(text)?,
            Setting::DistributedEnabled => {
                if !units::switch(text)? {
                    self.nats = None;
                    // The file's `nats` asks for what was just taken away; the switch is the user's later word.
                    if self.coherence == Coherence::Nats {
                        self.coherence = Coherence::Auto;
                    }
                }
            }
            Setting::MonitoringEnabled => {
                if !units::switch(text)? {
                    self.monitor = None;
                }
            }
        }
        Ok(())
    }
}

/// `CACHE_TTL` was a number of seconds before there was a Shortstop; a unit is understood too.
fn seconds(text: &str) -> Result<Duration, Wrong> {
    let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if plain { units::time(&format!("{text}s")) } else { units::time(text) }
}

#[cfg(test)]
mod tests {
    use super::{Config, ConfigError, Setting, VARIABLES};

    fn applied(pairs: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let mut config = Config::from_yaml("nats: nats://file:4222\nmonitor: 127.0.0.1:8083\nl1: { enabled: false }")?;
        config.apply_env(|name| pairs.iter().find(|(key, _)| *key == name).map(|(_, text)| (*text).to_owned()))?;
        config.check()?;
        Ok(config)
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
            ("SHORTSTOP_MONITOR", "0.0.0.0:9000", |c| format!("{:?}", c.monitor), "Some(0.0.0.0:9000)"),
            ("SHORTSTOP_MONITOR", "", |c| format!("{:?}", c.monitor), "None"),
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
            ("CACHE_COMPRESSION_ENABLED", "0", |c| c.compression.to_string(), "false"),
            ("CACHE_DISTRIBUTED_ENABLED", "off", |c| format!("{:?}", c.nats), "None"),
            ("CACHE_DISTRIBUTED_ENABLED", "on", |c| format!("{:?}", c.nats), "Some(nats://file:4222)"),
            ("CACHE_MONITORING_ENABLED", "false", |c| format!("{:?}", c.monitor), "None"),
            ("CACHE_MONITORING_ENABLED", "true", |c| format!("{:?}", c.monitor), "Some(127.0.0.1:8083)"),
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

        let mut config = Config::from_yaml("{coherence: nats, nats: nats}").expect("good");
        config.set(Setting::DistributedEnabled, "no", "CACHE_DISTRIBUTED_ENABLED").expect("good");
        assert_eq!(config.check(), Ok(()), "the bus is off by the user's word");
    }

    #[test]
    fn errors_name_the_variable_and_what_to_type() {
        let table = [
            ("SHORTSTOP_LISTEN", "6380", "127.0.0.1:6380"),
            ("SHORTSTOP_WORKERS", "many", "digits only"),
            ("REDIS_URL", "redis:hunter2", "redis://host:port"),
            ("NATS_URL", "http://hunter2@h", "nats://"),
            ("CACHE_ENABLED", "maybe", "true or false"),
            ("CACHE_TTL", "1d", "ms, s, m or h"),
            ("CACHE_MAX_SIZE", "10mb", "digits only"),
        ];
        for (name, text, hint) in table {
            let error = applied(&[(name, text)]).expect_err(name);
            let message = error.to_string();
            assert!(message.starts_with(&format!("{name}: ")) && message.contains(hint), "{message}");
            assert!(!message.contains("hunter2"), "{message}");
            assert_eq!((error.at(), error.line()), (name, None));
        }
        assert!(applied(&[("CACHE_TTL", "0")]).is_err(), "a ttl of nothing keeps nothing");
        assert!(applied(&[("CACHE_MAX_SIZE", "0")]).is_err());
    }
}
