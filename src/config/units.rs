//! Parses texts to values: sizes, times, percentages, switches, numbers, addresses. Also shows values in messages.
//!
//! One function per kind, used for `config.yaml`, the environment and flags, so that a text means the same everywhere. Knows no key
//! names and no limits: `check` decides whether a value makes sense.

use std::borrow::Cow;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

use super::secret::Secret;

/// Longest accepted time (a hundred years): adding it to a clock cannot overflow.
const MAX_TIME: Duration = Duration::from_secs(876_000 * 3600);

/// What is wrong with a value, and what to type instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}; type {remedy}")]
pub struct Wrong {
    what: String,
    remedy: String,
}

impl Wrong {
    /// `what` is the finding. `remedy` completes the sentence "type …".
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// `text` is not a valid `kind`. The error quotes the text, so do not use this for anything that may contain a secret.
    pub fn not(text: &str, kind: &str, remedy: &str) -> Self {
        Self::new(format!("'{}' is not {kind}", clip(text)), remedy)
    }
}

/// The beginning of a text for a message: a mistake must not fill the log.
fn clip(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    let mut shown: String = text.chars().take(MAX_CHARS).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// How a kind of value is parsed and shown.
#[derive(Debug)]
pub struct Kind<T: 'static> {
    /// Parses the text of a scalar.
    pub parse: fn(&str) -> Result<T, Wrong>,
    /// A text that `parse` accepts. URLs are shown without their secrets.
    pub show: fn(&T) -> String,
}

/// See [`size`].
pub const SIZE: Kind<usize> = Kind { parse: size, show: |bytes| show_size(*bytes) };
/// See [`time`].
pub const TIME: Kind<Duration> = Kind { parse: time, show: |span| show_time(*span) };
/// See [`percent`].
pub const PERCENT: Kind<u8> = Kind { parse: percent, show: |share| format!("{share}%") };
/// See [`memory`].
pub const MEMORY: Kind<Memory> = Kind {
    parse: memory,
    show: |memory| match memory {
        Memory::Bytes(bytes) => show_size(*bytes),
        Memory::Percent(share) => format!("{share}%"),
    },
};
/// See [`switch`].
pub const SWITCH: Kind<bool> = Kind { parse: switch, show: bool::to_string };
/// See [`address`] and [`optional`].
pub const OPTIONAL_ADDRESS: Kind<Option<SocketAddr>> =
    Kind { parse: |text| optional(text, address), show: |address| address.map_or(String::new(), |it| it.to_string()) };
/// The path of a file. Empty: none.
pub const OPTIONAL_PATH: Kind<Option<PathBuf>> = Kind {
    parse: |text| optional(text, |text| Ok(PathBuf::from(text))),
    show: |path| path.as_ref().map_or(String::new(), |path| path.display().to_string()),
};
/// A password or a token. Empty: none. It is never shown.
pub const OPTIONAL_SECRET: Kind<Option<Secret>> =
    Kind { parse: |text| optional(text, |text| Ok(Secret::new(text))), show: |_| String::new() };
/// Any text. Empty: none.
pub const OPTIONAL_TEXT: Kind<Option<String>> =
    Kind { parse: |text| optional(text, |text| Ok(text.to_owned())), show: |text| text.clone().unwrap_or_default() };
/// Any text, unchanged.
pub const TEXT: Kind<String> = Kind { parse: |text| Ok(text.to_owned()), show: String::clone };

/// See [`number`].
pub const fn count<T: FromStr + Display>() -> Kind<T> {
    Kind { parse: number, show: T::to_string }
}

/// A type that parses itself.
pub const fn parsed<T: FromStr<Err = Wrong> + Display>() -> Kind<T> {
    Kind { parse: T::from_str, show: T::to_string }
}

/// A type that parses itself, or nothing.
pub const fn optional_parsed<T: FromStr<Err = Wrong> + Display>() -> Kind<Option<T>> {
    Kind { parse: |text| optional(text, T::from_str), show: |value| value.as_ref().map_or(String::new(), T::to_string) }
}

/// Bytes: a number, alone or with `kb`, `mb`, `gb`, `tb` (1024-based, as in `redis.conf`; case does not matter). `256 MB`, `1.5gb`
/// and `256MiB` are accepted too. `256m` is refused: it means 256,000,000 bytes to Redis, and a time elsewhere in the file.
pub fn size(text: &str) -> Result<usize, Wrong> {
    let wrong = |remedy| Wrong::not(text, "a size", remedy);
    let (digits, unit) = split_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" | "kib" => 1 << 10,
        "mb" | "mib" => 1 << 20,
        "gb" | "gib" => 1 << 30,
        "tb" | "tib" => 1 << 40,
        "k" => return Err(wrong("the unit as kb, for example 64kb (1kb is 1024 bytes)")),
        "m" => return Err(wrong("the unit as mb, for example 256mb (1mb is 1024kb)")),
        "g" => return Err(wrong("the unit as gb, for example 2gb (1gb is 1024mb)")),
        _ => return Err(wrong("a number with kb, mb or gb, for example 256mb")),
    };
    let bytes = decimal(digits, scale).ok_or_else(|| wrong("a number with kb, mb or gb, for example 256mb"))?;
    let bytes = bytes.and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| Wrong::not(text, "a size that this machine can count", "a smaller one, for example 256mb"))
}

/// `1`, `1.5` or `1_000` times `scale`, if that is a whole number. `None`: it is no such number. `Some(None)`: it is too large.
fn decimal(text: &str, scale: u64) -> Option<Option<u64>> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = without_underscores(whole)?;
    if !all_digits(&digits) || !all_digits(fraction) {
        return None;
    }
    let parts = 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let parted = fraction.parse::<u64>().ok()?.checked_mul(scale)?;
    if !parted.is_multiple_of(parts) {
        return None;
    }
    Some(digits.parse::<u64>().ok().and_then(|whole| whole.checked_mul(scale)?.checked_add(parted / parts)))
}

/// A time span: a number with `ms`, `s`, `m`, `h` or `d`. Only zero needs no unit. `1.5s`, `1m 30s`, `5 min` and similar spellings
/// are accepted too.
pub fn time(text: &str) -> Result<Duration, Wrong> {
    let wrong = |remedy: &str| Wrong::not(text, "a time", remedy);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if all_digits(text) {
        return Err(wrong(&format!("a unit as well: {}s, or another of ms, s, m, h", clip(text))));
    }
    // The library takes a capital M for a month, but users mean minutes.
    let span = Some(text).filter(|text| text.trim() == *text && !text.contains('M')).map(humantime::parse_duration);
    let Some(Ok(span)) = span else {
        return Err(wrong("a number with ms, s, m or h, for example 60s"));
    };
    if span.subsec_nanos() % 1_000_000 != 0 {
        return Err(wrong("whole milliseconds, for example 1ms"));
    }
    if span > MAX_TIME {
        return Err(Wrong::not(text, "a time within a hundred years", "a shorter one, for example 1h"));
    }
    Ok(span)
}

/// A share of a whole, 0 to 100, with its sign: `10%`.
pub fn percent(text: &str) -> Result<u8, Wrong> {
    let digits = text.strip_suffix('%').map(|digits| digits.strip_suffix(' ').unwrap_or(digits));
    let digits = digits.filter(|digits| all_digits(digits));
    digits
        .and_then(|digits| digits.parse().ok())
        .filter(|share| *share <= 100)
        .ok_or_else(|| Wrong::not(text, "a percentage", "a number from 0% to 100% with its sign, for example 10%"))
}

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// A number of bytes.
    Bytes(usize),
    /// A share of the memory of the machine or the container.
    Percent(u8),
}

impl Memory {
    /// In bytes, on a machine or in a container with `total` bytes of memory.
    pub fn of(self, total: usize) -> usize {
        match self {
            Memory::Bytes(bytes) => bytes,
            Memory::Percent(share) => (total as u128 * u128::from(share) / 100) as usize,
        }
    }
}

/// A size, or a percentage of the available memory.
pub fn memory(text: &str) -> Result<Memory, Wrong> {
    if text.ends_with('%') {
        return percent(text).map(Memory::Percent);
    }
    let remedy = "a number with kb, mb or gb, or a percentage, for example 1gb or 25%";
    size(text).map(Memory::Bytes).map_err(|_| Wrong::not(text, "an amount of memory", remedy))
}

/// `true`/`false`, and what people type in environments: `1`/`0`, `yes`/`no`, `on`/`off`, in any case.
pub fn switch(text: &str) -> Result<bool, Wrong> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Ok(true),
        "false" | "0" | "no" | "off" => Ok(false),
        _ => Err(Wrong::not(text, "a switch", "true or false")),
    }
}

/// A whole number without sign or unit. `1_000_000` is accepted too.
pub fn number<T: FromStr>(text: &str) -> Result<T, Wrong> {
    without_underscores(text)
        .filter(|text| all_digits(text))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Wrong::not(text, "a whole number", "digits only, for example 1000"))
}

/// An address to listen on: IP and port. `localhost` is 127.0.0.1. Other names are refused, because their resolution may change while
/// the listener runs.
pub fn address(text: &str) -> Result<SocketAddr, Wrong> {
    let on_localhost = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    on_localhost.as_deref().unwrap_or(text).parse().map_err(|_| {
        Wrong::not(text, "an address with a port", "an IP address and a port, for example 127.0.0.1:6380 or [::1]:6380")
    })
}

/// `None` for the spellings of "nothing" in YAML and in environments. Otherwise the result of `parse`.
pub fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Result<Option<T>, Wrong> {
    match text {
        "" | "~" | "null" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// A size in the largest unit that divides it.
pub fn show_size(bytes: usize) -> String {
    in_units(bytes as u128, &[(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb"), (1, "")])
}

/// A time in the largest unit that divides it.
pub fn show_time(time: Duration) -> String {
    in_units(time.as_millis(), &[(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")])
}

fn in_units(value: u128, units: &[(u128, &str)]) -> String {
    let fits = |(scale, _): &&(u128, &str)| value >= *scale && value.is_multiple_of(*scale);
    match units.iter().find(fits) {
        Some((scale, unit)) => format!("{}{unit}", value / scale),
        None => value.to_string(),
    }
}

/// Any value as it would be typed.
pub(super) fn show(value: impl Display) -> String {
    value.to_string()
}

/// Splits number and unit, with at most one space between them. Without digits the number is empty, which does not parse.
fn split_unit(text: &str) -> (&str, &str) {
    let in_number = |c: char| c.is_ascii_digit() || matches!(c, '.' | '_');
    let (number, unit) = text.split_at(text.find(|c| !in_number(c)).unwrap_or(text.len()));
    match unit.strip_prefix(' ') {
        Some(unit) if !unit.is_empty() => (number, unit),
        _ => (number, unit),
    }
}

/// Removes the underscores between groups of digits. `None` if one stands at an end or beside another.
fn without_underscores(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('_') {
        return Some(Cow::Borrowed(text));
    }
    text.split('_').all(all_digits).then(|| Cow::Owned(text.replace('_', "")))
}

/// The word that was probably meant, if the text is close to one of these.
pub fn closest<'a>(text: &str, words: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a word as something that long, and the comparison takes time.
    if text.len() > 100 {
        return None;
    }
    let text = text.to_ascii_lowercase();
    let close = words.into_iter().map(|word| (strsim::jaro_winkler(&text, word), word));
    close.filter(|(share, _)| *share > 0.8).max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, word)| word)
}

/// `text` is not a valid `kind`, which is one of these words. The error quotes the text, as [`Wrong::not`] does.
pub fn no_such_word(text: &str, kind: &str, words: &[&str], remedy: &str) -> Wrong {
    match closest(text, words.iter().copied()) {
        Some(word) => Wrong::not(text, &format!("{kind} (did you mean {word}?)"), remedy),
        None => Wrong::not(text, kind, remedy),
    }
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{
        Duration, Memory, address, closest, memory, number, optional, percent, show_size, show_time, size, switch, time,
    };

    #[test]
    fn sizes() {
        let good = [
            ("0", 0),
            ("1", 1),
            ("1000", 1000),
            ("1kb", 1024),
            ("64KB", 65_536),
            ("256mb", 268_435_456),
            ("1gb", 1 << 30),
            ("007kb", 7168),
            ("256 MB", 268_435_456),
            ("256mib", 268_435_456),
            ("64 KiB", 65_536),
            ("1.5gb", 3 << 29),
            ("0.5kb", 512),
            ("1tb", 1 << 40),
            ("1b", 1),
            ("1_000_000", 1_000_000),
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        let bad = [
            "",
            "kb",
            "1k",
            "1m",
            "1G",
            "1  mb",
            " 1mb",
            "1mb ",
            "1 ",
            "1.5",
            "1.gb",
            ".5gb",
            "1.2.3gb",
            "0.0001kb",
            "_1",
            "1__0",
            "-1",
            "+1",
            "1e3",
            "0x10",
            "1mbb",
            "1mbit",
            "٣mb",
            "18446744073709551615kb",
            "99999999999999999999",
        ];
        for text in bad {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            size("256xb").unwrap_err().to_string(),
            "'256xb' is not a size; type a number with kb, mb or gb, for example 256mb"
        );
        assert_eq!(
            size("256M").unwrap_err().to_string(),
            "'256M' is not a size; type the unit as mb, for example 256mb (1mb is 1024kb)"
        );
    }

    #[test]
    fn times() {
        let good = [
            ("0", 0),
            ("0s", 0),
            ("0ms", 0),
            ("1ms", 1),
            ("250ms", 250),
            ("60s", 60_000),
            ("5m", 300_000),
            ("1h", 3_600_000),
            ("876000h", 876_000 * 3_600_000),
            ("1.5s", 1500),
            ("1 s", 1000),
            ("90 sec", 90_000),
            ("5min", 300_000),
            ("1h30m", 5_400_000),
            ("1m 30s", 90_000),
            ("2 hours", 7_200_000),
            ("1d", 86_400_000),
        ];
        for (text, millis) in good {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            "",
            "60",
            "s",
            " 1s",
            "1s ",
            "1S",
            "1H",
            "1M",
            "-1s",
            "1.2345s",
            "1..5s",
            "1h30",
            "1us",
            "876001h",
            "18446744073709551615h",
        ];
        for text in bad {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(
            time("60").unwrap_err().to_string(),
            "'60' is not a time; type a unit as well: 60s, or another of ms, s, m, h"
        );
    }

    #[test]
    fn percentages() {
        for (text, share) in [("0%", 0), ("10%", 10), ("100%", 100), ("10 %", 10)] {
            assert_eq!(percent(text), Ok(share), "{text}");
        }
        for text in ["", "%", "10", "0.1", "101%", "256%", "-1%", "+1%", "10  %", " 10%", "10%%", "1.5%"] {
            assert!(percent(text).is_err(), "{text}");
        }
    }

    #[test]
    fn amounts_of_memory() {
        for (text, amount) in
            [("25%", Memory::Percent(25)), ("100%", Memory::Percent(100)), ("1gb", Memory::Bytes(1 << 30))]
        {
            assert_eq!(memory(text), Ok(amount), "{text}");
        }
        for text in ["", "%", "101%", "1gb%", "25  %", "1.5", "many"] {
            assert!(memory(text).is_err(), "{text}");
        }
        assert_eq!(Memory::Percent(25).of(usize::MAX), usize::MAX / 4);
        assert_eq!((Memory::Percent(25).of(1000), Memory::Bytes(7).of(1000)), (250, 7));
    }

    #[test]
    fn switches() {
        for text in ["true", "True", "TRUE", "1", "yes", "on", "ON"] {
            assert_eq!(switch(text), Ok(true), "{text}");
        }
        for text in ["false", "False", "0", "no", "off", "OFF"] {
            assert_eq!(switch(text), Ok(false), "{text}");
        }
        for text in ["", "2", "y", "n", "enabled", "true "] {
            assert!(switch(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(number::<usize>("100000"), Ok(100_000));
        assert_eq!(number::<u8>("255"), Ok(255));
        assert_eq!(number::<usize>("1_000_000"), Ok(1_000_000));
        for text in ["", "256", "-1", "+1", "1.0", "1kb", " 1", "1_", "_1", "1__0"] {
            assert!(number::<u8>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:6380", "0.0.0.0:0", "[::]:6380", "[::1]:1"] {
            assert!(address(text).is_ok(), "{text}");
        }
        assert_eq!(address("localhost:6380"), address("127.0.0.1:6380"));
        for text in [
            "",
            "6380",
            ":6380",
            "localhost",
            "localhost:",
            "example.com:6380",
            "127.0.0.1",
            "127.0.0.1:65536",
            "::1:6380",
            "1.2.3.4:5 ",
        ] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn spellings_of_none() {
        for text in ["", "~", "null"] {
            assert_eq!(optional(text, size), Ok(None));
        }
        assert_eq!(optional("1kb", size), Ok(Some(1024)));
        assert!(optional("x", size).is_err());
    }

    #[test]
    fn shown_as_typed() {
        for text in ["1gb", "512mb", "3kb", "1025", "1", "0"] {
            assert_eq!(show_size(size(text).expect("a size")), text);
        }
        for text in ["2h", "90m", "61s", "1001ms", "1ms", "0"] {
            assert_eq!(show_time(time(text).expect("a time")), text);
        }
    }

    #[test]
    fn a_word_that_is_close_is_suggested() {
        let words = ["tinylfu", "lru"];
        for (text, word) in [("lfu", None), ("tiny-lfu", Some("tinylfu")), ("LRU", Some("lru")), ("fifo", None)] {
            assert_eq!(closest(text, words), word, "{text}");
        }
    }

    #[test]
    fn a_long_mistake_is_clipped_and_escaped() {
        let message = size(&"x".repeat(10_000)).unwrap_err().to_string();
        assert!(message.len() < 200, "{message}");
        assert!(size("1\n2").unwrap_err().to_string().starts_with(r"'1\n2' is not"));
    }
}
