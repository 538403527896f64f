//! A row of the command table: what the proxy must know of one command before a byte is sent.
//!
//! Made once, from what the server says and from `decisions.rs`, and used by each request without an allocation. Without a decision,
//! the flags are read with care: what they do not rule out may happen.

use smallvec::SmallVec;

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
    /// Lower case; a subcommand is named `container|subcommand`.
    pub name: Box<str>,
    /// Arguments with the name (and the subcommand's); negative: at least that many.
    pub arity: i32,
    /// As the server says.
    pub flags: Flags,
    /// Where it may run. Where the arguments decide, the careful answer; [`Row::class_for`] is exact.
    pub class: Class,
    /// How the proxy treats it.
    pub verb: Verb,
    /// Its number in its table, from 1; 0: a command that is in none.
    pub number: u32,
    pub(super) finder: Finder,
    write: bool,
    retry_safe: bool,
    named: bool,
    pub(super) cacheable: Option<Cacheable>,
    /// What else is true of it.
    pub facts: Facts,
    /// Where the subcommand's own name begins in `name`; 0 for a command.
    own_name_at: usize,
    pub(super) subs: Box<[Row]>,
}

impl Row {
    /// Whether `argc` arguments, the name included, are what the command takes. Redis refuses other counts before
    /// it looks at anything else.
    #[must_use]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { argc == wanted } else { argc >= wanted }
    }

    /// Whether it may change what a key holds or how long it lives (`docs/coherence.md`): the server's flags and key specs,
    /// corrected for EVAL, EVALSHA and FCALL (not flagged, and do), PFCOUNT (flagged read-only, and changes the
    /// cached count inside the string), DEBUG, REPLICAOF and others that reach all keys. An unknown command is a
    /// write unless it is flagged read-only. Commands that write only with an option (SORT … STORE,
    /// GETEX … EX, BITFIELD … SET) are writes always.
    #[must_use]
    pub fn is_write(&self) -> bool {
        self.write
    }

    /// Whether it may be sent again when the connection broke before its reply: it changes nothing, and its answer
    /// does not depend on the connection.
    #[must_use]
    pub fn retry_safe(&self) -> bool {
        self.retry_safe
    }

    /// Whether the reply of a call with `argc` arguments, the name included, may be kept in L1, and how: a read of one key that
    /// gives the same reply until the key changes. GET and MGET are not among them: of these, values are kept.
    #[must_use]
    #[inline]
    pub fn cacheable(&self, argc: usize) -> Option<Cacheable> {
        let cacheable = self.cacheable?;
        let one_key = if cacheable.open_ended { argc == cacheable.key + 1 } else { argc > cacheable.key };
        (one_key && self.arity_ok(argc)).then_some(cacheable)
    }

    /// Whether it is CLIENT or one of its subcommands.
    #[must_use]
    pub fn is_client(&self) -> bool {
        matches!(self.verb, Verb::Client(_))
    }

    /// Whether Redis may execute it for long, and serves nobody else meanwhile. What a module does nobody knows.
    #[must_use]
    pub fn is_long(&self) -> bool {
        self.facts.contains(Facts::LONG) || self.flags.contains(Flags::MODULE) || self.is_unknown()
    }

    /// Whether the command is in no table.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        self.name.is_empty()
    }

    /// Where this call may run: [`Row::class`], but XREAD and XREADGROUP are blocking only with BLOCK, and DEBUG PROTOCOL push makes
    /// Redis push something, which belongs to no reply.
    #[must_use]
    #[inline]
    pub fn class_for(&self, args: &[&[u8]]) -> Class {
        match self.verb {
            Verb::XRead | Verb::XReadGroup if !keys::blocks(args) => Class::Stateless,
            Verb::Debug if keys::pushes(args) => Class::Session,
            _ => self.class,
        }
    }

    /// Finds the arguments that are keys. `args` is the whole call, the name at 0; `out` is cleared and gets indices
    /// into it, ascending within each key spec. In a call that Redis would refuse for its syntax too many keys may
    /// be named, never too few of one that it would execute.
    ///
    /// A script's keys are those that it declares. What else it may write is judged by `scripts`.
    pub fn keys(&self, args: &[&[u8]], out: &mut SmallVec<[u32; 4]>) -> Keys {
        out.clear();
        self.finder.find(args, out)
    }

    /// Other databases in which a call writes its keys, too: MOVE key db, COPY source destination … DB db. Redis refuses what is not
    /// a number; when there are several DB, it takes the last.
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

    /// All subcommands; empty for a plain command.
    #[must_use]
    pub fn subs(&self) -> &[Row] {
        &self.subs
    }

    /// Whether class, verb and effect were decided by name, not read from the flags.
    #[must_use]
    pub fn decided_by_name(&self) -> bool {
        self.named
    }

    fn own_name(&self) -> &[u8] {
        &self.name.as_bytes()[self.own_name_at..]
    }

    /// A subcommand that a newer server may have, before its table is here. It has the container's name, and no number.
    pub(super) fn newer_sub(container: &str, arity: i32, verb: Verb) -> Row {
        Row { name: container.into(), arity, write: false, finder: Finder::None, ..Row::unknown(verb) }
    }

    /// The row of a command that is in no table: most likely Redis does not know it either, but it may belong to a module
    /// that was loaded a moment ago, or be MONITOR, renamed by the administrator.
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
        // For a module that describes its keys in the old way, Redis makes specs that change them, also for a command that only reads.
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
        // XREAD without BLOCK: with it, it runs on a session, where nothing is repeated.
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
