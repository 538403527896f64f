//! The connection on which a client waits for replicas (WAIT, WAITAOF).

use std::cell::Cell;
use std::rc::Rc;

use crate::client_state::identity::Identity;
use crate::upstream::{Expected, Link};

/// A connection of Shortstop's own on which a client waits for replicas.
pub struct Waiter<E: Expected> {
    pub(crate) identity: Rc<Identity<E>>,
    pub(crate) link: Link<E>,
    /// Others know the connection's number, and mean this client by it.
    observed: Cell<bool>,
}

impl<E: Expected> Waiter<E> {
    /// A connection of that identity.
    pub(crate) fn new(identity: Rc<Identity<E>>, link: Link<E>) -> Self {
        Waiter { identity, link, observed: Cell::new(false) }
    }

    /// Its number in Redis, for CLIENT UNBLOCK.
    pub(crate) fn expose_number(&self) -> Option<u64> {
        self.observed.set(true);
        self.link.id()
    }

    /// Nothing waits on it any more. Whether another WAIT may have the connection.
    pub(crate) fn is_clean(&self) -> bool {
        !self.observed.get() && self.link.is_idle()
    }
}
