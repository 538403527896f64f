//! Demultiplexes EXEC's reply on a connection that also receives messages and other pushes. Pushes may stand between the elements,
//! and SUBSCRIBE has one acknowledgement per channel, so there may be more frames than EXEC's header says.
//!
//! Separates replies from pushes, frame by frame, so that each command finds its element, and puts the pushes back in their places
//! afterwards. Must not look into elements.

use std::rc::Rc;

use crate::client_state::connection_state::Kind;
use crate::client_state::session::Session;
use crate::resp::{Bulk, build, bulk_of, elements};
use crate::upstream::Expected;

/// A command of the SUBSCRIBE family in a transaction.
pub struct Subscribed {
    /// Its position among the commands.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    /// The word with which its acknowledgements begin.
    pub(crate) word: Box<str>,
    /// Number of channels or patterns that it names. 0 means all.
    pub(crate) named: usize,
}

impl Subscribed {
    fn is_acknowledged_by(&self, frame: &[u8]) -> bool {
        matches!(frame.first(), Some(b'>' | b'*'))
            && elements(frame).and_then(|mut all| all.next()).map(bulk_of) == Some(Bulk::Value(self.word.as_bytes()))
    }
}

/// The commands of a transaction, as far as the demultiplexer needs to know them.
#[derive(Default)]
pub struct Commands {
    pub(crate) subscribed: Vec<Subscribed>,
    /// Positions of PUBLISH and similar commands, whose replies are integers.
    pub(crate) publish: Vec<usize>,
}

/// The frames received so far.
#[derive(Default)]
pub struct ExecDemux {
    /// Number of elements in EXEC's reply.
    count: usize,
    /// One per command. For a SUBSCRIBE, the last acknowledgement.
    elements: Vec<Vec<u8>>,
    /// The frames before each element.
    before: Vec<Vec<u8>>,
    /// Number of acknowledgements still due.
    due: usize,
    /// The frames that a client receives even if it receives no replies (CLIENT REPLY OFF).
    pushed: Vec<u8>,
}

/// A frame may be a message or a reply, and there is no way to tell.
#[derive(Debug)]
pub struct Doubt;

impl ExecDemux {
    /// For a reply with this many elements.
    pub(crate) fn of(count: usize) -> Self {
        ExecDemux { count, before: vec![Vec::new()], ..ExecDemux::default() }
    }

    /// Number of frames still missing, at least.
    pub(crate) fn missing(&self) -> usize {
        (self.count - self.elements.len()) + self.due.saturating_sub(1)
    }

    /// Adds the next frame.
    ///
    /// # Errors
    /// In RESP2 a message is an ordinary array.
    pub(crate) fn add<E: Expected>(
        &mut self,
        session: &Rc<Session<E>>,
        commands: &Commands,
        frame: &[u8],
    ) -> Result<(), Doubt> {
        let at = self.elements.len();
        let subscribed = commands.subscribed.iter().find(|subscribed| subscribed.at == at);
        if let Some(subscribed) = subscribed.filter(|subscribed| subscribed.is_acknowledged_by(frame)) {
            if self.due == 0 {
                let all = || session.subscriptions(subscribed.kind).max(1);
                self.due = Some(subscribed.named).filter(|named| *named > 0).unwrap_or_else(all);
            }
            session.acknowledged_in_exec(subscribed.kind, frame);
            self.due -= 1;
            if self.due > 0 {
                self.aside(frame)
            } else {
                self.pushed.extend_from_slice(frame);
                self.element(frame)
            }
            return Ok(());
        }
        let is_reply = match frame.first() {
            Some(b'>') => false,
            Some(b'*') if session.is_message(frame) && subscribed.is_none() => {
                if !commands.publish.contains(&at) {
                    return Err(Doubt);
                }
                false
            }
            Some(b'*') if subscribed.is_some() => false,
            _ => true,
        };
        if is_reply {
            self.element(frame)
        } else {
            self.aside(frame)
        }
        Ok(())
    }

    fn aside(&mut self, frame: &[u8]) {
        self.pushed.extend_from_slice(frame);
        self.before[self.elements.len()].extend_from_slice(frame);
    }

    fn element(&mut self, frame: &[u8]) {
        self.elements.push(frame.to_vec());
        self.before.push(Vec::new());
    }

    /// All frames that are not replies, including acknowledgements.
    pub(crate) fn pushed(&self) -> &[u8] {
        &self.pushed
    }

    /// The reply without the pushes between its elements.
    pub(crate) fn reply(&self) -> Vec<u8> {
        let mut out = Vec::new();
        build::header(&mut out, b'*', self.elements.len());
        self.elements.iter().for_each(|element| out.extend_from_slice(element));
        out
    }

    /// The reply, whose elements may have been replaced, with the pushes in their places.
    pub(crate) fn back(&self, reply: &[u8]) -> Vec<u8> {
        let Some(elements) = elements(reply) else { return reply.to_vec() };
        let mut out = Vec::with_capacity(reply.len() * 2);
        build::header(&mut out, b'*', self.count);
        for (before, element) in self.before.iter().zip(elements) {
            out.extend_from_slice(before);
            out.extend_from_slice(element);
        }
        out
    }
}
