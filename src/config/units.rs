//! Text to values: sizes, times, percentages, switches, numbers, addresses; and back, for messages.
//!
//! One function per kind, used alike for `config.yaml`, the environment and flags, so that the same text means the
//! same thing everywhere. Knows no key names and no limits: whether a value makes sense is decided in `check`.

use std::fmt::Display;
use std::net::SocketAddr;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

/// Longest accepted time, in hours (a hundred years): adding it to a clock cannot overflow.
const MAX_HOURS: u64 = 876_000;

/// What is wrong with a value, and what to type instead.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{what}; type {remedy}")]
pub struct Wrong {
    what: String,
    remedy: String,
}

impl Wrong {
    /// `what` is the finding, `remedy` completes the sentence "type …".
    pub fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }

    /// `text` is no `kind`. Quotes the text, so it must not be used on anything that may hold a secret.
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

/// Bytes: a whole number, alone or with `kb`, `mb`, `gb` (1024-based, as in `redis.conf`; case does not matter).
pub fn size(text: &str) -> Result<usize, Wrong> {
    let wrong = || Wrong::not(text, "a size", "a number with kb, mb or gb, for example 256mb");
    let (digits, unit) = split_unit(text);
    let scale: u64 = match unit.to_ascii_lowercase().as_str() {
        "" => 1,
        "kb" => 1 << 10,
        "mb" => 1 << 20,
        "gb" => 1 << 30,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let bytes = count.checked_mul(scale).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| Wrong::not(text, "a size that this machine can count", "a smaller one, for example 256mb"))
}

/// A time span: a whole number with `ms`, `s`, `m` or `h`. Only zero may go without a unit.
pub fn time(text: &str) -> Result<Duration, Wrong> {
    let wrong = || Wrong::not(text, "a time", "a number with ms, s, m or h, for example 60s");
    let (digits, unit) = split_unit(text);
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    let millis_per_unit: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" if count == 0 => 1,
        _ => return Err(wrong()),
    };
    count
        .checked_mul(millis_per_unit)
        .filter(|millis| *millis <= MAX_HOURS * 3_600_000)
        .map(Duration::from_millis)
        .ok_or_else(|| Wrong::not(text, "a time within a hundred years", "a shorter one, for example 1h"))
}

/// A share of a whole, 0 to 100, with its sign: `10%`.
pub fn percent(text: &str) -> Result<u8, Wrong> {
    let digits = text.strip_suffix('%').filter(|digits| all_digits(digits));
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
    /// In bytes, where the machine or the container has `total` bytes of memory.
    pub fn of(self, total: usize) -> usize {
        match self {
            Memory::Bytes(bytes) => bytes,
            Memory::Percent(share) => (total as u128 * u128::from(share) / 100) as usize,
        }
    }
}

/// A size, or a percentage of the memory that there is.
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

/// A whole number without sign or unit.
pub fn number<T: FromStr>(text: &str) -> Result<T, Wrong> {
    Some(text)
        .filter(|text| all_digits(text))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Wrong::not(text, "a whole number", "digits only, for example 1000"))
}

/// An address to listen on: IP and port. Names are refused: what they resolve to may change under a listener.
pub fn address(text: &str) -> Result<SocketAddr, Wrong> {
    text.parse().map_err(|_| {
        Wrong::not(text, "an address with a port", "an IP address and a port, for example 127.0.0.1:6380 or [::1]:6380")
    })
}

/// `None` for what stands for "nothing" in YAML and in environments, else what `parse` makes of it.
pub fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, Wrong>) -> Result<Option<T>, Wrong> {
    match text {
        "" | "~" | "null" => Ok(None),
        text => parse(text).map(Some),
    }
}

/// A size as it would be typed: the largest unit that divides it.
pub fn show_size(bytes: usize) -> String {
    in_units(bytes as u128, &[(1 << 30, "gb"), (1 << 20, "mb"), (1 << 10, "kb"), (1, "")])
}

/// A time as it would be typed: the largest unit that divides it.
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

/// Splits before the first character that is no digit. No digits at all leave the number empty, which does not parse.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::{
        Duration, MAX_HOURS, Memory, address, memory, number, optional, percent, show_size, show_time, size, switch,
        time,
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
        ];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        let bad = [
            "",
            "kb",
            "1k",
            "1m",
            "256mib",
            "1 mb",
            " 1mb",
            "1mb ",
            "1.5gb",
            "-1",
            "+1",
            "1e3",
            "0x10",
            "1tb",
            "1b",
            "1mbb",
            "٣mb",
            "1_000",
            "18446744073709551615kb",
            "99999999999999999999",
        ];
        for text in bad {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(
            size("256mib").unwrap_err().to_string(),
            "'256mib' is not a size; type a number with kb, mb or gb, for example 256mb"
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
            ("876000h", MAX_HOURS * 3_600_000),
        ];
        for (text, millis) in good {
            assert_eq!(time(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        let bad = [
            "",
            "60",
            "s",
            "1 s",
            "1sec",
            "1d",
            "1S",
            "1H",
            "-1s",
            "1.5s",
            "1h30m",
            "1us",
            "876001h",
            "18446744073709551615h",
        ];
        for text in bad {
            assert!(time(text).is_err(), "{text}");
        }
        assert_eq!(
            time("60").unwrap_err().to_string(),
            "'60' is not a time; type a number with ms, s, m or h, for example 60s"
        );
    }

    #[test]
    fn percentages() {
        for (text, share) in [("0%", 0), ("10%", 10), ("100%", 100)] {
            assert_eq!(percent(text), Ok(share), "{text}");
        }
        for text in ["", "%", "10", "0.1", "101%", "256%", "-1%", "+1%", "10 %", "10%%", "1.5%"] {
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
        for text in ["", "%", "101%", "1gb%", "25 %", "1.5gb", "many"] {
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
        for text in ["", "256", "-1", "+1", "1.0", "1kb", " 1", "1_000"] {
            assert!(number::<u8>(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses() {
        for text in ["127.0.0.1:6380", "0.0.0.0:0", "[::]:6380", "[::1]:1"] {
            assert!(address(text).is_ok(), "{text}");
        }
        for text in ["", "6380", ":6380", "localhost:6380", "127.0.0.1", "127.0.0.1:65536", "::1:6380", "1.2.3.4:5 "] {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn nothing_is_none() {
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
    fn a_long_mistake_is_clipped_and_escaped() {
        let message = size(&"x".repeat(10_000)).unwrap_err().to_string();
        assert!(message.len() < 200, "{message}");
        assert!(size("1\n2").unwrap_err().to_string().starts_with(r"'1\n2' is not"));
    }
}
