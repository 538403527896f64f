//! The queued commands of a transaction, from MULTI until EXEC is answered.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;

use crate::client_state::reply_queue::Slot;
use crate::exchange::client_command::ClientCommand;
use crate::exchange::exec_demux::{Commands, ExecDemux};
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::near_cache::KeyId;
use crate::resp::Chunks;

/// The queued commands of a transaction.
#[derive(Default)]
pub struct Queued {
    pub(crate) guard: WriteGuard,
    /// One per command.
    pub(crate) shape: Vec<ReplyShape>,
    /// The strings that the commands look into. They must be plain when the transaction is executed.
    pub(crate) looks_into: Vec<(u32, Strings)>,
    /// The strings that the commands move to other keys, or copy.
    pub(crate) moves: Vec<(u32, Strings)>,
    /// A command brings values to keys that Shortstop cannot look at before.
    pub(crate) brings_values: bool,
    /// Held while Shortstop sends the transaction.
    pub(crate) turns: Vec<OwnedMutexGuard<()>>,
    /// What was sent between MULTI and EXEC.
    pub(crate) sent: SentInMulti,
    /// The client has called WATCH for these keys. `None`: Shortstop alone has, and repeats the transaction if one has changed.
    pub(crate) watched: Option<Vec<(u32, Vec<u8>)>>,
    /// The slot for the reply to the command that marks the end of the transaction's messages.
    pub(crate) marker: Option<Slot>,
    /// Number of Shortstop's own commands before those of the client, and behind them.
    pub(crate) not_the_clients: (usize, usize),
    /// How often Shortstop has watched the strings and sent the transaction again.
    pub(crate) tries: u32,
    /// Each SELECT: its position and its database.
    pub(crate) selects: Vec<(usize, u32)>,
    /// The commands that the demultiplexer needs to know.
    pub(crate) commands: Commands,
    /// The frames of EXEC's reply so far, if pushes may stand among them.
    pub(crate) demux: Option<Box<ExecDemux>>,
    /// The keys that are read. EXEC's reply may show that entries of L1 are out of date.
    pub(crate) read: Vec<KeyId>,
    /// Each CLIENT command that Redis cannot answer alone: its position and what it stands for.
    pub(crate) client_commands: Vec<(usize, ClientCommand)>,
    /// Positions of WAIT and WAITAOF.
    pub(crate) waits: Vec<usize>,
    /// One of the commands may run for long in Redis.
    pub(crate) long: bool,
    /// Each CLIENT PAUSE: its position and its length. `None` for CLIENT UNPAUSE.
    pub(crate) pauses: Vec<(usize, Option<Duration>)>,
    /// One of the commands is CLIENT REPLY ON.
    pub(crate) speaks: bool,
}

/// What was sent between MULTI and EXEC, so that it can be sent again.
#[derive(Default)]
pub struct SentInMulti {
    pub(crate) requests: Vec<Chunks>,
    bytes: usize,
    /// It is too large to be kept.
    pub(crate) is_too_large: bool,
    /// Shortstop has made Redis abort the transaction.
    pub(crate) is_aborted: bool,
}

impl SentInMulti {
    /// Notes a request.
    pub(crate) fn note(&mut self, request: Chunks, most: usize) {
        self.bytes += request.len();
        self.is_too_large |= self.bytes > most;
        if self.is_too_large {
            self.requests = Vec::new();
        } else {
            self.requests.push(request);
        }
    }

    /// The last request has compressed values. The commands behind it may look into them, so this is sent instead.
    pub(crate) fn plain(&mut self, request: Chunks) {
        if let Some(last) = self.requests.last_mut() {
            *last = request;
        }
    }
}

impl Queued {
    /// The commands of this transaction look into these strings. A SELECT in the transaction may or may not succeed.
    pub(crate) fn looks_into(&mut self, (db, strings): (u32, Strings)) {
        let all = self.in_each_database(db, strings);
        self.looks_into.extend(all);
    }

    /// A command of this transaction moves or copies these strings.
    pub(crate) fn moves(&mut self, (db, strings): (u32, Strings)) {
        let all = self.in_each_database(db, strings);
        self.moves.extend(all);
    }

    fn in_each_database(&self, db: u32, strings: Strings) -> Vec<(u32, Strings)> {
        let selected = self.selects.iter().map(|(_, db)| *db);
        let databases: HashSet<u32> = selected.chain([db]).collect();
        databases.into_iter().map(|db| (db, strings.clone())).collect()
    }

    /// Adds a CLIENT command, HELLO or AUTH.
    pub(crate) fn push_client_command(&mut self, command: ClientCommand) {
        self.client_commands.push((self.shape.len(), command));
        self.shape.push(ReplyShape::Nothing);
    }
}
