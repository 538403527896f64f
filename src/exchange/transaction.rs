//! The queued commands of a transaction, from MULTI until EXEC is answered.

use std::time::Duration;

use crate::exchange::client_command::ClientCommand;
use crate::exchange::exec_demux::{Commands, ExecDemux};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::near_cache::KeyId;

/// The queued commands of a transaction.
#[derive(Default)]
pub struct Queued {
    pub(crate) guard: WriteGuard,
    /// One per command.
    pub(crate) shape: Vec<ReplyShape>,
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

impl Queued {
    /// Adds a CLIENT command, HELLO or AUTH.
    pub(crate) fn push_client_command(&mut self, command: ClientCommand) {
        self.client_commands.push((self.shape.len(), command));
        self.shape.push(ReplyShape::Nothing);
    }
}
