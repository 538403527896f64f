//! A request that runs a script which looks first whether strings are compressed. Data only: `proxy` creates the request, and `replies`
//! sends it again if Redis does not know the script or a string was compressed.

use std::sync::Arc;

use bytes::Bytes;

use crate::resp::{Chunks, build, split_first};
use crate::scripts::GuardScript;

/// A request that runs a script.
#[derive(Clone, Debug)]
pub struct ScriptRequest {
    pub(crate) script: Arc<GuardScript>,
    /// EVALSHA_RO instead of EVALSHA: CLIENT PAUSE WRITE does not hold it up.
    read_only: bool,
    /// Number of the arguments in `arguments`.
    count: usize,
    /// What follows the script: the number of keys, the keys, and the other arguments.
    arguments: Bytes,
    client: Command,
}

/// What the client has sent.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    /// A command, which is the last so many of the script's arguments.
    Last(usize),
    /// This command, which the script has in another form.
    Other(Bytes),
    /// A script of its own: its text, or its SHA-1.
    Script {
        /// EVAL.
        with_text: bool,
    },
}

impl ScriptRequest {
    /// `arguments` are those behind the script.
    pub(crate) fn new(script: &Arc<GuardScript>, read_only: bool, arguments: &[&[u8]], client: Command) -> Self {
        let arguments_of = |words: &[&[u8]]| {
            let mut bytes = Vec::new();
            words.iter().for_each(|word| build::bulk(&mut bytes, word));
            Bytes::from(bytes)
        };
        ScriptRequest {
            script: Arc::clone(script),
            read_only,
            count: arguments.len(),
            arguments: arguments_of(arguments),
            client,
        }
    }

    /// Appends the request. It names the script by its SHA-1.
    pub(crate) fn write(&self, wire: &mut Chunks) {
        self.write_call(wire, false, self.script.sha.as_bytes());
    }

    fn write_call(&self, wire: &mut Chunks, with_text: bool, script: &[u8]) {
        let name: &[u8] = match (with_text, self.read_only) {
            (false, false) => b"EVALSHA",
            (false, true) => b"EVALSHA_RO",
            (true, false) => b"EVAL",
            (true, true) => b"EVAL_RO",
        };
        wire.push_with(|out| {
            build::header(out, b'*', self.count + 2);
            build::bulk(out, name);
            build::bulk(out, script);
        });
        wire.push_bytes(self.arguments.clone());
    }

    /// Appends what the client has sent.
    pub(crate) fn write_command(&self, wire: &mut Chunks) {
        match (&self.client, &self.script.own) {
            (Command::Script { with_text }, Some(own)) => {
                let script = if *with_text { &own.text[..] } else { own.sha.as_bytes() };
                self.write_call(wire, *with_text, script);
            }
            (Command::Script { .. }, None) => unreachable!("a script of a client"),
            (Command::Last(count), _) => {
                wire.push_with(|out| build::header(out, b'*', *count));
                wire.push_bytes(self.last(*count));
            }
            (Command::Other(command), _) => wire.push_bytes(command.clone()),
        }
    }

    /// Whether the client has sent the text of a script.
    pub(crate) fn has_own_text(&self) -> bool {
        matches!(self.client, Command::Script { with_text: true })
    }

    /// The last arguments, so many.
    fn last(&self, count: usize) -> Bytes {
        let mut rest = &self.arguments[..];
        for _ in 0..self.count - count {
            rest = split_first(rest).1;
        }
        self.arguments.slice_ref(rest)
    }
}
