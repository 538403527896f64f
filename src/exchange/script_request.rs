//! A request that runs a script which looks first whether strings are compressed. Data only: `proxy` creates the request, and `replies`
//! sends it again if Redis does not know the script or a string was compressed.

use std::sync::Arc;

use bytes::Bytes;

use crate::resp::{Chunks, build};
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
#[derive(Clone, Copy, Debug)]
pub(crate) enum Command {
    /// A command, which is the last so many of the script's arguments.
    Last(usize),
    /// A command that the script has in another form.
    Other,
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

    /// Appends the request. It names the script by its SHA-1, or contains its text.
    pub(crate) fn write(&self, wire: &mut Chunks, with_text: bool) {
        let script = if with_text { &self.script.text[..] } else { self.script.sha.as_bytes() };
        self.write_call(wire, with_text, script);
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

    /// Appends what the client has sent. Returns false if the script alone has it.
    pub(crate) fn write_command(&self, wire: &mut Chunks) -> bool {
        match (self.client, &self.script.own) {
            (Command::Script { with_text }, Some(own)) => {
                let script = if with_text { &own.text[..] } else { own.sha.as_bytes() };
                self.write_call(wire, with_text, script);
                true
            }
            (Command::Last(count), _) => {
                let Some(last) = self.last(count) else { return false };
                wire.push_with(|out| build::header(out, b'*', count));
                wire.push_bytes(last);
                true
            }
            _ => false,
        }
    }

    /// Whether the client has sent the text of a script.
    pub(crate) fn has_own_text(&self) -> bool {
        matches!(self.client, Command::Script { with_text: true })
    }

    /// The last arguments.
    fn last(&self, count: usize) -> Option<Bytes> {
        let mut at = 0;
        for _ in 0..self.count.checked_sub(count)? {
            let end = memchr::memchr(b'\n', &self.arguments[at..])?;
            let length: usize = std::str::from_utf8(&self.arguments[at + 1..at + end - 1]).ok()?.parse().ok()?;
            at += end + 1 + length + 2;
        }
        Some(self.arguments.slice(at..))
    }
}
