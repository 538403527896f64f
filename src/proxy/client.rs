//! One client, as the request side sees it: what it has asked, where its session is, and what it wants to hear.

use std::cell::RefCell;
use std::rc::Rc;

use crate::client_state::reply_queue::ReplyQueue;
use crate::command::Lookup;
use crate::exchange::pending::{ClientState, Session};
use crate::exchange::transaction::Queued;
use crate::proxy::compress::{Offloaded, Outcome};
use crate::worker_state::context::Context;
use crate::worker_state::turns::Turn;

/// What the client's connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Takes the next one.
    Go,
    /// Takes this one again, when all that was asked has been answered.
    Again,
    /// Takes the next one when all that was asked has been answered.
    Pause,
    /// Takes no more, and ends when all that was asked has been answered.
    Close,
    /// Takes no more, and ends when the client does: Redis ends a connection behind its last reply, and there is none.
    Deafen,
}

/// What the client wants to hear (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// Nothing of the next command.
    SkipNext,
    /// Nothing of this one.
    SkipThis,
}

/// The state of one client.
pub struct Client {
    pub(super) context: Rc<Context>,
    pub(super) reply_queue: Rc<ReplyQueue>,
    pub(super) state: Rc<ClientState>,
    pub(super) id: u64,
    pub(super) replies: Replies,
    pub(super) lookup: Lookup,
    pub(super) session: Option<Rc<Session>>,
    /// What is in the open transaction.
    pub(super) queued: Option<Box<Queued>>,
    /// The client's wait for a private connection, while it waits.
    pub(super) turn: Option<Rc<Turn>>,
    /// Bits of the keys of what has not been answered: a key whose bit is set is not served from L1, so that a reader never
    /// overtakes what it asked before.
    pub(super) in_flight: u64,
    /// The client waits for the answer to another client's request; see `awaits_flight`.
    pub(super) joined: bool,
    pub(super) offloaded: Option<(Offloaded, Rc<RefCell<Option<Outcome>>>)>,
    pub(super) hits: u64,
}

impl Client {
    /// A client that has just connected.
    pub fn new(context: Rc<Context>, state: Rc<ClientState>) -> Self {
        Client {
            context,
            reply_queue: Rc::clone(&state.reply_queue),
            id: state.info.id,
            state,
            replies: Replies::On,
            lookup: Lookup::default(),
            session: None,
            queued: None,
            turn: None,
            in_flight: 0,
            joined: false,
            offloaded: None,
            hits: 0,
        }
    }

    /// Answers from L1 that [`Client::take_hits`] has not taken yet.
    #[inline]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// Requests answered from L1 since the last call.
    pub fn take_hits(&mut self) -> u64 {
        std::mem::take(&mut self.hits)
    }

    /// Whether a request waits for its values to be compressed; until it is sent, no other is taken.
    pub fn is_offloaded(&self) -> bool {
        self.offloaded.is_some()
    }

    /// Whether the client waits for something that may never come (BLPOP), so that there is no point in waiting for it.
    pub fn is_blocked(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_blocked()) || self.state.waiter.borrow().is_some()
    }

    /// To be called before requests are handed in, and when replies have come.
    pub fn refresh(&mut self) {
        if self.reply_queue.outstanding() == 0 {
            self.in_flight = 0;
            if self.session.as_ref().is_some_and(|session| session.is_clean()) {
                self.leave_session();
            }
        }
    }

    pub(super) fn leave_session(&mut self) {
        let offered = self.state.offered.take();
        self.queued = None;
        for session in [self.session.take(), offered].into_iter().flatten() {
            self.context.leave(&session);
        }
        self.state.session.take();
    }

    /// CLIENT REPLY SKIP is for one command.
    pub(super) fn end_of_request(&mut self) {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::SkipThis,
            Replies::SkipThis => Replies::On,
            other => other,
        };
    }

    /// Whether the client does not hear what it is told now (CLIENT REPLY).
    #[inline]
    pub fn is_muted(&self) -> bool {
        matches!(self.replies, Replies::Off | Replies::SkipThis)
    }

    pub(super) fn answer(&self, frame: &[u8]) {
        self.reply_queue.local(frame, self.is_muted());
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.reply_queue.abandon();
        self.leave_line();
        if let Some(waiter) = self.state.waiter.take() {
            self.context.end_waiter(&waiter, false);
        }
        self.leave_session();
    }
}
