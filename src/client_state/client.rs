//! The state of one client: its reply queue, its profile, its client info, and its connections to Redis.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use crate::client_state::client_info::ClientInfo;
use crate::client_state::profile::Profile;
use crate::client_state::reply_queue::ReplyQueue;
use crate::client_state::session::Session;
use crate::client_state::waiter::Waiter;
use crate::upstream::Expected;

/// The parts of a client's state. `E` is what waits for a reply on its connections to Redis.
pub struct ClientState<E: Expected> {
    /// The replies that are due. Code that only answers the client holds this part alone.
    pub reply_queue: Rc<ReplyQueue>,
    /// The client's connection state as Redis would see it. Replies change it.
    pub profile: Profile<E>,
    /// The other fields of CLIENT LIST.
    pub info: ClientInfo,
    /// The client's session (private connection), if it is in one.
    pub(crate) session: RefCell<Weak<Session<E>>>,
    /// A session that was opened before the client needed it, because another client redirects its invalidations to it.
    pub(crate) offered: RefCell<Option<Rc<Session<E>>>>,
    /// The connection on which its WAIT or WAITAOF waits.
    pub(crate) waiter: RefCell<Option<Rc<Waiter<E>>>>,
}

impl<E: Expected> ClientState<E> {
    /// The state of a client that has just connected.
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

    /// The session that the client is in, or the one that was opened for it in advance.
    pub(crate) fn session(&self) -> Option<Rc<Session<E>>> {
        self.session.borrow().upgrade()
    }

    /// CLIENT KILL: closes the connection now, even if replies are due.
    pub(crate) fn kill(&self) {
        self.info.kill();
        self.reply_queue.wake();
    }
}
