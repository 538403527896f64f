//! What Redis would know of a client's connection, were it Redis's own: user, database, protocol, name.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use crate::client_state::identity::Identity;
use crate::client_state::users::Users;
use crate::resp::Version;
use crate::upstream::{Expected, Link, Lost};

/// Changed by the replies to SELECT, HELLO and AUTH; read by every request.
pub struct Profile<E: Expected> {
    db: Cell<u32>,
    version: Cell<Version>,
    identity: RefCell<Rc<Identity<E>>>,
    /// The identity's user, at hand.
    user: Cell<u32>,
    /// CLIENT SETNAME; empty: none.
    pub name: RefCell<Vec<u8>>,
    /// The lane of all this, once it was needed.
    lane: RefCell<Option<Link<E>>>,
}

impl<E: Expected> Profile<E> {
    /// Of a new connection.
    pub fn new(identity: Rc<Identity<E>>, db: u32) -> Self {
        Profile {
            db: Cell::new(db),
            version: Cell::default(),
            user: Cell::new(identity.user()),
            identity: RefCell::new(identity),
            name: RefCell::default(),
            lane: RefCell::default(),
        }
    }

    /// The selected database.
    #[inline]
    pub fn db(&self) -> u32 {
        self.db.get()
    }

    /// What the client speaks.
    #[inline]
    pub fn version(&self) -> Version {
        self.version.get()
    }

    /// The number of its user; 0: it has not authenticated.
    #[inline]
    pub fn user(&self) -> u32 {
        self.user.get()
    }

    /// Who it is.
    pub fn identity(&self) -> Rc<Identity<E>> {
        Rc::clone(&self.identity.borrow())
    }

    /// Whether the client's connections to Redis have no login.
    #[inline]
    pub(crate) fn has_no_login(&self) -> bool {
        self.identity.borrow().login.is_none()
    }

    /// Whether its lane is known to be let in by Redis, so that nothing else has to be looked at to know that.
    #[inline]
    pub(crate) fn is_let_in(&self) -> bool {
        self.lane.borrow().as_ref().is_some_and(Link::is_let_in)
    }

    /// Whether its user may PTTL: without that nothing that it reads may be kept.
    pub(crate) fn may_ttl(&self, users: &Users) -> bool {
        self.identity.borrow().may_ttl(users)
    }

    /// Whether a script holds up the lane that the client's next request would go to.
    #[inline]
    pub(crate) fn is_held_up(&self, now: Instant) -> bool {
        match &*self.lane.borrow() {
            Some(lane) => lane.is_held_up(now),
            None => self.identity.borrow().is_held_up(self.db(), self.version(), now),
        }
    }

    /// The next call of [`Profile::lane`] looks the lane up again.
    pub(crate) fn forget_lane(&self) {
        self.lane.take();
    }

    /// SELECT.
    pub fn set_db(&self, db: u32) {
        self.db.set(db);
        self.lane.take();
    }

    /// HELLO.
    pub fn set_version(&self, version: Version) {
        self.version.set(version);
        self.lane.take();
    }

    /// AUTH.
    pub fn set_identity(&self, identity: Rc<Identity<E>>) {
        self.user.set(identity.user());
        self.lane.take();
        *self.identity.borrow_mut() = identity;
    }

    /// RESET: as a new connection.
    pub fn reset(&self, identity: Rc<Identity<E>>, db: u32) {
        self.set_identity(identity);
        self.db.set(db);
        self.version.set(Version::Resp2);
        self.name.borrow_mut().clear();
    }

    /// The shared connection that the client's requests go to; `find` looks it up when it is not known.
    ///
    /// # Errors
    /// It cannot be used now.
    #[inline]
    pub(crate) fn lane(&self, find: impl FnOnce(&Identity<E>, u32, Version) -> Link<E>) -> Result<Link<E>, Lost> {
        if let Some(lane) = &*self.lane.borrow() {
            if lane.may_send() {
                return Ok(lane.clone());
            }
            if !lane.is_closed() {
                lane.check()?;
            }
        }
        let lane = find(&self.identity(), self.db(), self.version());
        *self.lane.borrow_mut() = Some(lane.clone());
        lane.check()?;
        Ok(lane)
    }
}
