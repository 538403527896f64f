//! What values must be, beyond their shape. One place, so that code elsewhere may rely on it without asking again.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::error::ConfigError;
use super::units::{self, Memory, Wrong};
use crate::reads::Reads;

use super::{Coherence, Config, RuleBody, Scripts};

/// gzip's trailer holds a value's length in 32 bits (RFC 1952 §2.3.1).
const MAX_BULK: usize = (4 << 30) - (1 << 20);
/// A value that looks like an envelope must be compressed whatever its length: no longer one is accepted than can be.
const MAX_VALUE: usize = 2 << 30;
const KB: usize = 1 << 10;
const MB: usize = 1 << 20;
const MS: Duration = Duration::from_millis(1);
/// No key is meant to have an upper bound but what `units::time` lets pass.
const ANY_TIME: Duration = Duration::MAX;

/// Everything that the file alone decides; `nats` may still come from the environment or a flag.
pub(super) fn fields(config: &Config) -> Result<(), ConfigError> {
    token("fleet", &config.fleet)?;
    number("workers", config.workers, 0..=1024)?;
    log_level("log.level", &config.log.level)?;
    if matches!(config.coherence, Coherence::Tracking | Coherence::Both) {
        return Err(wrong("coherence", "this version has no tracking feed", "auto or nats"));
    }

    time("max_staleness", config.max_staleness, MS..=ANY_TIME)?;
    if config.degraded_staleness > config.max_staleness {
        let [degraded, max] = [config.degraded_staleness, config.max_staleness].map(units::show_time);
        return Err(wrong(
            "degraded_staleness",
            format!("{degraded} is longer than max_staleness"),
            format!("{max} or less"),
        ));
    }

    let l1 = &config.l1;
    size("l1.max_memory", l1.max_memory, KB..=usize::MAX)?;
    number("l1.max_entries", l1.max_entries, 1..=usize::MAX)?;
    number("l1.hot_entries", l1.hot_entries, 1..=1 << 24)?;
    size("l1.hot_max_value", l1.hot_max_value, 0..=1 << 20)?;

    subject("bus.json_subject", &config.bus.json_subject)?;

    let limits = &config.limits;
    size("limits.max_bulk_length", limits.max_bulk_length, KB..=MAX_VALUE)?;
    number("limits.max_arguments", limits.max_arguments, 1..=i32::MAX as usize)?;
    size("limits.max_inline_length", limits.max_inline_length, 64..=1 << 30)?;
    number("limits.max_clients", limits.max_clients, 1..=1 << 24)?;
    size("limits.output_buffer", limits.output_buffer, KB..=usize::MAX)?;
    match limits.buffers_total {
        Memory::Bytes(bytes) => size("limits.buffers_total", bytes, MB..=usize::MAX)?,
        Memory::Percent(share) => within("limits.buffers_total", share, 1..=100, |share| format!("{share}%"))?,
    }
    time("limits.stall_timeout", limits.stall_timeout, MS..=ANY_TIME)?;
    size("limits.max_inflated", limits.max_inflated, KB..=MAX_BULK)?;
    size("limits.query_buffer", limits.query_buffer, KB..=usize::MAX)?;
    number("limits.max_sessions", limits.max_sessions, 1..=1 << 24)?;
    size("limits.upstream_pending", limits.upstream_pending, KB..=usize::MAX)?;

    let timeouts = &config.timeouts;
    time("timeouts.connect", timeouts.connect, MS..=ANY_TIME)?;
    if !timeouts.reply.is_zero() {
        time("timeouts.reply", timeouts.reply, Duration::from_secs(1)..=ANY_TIME)?;
    }
    time("timeouts.backoff_min", timeouts.backoff_min, MS..=ANY_TIME)?;
    if timeouts.backoff_max < timeouts.backoff_min {
        let [max, min] = [timeouts.backoff_max, timeouts.backoff_min].map(units::show_time);
        return Err(wrong(
            "timeouts.backoff_max",
            format!("{max} is shorter than backoff_min"),
            format!("{min} or more"),
        ));
    }

    if let Scripts::Matching(patterns) = &config.scripts {
        if patterns.is_empty() {
            return Err(wrong(
                "scripts",
                "an empty list matches no key",
                "declared, or patterns, for example [\"bull:*\"]",
            ));
        }
        if patterns.iter().any(String::is_empty) {
            return Err(wrong(
                "scripts",
                "an empty pattern matches no key of use",
                "a pattern, for example \"bull:*\"",
            ));
        }
    }
    body("defaults", &config.defaults)?;
    for (index, rule) in config.rules.iter().enumerate() {
        let at = format!("rules[{index}]");
        if rule.pattern.is_empty() {
            return Err(wrong(
                format!("{at}.match"),
                "an empty pattern matches no key of use",
                "\"*\" for every key, or \"session:*\"",
            ));
        }
        body(&at, &rule.body(&config.defaults))?;
    }
    Ok(())
}

/// What holds only when file, environment and flags are together.
pub(super) fn together(config: &Config) -> Result<(), ConfigError> {
    if config.coherence == Coherence::Nats && config.nats.is_none() {
        return Err(wrong(
            "coherence",
            "nats is asked for, but no NATS server is named",
            "coherence: auto, or nats: nats://127.0.0.1:4222",
        ));
    }
    Ok(())
}

fn body(at: &str, body: &RuleBody) -> Result<(), ConfigError> {
    let cache = &body.cache;
    time(format!("{at}.cache.ttl"), cache.ttl, MS..=ANY_TIME)?;
    size(format!("{at}.cache.max_value"), cache.max_value, 1..=MAX_BULK)?;
    number(format!("{at}.cache.admit_after"), cache.admit_after, 1..=255)?;
    if cache.reads.is_empty() {
        return Err(wrong(format!("{at}.cache.reads"), "no command keeps nothing", "cache: false, or [get, mget]"));
    }
    if cache.reads.contains(Reads::MGET) && !cache.reads.contains(Reads::GET) {
        return Err(wrong(format!("{at}.cache.reads"), "mget keeps what get reads", "get as well: [get, mget]"));
    }
    let compress = &body.compress;
    number(format!("{at}.compress.level"), compress.level, 1..=9)?;
    if compress.min_saving > 99 {
        return Err(wrong(
            format!("{at}.compress.min_saving"),
            "nothing can be compressed to nothing",
            "99% or less, for example 10%",
        ));
    }
    Ok(())
}

fn wrong(at: impl Into<String>, what: impl Into<String>, remedy: impl Into<String>) -> ConfigError {
    ConfigError::new(at, Wrong::new(what, remedy))
}

fn number<T: PartialOrd + Display + Copy>(
    at: impl Into<String>,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), ConfigError> {
    within(at, value, range, units::show)
}

fn size(at: impl Into<String>, value: usize, range: RangeInclusive<usize>) -> Result<(), ConfigError> {
    within(at, value, range, units::show_size)
}

fn time(at: impl Into<String>, value: Duration, range: RangeInclusive<Duration>) -> Result<(), ConfigError> {
    within(at, value, range, units::show_time)
}

fn within<T: PartialOrd + Copy>(
    at: impl Into<String>,
    value: T,
    range: RangeInclusive<T>,
    show: impl Fn(T) -> String,
) -> Result<(), ConfigError> {
    if value < *range.start() {
        Err(wrong(at, format!("{} is too small", show(value)), format!("{} or more", show(*range.start()))))
    } else if value > *range.end() {
        Err(wrong(at, format!("{} is too large", show(value)), format!("{} or less", show(*range.end()))))
    } else {
        Ok(())
    }
}

/// The fleet's name becomes one token of a NATS subject.
fn token(at: &str, text: &str) -> Result<(), ConfigError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        let remedy = "1 to 64 letters, digits, - or _, for example default";
        return Err(ConfigError::new(at, Wrong::not(text, "a name that a NATS subject can carry", remedy)));
    }
    Ok(())
}

/// A NATS subject to publish to: no wildcards, no empty token, not one of the fleets' own.
fn subject(at: &str, text: &str) -> Result<(), ConfigError> {
    let token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>'))
    };
    if text.len() > 256 || !text.split('.').all(token) {
        return Err(ConfigError::new(
            at,
            Wrong::not(
                text,
                "a NATS subject without wildcards",
                "words with dots between them, for example cache.invalidate",
            ),
        ));
    }
    if text.starts_with("shortstop.") {
        return Err(wrong(
            at,
            "subjects that begin with shortstop. carry the fleet's own messages",
            "another one, for example cache.invalidate",
        ));
    }
    Ok(())
}

/// `level` or `target=level`, comma-separated. A bare word that is no level would be taken for a target and silence
/// everything else, so it is refused here.
fn log_level(at: &str, text: &str) -> Result<(), ConfigError> {
    let level = |word: &str| {
        matches!(word.to_ascii_lowercase().as_str(), "off" | "error" | "warn" | "info" | "debug" | "trace")
    };
    let good = |directive: &str| match directive.rsplit_once('=') {
        Some((target, word)) => !target.is_empty() && !target.contains(char::is_whitespace) && level(word),
        None => level(directive),
    };
    if text.split(',').map(str::trim).all(good) {
        Ok(())
    } else {
        let remedy = "off, error, warn, info, debug or trace, or pairs, for example info,shortstop::bus=debug";
        Err(ConfigError::new(at, Wrong::not(text, "a log level", remedy)))
    }
}
