//! Which reads L1 may keep the reply of, and what such a reply says when there is no such key.
//!
//! The names are `decisions.rs`'s; here they are held against what the server says: flagged read-only, the key in a fixed
//! place, and nothing that ends by itself without the key's own TTL telling.

use crate::config::Reads;
use crate::resp::{Bulk, bulk_of, elements};

use super::decisions::{self, Of};
use super::entry::Entry;
use super::keys::Finder;
use super::{Class, Flags};

/// A read whose reply may be kept, when the call is about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Itself, as rules name it.
    pub read: Reads,
    /// What it says when there is no such key.
    pub absent: Absent,
    /// The place of the key.
    pub key: usize,
    /// What follows it may be keys too.
    pub(super) open_ended: bool,
}

/// A reply to a read of a key that does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Null, an empty aggregate, or an array of nulls.
    Nothing,
    /// 0, or an array of zeros.
    Zero,
    /// These bytes.
    Is(&'static [u8]),
    /// These bytes, which are never said of a key that exists.
    Only(&'static [u8]),
    /// It depends on the arguments, and existing keys can give the same.
    Varies,
}

impl Absent {
    /// Whether a complete reply is what is said of a key that does not exist (and of some that do, too).
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

/// Commands that give a part of a hash an end of its own: Redis 7.4 and later, Valkey 9. The part goes without any write,
/// the key's TTL does not tell, and with the last part goes the key.
const END_FIELDS: &[&str] = &["hexpire", "hexpireat", "hpexpire", "hpexpireat", "hgetex", "hsetex"];

/// The same for members of other types (KeyDB, Dragonfly).
const END_MEMBERS: &[&str] = &["expiremember", "expirememberat", "pexpirememberat", "fieldexpire", "saddex"];

/// What a server lets parts of keys do by themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    fields: bool,
    members: bool,
}

impl Ends {
    /// Of a server with these commands.
    pub(super) fn of(entries: &[Entry]) -> Ends {
        let has = |names: &[&str]| entries.iter().any(|entry| names.contains(&&*entry.name));
        Ends { fields: has(END_FIELDS), members: has(END_MEMBERS) }
    }

    /// Of a server that has not been asked.
    pub(super) const UNKNOWN: Ends = Ends { fields: true, members: true };

    fn spoil(self, of: Of) -> bool {
        match of {
            Of::String => false,
            Of::Hash | Of::Any => self.fields || self.members,
            Of::Other => self.members,
        }
    }
}

/// Whether and how the reply of a command may be kept.
pub(super) fn of(name: &str, flags: Flags, write: bool, class: Class, finder: &Finder, ends: Ends) -> Option<Kept> {
    let decision = decisions::kept(name)?;
    let (key, open_ended) = finder.fixed_place()?;
    let reads = flags.contains(Flags::READONLY) && !write && class == Class::Stateless;
    let read = Reads::named(name).filter(|_| reads && !ends.spoil(decision.of))?;
    Some(Kept { read, absent: decision.absent, key, open_ended })
}

#[cfg(test)]
mod tests {
    use super::Absent;

    #[test]
    fn what_is_said_of_a_key_that_does_not_exist() {
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
