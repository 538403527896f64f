//! Identities: a user as Redis knows it, with the connections that are logged in as that user.
//!
//! Each worker has its own identities. Entries of L1 are separated by the user's number, which all workers share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Instant;

use crate::client_state::users::Users;
use crate::resp::Version;
use crate::upstream::{Expected, Link, Login, UserRights};

/// Maximum number of spare sessions.
const SPARE_SESSIONS: usize = 4;

/// A client that has not authenticated, or a login. It is dropped, with its connections, when its last client is gone.
pub struct Identity<E: Expected> {
    pub(crate) login: Option<Rc<Login>>,
    user: u32,
    lanes: RefCell<HashMap<(u32, Version), Link<E>>>,
    spare: RefCell<Vec<Link<E>>>,
    /// Redis has allowed the user to SELECT.
    pub(crate) may_select: Cell<bool>,
    /// Whether the user may use PTTL, and the value of [`Users::state`] for which this was found.
    may_ttl: Cell<(u32, bool)>,
    /// The same for all that is known of the user's rights.
    rights: Cell<(u32, UserRights)>,
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
            rights: Cell::default(),
        }
    }

    /// The user's number, which all workers share. 0 if the client has not authenticated.
    pub fn user(&self) -> u32 {
        self.user
    }

    /// Whether the user may use PTTL. Without that right, nothing that it reads may be kept.
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

    /// What Shortstop may send as the user in the place of the user's own commands.
    pub(crate) fn rights(&self, users: &Users) -> UserRights {
        let (state, rights) = self.rights.get();
        let now = users.state();
        if state == now {
            return rights;
        }
        let rights = users.rights(self.login.as_deref().map(Login::user));
        self.rights.set((now, rights));
        rights
    }

    /// The lane to a database. If there is none, `connect` opens it.
    pub(crate) fn lane(&self, db: u32, version: Version, connect: impl FnOnce() -> Link<E>) -> Link<E> {
        let mut lanes = self.lanes.borrow_mut();
        if let Some(lane) = lanes.get(&(db, version)).filter(|lane| !lane.is_closed()) {
            return lane.clone();
        }
        let lane = connect();
        lanes.insert((db, version), lane.clone());
        lane
    }

    /// Whether a running script holds up the lane to a database.
    pub(crate) fn is_held_up(&self, db: u32, version: Version, now: Instant) -> bool {
        self.lanes.borrow().get(&(db, version)).is_some_and(|lane| lane.is_held_up(now))
    }

    /// Gives up a lane. The next request opens another.
    pub(crate) fn drop_lane(&self, db: u32, version: Version) -> Option<Link<E>> {
        self.lanes.borrow_mut().remove(&(db, version))
    }

    /// Whether one of the lanes has been connected since before that time.
    pub(crate) fn was_connected_at(&self, moment: Instant) -> bool {
        self.lanes.borrow().values().any(|lane| lane.stands_since(moment))
    }

    /// Whether Redis has executed requests on one of the lanes since before that time, or would have.
    pub(crate) fn was_accepted_at(&self, moment: Instant) -> bool {
        self.lanes.borrow().values().any(|lane| lane.is_accepted() && lane.stands_since(moment))
    }

    /// A spare session that is connected.
    pub(crate) fn take_spare(&self, db: u32, version: Version) -> Option<Link<E>> {
        let mut spare = self.spare.borrow_mut();
        spare.retain(|link| !link.is_closed());
        let at = spare.iter().position(|link| link.db() == db && link.version() == version)?;
        Some(spare.swap_remove(at))
    }

    /// Keeps a session that holds no state. Returns the one that is too many, if any.
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
        // Pending requests get their replies, which lower their guards.
        self.take_all().iter().for_each(Link::retire);
    }
}
