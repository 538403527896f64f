//! The connection on which a client waits for replicas (WAIT, WAITAOF).

use std::cell::Cell;
use std::rc::Rc;

use crate::client_state::identity::Identity;
use crate::upstream::{Expected, Link};

/// A connection of Shortstop's own on which a client waits for replicas.
pub struct Waiter<E: Expected> {
    pub(crate) identity: Rc<Identity<E>>,
    pub(crate) link: Link<E>,
    /// Other clients know the connection's id and mean this client by it.
    observed: Cell<bool>,
}

impl<E: Expected> Waiter<E> {
    /// A waiter on a connection with this identity.
    pub(crate) fn new(identity: Rc<Identity<E>>, link: Link<E>) -> Self {
        Waiter { identity, link, observed: Cell::new(false) }
    }

    /// The connection's id in Redis, for CLIENT UNBLOCK.
    pub(crate) fn expose_id(&self) -> Option<u64> {
        self.observed.set(true);
        self.link.id()
    }

    /// Whether nothing waits on the connection, so that another WAIT may use it.
    pub(crate) fn is_clean(&self) -> bool {
        !self.observed.get() && self.link.is_idle()
    }
}
