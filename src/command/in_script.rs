//! Which keys a command changes that a script calls, if some of its arguments are unknown.
//!
//! Decides only for commands whose keys have fixed positions. If an option may name a key (SORT … STORE), or a count gives the
//! number of keys, an unknown argument could be either. Never guesses: anything uncertain is [`InScript::Unknown`].

use smallvec::SmallVec;

use super::flags::{Facts, Flags};
use super::keys::Finder;
use super::row::Row;
use super::table::Table;
use super::verb::Verb;

/// The effect of a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InScript {
    /// It changes no key.
    Reads,
    /// It changes only the keys at these positions.
    Writes {
        /// Positions of the keys in the call.
        keys: SmallVec<[u32; 4]>,
        /// The last argument of the call stands for several (`unpack(KEYS)`), and all of them are keys.
        rest: bool,
    },
    /// Not known.
    Unknown,
}

impl Table {
    /// The effect of a call with these words, the name first. `None` is an unknown word. `open`: the last word may stand for none
    /// or several.
    #[must_use]
    pub fn in_script(&self, words: &[Option<&[u8]>], open: bool) -> InScript {
        let Some(row) = words.first().copied().flatten().and_then(|name| self.get(name)) else {
            return InScript::Unknown;
        };
        if row.subs().is_empty() {
            return row.in_script(words.len(), open);
        }
        // A subcommand behind an open end is not known.
        let sub = words.get(1).copied().flatten().and_then(|name| row.sub(name));
        sub.map_or(InScript::Unknown, |sub| sub.in_script(words.len(), open))
    }
}

impl Row {
    fn in_script(&self, argc: usize, open: bool) -> InScript {
        let only_reads = self.flags.contains(Flags::READONLY) && !self.is_write();
        if only_reads || self.facts.contains(Facts::CHANGES_NOTHING_IN_SCRIPTS) {
            return InScript::Reads;
        }
        // Modules may change more than their specs say. MOVE and COPY change keys of other databases.
        let known = self.flags.contains(Flags::WRITE) || self.facts.contains(Facts::WRITES_UNFLAGGED);
        let elsewhere = matches!(self.verb, Verb::Move | Verb::Copy | Verb::Migrate | Verb::Sort);
        if !known || elsewhere || self.flags.intersects(Flags::MODULE | Flags::NO_SCRIPT | Flags::ADMIN) {
            return InScript::Unknown;
        }
        self.finder.places(argc, open).map_or(InScript::Unknown, |(keys, rest)| InScript::Writes { keys, rest })
    }
}

impl Finder {
    /// The positions of all keys in any call of `argc` words, and whether the words behind an open end are keys.
    fn places(&self, argc: usize, open: bool) -> Option<(SmallVec<[u32; 4]>, bool)> {
        let mut keys = SmallVec::new();
        let mut rest = false;
        match self {
            Finder::At(at) => keys.push(*at),
            Finder::Specs(specs) => {
                let words = vec![&b""[..]; argc];
                for spec in specs {
                    let to_the_end = spec.fixed_range()?;
                    if open && to_the_end != Some(1) && to_the_end.is_some() {
                        return None;
                    }
                    rest |= open && to_the_end.is_some();
                    spec.find(&words, &mut keys);
                }
            }
            _ => return None,
        }
        // The last word of an open call stands for any number of words, so a single key must not be in its position.
        let last = u32::try_from(argc).ok()?;
        let all_there = !keys.is_empty() && keys.iter().all(|at| *at < last);
        all_there.then_some((keys, rest))
    }
}
