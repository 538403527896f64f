//! All commands of one server, found by name, and Shortstop's own.

use std::sync::atomic::{AtomicU64, Ordering};

use redis_protocol::resp2::types::BytesFrame;

use crate::reads::Reads;

use super::cacheable::Ends;
use super::decisions;
use super::entry::{self, Entry, TableError};
use super::index::Index;
use super::row::Row;
use super::verb::{ClientSubcommand, Verb};

/// The `COMMAND` reply of Redis 7.0.15 in the text format of `entry.rs`. Regenerate it with `SHORTSTOP_REGENERATE=1 cargo test
/// --test command_table` and a redis-server of the wanted version in the path.
pub(super) const BUILTIN: &str = include_str!("builtin.tsv");

/// All commands of one server, and Shortstop's own.
#[derive(Debug, Clone)]
pub struct Table {
    pub(super) rows: Vec<Row>,
    pub(super) index: Index,
    unknown: Unknown,
    /// Shared only by copies of this table.
    pub(super) number: u64,
}

/// Rows of commands that are in no table.
#[derive(Debug, Clone)]
struct Unknown {
    any: Row,
    /// WAITAOF of Redis 7.2 and later, until such a server's table is known.
    waitaof: Row,
    /// CLIENT SETINFO of the same servers: libraries send it at every connect.
    client_setinfo: Row,
}

impl Unknown {
    fn new() -> Unknown {
        Unknown {
            any: Row::unknown(Verb::Plain),
            waitaof: Row::unknown(Verb::Wait),
            client_setinfo: Row::newer_sub("client", 4, Verb::Client(ClientSubcommand::SetInfo)),
        }
    }
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

    /// The table until a server has been asked: [`Table::builtin`], except that only replies about strings are kept. The server may
    /// be newer, and parts of other keys may expire by themselves.
    #[must_use]
    pub fn until_asked() -> Table {
        Table::build(Table::builtin_entries(), Ends::UNKNOWN)
    }

    pub(super) fn builtin_entries() -> Vec<Entry> {
        entry::from_lines(BUILTIN).expect("builtin.tsv is well formed: tests parse it")
    }

    /// From a server's reply to `COMMAND` (Redis 6.2 or later, Valkey). If a server has no key specs and no subcommands (Redis
    /// before 7), those of the built-in table are used for the commands that it has.
    ///
    /// # Errors
    /// The reply does not have the documented format. The current table should then be kept.
    pub fn from_command(reply: &BytesFrame) -> Result<Table, TableError> {
        let mut entries = entry::from_reply(reply)?;
        if entries.iter().any(|entry| entry.specs.is_none()) {
            let builtin = entry::from_lines(BUILTIN)?;
            for entry in entries.iter_mut().filter(|entry| entry.specs.is_none()) {
                if let Some(known) = builtin.iter().find(|known| known.name == entry.name) {
                    entry.borrow_from(known);
                }
            }
            // Redis before 7 answers QUIT, but does not list it.
            if !entries.iter().any(|entry| &*entry.name == "quit") {
                entries.extend(builtin.into_iter().filter(|entry| &*entry.name == "quit"));
            }
        }
        let ends = Ends::of(&entries);
        Ok(Table::build(entries, ends))
    }

    /// A server's reply to `COMMAND` in the format of `builtin.tsv`, with a title.
    ///
    /// # Errors
    /// The reply does not have the documented format.
    pub fn reply_to_tsv(reply: &BytesFrame, title: &str) -> Result<String, TableError> {
        Ok(entry::to_lines(&entry::from_reply(reply)?, title))
    }

    /// The row of a command, by its name in any case. For `CONFIG` and other containers, the container's own row.
    #[must_use]
    #[inline]
    pub fn get(&self, name: &[u8]) -> Option<&Row> {
        self.rows.get(self.index.find(name)?)
    }

    /// The row for a whole call: the subcommand's if there is one; the container's if Redis would refuse the subcommand; the row of
    /// an unknown command (a write of any key, on a session) if the name is not in the table.
    #[must_use]
    pub fn resolve(&self, args: &[&[u8]]) -> &Row {
        let Some(row) = args.first().and_then(|name| self.get(name)) else {
            let is_waitaof = args.first().is_some_and(|name| name.eq_ignore_ascii_case(b"waitaof"));
            return if is_waitaof { &self.unknown.waitaof } else { &self.unknown.any };
        };
        match args {
            [_, name, ..] if !row.subs.is_empty() => row.sub(name).unwrap_or_else(|| self.unknown_sub(row, args)),
            _ => row,
        }
    }

    fn unknown_sub<'a>(&'a self, container: &'a Row, args: &[&[u8]]) -> &'a Row {
        match args {
            [_, name, _, _] if container.is_client() && name.eq_ignore_ascii_case(b"setinfo") => {
                &self.unknown.client_setinfo
            }
            _ => container,
        }
    }

    /// All commands, without subcommands (see [`Row::subs`]), in the server's order.
    pub fn rows(&self) -> impl ExactSizeIterator<Item = &Row> {
        self.rows.iter()
    }

    /// A number shared only by copies of this table.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The name of the row with this number.
    #[must_use]
    pub fn name_of(&self, number: u32) -> Option<&str> {
        self.all().find(|row| row.number == number).map(|row| row.name.as_ref())
    }

    /// The number here of the row that has this number in another table. 0 if there is no row with its name.
    #[must_use]
    pub fn renumbered(&self, number: u32, other: &Table) -> u32 {
        let name = other.name_of(number);
        name.and_then(|name| self.all().find(|row| row.name.as_ref() == name)).map_or(0, |row| row.number)
    }

    /// The reads whose replies may be kept, in addition to GET and MGET.
    #[must_use]
    pub fn cacheable(&self) -> Reads {
        self.rows.iter().filter_map(|row| row.cacheable).fold(Reads::NONE, |all, cacheable| all | cacheable.read)
    }

    fn all(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().flat_map(|row| std::iter::once(row).chain(row.subs()))
    }

    pub(super) fn build(entries: Vec<Entry>, ends: Ends) -> Table {
        let ours = entry::nested(decisions::OURS.iter().map(|(name, arity)| Entry::bare(name, *arity)));
        let theirs = entries.into_iter().filter(|entry| ours.iter().all(|our| our.name != entry.name));
        let mut rows: Vec<Row> = theirs.chain(ours.iter().cloned()).map(|entry| Row::new(entry, ends)).collect();
        // By name, because the order of a server's list means nothing.
        let all = rows.iter().flat_map(|row| std::iter::once(row).chain(row.subs()));
        let mut names: Vec<Box<str>> = all.map(|row| row.name.clone()).collect();
        names.sort_unstable();
        let number = |name| names.binary_search(name).map_or(0, |at| u32::try_from(at + 1).unwrap_or(0));
        for row in &mut rows {
            row.number = number(&row.name);
            row.subs.iter_mut().for_each(|sub| sub.number = number(&sub.name));
        }
        let index = Index::of(rows.iter().map(|row| row.name.as_bytes()));
        Table { rows, index, unknown: Unknown::new(), number: TABLES.fetch_add(1, Ordering::Relaxed) }
    }
}
