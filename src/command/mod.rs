//! The command table: one row per command, made from the server's own `COMMAND` reply.
//!
//! A row answers what the proxy must know before a byte is sent: where the command may run ([`Class`]), how the
//! proxy treats it ([`Verb`]), what it may change ([`Row::is_write`]), which of its arguments are keys
//! ([`Row::keys`]), and what else is true of it ([`Facts`]). After the look-up no name is compared any more. Flags and
//! key specs come from the server (<https://redis.io/docs/latest/commands/command/>,
//! <https://redis.io/docs/latest/develop/reference/key-specs/>); what they do not say is decided by name in `decisions.rs`.
//!
//! Nothing here does I/O, or knows what an argument means beyond "key", "blocks", "writes". A look-up does not allocate.

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
