//! The reply of EXEC on a connection that also gets what is nobody's reply: messages and other pushes stand among its elements,
//! and SUBSCRIBE has as many of them as channels, so that there are more frames than EXEC's header says.
//!
//! Tells them apart, frame by frame, so that each command's element is found, and puts them back in their places afterwards. Must
//! not look into elements.

use std::rc::Rc;

use crate::client_state::connection_state::Kind;
use crate::client_state::session::Session;
use crate::resp::{Bulk, build, bulk_of, elements};
use crate::upstream::Expected;

/// A command of the SUBSCRIBE family in a transaction.
pub struct Subscribed {
    /// Its place among the commands.
    pub(crate) at: usize,
    pub(crate) kind: Kind,
    /// As its acknowledgements begin.
    pub(crate) word: Box<str>,
    /// Channels or patterns that it names; 0: all that there are.
    pub(crate) named: usize,
}

impl Subscribed {
    fn is_acknowledged_by(&self, frame: &[u8]) -> bool {
        matches!(frame.first(), Some(b'>' | b'*'))
            && elements(frame).and_then(|mut all| all.next()).map(bulk_of) == Some(Bulk::Value(self.word.as_bytes()))
    }
}

/// What is known of a transaction's commands.
#[derive(Default)]
pub struct Commands {
    pub(crate) subscribed: Vec<Subscribed>,
    /// Places of PUBLISH and its like, whose replies are numbers.
    pub(crate) publish: Vec<usize>,
}

/// The frames so far.
#[derive(Default)]
pub struct ExecDemux {
    /// Elements of EXEC's reply.
    count: usize,
    /// One for each command; of a SUBSCRIBE its last acknowledgement.
    elements: Vec<Vec<u8>>,
    /// What stands before each of them.
    before: Vec<Vec<u8>>,
    /// Acknowledgements that are due.
    due: usize,
    /// What is heard of all this by who hears no replies (CLIENT REPLY OFF).
    pushed: Vec<u8>,
}

/// A frame may be a message or a reply, and nobody can tell.
#[derive(Debug)]
pub struct Doubt;

impl ExecDemux {
    /// For a reply of so many elements.
    pub(crate) fn of(count: usize) -> Self {
        ExecDemux { count, before: vec![Vec::new()], ..ExecDemux::default() }
    }

    /// Frames that are still to come; a bound from below.
    pub(crate) fn missing(&self) -> usize {
        (self.count - self.elements.len()) + self.due.saturating_sub(1)
    }

    /// The next frame.
    ///
    /// # Errors
    /// In RESP2 a message is an array as others are.
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

    /// All that is no reply, acknowledgements included.
    pub(crate) fn pushed(&self) -> &[u8] {
        &self.pushed
    }

    /// The reply without what stands between.
    pub(crate) fn reply(&self) -> Vec<u8> {
        let mut out = Vec::new();
        build::header(&mut out, b'*', self.elements.len());
        self.elements.iter().for_each(|element| out.extend_from_slice(element));
        out
    }

    /// The reply, whose elements may be others by now, with what stands between.
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
