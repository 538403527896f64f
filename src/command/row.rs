//! A row of the command table: what must be known of a command before a byte is sent.
//!
//! Made once, from the server's table and from `decisions.rs`, and read by each request without an allocation. Without a decision,
//! the flags are interpreted cautiously: anything they do not exclude may happen.

use smallvec::SmallVec;

use crate::metrics::outcome::Family;
use crate::resp::parse_int;

use super::cacheable::{self, Cacheable, Ends};
use super::decisions::{self, Touch};
use super::entry::Entry;
use super::flags::{Facts, Flags};
use super::keys::{self, Finder, Keys};
use super::verb::{Class, Verb};

/// One command or one subcommand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// In lower case. A subcommand is named `container|subcommand`.
    pub name: Box<str>,
    /// Number of arguments with the name (and the subcommand's). Negative: at least that many.
    pub arity: i32,
    /// From the server.
    pub flags: Flags,
    /// Where the command may run. If that depends on the arguments, this is the cautious answer; [`Row::class_for`] is exact.
    pub class: Class,
    /// How the command is treated.
    pub verb: Verb,
    /// The row's number in its table, from 1. 0: the command is in no table.
    pub number: u32,
    pub(super) finder: Finder,
    write: bool,
    retry_safe: bool,
    named: bool,
    pub(super) cacheable: Option<Cacheable>,
    /// Further facts.
    pub facts: Facts,
    /// Where the subcommand's own name begins in `name`. 0 for a command.
    own_name_at: usize,
    pub(super) subs: Box<[Row]>,
}

impl Row {
    /// Whether the command takes `argc` arguments, including the name. Redis checks this before anything else.
    #[must_use]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { argc == wanted } else { argc >= wanted }
    }

    /// Whether a call with so many arguments may look into the strings that are stored at its keys.
    pub fn looks_into_strings(&self, argc: usize) -> bool {
        match self.verb {
            Verb::Get | Verb::MGet | Verb::GetSet | Verb::GetDel | Verb::GetEx | Verb::StringOp(_) => true,
            Verb::Sort | Verb::SortRo => true,
            // With options it may return or compare the old value.
            Verb::Set => argc > 3,
            _ => self.is_unknown() || self.flags.intersects(Flags::MODULE),
        }
    }

    /// Whether it moves or copies the values of its keys within Redis.
    pub fn moves_values(&self) -> bool {
        matches!(self.verb, Verb::Copy | Verb::Move) || matches!(&*self.name, "rename" | "renamenx")
    }

    /// Whether it brings values to keys that nobody can look at before.
    pub fn brings_values(&self) -> bool {
        matches!(self.verb, Verb::SwapDb | Verb::Migrate) || matches!(&*self.name, "restore" | "restore-asking")
    }

    /// Whether the first argument is its only key, in every call.
    pub fn has_one_key(&self) -> bool {
        matches!(self.finder, Finder::At(1))
    }

    /// Whether it runs a script or a function.
    pub fn is_script(&self) -> bool {
        matches!(self.verb, Verb::Script(_) | Verb::ScriptRo(_))
    }

    /// Whether it may change a key's content or TTL (`docs/coherence.md`). This follows the server's flags and key specs, with
    /// corrections for EVAL, EVALSHA and FCALL (not flagged, but write), PFCOUNT (flagged read-only, but changes the cached count
    /// inside the string), and DEBUG, REPLICAOF and others that reach all keys. An unknown command is a write unless it is flagged
    /// read-only. Commands that write only with an option (SORT … STORE, GETEX … EX, BITFIELD … SET) always count as writes.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Whether it may be repeated if the connection breaks before the reply: it changes nothing, and its reply does not depend on
    /// the connection.
    #[must_use]
    pub fn retry_safe(&self) -> bool {
        self.retry_safe
    }

    /// How the reply of a call with `argc` arguments, including the name, may be kept in L1. `None` unless it is a read of one key
    /// whose reply changes only when the key changes. GET and MGET are not among them, because L1 keeps their values instead.
    #[must_use]
    #[inline]
    pub fn cacheable(&self, argc: usize) -> Option<Cacheable> {
        let cacheable = self.cacheable?;
        let one_key = if cacheable.open_ended { argc == cacheable.key + 1 } else { argc > cacheable.key };
        (one_key && self.arity_ok(argc)).then_some(cacheable)
    }

    /// The family to which its latency is counted. `None`: it may block, so its latency says nothing.
    #[must_use]
    #[inline]
    pub fn family(&self) -> Option<Family> {
        match (self.class, self.verb) {
            (Class::Blocking, _) => None,
            (_, Verb::Script(_) | Verb::ScriptRo(_)) => Some(Family::Script),
            _ if self.write => Some(Family::Write),
            _ if self.flags.contains(Flags::READONLY) => Some(Family::Read),
            _ => Some(Family::Other),
        }
    }

    /// Whether it is CLIENT or one of its subcommands.
    #[must_use]
    pub fn is_client(&self) -> bool {
        matches!(self.verb, Verb::Client(_))
    }

    /// Whether Redis may execute it for long, and serves no other client meanwhile. Module commands count as long, because nothing
    /// is known about them.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.facts.contains(Facts::LONG) || self.flags.contains(Flags::MODULE) || self.is_unknown()
    }

    /// Whether the command is in no table.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.name.is_empty()
    }

    /// Where this call may run. Like [`Row::class`], but XREAD and XREADGROUP are blocking only with BLOCK, and DEBUG PROTOCOL push
    /// needs a session because Redis sends a push that is no reply.
    #[must_use]
    #[inline]
    pub fn class_for(&self, args: &[&[u8]]) -> Class {
        match self.verb {
            Verb::XRead | Verb::XReadGroup if !keys::blocks(args) => Class::Stateless,
            Verb::Debug if keys::pushes(args) => Class::Session,
            _ => self.class,
        }
    }

    /// Finds the arguments that are keys. `args` is the whole call, with the name at 0. `out` is cleared and receives their
    /// indices, ascending within each key spec. For a call that Redis would refuse for its syntax it may find too many keys, but
    /// never too few for one that Redis would execute.
    ///
    /// A script's keys are those that it declares. `scripts` decides what else it may write.
    pub fn keys(&self, args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) -> Keys {
        out.clear();
        self.finder.find(args, out)
    }

    /// Other databases in which a call writes its keys: MOVE key db, COPY source destination … DB db. Redis refuses an invalid
    /// number. If DB is repeated, it uses the last.
    #[must_use]
    pub fn other_databases(&self, args: &[&[u8]]) -> SmallVec<[u32; 1]> {
        let number = |text: &&[u8]| parse_int(text).and_then(|db| u32::try_from(db).ok());
        match self.verb {
            Verb::Move => args.get(2).and_then(number).into_iter().collect(),
            Verb::Copy => {
                let options = args.get(3..).unwrap_or_default();
                let dbs = options.windows(2).filter(|two| two[0].eq_ignore_ascii_case(b"db"));
                dbs.filter_map(|two| number(&two[1])).collect()
            }
            _ => SmallVec::new(),
        }
    }

    /// The row of a subcommand, by its own name in any case.
    #[must_use]
    pub fn sub(&self, name: &[u8]) -> Option<&Row> {
        self.subs.iter().find(|row| row.own_name().eq_ignore_ascii_case(name))
    }

    /// All subcommands. Empty for a command without any.
    #[must_use]
    pub fn subs(&self) -> &[Row] {
        &self.subs
    }

    /// Whether class, verb and effect were decided by name rather than from the flags.
    #[must_use]
    pub fn decided_by_name(&self) -> bool {
        self.named
    }

    fn own_name(&self) -> &[u8] {
        &self.name.as_bytes()[self.own_name_at..]
    }

    /// A subcommand that a newer server may have, before its table is known. It has the container's name, and no number.
    pub(super) fn newer_sub(container: &str, arity: i32, verb: Verb) -> Row {
        Row { name: container.into(), arity, write: false, finder: Finder::None, ..Row::unknown(verb) }
    }

    /// The row of a command that is in no table. Redis most likely does not know it either, but it may belong to a module that was
    /// just loaded, or be MONITOR, renamed by the administrator.
    pub(super) fn unknown(verb: Verb) -> Row {
        Row {
            name: "".into(),
            arity: -1,
            flags: Flags::empty(),
            class: Class::Session,
            verb,
            number: 0,
            finder: Finder::Unknown,
            write: true,
            retry_safe: false,
            named: false,
            cacheable: None,
            facts: Facts::empty(),
            own_name_at: 0,
            subs: Box::default(),
        }
    }

    pub(super) fn new(entry: Entry, ends: Ends) -> Row {
        let decision = decisions::of(&entry.name);
        let Entry { name, arity, flags, first, last, step, specs, subs } = entry;
        let movable = flags.contains(Flags::MOVABLE_KEYS);
        // If a module describes its keys in the old way, Redis generates specs that mark the keys as changed, even for a command
        // that only reads.
        let specs_tell = !flags.contains(Flags::MODULE | Flags::READONLY);
        let changes = specs_tell && specs.iter().flatten().any(|spec| spec.changes);
        let flagged_write = flags.contains(Flags::WRITE) || changes;

        let finder = match specs {
            Some(specs) => Finder::from_specs(specs, movable),
            None if movable => Finder::Unknown,
            None => Finder::from_range(first, last, step),
        };
        let finder = keys::special(&name, finder);

        let (class, verb, touch) = match decision {
            Some(decision) => (decision.class, decision.verb, decision.touch),
            None if flags.contains(Flags::BLOCKING) => (Class::Blocking, Verb::Blocking, Touch::AsFlagged),
            None if flags.intersects(Flags::CONNECTION | Flags::TRANSACTION | Flags::PUBSUB) => {
                (Class::Session, Verb::Plain, Touch::AsFlagged)
            }
            None => (Class::Stateless, Verb::Plain, Touch::AsFlagged),
        };
        let (write, finder) = match (touch, finder) {
            (Touch::Nothing, finder) => (flagged_write, finder),
            (Touch::Declared, finder) => (true, finder),
            (Touch::Anything, _) => (true, Finder::Unknown),
            (Touch::AsFlagged, finder) if flags.contains(Flags::READONLY) => (flagged_write, finder),
            // Redis refuses a container's unknown subcommand without doing anything.
            (Touch::AsFlagged, finder) if !subs.is_empty() => (flagged_write, finder),
            (Touch::AsFlagged, Finder::None) => (true, Finder::Unknown),
            (Touch::AsFlagged, finder) => (true, finder),
        };
        let repeatable = flags.contains(Flags::READONLY) || decision.is_some_and(|decision| decision.repeatable);
        // XREAD without BLOCK. With BLOCK it runs on a session, where nothing is repeated.
        let on_a_lane = class == Class::Stateless || verb == Verb::XRead;

        let cacheable = cacheable::of(&name, flags, write, class, &finder, ends);
        let facts = decisions::facts(&name, flags.contains(Flags::READONLY) && !write, verb);

        let own_name_at = name.find('|').map_or(0, |bar| bar + 1);
        Row {
            name,
            arity,
            flags,
            class,
            verb,
            number: 0,
            finder,
            write,
            retry_safe: repeatable && on_a_lane && !write,
            named: decision.is_some(),
            cacheable,
            facts,
            own_name_at,
            subs: subs.into_iter().map(|sub| Row::new(sub, ends)).collect(),
        }
    }
}
