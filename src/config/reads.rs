//! Which commands' replies L1 may keep: the words that a rule may say, and sets of them.
//!
//! Words and bits only: that a server's command of such a name is a read of one key, and no more, the command table sees to.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

use super::fields::WordList;
use super::units::{self, Wrong};

/// Each reads one key, changes nothing, and says the same until the key changes.
const NAMES: [&str; 51] = [
    "get",
    "mget",
    // Strings.
    "strlen",
    "getrange",
    "substr",
    "getbit",
    "bitcount",
    "bitpos",
    "bitfield_ro",
    // Hashes.
    "hget",
    "hmget",
    "hgetall",
    "hkeys",
    "hvals",
    "hlen",
    "hexists",
    "hstrlen",
    // Lists.
    "lrange",
    "lindex",
    "llen",
    "lpos",
    // Sets.
    "smembers",
    "sismember",
    "smismember",
    "scard",
    // Sorted sets.
    "zrange",
    "zrangebyscore",
    "zrangebylex",
    "zrevrange",
    "zrevrangebyscore",
    "zrevrangebylex",
    "zscore",
    "zmscore",
    "zcard",
    "zcount",
    "zlexcount",
    "zrank",
    "zrevrank",
    // Places.
    "geopos",
    "geodist",
    "geohash",
    "geosearch",
    "georadius_ro",
    "georadiusbymember_ro",
    // Streams.
    "xrange",
    "xrevrange",
    "xlen",
    // Any key.
    "exists",
    "type",
    "expiretime",
    "pexpiretime",
];

/// A set of commands. One command is a set of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reads(u64);

impl Reads {
    /// None.
    pub const NONE: Reads = Reads(0);
    /// GET.
    pub const GET: Reads = Reads(1);
    /// MGET, which reads and keeps what GET does.
    pub const MGET: Reads = Reads(1 << 1);
    /// Everything that a rule may name.
    pub const ALL: Reads = Reads((1 << NAMES.len()) - 1);

    /// The command of this lower-case name, if its reply may be kept.
    pub fn named(name: &str) -> Option<Reads> {
        NAMES.iter().position(|known| *known == name).map(|at| Reads(1 << at))
    }

    /// Whether all of `other` are in it.
    #[inline]
    pub fn contains(self, other: Reads) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether nothing is.
    pub fn is_empty(self) -> bool {
        self == Reads::NONE
    }

    /// Without those of `other`.
    pub fn without(self, other: Reads) -> Reads {
        Reads(self.0 & !other.0)
    }

    /// The names, in lower case.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.into_iter().enumerate().filter(move |(at, _)| self.0 >> at & 1 == 1).map(|(_, name)| name)
    }
}

/// What is kept unless a rule says otherwise.
impl Default for Reads {
    fn default() -> Self {
        Reads::GET | Reads::MGET
    }
}

impl BitOr for Reads {
    type Output = Reads;

    fn bitor(self, other: Reads) -> Reads {
        Reads(self.0 | other.0)
    }
}

impl fmt::Debug for Reads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().collect::<Vec<_>>().join(" "))
    }
}

/// One name, or `all`; in lower case or not.
impl FromStr for Reads {
    type Err = Wrong;

    fn from_str(text: &str) -> Result<Self, Wrong> {
        let name = text.to_ascii_lowercase();
        if name == "all" {
            return Ok(Reads::ALL);
        }
        Reads::named(&name).ok_or_else(|| {
            let remedy = format!("all, or a list of: {}", NAMES.join(", "));
            units::no_such_word(text, "a command whose reply L1 can keep", &NAMES, &remedy)
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
    use super::{NAMES, Reads};
    use crate::config::Config;

    #[test]
    fn every_name_is_a_set_of_its_own() {
        let mut seen = Reads::NONE;
        for name in NAMES {
            let one = Reads::named(name).expect("it is there");
            assert!(!seen.contains(one) && one.names().eq([name]), "{name}");
            seen = seen | one;
        }
        assert_eq!(seen, Reads::ALL);
        assert_eq!((Reads::named("get"), Reads::named("mget")), (Some(Reads::GET), Some(Reads::MGET)));
        assert_eq!(Reads::ALL.without(Reads::GET).names().count(), NAMES.len() - 1);
    }

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
