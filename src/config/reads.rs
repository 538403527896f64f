//! How rules name the reads whose replies L1 may keep: one word, `all`, or a list of words.

use std::str::FromStr;

use crate::reads::Reads;

use super::fields::WordList;
use super::units::{self, Wrong};

/// One name, or `all`. Upper and lower case are the same.
impl FromStr for Reads {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let name = text.to_ascii_lowercase();
        if name == "all" {
            return Ok(Reads::ALL);
        }
        Reads::named(&name).ok_or_else(|| {
            let names: Vec<_> = Reads::ALL.names().collect();
            let remedy = format!("all, or a list of: {}", names.join(", "));
            units::no_such_word(text, "a command whose reply L1 can keep", &names, &remedy)
        })
    }
}

/// How a set is typed: a list of names, one name, or `all`.
pub(super) const READS: WordList<Reads> = WordList {
    word: Reads::from_str,
    empty: || Reads::NONE,
    add: |reads, name| {
        *reads = *reads | name.parse()?;
        Ok(())
    },
    show: |reads| match *reads {
        Reads::ALL => Ok("all".to_owned()),
        reads => Err(reads.names().map(str::to_owned).collect()),
    },
    remedy: "all, or a list of commands, for example [get, mget, hgetall]",
};

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use crate::reads::Reads;

    #[test]
    fn typed_as_a_list_or_a_word() {
        let parse = |text: &str| {
            Config::from_yaml(&format!("defaults: {{ cache: {{ reads: {text} }} }}"))
                .map(|config| config.defaults.cache.reads)
        };
        assert_eq!(parse("[get, mget]"), Ok(Reads::default()));
        assert_eq!(parse("all"), Ok(Reads::ALL));
        assert_eq!(parse("[all]"), Ok(Reads::ALL));
        assert_eq!(
            parse("[hget, 'ZRANGE', hget]"),
            Ok(Reads::named("hget").unwrap() | Reads::named("zrange").unwrap())
        );
        assert_eq!((parse("[GET]"), parse("Get")), (Ok(Reads::GET), Ok(Reads::GET)));
        for wrong in ["ttl", "[get, ttl]", "[]", "[[get]]", "{get: true}", "5", "''", "[get mget]"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
