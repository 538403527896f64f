//! What is in a transaction, from its commands' being queued until EXEC is answered.

use std::time::Duration;

use crate::exchange::client_command::ClientCommand;
use crate::exchange::exec_demux::{Commands, ExecDemux};
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::write_guard::WriteGuard;
use crate::near_cache::KeyId;

/// What is in a transaction.
#[derive(Default)]
pub struct Queued {
    pub(crate) guard: WriteGuard,
    /// Per command.
    pub(crate) shape: Vec<ReplyShape>,
    /// Each SELECT: its place and its database.
    pub(crate) selects: Vec<(usize, u32)>,
    /// What tells replies from what stands among them.
    pub(crate) commands: Commands,
    /// What has come of EXEC's reply, if there may be more in it than elements.
    pub(crate) demux: Option<Box<ExecDemux>>,
    /// Keys that are read: what L1 holds of them may be older than what EXEC tells.
    pub(crate) read: Vec<KeyId>,
    /// Each command of the CLIENT family that is not Redis's alone: its place and what it stands for.
    pub(crate) client_commands: Vec<(usize, ClientCommand)>,
    /// Places of WAIT and WAITAOF.
    pub(crate) waits: Vec<usize>,
    /// A command is among them that Redis may execute for long.
    pub(crate) long: bool,
    /// Each CLIENT PAUSE, and CLIENT UNPAUSE as none: its place and its length.
    pub(crate) pauses: Vec<(usize, Option<Duration>)>,
    /// CLIENT REPLY ON is among them.
    pub(crate) speaks: bool,
}

impl Queued {
    /// One more command of the CLIENT family, HELLO or AUTH.
    pub(crate) fn push_client_command(&mut self, command: ClientCommand) {
        self.client_commands.push((self.shape.len(), command));
        self.shape.push(ReplyShape::Nothing);
    }
}
