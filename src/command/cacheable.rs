//! Which reads L1 may keep the reply of.
//!
//! The list is in `crate::reads`; here it is compared with what the server says: flagged read-only, the key in a fixed
//! place, and nothing that ends by itself without the key's own TTL telling.

use crate::reads::{Absent, Kept, KeyKind, Reads};

use super::entry::Entry;
use super::flags::Flags;
use super::keys::Finder;
use super::verb::Class;

/// A read whose reply may be kept, when the call is about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cacheable {
    /// The read, as rules name it.
    pub read: Reads,
    /// What it says when there is no such key.
    pub absent: Absent,
    /// The place of the key.
    pub key: usize,
    /// What follows it may be keys too.
    pub(super) open_ended: bool,
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

    /// Whether a part of such a key may end without a write.
    fn may_shorten(self, key: KeyKind) -> bool {
        match key {
            KeyKind::String => false,
            KeyKind::Hash | KeyKind::Any => self.fields || self.members,
            KeyKind::Other => self.members,
        }
    }
}

/// Whether and how the reply of a command may be kept.
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
