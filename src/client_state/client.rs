//! All that is known of one client, in one place: its replies, who it is, and its connections to Redis.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::client_state::client_info::ClientInfo;
use crate::client_state::profile::Profile;
use crate::client_state::reply_queue::ReplyQueue;
use crate::client_state::session::Session;
use crate::client_state::waiter::Waiter;
use crate::upstream::Expected;

/// The parts of a client's state. `E`: what waits for a reply on its connections to Redis.
pub struct ClientState<E: Expected> {
    /// What is due to it. Who only answers the client holds this alone.
    pub reply_queue: Rc<ReplyQueue>,
    /// What the client's connection would be to Redis; replies change it.
    pub profile: Profile<E>,
    /// What else CLIENT LIST tells of it.
    pub info: ClientInfo,
    /// The client's private connection to Redis.
    pub(crate) session: RefCell<Weak<Session<E>>>,
    /// A private connection that was made before the client needed one: another client's invalidations are to come there.
    pub(crate) offered: RefCell<Option<Rc<Session<E>>>>,
    /// The connection on which its WAIT or WAITAOF waits, while it does.
    pub(crate) waiter: RefCell<Option<Rc<Waiter<E>>>>,
}

impl<E: Expected> ClientState<E> {
    /// Of a client that has just connected.
    pub fn new(reply_queue: ReplyQueue, profile: Profile<E>, info: ClientInfo) -> Self {
        ClientState {
            reply_queue: Rc::new(reply_queue),
            profile,
            info,
            session: RefCell::default(),
            offered: RefCell::default(),
            waiter: RefCell::default(),
        }
    }

    /// The session that the client is in, or one that waits for it.
    pub(crate) fn session(&self) -> Option<Rc<Session<E>>> {
        self.session.borrow().upgrade()
    }

    /// CLIENT KILL: ends the connection now, whatever is due on it.
    pub(crate) fn kill(&self) {
        self.info.kill();
        self.reply_queue.wake();
    }
}
