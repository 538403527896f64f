//! The command table: one row per command, made from the server's own `COMMAND` reply.
//!
//! A row answers what must be known before a byte is sent: where the command may run ([`Class`]), how it is treated ([`Verb`]),
//! what it may change ([`Row::is_write`]), which of its arguments are keys ([`Row::keys`]), and further facts ([`Facts`]). After
//! the lookup no name is compared any more. Flags and key specs come from the server
//! (<https://redis.io/docs/latest/commands/command/>, <https://redis.io/docs/latest/develop/reference/key-specs/>). What they do
//! not say is decided by name in `decisions.rs`.
//!
//! Nothing here does I/O, or knows what an argument means beyond "key", "blocks", "writes". A lookup does not allocate.

mod cacheable;
mod decisions;
mod entry;
mod flags;
mod in_script;
mod index;
mod keys;
mod lookup;
mod row;
mod table;
#[cfg(test)]
mod tests;
mod verb;

pub use cacheable::Cacheable;
pub use entry::TableError;
pub use flags::{Facts, Flags};
pub use in_script::InScript;
pub use keys::Keys;
pub use lookup::Lookup;
pub use row::Row;
pub use table::Table;
pub use verb::{Class, ClientSubcommand, ProxySubcommand, ScriptBy, StringOp, Verb};
