//! Which reads L1 may keep the reply of.
//!
//! The names are `decisions.rs`'s; here they are held against what the server says: flagged read-only, the key in a fixed
//! place, and nothing that ends by itself without the key's own TTL telling.

use crate::config::Reads;

use super::absent::Absent;
use super::decisions::{self, Of};
use super::entry::Entry;
use super::keys::Finder;
use super::{Class, Flags};

/// A read whose reply may be kept, when the call is about one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cacheable {
    /// Itself, as rules name it.
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

    fn spoil(self, of: Of) -> bool {
        match of {
            Of::String => false,
            Of::Hash | Of::Any => self.fields || self.members,
            Of::Other => self.members,
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
    let decision = decisions::cacheable(name)?;
    let (key, open_ended) = finder.fixed_place()?;
    let reads = flags.contains(Flags::READONLY) && !write && class == Class::Stateless;
    let read = Reads::named(name).filter(|_| reads && !ends.spoil(decision.of))?;
    Some(Cacheable { read, absent: decision.absent, key, open_ended })
}
