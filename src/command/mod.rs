//! The command table: one row per command, made from the server's own `COMMAND` reply.
//!
//! A row answers what the proxy must know before a byte is sent: where the command may run ([`Class`]), how the
//! proxy treats it ([`Verb`]), what it may change ([`Row::is_write`]) and which of its arguments are keys
//! ([`Row::keys`]). Flags and key specs come from the server (<https://redis.io/docs/latest/commands/command/>,
//! <https://redis.io/docs/latest/develop/reference/key-specs/>); what they do not tell is decided by name in
//! `decisions.rs`. A row nobody decided on gets the careful reading of its flags.
//!
//! This file must not do I/O, must not know what an argument means beyond "key", "blocks", "writes", and a look-up
//! must not allocate.

mod absent;
mod cacheable;
mod decisions;
mod entry;
mod in_script;
mod index;
mod keys;
mod lookup;

use std::sync::atomic::{AtomicU64, Ordering};

use bitflags::bitflags;
use redis_protocol::resp2::types::BytesFrame;
use smallvec::SmallVec;

pub use absent::Absent;
pub use cacheable::Cacheable;
pub use entry::TableError;
pub use in_script::InScript;
pub use keys::Keys;
pub use lookup::Lookup;

use cacheable::Ends;
use decisions::Touch;
use entry::Entry;
use index::Index;
use keys::Finder;

use crate::config::Reads;
use crate::errors::OwnError;
use crate::resp::parse_int;

/// The `COMMAND` reply of Redis 7.0.15 in the text form of `entry.rs`. Regenerate it with
/// `SHORTSTOP_REGENERATE=1 cargo test --test command_table` and a redis-server of the wanted version in the path.
const BUILTIN: &str = include_str!("builtin.tsv");

bitflags! {
    /// What the server says about a command; a flag that is not listed here has no consequence for a proxy.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Flags: u32 {
        /// May change data.
        const WRITE = 1;
        /// Only reads data.
        const READONLY = 1 << 1;
        /// May block the connection until something happens.
        const BLOCKING = 1 << 2;
        /// First, last and step do not find all keys.
        const MOVABLE_KEYS = 1 << 3;
        /// Not allowed in scripts.
        const NO_SCRIPT = 1 << 4;
        /// Pub/sub.
        const PUBSUB = 1 << 5;
        /// Administration.
        const ADMIN = 1 << 6;
        /// Refused by Redis when its memory is full.
        const DENYOOM = 1 << 7;
        /// Answered while the data set is loading.
        const LOADING = 1 << 8;
        /// Answered by a replica that has lost its master.
        const STALE = 1 << 9;
        /// Answered before AUTH.
        const NO_AUTH = 1 << 10;
        /// Answered while a script runs for too long.
        const ALLOW_BUSY = 1 << 11;
        /// Not allowed in MULTI.
        const NO_MULTI = 1 << 12;
        /// Constant or logarithmic time.
        const FAST = 1 << 13;
        /// ACL category `@connection`: about the connection itself.
        const CONNECTION = 1 << 14;
        /// ACL category `@transaction`.
        const TRANSACTION = 1 << 15;
        /// It came with a module.
        const MODULE = 1 << 16;
    }
}

/// Where a command may run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// On a shared lane: one reply, no state left behind on the connection, the same answer on any connection.
    Stateless,
    /// On a connection of the client's own: it leaves state there, or gives not exactly one reply, or must not queue
    /// behind others (SCRIPT KILL behind the script).
    Session,
    /// On a connection of the client's own: it may hold the connection until something happens.
    Blocking,
    /// The proxy acts and answers; it may ask Redis for that.
    Local,
    /// Never sent; the error says why and what to do instead.
    Refused(&'static OwnError),
}

/// How the proxy treats a command; most are [`Verb::Plain`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// GET.
    Get,
    /// MGET.
    MGet,
    /// SET, with or without GET.
    Set,
    /// SETEX.
    SetEx,
    /// PSETEX.
    PSetEx,
    /// SETNX.
    SetNx,
    /// MSET.
    MSet,
    /// MSETNX.
    MSetNx,
    /// MSETEX: a count, then keys and values.
    MSetEx,
    /// GETSET.
    GetSet,
    /// GETDEL.
    GetDel,
    /// GETEX.
    GetEx,
    /// Looks into a string or changes a part of it: needs the client's bytes in Redis, not an envelope.
    StringOp,
    /// SORT: reads keys that its arguments only describe; may store.
    Sort,
    /// SORT_RO: reads keys that its arguments only describe.
    SortRo,
    /// FLUSHALL.
    FlushAll,
    /// FLUSHDB.
    FlushDb,
    /// SWAPDB.
    SwapDb,
    /// MOVE: the key changes in two databases.
    Move,
    /// COPY: with DB the second key is in another database.
    Copy,
    /// MIGRATE.
    Migrate,
    /// EVAL, EVALSHA, FCALL and their read-only forms.
    Script,
    /// SCRIPT LOAD: names a text that EVALSHA may run.
    ScriptLoad,
    /// FUNCTION LOAD and others that change which functions there are, and what they may do.
    Functions,
    /// MULTI.
    Multi,
    /// EXEC.
    Exec,
    /// DISCARD.
    Discard,
    /// WATCH.
    Watch,
    /// UNWATCH.
    Unwatch,
    /// SUBSCRIBE: one reply per channel.
    Subscribe,
    /// PSUBSCRIBE: one reply per pattern.
    PSubscribe,
    /// SSUBSCRIBE: one reply per channel.
    SSubscribe,
    /// UNSUBSCRIBE: one reply per channel, also when nothing was subscribed.
    Unsubscribe,
    /// PUNSUBSCRIBE: one reply per pattern, also when nothing was subscribed.
    PUnsubscribe,
    /// SUNSUBSCRIBE: one reply per channel, also when nothing was subscribed.
    SUnsubscribe,
    /// MONITOR.
    Monitor,
    /// Always may block: BLPOP, WAIT and the like.
    Blocking,
    /// XREAD: blocks only with BLOCK, see [`Row::class_for`].
    XRead,
    /// XREADGROUP: blocks only with BLOCK, see [`Row::class_for`].
    XReadGroup,
    /// SELECT.
    Select,
    /// QUIT.
    Quit,
    /// RESET.
    Reset,
    /// HELLO.
    Hello,
    /// AUTH.
    Auth,
    /// CLIENT and its subcommands.
    Client,
    /// INFO.
    Info,
    /// PROXY, our own.
    Proxy,
    /// ASKING: valid for the next command on the same connection.
    Asking,
    /// READONLY: the connection may read from a cluster's replica.
    ReadOnly,
    /// READWRITE: ends READONLY.
    ReadWrite,
    /// SHUTDOWN: no reply when it succeeds.
    Shutdown,
    /// DEBUG.
    Debug,
    /// Nothing special.
    Plain,
}

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
    finder: Finder,
    write: bool,
    retry_safe: bool,
    named: bool,
    cacheable: Option<Cacheable>,
    tells: bool,
    /// Where the subcommand's own name begins in `name`; 0 for a command.
    own_name_at: usize,
    subs: Box<[Row]>,
}

impl Row {
    /// Whether `argc` arguments, the name included, are what the command takes. Redis refuses other counts before
    /// it looks at anything else.
    #[must_use]
    pub fn arity_ok(&self, argc: usize) -> bool {
        let wanted = self.arity.unsigned_abs() as usize;
        if self.arity >= 0 { argc == wanted } else { argc >= wanted }
    }

    /// Whether it may change what a key holds or how long it lives (COHERENCE §3): the server's flags and key specs,
    /// corrected for EVAL, EVALSHA and FCALL (not flagged, and do), PFCOUNT (flagged read-only, and changes the
    /// cached count inside the string), DEBUG, REPLICAOF and others that reach all keys. A command that nobody knows
    /// and that is not flagged read-only is a write. Commands that write only with an option (SORT … STORE,
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
    /// says the same until the key changes. GET and MGET are none of these: what is kept of them is a value.
    #[must_use]
    #[inline]
    pub fn cacheable(&self, argc: usize) -> Option<Cacheable> {
        let cacheable = self.cacheable?;
        let one_key = if cacheable.open_ended { argc == cacheable.key + 1 } else { argc > cacheable.key };
        (one_key && self.arity_ok(argc)).then_some(cacheable)
    }

    /// Whether it is a read that says something of what its keys hold, and not only of their time or place.
    #[must_use]
    pub fn tells(&self) -> bool {
        self.tells
    }

    /// Where this call may run: [`Row::class`], but XREAD and XREADGROUP are blocking only with BLOCK, and DEBUG PROTOCOL push makes
    /// Redis push something, which belongs to no reply.
    #[must_use]
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
    /// A script's keys are those that it declares. What else it may write is not said here: `scripts` judges that.
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

    /// The row of a command that is in no table: most likely Redis does not know it either, but it may have come with a
    /// module a moment ago, or be MONITOR under a name that the administrator gave it.
    fn unknown() -> Row {
        Row {
            name: "".into(),
            arity: -1,
            flags: Flags::empty(),
            class: Class::Session,
            verb: Verb::Plain,
            number: 0,
            finder: Finder::Unknown,
            write: true,
            retry_safe: false,
            named: false,
            cacheable: None,
            tells: false,
            own_name_at: 0,
            subs: Box::default(),
        }
    }

    fn new(entry: Entry, ends: Ends) -> Row {
        let decision = decisions::of(&entry.name);
        let Entry { name, arity, flags, first, last, step, specs, subs } = entry;
        let movable = flags.contains(Flags::MOVABLE_KEYS);
        // A module that describes its keys in the old way gets specs that change them, also for what it says only reads.
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
        let tells = flags.contains(Flags::READONLY) && !write && decisions::tells(&name);

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
            tells,
            own_name_at,
            subs: subs.into_iter().map(|sub| Row::new(sub, ends)).collect(),
        }
    }
}

/// All commands of one server, and the proxy's own.
#[derive(Debug, Clone)]
pub struct Table {
    rows: Vec<Row>,
    index: Index,
    unknown: Row,
    /// No other table's, unless it is a copy.
    number: u64,
}

static TABLES: AtomicU64 = AtomicU64::new(1);

impl Table {
    /// The commands of Redis 7.0.15.
    #[must_use]
    pub fn builtin() -> Table {
        let entries = Table::builtin_entries();
        let ends = Ends::of(&entries);
        Table::build(entries, ends)
    }

    /// What is used until a server has been asked: [`Table::builtin`], but as the server may be a newer one, which lets parts of
    /// keys end by themselves, only of strings are replies kept.
    #[must_use]
    pub fn until_asked() -> Table {
        Table::build(Table::builtin_entries(), Ends::UNKNOWN)
    }

    fn builtin_entries() -> Vec<Entry> {
        entry::from_lines(BUILTIN).expect("builtin.tsv is well formed: tests parse it")
    }

    /// From a server's reply to `COMMAND`, Redis 6.2 or later, Valkey. Where a server has no key specs and no
    /// subcommands (Redis before 7), those of the built-in table are taken for the commands that it has.
    ///
    /// # Errors
    /// When the reply is not the documented shape; the table in use should then be kept.
    pub fn from_command(reply: &BytesFrame) -> Result<Table, TableError> {
        let mut entries = entry::from_reply(reply)?;
        if entries.iter().any(|entry| entry.specs.is_none()) {
            let builtin = entry::from_lines(BUILTIN)?;
            for entry in entries.iter_mut().filter(|entry| entry.specs.is_none()) {
                if let Some(known) = builtin.iter().find(|known| known.name == entry.name) {
                    entry.borrow_from(known);
                }
            }
            // Redis before 7 answers QUIT, and does not list it.
            if !entries.iter().any(|entry| &*entry.name == "quit") {
                entries.extend(builtin.into_iter().filter(|entry| &*entry.name == "quit"));
            }
        }
        let ends = Ends::of(&entries);
        Ok(Table::build(entries, ends))
    }

    /// A server's reply to `COMMAND` in the form of `builtin.tsv`, under a title.
    ///
    /// # Errors
    /// When the reply is not the documented shape.
    pub fn reply_to_tsv(reply: &BytesFrame, title: &str) -> Result<String, TableError> {
        Ok(entry::to_lines(&entry::from_reply(reply)?, title))
    }

    /// The row of a command, by its name in any case; a container's own row for `CONFIG` and the like.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Row> {
        self.rows.get(self.index.find(name)?)
    }

    /// The row for a whole call: the subcommand's where there is one, the container's where Redis would refuse the
    /// subcommand, and a row that expects the worst (a write of any key, on a session) where nobody knows the name.
    #[must_use]
    pub fn resolve(&self, args: &[&[u8]]) -> &Row {
        let Some(row) = args.first().and_then(|name| self.get(name)) else {
            return &self.unknown;
        };
        match args.get(1) {
            Some(name) if !row.subs.is_empty() => row.sub(name).unwrap_or(row),
            _ => row,
        }
    }

    /// All commands, without subcommands ([`Row::subs`] has them), in the server's order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.iter()
    }

    /// A number that only this table and its copies have.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The name of the row with this number.
    #[must_use]
    pub fn name_of(&self, number: u32) -> Option<&str> {
        self.all().find(|row| row.number == number).map(|row| row.name.as_ref())
    }

    /// The number here of the row that has this number in another table; 0: there is none of its name.
    #[must_use]
    pub fn renumbered(&self, number: u32, other: &Table) -> u32 {
        let name = other.name_of(number);
        name.and_then(|name| self.all().find(|row| row.name.as_ref() == name)).map_or(0, |row| row.number)
    }

    /// The reads whose replies may be kept, beside GET and MGET.
    #[must_use]
    pub fn cacheable(&self) -> Reads {
        self.rows.iter().filter_map(|row| row.cacheable).fold(Reads::NONE, |all, cacheable| all | cacheable.read)
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flat_map(|row| std::iter::once(row).chain(row.subs()))
    }

    fn build(entries: Vec<Entry>, ends: Ends) -> Table {
        let mut rows: Vec<Row> = entries
            .into_iter()
            .filter(|entry| decisions::OURS.iter().all(|(name, _)| *name != &*entry.name))
            .chain(decisions::OURS.iter().map(|(name, arity)| Entry::bare(name, *arity)))
            .map(|entry| Row::new(entry, ends))
            .collect();
        // By name: the order in which a server lists its commands means nothing.
        let all = rows.iter().flat_map(|row| std::iter::once(row).chain(row.subs()));
        let mut names: Vec<Box<str>> = all.map(|row| row.name.clone()).collect();
        names.sort_unstable();
        let number = |name| names.binary_search(name).map_or(0, |at| u32::try_from(at + 1).unwrap_or(0));
        for row in &mut rows {
            row.number = number(&row.name);
            row.subs.iter_mut().for_each(|sub| sub.number = number(&sub.name));
        }
        let index = Index::of(rows.iter().map(|row| row.name.as_bytes()));
        Table { rows, index, unknown: Row::unknown(), number: TABLES.fetch_add(1, Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests;
