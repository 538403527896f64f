//! The bridge to serde: every scalar of the file goes through a function of `units`, so that a mistake is answered in
//! our words; and from a key's path back to its line, for mistakes that are found only after parsing.

use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_yaml::from_str;

use super::error::ConfigError;
use super::units::{self, Wrong};

/// A document as a `T`, the error with its line.
///
/// An empty document (also one that is all comments) is an empty mapping: it leaves everything at its default.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, ConfigError> {
    if is_empty(text) {
        return from_str("{}").map_err(|error| ConfigError::new("", error));
    }
    // First for the syntax alone: after it, an error is about keys and values and can be put into our own words.
    // serde_yaml's texts for syntax errors are fixed and quote nothing of the file.
    from_str::<IgnoredAny>(text).map_err(|error| {
        let message = format!("this is not YAML ({error}); type `key: value` lines, indented with spaces");
        ConfigError::new("", message).with_line(line(&error))
    })?;
    from_str(text).map_err(|error| {
        let full = error.to_string();
        let place = error.location().map(|place| format!(" at line {} column {}", place.line(), place.column()));
        let unplaced = place.and_then(|place| full.strip_suffix(&place)).unwrap_or(&full);
        let (path, message) = split_path(unplaced);
        match message.strip_prefix("duplicate field `").and_then(|message| message.strip_suffix('`')) {
            // serde_yaml gives the place of the mapping, which says nothing.
            Some(key) => {
                let second = find(text, &format!("{path}.{key}"), 1);
                ConfigError::new(path, format!("the key '{key}' is there twice; type it once")).with_line(second)
            }
            None => ConfigError::new(path, reword(message)).with_line(line(&error)),
        }
    })
}

fn line(error: &serde_yaml::Error) -> Option<usize> {
    error.location().map(|location| location.line())
}

fn is_empty(text: &str) -> bool {
    let says_nothing = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    };
    text.lines().all(says_nothing)
}

/// The path that serde_yaml puts in front of a message. Told by its characters: no message begins with such a word and a
/// colon.
fn split_path(message: &str) -> (&str, &str) {
    let in_path =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'_' | b'.' | b'[' | b']');
    match message.split_once(": ") {
        Some((path, message)) if path.bytes().all(in_path) => (path, message),
        _ => ("", message),
    }
}

/// serde's own findings, turned into "what is wrong; what to type". A quoted value is left out: it may hold a secret
/// (`upstream redis://:password@host`, a forgotten colon, is one string to YAML). So is a key that looks like a URL.
fn reword(message: &str) -> String {
    if let Some((key, known)) = message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected "))
    {
        let quoted = if key.contains(['/', '@']) { String::new() } else { format!(" '{key}'") };
        return format!("there is no key{quoted} here; type {known}");
    }
    if let Some(key) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("the key '{key}' is missing; type {key}: and its value");
    }
    if let Some((_, wanted)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected ")) {
        // A list's own words are serde's; all others are ours already, by `expecting`.
        let wanted = if wanted == "a sequence" { "a list: `- match: \"pattern\"` lines, or []" } else { wanted };
        return format!("this does not fit here; type {wanted}");
    }
    message.to_owned()
}

/// The line, from 1, on which the value of `path` (`rules[0].cache.ttl`) stands; none when the text does not have it.
pub(super) fn line_of(text: &str, path: &str) -> Option<usize> {
    find(text, path, 0)
}

/// [`line_of`] for a key that is there more than once: passes over the first `skip` of them.
fn find(text: &str, path: &str, skip: usize) -> Option<usize> {
    let steps: Vec<&str> = path.split(['.', '[', ']']).filter(|step| !step.is_empty()).collect();
    // Walking to the place and failing there makes serde_yaml report the place.
    let found = Walk { steps: &steps, skip }.deserialize(serde_yaml::Deserializer::from_str(text));
    line(&found.err()?)
}

/// Goes down the path; succeeds when the document ends before it does, fails where the path leads.
struct Walk<'a> {
    steps: &'a [&'a str],
    /// How often to pass over the last step's key.
    skip: usize,
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    /// Only read where the path ends, or crosses a scalar: both are the place to name.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the place looked for")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        while let Some(key) = map.next_key::<String>()? {
            if key != *step {
                map.next_value::<IgnoredAny>()?;
            } else if rest.is_empty() && self.skip > 0 {
                self.skip -= 1;
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Walk { steps: rest, skip: self.skip })?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Some((step, rest)) = self.steps.split_first() else {
            return Err(A::Error::custom("here"));
        };
        let mut index = 0_usize;
        loop {
            let more = if index.to_string() == *step {
                seq.next_element_seed(Walk { steps: rest, skip: self.skip })?.is_some()
            } else {
                seq.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                return Ok(());
            }
            index += 1;
        }
    }
}

/// Hands the text of a scalar, exactly as typed, to `parse`.
struct Scalar<T, F>(F, PhantomData<T>);

impl<T, F: FnOnce(&str) -> Result<T, Wrong>> Visitor<'_> for Scalar<T, F> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a single value")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        (self.0)(text).map_err(E::custom)
    }
}

fn scalar<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl FnOnce(&str) -> Result<T, Wrong>,
) -> Result<T, D::Error> {
    deserializer.deserialize_str(Scalar(parse, PhantomData))
}

pub(super) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    scalar(deserializer, units::size)
}

pub(super) fn memory<'de, D: Deserializer<'de>>(deserializer: D) -> Result<units::Memory, D::Error> {
    scalar(deserializer, units::memory)
}

pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    scalar(deserializer, units::time)
}

pub(super) fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    scalar(deserializer, units::percent)
}

pub(super) fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    scalar(deserializer, units::switch)
}

pub(super) fn number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<T, D::Error> {
    scalar(deserializer, units::number)
}

pub(super) fn optional_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    scalar(deserializer, |text| units::optional(text, units::address))
}

pub(super) fn optional_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<PathBuf>, D::Error> {
    scalar(deserializer, |text| units::optional(text, |text| Ok(PathBuf::from(text))))
}

pub(super) fn optional_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    scalar(deserializer, |text| units::optional(text, |text| Ok(text.to_owned())))
}

pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    scalar(deserializer, |text| Ok(text.to_owned()))
}

/// For types that parse themselves: URLs and choices.
pub(super) fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = Wrong>>(deserializer: D) -> Result<T, D::Error> {
    scalar(deserializer, str::parse)
}

pub(super) fn optional_parsed<'de, D: Deserializer<'de>, T: FromStr<Err = Wrong>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    scalar(deserializer, |text| units::optional(text, str::parse))
}

/// A key that is present with `Some`; its absence is `None` by `serde(default)`.
pub(super) mod some {
    use std::str::FromStr;
    use std::time::Duration;

    use serde::de::Deserializer;

    use super::super::units::Wrong;

    pub fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
        super::size(deserializer).map(Some)
    }

    pub fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        super::time(deserializer).map(Some)
    }

    pub fn percent<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u8>, D::Error> {
        super::percent(deserializer).map(Some)
    }

    pub fn switch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
        super::switch(deserializer).map(Some)
    }

    pub fn number<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Option<T>, D::Error> {
        super::number(deserializer).map(Some)
    }

    pub fn parsed<'de, D: Deserializer<'de>, T: FromStr<Err = Wrong>>(deserializer: D) -> Result<Option<T>, D::Error> {
        super::parsed(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::{find, line_of};

    #[test]
    fn lines_of_paths() {
        let text =
            "# top\na: 1\nb:\n  c: 2\n  d: { e: 3,\n    f: 4 }\nlist:\n  - x: 1\n    y:\n      z: 2\n  - { x: 5 }\n";
        let table = [
            ("a", Some(2)),
            ("b.c", Some(4)),
            ("b.d.e", Some(5)),
            ("b.d.f", Some(6)),
            ("list[0].x", Some(8)),
            ("list[0].y.z", Some(10)),
            ("list[1].x", Some(11)),
            ("list[2].x", None),
            ("list[1].y", None),
            ("missing", None),
            ("b.missing", None),
        ];
        for (path, line) in table {
            assert_eq!(line_of(text, path), line, "{path}");
        }
        assert_eq!(find("a:\n  b: 1\n  c: 2\n  b: 3\n", "a.b", 1), Some(4));
    }
}
