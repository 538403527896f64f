//! The list of reads whose replies L1 may keep, and sets of them.
//!
//! Each has its name in rules, the type of key that it reads, and its reply if the key does not exist. The command table checks
//! whether a server's command of that name really is such a read.

use std::fmt;
use std::ops::BitOr;

use crate::resp::{Bulk, bulk_of, elements};

/// A command that reads one key, changes nothing, and returns the same reply until the key changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// In lower case.
    pub name: &'static str,
    /// What L1 keeps for it.
    pub kept: Kept,
}

/// What L1 keeps for a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The value of each key (GET and MGET).
    Value,
    /// The reply.
    Reply {
        /// The required type of the key.
        key: KeyKind,
        /// The reply if the key does not exist.
        absent: Absent,
    },
}

/// The type of key that a read needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// A string, which has no parts that could expire by themselves.
    String,
    /// A hash.
    Hash,
    /// A list, a set, a sorted set, a stream.
    Other,
    /// Any type.
    Any,
}

const fn value(name: &'static str) -> Read {
    Read { name, kept: Kept::Value }
}

const fn reply(name: &'static str, key: KeyKind, absent: Absent) -> Read {
    Read { name, kept: Kept::Reply { key, absent } }
}

/// Not in the list on purpose: reads that depend on the time (TTL, PTTL, XPENDING), on chance (SRANDMEMBER, HRANDFIELD,
/// ZRANDMEMBER), on a cursor that may differ between calls (the SCAN family), on how a value is stored or used (OBJECT, MEMORY,
/// DUMP, TOUCH, XINFO), on other keys (SORT_RO, LCS, SINTER and similar commands), or on code (EVAL_RO, FCALL_RO), and PFCOUNT,
/// which writes.
const READS: &[Read] = &[
    value("get"),
    value("mget"),
    // Strings.
    reply("strlen", KeyKind::String, Absent::Zero),
    reply("getrange", KeyKind::String, Absent::Is(b"$0\r\n\r\n")),
    reply("substr", KeyKind::String, Absent::Is(b"$0\r\n\r\n")),
    reply("getbit", KeyKind::String, Absent::Zero),
    reply("bitcount", KeyKind::String, Absent::Zero),
    reply("bitpos", KeyKind::String, Absent::Varies),
    reply("bitfield_ro", KeyKind::String, Absent::Zero),
    // Hashes.
    reply("hget", KeyKind::Hash, Absent::Nothing),
    reply("hmget", KeyKind::Hash, Absent::Nothing),
    reply("hgetall", KeyKind::Hash, Absent::Nothing),
    reply("hkeys", KeyKind::Hash, Absent::Nothing),
    reply("hvals", KeyKind::Hash, Absent::Nothing),
    reply("hlen", KeyKind::Hash, Absent::Zero),
    reply("hexists", KeyKind::Hash, Absent::Zero),
    reply("hstrlen", KeyKind::Hash, Absent::Zero),
    // Lists.
    reply("lrange", KeyKind::Other, Absent::Nothing),
    reply("lindex", KeyKind::Other, Absent::Nothing),
    reply("llen", KeyKind::Other, Absent::Zero),
    reply("lpos", KeyKind::Other, Absent::Nothing),
    // Sets.
    reply("smembers", KeyKind::Other, Absent::Nothing),
    reply("sismember", KeyKind::Other, Absent::Zero),
    reply("smismember", KeyKind::Other, Absent::Zero),
    reply("scard", KeyKind::Other, Absent::Zero),
    // Sorted sets.
    reply("zrange", KeyKind::Other, Absent::Nothing),
    reply("zrangebyscore", KeyKind::Other, Absent::Nothing),
    reply("zrangebylex", KeyKind::Other, Absent::Nothing),
    reply("zrevrange", KeyKind::Other, Absent::Nothing),
    reply("zrevrangebyscore", KeyKind::Other, Absent::Nothing),
    reply("zrevrangebylex", KeyKind::Other, Absent::Nothing),
    reply("zscore", KeyKind::Other, Absent::Nothing),
    reply("zmscore", KeyKind::Other, Absent::Nothing),
    reply("zcard", KeyKind::Other, Absent::Zero),
    reply("zcount", KeyKind::Other, Absent::Zero),
    reply("zlexcount", KeyKind::Other, Absent::Zero),
    reply("zrank", KeyKind::Other, Absent::Nothing),
    reply("zrevrank", KeyKind::Other, Absent::Nothing),
    // Geographic positions.
    reply("geopos", KeyKind::Other, Absent::Nothing),
    reply("geodist", KeyKind::Other, Absent::Nothing),
    reply("geohash", KeyKind::Other, Absent::Nothing),
    reply("geosearch", KeyKind::Other, Absent::Nothing),
    reply("georadius_ro", KeyKind::Other, Absent::Nothing),
    reply("georadiusbymember_ro", KeyKind::Other, Absent::Nothing),
    // Streams.
    reply("xrange", KeyKind::Other, Absent::Nothing),
    reply("xrevrange", KeyKind::Other, Absent::Nothing),
    reply("xlen", KeyKind::Other, Absent::Zero),
    // Any key.
    reply("exists", KeyKind::Any, Absent::Only(b":0\r\n")),
    reply("type", KeyKind::Any, Absent::Only(b"+none\r\n")),
    reply("expiretime", KeyKind::Any, Absent::Only(b":-2\r\n")),
    reply("pexpiretime", KeyKind::Any, Absent::Only(b":-2\r\n")),
];

/// The reply to a read of a key that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Null, an empty aggregate, or an array of nulls.
    Nothing,
    /// 0, or an array of zeros.
    Zero,
    /// These bytes.
    Is(&'static [u8]),
    /// These bytes, which are never the reply for a key that exists.
    Only(&'static [u8]),
    /// It depends on the arguments, and an existing key can give the same reply.
    Varies,
}

impl Absent {
    /// Whether a complete reply is the reply for a key that does not exist. Some existing keys give the same.
    #[must_use]
    pub fn is(self, reply: &[u8]) -> bool {
        let all = |wanted: fn(&[u8]) -> bool| elements(reply).is_some_and(|mut all| all.all(wanted));
        let is_null = |reply: &[u8]| bulk_of(reply) == Bulk::Null;
        match self {
            Absent::Nothing => is_null(reply) || reply == b"%0\r\n" || all(is_null),
            Absent::Zero => reply == b":0\r\n" || all(|one| one == b":0\r\n"),
            Absent::Is(text) | Absent::Only(text) => reply == text,
            Absent::Varies => false,
        }
    }
}

/// A set of commands. A single command is a set of one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Reads(u64);

impl Reads {
    /// The empty set.
    pub const NONE: Reads = Reads(0);
    /// GET.
    pub const GET: Reads = Reads(1);
    /// MGET, which reads and keeps the same as GET.
    pub const MGET: Reads = Reads(1 << 1);
    /// Everything that a rule may name.
    pub const ALL: Reads = Reads((1 << READS.len()) - 1);

    /// The command with this lower-case name, if its reply may be kept.
    pub fn named(name: &str) -> Option<Reads> {
        READS.iter().position(|known| known.name == name).map(|at| Reads(1 << at))
    }

    /// Whether it contains all of `other`.
    #[inline]
    pub fn contains(self, other: Reads) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it is empty.
    pub fn is_empty(self) -> bool {
        self == Reads::NONE
    }

    /// The set without those of `other`.
    pub fn without(self, other: Reads) -> Reads {
        Reads(self.0 & !other.0)
    }

    /// The properties of each.
    pub fn list(self) -> impl Iterator<Item = &'static Read> {
        READS.iter().enumerate().filter(move |(at, _)| self.0 >> at & 1 == 1).map(|(_, read)| read)
    }

    /// The names, in lower case.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.list().map(|read| read.name)
    }
}

/// The reads that are kept unless a rule says otherwise.
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

#[cfg(test)]
mod tests {
    use super::{Absent, READS, Reads};

    #[test]
    fn every_name_is_a_set_of_its_own() {
        let mut seen = Reads::NONE;
        for name in READS.iter().map(|read| read.name) {
            let one = Reads::named(name).expect("it is there");
            assert!(!seen.contains(one) && one.names().eq([name]), "{name}");
            seen = seen | one;
        }
        assert_eq!(seen, Reads::ALL);
        assert_eq!((Reads::named("get"), Reads::named("mget")), (Some(Reads::GET), Some(Reads::MGET)));
        assert_eq!(Reads::ALL.without(Reads::GET).names().count(), READS.len() - 1);
    }

    #[test]
    fn replies_for_a_missing_key() {
        let nothing: &[&[u8]] = &[
            b"$-1\r\n",
            b"*-1\r\n",
            b"_\r\n",
            b"*0\r\n",
            b"~0\r\n",
            b"%0\r\n",
            b"*2\r\n$-1\r\n*-1\r\n",
            b"*1\r\n_\r\n",
        ];
        let zero: &[&[u8]] = &[b":0\r\n", b"*2\r\n:0\r\n:0\r\n"];
        let others: &[&[u8]] = &[
            b"$0\r\n\r\n",
            b":1\r\n",
            b"-ERR x\r\n",
            b"*1\r\n$1\r\n0\r\n",
            b"*2\r\n:0\r\n:1\r\n",
            b"*2\r\n$-1\r\n:0\r\n",
            b"%1\r\n+a\r\n_\r\n",
            b"+none\r\n",
        ];
        for reply in nothing {
            assert!(Absent::Nothing.is(reply), "{}", reply.escape_ascii());
        }
        for reply in zero {
            assert!(Absent::Zero.is(reply) && !Absent::Nothing.is(reply), "{}", reply.escape_ascii());
        }
        for reply in others {
            assert!(!Absent::Zero.is(reply) && !Absent::Nothing.is(reply), "{}", reply.escape_ascii());
            assert!(!Absent::Varies.is(reply));
            assert_eq!(Absent::Only(b"+none\r\n").is(reply), *reply == b"+none\r\n");
        }
    }
}
