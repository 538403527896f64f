//! How rules name reads whose replies L1 may keep: one word, `all`, or a list of words.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

use crate::reads::Reads;

use super::units::Wrong;

/// One name, or `all`.
impl FromStr for Reads {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        if text == "all" {
            return Ok(Reads::ALL);
        }
        Reads::named(text).ok_or_else(|| {
            let kind = match Reads::named(&text.to_ascii_lowercase()) {
                Some(_) => "in lower case",
                None => "a command whose reply L1 can keep",
            };
            Wrong::not(text, kind, &format!("all, or a list of: {}", Reads::ALL.names().collect::<Vec<_>>().join(", ")))
        })
    }
}

impl<'de> Deserialize<'de> for Reads {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(List)
    }
}

struct List;

impl<'de> Visitor<'de> for List {
    type Value = Reads;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all, or a list of commands, for example [get, mget, hgetall]")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Reads, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Reads, A::Error> {
        let mut reads = Reads::NONE;
        while let Some(one) = list.next_element::<Name>()? {
            reads = reads | one.0;
        }
        Ok(reads)
    }
}

/// A list holds no lists.
struct Name(Reads);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        super::yaml::parsed(deserializer).map(Name)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::yaml;
    use crate::reads::Reads;

    #[test]
    fn typed_as_a_list_or_a_word() {
        let parse = |text: &str| yaml::parse::<Reads>(text);
        assert_eq!(parse("[get, mget]"), Ok(Reads::default()));
        assert_eq!(parse("all"), Ok(Reads::ALL));
        assert_eq!(parse("[all]"), Ok(Reads::ALL));
        assert_eq!(
            parse("- hget\n- 'zrange'\n- hget"),
            Ok(Reads::named("hget").unwrap() | Reads::named("zrange").unwrap())
        );
        assert_eq!(parse("[]"), Ok(Reads::NONE));
        for wrong in ["ttl", "[get, ttl]", "[GET]", "[[get]]", "{get: true}", "5", "''", "[get mget]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
