//! Limits of the values. They are checked only here, so that other code may rely on them.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::codec::Codec;
use crate::reads::Reads;

use super::error::Finding;
use super::fields::Switch;
use super::units::{self, Memory, Wrong};
use super::{CachePatch, Coherence, CompressPatch, Config, Scripts};

/// gzip's trailer holds a value's length in 32 bits (RFC 1952 §2.3.1).
const MAX_BULK: usize = (4 << 30) - (1 << 20);
/// A value that looks like an envelope must be compressed whatever its length, so no value is accepted that is too long to
/// compress.
const MAX_VALUE: usize = 2 << 30;
const KB: usize = 1 << 10;
const MB: usize = 1 << 20;
const MS: Duration = Duration::from_millis(1);
/// For keys without an upper bound, except the one in `units::time`.
const ANY_TIME: Duration = Duration::MAX;

/// Everything that is wrong.
pub(super) fn all(config: &Config) -> Vec<Finding> {
    let mut wrong = fields(config);
    wrong.extend(config.tls.check());
    wrong.extend(config.upstream_tls.check());
    if config.listen.is_none() && config.tls.listen.is_none() && config.listen_unix.is_none() {
        let nowhere = Wrong::new("there is no address for clients", "an address here, in tls.listen or in listen_unix");
        wrong.push(Finding::new("listen", nowhere));
    }
    if config.coherence == Coherence::Nats && config.nats.is_none() {
        let remedy = "coherence: auto, or nats: nats://127.0.0.1:4222";
        let wrong_too = Wrong::new("this needs NATS, but no NATS server is named", remedy);
        wrong.push(Finding::new("coherence", wrong_too));
    }
    wrong
}

/// The other key of two that contradict each other. It may be the wrong one.
pub(super) fn other_side(at: &str) -> Option<&'static str> {
    match at {
        "degraded_staleness" => Some("max_staleness"),
        "timeouts.backoff_max" => Some("timeouts.backoff_min"),
        _ => None,
    }
}

/// Like [`all`], except for what may still come from the environment or a flag.
pub(super) fn fields(config: &Config) -> Vec<Finding> {
    let mut check = Check(Vec::new());
    check.settings(config);
    check.limits(config);
    check.scripts(&config.scripts);
    check.cache("defaults.cache", &Switch::from(&config.defaults.cache));
    let compress = &config.defaults.compress;
    check.compress("defaults.compress", &Switch::from(compress), compress.codec);
    for (index, rule) in config.rules.iter().enumerate() {
        let at = format!("rules[{index}]");
        if rule.pattern.is_empty() {
            let remedy = "\"*\" for every key, or \"session:*\"";
            check.wrong(&format!("{at}.match"), "an empty pattern matches only the empty key", remedy);
        }
        // Fields that a rule leaves out come from the defaults, which are checked already.
        if let Some(cache) = &rule.cache {
            check.cache(&format!("{at}.cache"), cache);
        }
        if let Some(compress) = &rule.compress {
            check.compress(&format!("{at}.compress"), compress, rule.body(&config.defaults).compress.codec);
        }
    }
    check.0
}

/// The findings so far.
struct Check(Vec<Finding>);

impl Check {
    fn settings(&mut self, config: &Config) {
        self.found("fleet", token(&config.fleet));
        self.number("workers", config.workers, 0..=1024);
        self.number("warm_rate", config.warm_rate, 1..=1_000_000);
        self.number("slowlog.max_len", config.slowlog.max_len, 0..=100_000);
        self.found("log.level", log_level(&config.log.level));
        if matches!(config.coherence, Coherence::Tracking | Coherence::Both) {
            self.wrong("coherence", "this version has no tracking feed", "auto or nats");
        }
        self.time("max_staleness", config.max_staleness, MS..=ANY_TIME);
        if config.max_staleness >= MS && config.degraded_staleness > config.max_staleness {
            let [degraded, max] = [config.degraded_staleness, config.max_staleness].map(units::show_time);
            let what = format!("{degraded} is longer than max_staleness");
            self.wrong("degraded_staleness", &what, &format!("{max} or less"));
        }
        let l1 = &config.l1;
        self.size("l1.max_memory", l1.max_memory, KB..=usize::MAX);
        self.number("l1.max_entries", l1.max_entries, 1..=usize::MAX);
        self.number("l1.hot_entries", l1.hot_entries, 1..=1 << 24);
        self.size("l1.hot_max_value", l1.hot_max_value, 0..=MB);
        self.found("bus.json_subject", subject(&config.bus.json_subject));
        self.found("bus.update_subject", subject(&config.bus.update_subject));
        self.found("alerts.subject", config.alerts.subject.as_deref().map_or(Ok(()), subject));
        let timeouts = &config.timeouts;
        self.time("timeouts.connect", timeouts.connect, MS..=ANY_TIME);
        if !timeouts.reply.is_zero() {
            self.time("timeouts.reply", timeouts.reply, Duration::from_secs(1)..=ANY_TIME);
        }
        self.time("timeouts.backoff_min", timeouts.backoff_min, MS..=ANY_TIME);
        if timeouts.backoff_max < timeouts.backoff_min {
            let [max, min] = [timeouts.backoff_max, timeouts.backoff_min].map(units::show_time);
            let what = format!("{max} is shorter than backoff_min");
            self.wrong("timeouts.backoff_max", &what, &format!("{min} or more"));
        }
    }

    fn limits(&mut self, config: &Config) {
        let limits = &config.limits;
        self.size("limits.max_bulk_length", limits.max_bulk_length, KB..=MAX_VALUE);
        self.number("limits.max_arguments", limits.max_arguments, 1..=i32::MAX as usize);
        self.size("limits.max_inline_length", limits.max_inline_length, 64..=1 << 30);
        self.number("limits.max_clients", limits.max_clients, 1..=1 << 24);
        self.size("limits.output_buffer", limits.output_buffer, KB..=usize::MAX);
        match limits.buffers_total {
            Memory::Bytes(bytes) => self.size("limits.buffers_total", bytes, MB..=usize::MAX),
            Memory::Percent(share) => self.within("limits.buffers_total", share, 1..=100, |share| format!("{share}%")),
        }
        self.time("limits.stall_timeout", limits.stall_timeout, MS..=ANY_TIME);
        self.size("limits.max_inflated", limits.max_inflated, KB..=MAX_BULK);
        self.size("limits.query_buffer", limits.query_buffer, KB..=usize::MAX);
        self.number("limits.max_sessions", limits.max_sessions, 1..=1 << 24);
        self.size("limits.upstream_pending", limits.upstream_pending, KB..=usize::MAX);
    }

    fn scripts(&mut self, scripts: &Scripts) {
        let Scripts::Matching(patterns) = scripts else { return };
        if patterns.is_empty() {
            let remedy = "declared, or patterns, for example [\"bull:*\"]";
            self.wrong("scripts", "an empty list matches no key", remedy);
        }
        if patterns.iter().any(String::is_empty) {
            self.wrong("scripts", "an empty pattern matches only the empty key", "a pattern, for example \"bull:*\"");
        }
    }

    fn cache(&mut self, at: &str, cache: &Switch<CachePatch>) {
        let Switch::On(CachePatch { ttl, max_value, admit_after, negative_ttl: _, reads }) = cache else { return };
        if let Some(ttl) = *ttl {
            self.time(&format!("{at}.ttl"), ttl, MS..=ANY_TIME);
        }
        if let Some(max_value) = *max_value {
            self.size(&format!("{at}.max_value"), max_value, 1..=MAX_BULK);
        }
        if let Some(admit_after) = *admit_after {
            self.number(&format!("{at}.admit_after"), admit_after, 1..=255);
        }
        let at = format!("{at}.reads");
        match *reads {
            Some(reads) if reads.is_empty() => {
                self.wrong(&at, "an empty list keeps nothing", "cache: false, or [get, mget]");
            }
            Some(reads) if reads.contains(Reads::MGET) && !reads.contains(Reads::GET) => {
                self.wrong(&at, "mget needs get", "get as well: [get, mget]");
            }
            Some(_) | None => {}
        }
    }

    /// `codec` is the one that applies, whether it is typed here or comes from the defaults.
    fn compress(&mut self, at: &str, compress: &Switch<CompressPatch>, codec: Codec) {
        let Switch::On(CompressPatch { codec: _, level, min_size: _, min_saving }) = compress else { return };
        if let Some(level) = level.filter(|level| !codec.levels().contains(level)) {
            let (first, last) = codec.levels().into_inner();
            let what = format!("{codec} has no level {level}");
            self.wrong(&format!("{at}.level"), &what, &format!("a number from {first} (fast) to {last} (small)"));
        }
        if min_saving.is_some_and(|share| share > 99) {
            let at = format!("{at}.min_saving");
            self.wrong(&at, "no value can be compressed to nothing", "99% or less, for example 10%");
        }
    }

    fn wrong(&mut self, at: &str, what: &str, remedy: &str) {
        self.found(at, Err(Wrong::new(what, remedy)));
    }

    fn found(&mut self, at: &str, result: Result<(), Wrong>) {
        self.0.extend(result.err().map(|wrong| Finding::new(at, wrong)));
    }

    fn number<T: PartialOrd + Display + Copy>(&mut self, at: &str, value: T, range: RangeInclusive<T>) {
        self.within(at, value, range, units::show);
    }

    fn size(&mut self, at: &str, value: usize, range: RangeInclusive<usize>) {
        self.within(at, value, range, units::show_size);
    }

    fn time(&mut self, at: &str, value: Duration, range: RangeInclusive<Duration>) {
        self.within(at, value, range, units::show_time);
    }

    fn within<T: PartialOrd + Copy>(
        &mut self,
        at: &str,
        value: T,
        range: RangeInclusive<T>,
        show: impl Fn(T) -> String,
    ) {
        if value < *range.start() {
            let what = format!("{} is too small", show(value));
            self.wrong(at, &what, &format!("{} or more", show(*range.start())));
        } else if value > *range.end() {
            let what = format!("{} is too large", show(value));
            self.wrong(at, &what, &format!("{} or less", show(*range.end())));
        }
    }
}

/// The fleet's name becomes one token of a NATS subject.
fn token(text: &str) -> Result<(), Wrong> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
        let remedy = "1 to 64 letters, digits, - or _, for example default";
        return Err(Wrong::not(text, "a name that can be part of a NATS subject", remedy));
    }
    Ok(())
}

/// A NATS subject to publish to: no wildcards, no empty token, and no subject of a fleet.
fn subject(text: &str) -> Result<(), Wrong> {
    let token = |token: &str| {
        !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'*' | b'>'))
    };
    if text.len() > 256 || !text.split('.').all(token) {
        let remedy = "words with dots between them, for example cache.invalidate";
        return Err(Wrong::not(text, "a NATS subject without wildcards", remedy));
    }
    if text.starts_with("shortstop.") {
        return Err(Wrong::new(
            "subjects that begin with shortstop. are for the fleet's own messages",
            "another one, for example cache.invalidate",
        ));
    }
    Ok(())
}

/// `level` or `target=level`, comma-separated. The library would take an unknown bare word for a target and silence everything
/// else, so it is refused here.
fn log_level(text: &str) -> Result<(), Wrong> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.contains(&word.to_ascii_lowercase().as_str());
    let is_good = |directive: &str| match directive.rsplit_once('=') {
        Some((target, word)) => !target.is_empty() && !target.contains(char::is_whitespace) && is_level(word),
        None => is_level(directive),
    };
    if text.split(',').map(str::trim).all(is_good) {
        Ok(())
    } else {
        let remedy = "off, error, warn, info, debug or trace, or pairs, for example info,shortstop::bus=debug";
        Err(units::no_such_word(text, "a log level", &LEVELS, remedy))
    }
}
