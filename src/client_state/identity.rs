//! Who a client is to Redis, and the connections that Redis knows as such.
//!
//! Each worker has its own; what is cached is told apart by the user's number, which all workers share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use crate::client_state::users::Users;
use crate::resp::Version;
use crate::upstream::{Expected, Link, Login};

/// Private connections kept for the next session.
const SPARE_SESSIONS: usize = 4;

/// A client that has not authenticated, or a login. It ends with the last client that has it, and its connections with it.
pub struct Identity<E: Expected> {
    pub(crate) login: Option<Rc<Login>>,
    user: u32,
    lanes: RefCell<HashMap<(u32, Version), Link<E>>>,
    spare: RefCell<Vec<Link<E>>>,
    /// Redis was seen to let the user SELECT.
    pub(crate) may_select: Cell<bool>,
    /// Whether the user may PTTL, and the [`Users::state`] for which that holds.
    may_ttl: Cell<(u32, bool)>,
}

impl<E: Expected> Identity<E> {
    pub(crate) fn new(login: Option<Rc<Login>>, user: u32) -> Self {
        Identity {
            login,
            user,
            lanes: RefCell::default(),
            spare: RefCell::default(),
            may_select: Cell::default(),
            may_ttl: Cell::default(),
        }
    }

    /// The number of the user, the same in all workers; 0: the client has not authenticated.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Whether the user may PTTL: without that nothing that it reads may be kept.
    pub(crate) fn may_ttl(&self, users: &Users) -> bool {
        let (state, may) = self.may_ttl.get();
        let now = users.state();
        if state == now {
            return may;
        }
        let may = users.may_ttl(self.user, self.login.as_deref().map(Login::user));
        self.may_ttl.set((now, may));
        may
    }

    /// The lane to a database, made by `connect` when there is none.
    pub(crate) fn lane(&self, db: u32, version: Version, connect: impl FnOnce() -> Link<E>) -> Link<E> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.get(&(db, version)).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        let lane = connect();
        lanes.insert((db, version), lane.clone());
        lane
    }

    /// Whether there is a lane to a database, and a script holds it up.
    pub(crate) fn is_held_up(&self, db: u32, version: Version, now: Instant) -> bool {
        self.lanes.borrow().get(&(db, version)).is_some_and(|lane| lane.is_held_up(now))
    }

    /// Gives a lane up; the next request makes another.
    pub(crate) fn drop_lane(&self, db: u32, version: Version) -> Option<Link<E>> {
        self.lanes.borrow_mut().remove(&(db, version))
    }

    /// Whether a lane has stood since before that time.
    pub(crate) fn stood_through(&self, moment: Instant) -> bool {
        self.lanes.borrow().values().any(|lane| lane.stands_since(moment))
    }

    /// A private connection that stands and is nobody's.
    pub(crate) fn take_spare(&self, db: u32, version: Version) -> Option<Link<E>> {
        let mut spare = self.spare.borrow_mut();
        spare.retain(|link| !link.is_closed());
        let at = spare.iter().position(|link| link.db() == db && link.version() == version)?;
        Some(spare.swap_remove(at))
    }

    /// Keeps a private connection on which nothing is left; hands back one too many.
    pub(crate) fn keep_spare(&self, link: Link<E>) -> Option<Link<E>> {
        let mut spare = self.spare.borrow_mut();
        spare.push(link);
        (spare.len() > SPARE_SESSIONS).then(|| spare.remove(0))
    }

    /// Takes all connections out.
    pub(crate) fn take_all(&self) -> Vec<Link<E>> {
        let lanes = self.lanes.take().into_values();
        lanes.chain(self.spare.take()).collect()
    }
}

impl<E: Expected> Drop for Identity<E> {
    fn drop(&mut self) {
        // What was asked is waited for: its guards come down with the replies.
        self.take_all().iter().for_each(Link::retire);
    }
}
