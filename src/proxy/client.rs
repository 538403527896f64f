//! The request side's state of one client: its in-flight requests, its session, and which replies it wants (CLIENT REPLY).

use std::cell::RefCell;
use std::rc::Rc;

use crate::client_state::reply_queue::ReplyQueue;
use crate::command::Lookup;
use crate::exchange::pending::{CallMark, ClientState, Session};
use crate::exchange::transaction::Queued;
use crate::proxy::compress::{Offloaded, Outcome};
use crate::worker_state::context::Context;
use crate::worker_state::turns::Turn;

/// What the client's connection does after a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Takes the next request.
    Go,
    /// Takes the same request again once every earlier request is answered.
    Again,
    /// Takes the next request once every earlier request is answered.
    Pause,
    /// Takes no more requests. Closes once every earlier request is answered.
    Close,
    /// Takes no more requests, and stays open until the client closes: Redis closes a connection after its last reply, but no reply
    /// is due here.
    Deafen,
}

/// Which replies the client wants (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// No reply to the next command.
    SkipNext,
    /// No reply to the current command.
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
    /// The commands of the open transaction.
    pub(super) queued: Option<Box<Queued>>,
    /// The keys that the client watches, with their databases.
    pub(super) watched: Vec<(u32, Vec<u8>)>,
    /// The client's place in the queue for a session, while it waits.
    pub(super) turn: Option<Rc<Turn>>,
    /// In-flight mask: the key bits of all unanswered requests. A key whose bit is set is not served from L1, so a read never
    /// overtakes an earlier request of the same client.
    pub(super) in_flight: u64,
    /// The client waits for the reply to another client's request; see `awaits_flight`.
    pub(super) joined: bool,
    pub(super) offloaded: Option<(Offloaded, Rc<RefCell<Option<Outcome>>>)>,
    pub(super) hits: u64,
    /// The number of the request that is being sent, if the worker's hot keys count it.
    pub(super) sample: u16,
    /// `hits` and the bytes in the reply queue before that request.
    pub(super) before_counted: (u64, usize),
    /// The call that is being sent, for its latency and the slow log.
    pub(super) call: CallMark,
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
            watched: Vec::new(),
            turn: None,
            in_flight: 0,
            joined: false,
            offloaded: None,
            hits: 0,
            sample: 0,
            before_counted: (0, 0),
            call: CallMark::default(),
        }
    }

    /// L1 hits that [`Client::take_hits`] has not taken yet.
    #[inline]
    pub fn hits(&self) -> u64 {
        self.hits
    }

    /// L1 hits since the last call.
    pub fn take_hits(&mut self) -> u64 {
        std::mem::take(&mut self.hits)
    }

    /// Whether a request waits for its values to be compressed. Until it is sent, the client takes no other request.
    pub fn is_offloaded(&self) -> bool {
        self.offloaded.is_some()
    }

    /// Whether the client waits in a command that may never return (BLPOP). A shutdown does not wait for such a client.
    pub fn is_blocked(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.is_blocked()) || self.state.waiter.borrow().is_some()
    }

    /// Call this before handing in requests, and when replies have come.
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

    /// CLIENT REPLY SKIP holds for one command.
    pub(super) fn end_of_request(&mut self) {
        self.replies = match self.replies {
            Replies::SkipNext => Replies::SkipThis,
            Replies::SkipThis => Replies::On,
            other => other,
        };
    }

    /// Whether the client receives no reply to the current command (CLIENT REPLY).
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
        self.cancel_turn();
        if let Some(waiter) = self.state.waiter.take() {
            self.context.end_waiter(&waiter, false);
        }
        self.leave_session();
    }
}
