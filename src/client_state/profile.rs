//! A client's user, database, protocol version and name, as Redis would know them if the client were connected to Redis.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Instant;

use crate::client_state::identity::Identity;
use crate::client_state::users::Users;
use crate::resp::Version;
use crate::upstream::{Expected, Link, Lost};

/// The replies to SELECT, HELLO and AUTH change it. Every request reads it.
pub struct Profile<E: Expected> {
    db: Cell<u32>,
    version: Cell<Version>,
    identity: RefCell<Rc<Identity<E>>>,
    /// A copy of the identity's user number.
    user: Cell<u32>,
    /// CLIENT SETNAME. Empty if the client has no name.
    pub name: RefCell<Vec<u8>>,
    /// The lane for this profile, if it was looked up.
    lane: RefCell<Option<Link<E>>>,
}

impl<E: Expected> Profile<E> {
    /// The profile of a new connection.
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

    /// The client's protocol version.
    #[inline]
    pub fn version(&self) -> Version {
        self.version.get()
    }

    /// The user's number. 0 if the client has not authenticated.
    #[inline]
    pub fn user(&self) -> u32 {
        self.user.get()
    }

    /// The client's identity.
    pub fn identity(&self) -> Rc<Identity<E>> {
        Rc::clone(&self.identity.borrow())
    }

    /// Whether the client's connections to Redis have no login.
    #[inline]
    pub(crate) fn has_no_login(&self) -> bool {
        self.identity.borrow().login.is_none()
    }

    /// Whether Redis accepts commands on the client's lane, as far as the lane alone can tell.
    #[inline]
    pub(crate) fn is_accepted(&self) -> bool {
        self.lane.borrow().as_ref().is_some_and(Link::is_accepted)
    }

    /// Whether the user may use PTTL. Without that right, nothing that it reads may be kept.
    pub(crate) fn may_ttl(&self, users: &Users) -> bool {
        self.identity.borrow().may_ttl(users)
    }

    /// Whether a running script holds up the client's lane.
    #[inline]
    pub(crate) fn is_held_up(&self, now: Instant) -> bool {
        match &*self.lane.borrow() {
            Some(lane) => lane.is_held_up(now),
            None => self.identity.borrow().is_held_up(self.db(), self.version(), now),
        }
    }

    /// Makes the next call of [`Profile::lane`] look the lane up again.
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

    /// RESET: back to the state of a new connection.
    pub fn reset(&self, identity: Rc<Identity<E>>, db: u32) {
        self.set_identity(identity);
        self.db.set(db);
        self.version.set(Version::Resp2);
        self.name.borrow_mut().clear();
    }

    /// The client's lane. `find` looks it up if it is not known.
    ///
    /// # Errors
    /// The lane cannot be used now.
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
