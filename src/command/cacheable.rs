//! Whether L1 may keep the reply of a command.
//!
//! `crate::reads` lists the reads. This file compares that list with what the server says: the command must be flagged read-only,
//! its key must have a fixed position, and no part of the key may expire before the key itself.

use crate::reads::{Absent, Kept, KeyKind, Reads};

use super::entry::Entry;
use super::flags::Flags;
use super::keys::Finder;
use super::verb::Class;

/// How to keep the reply of a read, if the call has one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cacheable {
    /// The read's name in rules.
    pub read: Reads,
    /// Its reply if the key does not exist.
    pub absent: Absent,
    /// The position of the key.
    pub key: usize,
    /// Further arguments may be keys, too.
    pub(super) open_ended: bool,
}

/// Commands that let a field of a hash expire by itself: Redis 7.4 and later, Valkey 9. The field disappears without a write, the
/// key's TTL does not show it, and with the last field the key disappears.
const END_FIELDS: &[&str] = &["hexpire", "hexpireat", "hpexpire", "hpexpireat", "hgetex", "hsetex"];

/// The same for members of other types (KeyDB, Dragonfly).
const END_MEMBERS: &[&str] = &["expiremember", "expirememberat", "pexpirememberat", "fieldexpire", "saddex"];

/// Which parts of keys can expire by themselves on a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    fields: bool,
    members: bool,
}

impl Ends {
    /// For a server with these commands.
    pub(super) fn of(entries: &[Entry]) -> Ends {
        let has = |names: &[&str]| entries.iter().any(|entry| names.contains(&&*entry.name));
        Ends { fields: has(END_FIELDS), members: has(END_MEMBERS) }
    }

    /// For a server that has not been asked.
    pub(super) const UNKNOWN: Ends = Ends { fields: true, members: true };

    /// Whether a part of such a key may expire without a write.
    fn may_shorten(self, key: KeyKind) -> bool {
        match key {
            KeyKind::String => false,
            KeyKind::Hash | KeyKind::Any => self.fields || self.members,
            KeyKind::Other => self.members,
        }
    }
}

/// How the reply of a command may be kept. `None` if it may not.
pub(super) fn of(
    name: &str,
    flags: Flags,
    write: bool,
    class: Class,
    finder: &Finder,
    ends: Ends,
) -> Option<Cacheable> {
    let read = Reads::named(name)?;
    let Kept::Reply { key: kind, absent } = read.list().next()?.kept else { return None };
    let (key, open_ended) = finder.fixed_place()?;
    let reads = flags.contains(Flags::READONLY) && !write && class == Class::Stateless;
    (reads && !ends.may_shorten(kind)).then_some(Cacheable { read, absent, key, open_ended })
}
