//! A worker's connections to Redis: lanes, sessions, and auth links. Opened here and given up here.

use std::rc::{Rc, Weak};
use std::sync::atomic::Ordering;
use std::time::Instant;

use crate::errors;
use crate::exchange::pending::{ClientState, Identity, Link, Profile, Session, Waiter};
use crate::metrics::outcome::{FlushReason, UnknownWrite};
use crate::resp::Version;
use crate::upstream::{Expected, LinkProfile, Lost};
use crate::worker_state::context::Context;
use crate::worker_state::turns::{Place, Turn};

/// Maximum number of concurrent logins per worker.
const MOST_AUTH_LINKS: usize = 8;

impl Context {
    /// Connects before the first client arrives. The client does not have to wait, and the log reports early if Redis is away.
    pub fn warm_up(self: &Rc<Self>) {
        self.lane(&self.anonymous(), self.first_db(), Version::Resp2);
    }

    /// The lane of an identity to a database.
    pub(crate) fn lane(self: &Rc<Self>, identity: &Identity, db: u32, version: Version) -> Link {
        identity.lane(db, version, || self.connect(LinkProfile { login: identity.login.clone(), db, version }, true))
    }

    /// The client's lane.
    ///
    /// # Errors
    /// The lane cannot be used now.
    #[inline]
    pub(crate) fn lane_of(self: &Rc<Self>, profile: &Profile) -> Result<Link, Lost> {
        profile.lane(|identity, db, version| self.lane(identity, db, version))
    }

    /// Gives up a lane whose state is in doubt. The next request opens another.
    pub(crate) fn drop_lane(&self, identity: &Identity, db: u32, version: Version) {
        if let Some(lane) = identity.drop_lane(db, version) {
            self.lose_all(&lane, "its state is in doubt");
        }
    }

    /// Gives up a lane, so that the next request gets a new one. Requests on the old lane still get their replies.
    pub(crate) fn renew_lane(&self, identity: &Identity, db: u32, version: Version) {
        if let Some(lane) = identity.drop_lane(db, version) {
            lane.retire();
        }
    }

    /// A connection for logins, whether or not it is busy.
    pub(crate) fn auth_link(self: &Rc<Self>) -> Link {
        self.auth_links.borrow_mut().retain(|auth_link| !auth_link.is_closed());
        let known = self.auth_links.borrow().first().cloned();
        known.unwrap_or_else(|| self.another_auth_link())
    }

    /// An auth link that is not busy. `None` if the login has to wait.
    pub(crate) fn free_auth_link(self: &Rc<Self>) -> Option<Link> {
        self.auth_links.borrow_mut().retain(|auth_link| !auth_link.is_closed());
        let known = self.auth_links.borrow();
        let (free, count) = (known.iter().find(|auth_link| auth_link.is_idle()).cloned(), known.len());
        drop(known);
        free.or_else(|| (count < MOST_AUTH_LINKS).then(|| self.another_auth_link()))
    }

    fn another_auth_link(self: &Rc<Self>) -> Link {
        let auth_link = self.connect(LinkProfile { login: None, db: 0, version: Version::Resp2 }, true);
        auth_link.use_for_logins();
        self.auth_links.borrow_mut().push(auth_link.clone());
        auth_link
    }

    /// Closes auth links that are no longer needed. One stays. Call this a few times a second.
    pub fn end_spare_auth_links(&self) {
        let mut first = true;
        self.auth_links.borrow_mut().retain(|auth_link| {
            let stays = std::mem::take(&mut first) || !auth_link.is_idle();
            if !stays {
                auth_link.retire();
            }
            stays
        });
    }

    /// A private connection. The caller has taken a place for it.
    pub(crate) fn session(self: &Rc<Self>, identity: &Identity, db: u32, version: Version) -> Link {
        self.stats().sessions.add(1);
        let connect = || self.connect(LinkProfile { login: identity.login.clone(), db, version }, false);
        identity.take_spare(db, version).unwrap_or_else(connect)
    }

    /// A private connection that takes no place of a client's.
    pub(crate) fn private_link(self: &Rc<Self>, identity: &Identity, db: u32, version: Version) -> Link {
        self.connect(LinkProfile { login: identity.login.clone(), db, version }, false)
    }

    /// A private connection for one request. It closes when it is retired. No database is selected on it.
    pub(crate) fn single_use_connection(self: &Rc<Self>, identity: &Identity, version: Version) -> Link {
        self.connect(LinkProfile { login: identity.login.clone(), db: 0, version }, false)
    }

    /// Takes a private connection back: it becomes a spare of its identity if it is `clean`, else it closes.
    pub(crate) fn end_session(&self, identity: &Identity, link: Link, clean: bool) {
        self.stats().sessions.sub(1);
        if clean && !link.is_closed() {
            link.set_tap(None);
            if let Some(one_too_many) = identity.keep_spare(link) {
                one_too_many.retire();
            }
        } else if !link.is_retired() {
            self.lose_all(&link, "its client has gone");
        }
        // Only after the connection has become a spare, so that the next client takes it.
        self.turns.give_back(self.max_sessions());
    }

    /// The client leaves its session, or disconnects.
    pub(crate) fn leave(&self, session: &Session) {
        let clean = session.leave();
        if session.is_executed_by_task() {
            // The task ends the connection.
            self.stats().sessions.sub(1);
            return self.turns.give_back(self.max_sessions());
        }
        self.end_session(session.identity(), session.link.clone(), clean);
    }

    /// A client's WAIT has ended. `done`: nothing waits on its connection.
    pub(crate) fn end_waiter(&self, waiter: &Waiter, done: bool) {
        self.end_session(&waiter.identity, waiter.link.clone(), done && waiter.is_clean());
    }

    /// A place for a private connection. `turn` is the client's place in the queue, if it already waits.
    pub(crate) fn take_place(&self, client: &Rc<ClientState>, turn: &mut Option<Rc<Turn>>, now: Instant) -> Place {
        self.turns.take(client, turn, self.max_sessions(), now, now + self.connect_timeout())
    }

    /// The client no longer waits for a place.
    pub(crate) fn cancel_turn(&self, waiting: Rc<Turn>) {
        self.turns.leave(waiting, self.max_sessions());
    }

    fn connect(self: &Rc<Self>, profile: LinkProfile, shared: bool) -> Link {
        let db = profile.db;
        let link = Link::new(Rc::clone(&self.links), profile, shared);
        let context = Rc::clone(self);
        let driven = link.clone();
        let number = self.links_made.get();
        self.links_made.set(number + 1);
        self.all_links.borrow_mut().insert(number, link.clone());
        context.stats().upstream_connections.add(1);
        tokio::task::spawn_local(async move {
            let task = tokio::task::spawn_local(driven.clone().drive(Rc::clone(&context)));
            if let Err(error) = task.await
                && error.is_panic()
            {
                context.shared.stats.shared.panics.fetch_add(1, Ordering::Relaxed);
                crate::seldom!(error, "the task of an upstream connection panicked; it is given up", db, shared);
                context.shared.coherence.flush_for(FlushReason::Upstream, "an upstream connection was given up");
                // The next request that needs a closed lane opens a new one.
                context.lose_all(&driven, "of a fault in the proxy");
            }
            if !shared && !driven.is_retired() {
                context.lose_session(&driven);
            }
            context.all_links.borrow_mut().remove(&number);
            context.stats().upstream_connections.sub(1);
        });
        link
    }

    /// A private connection was lost. If its client had state there, the client must be told at once, as by Redis.
    fn lose_session(&self, link: &Link) {
        let clients: Vec<_> = self.clients.borrow().values().cloned().collect();
        let mut sessions = clients.iter().filter_map(|client| client.session());
        if let Some(session) = sessions.find(|session| session.link.is(link) && !session.is_clean()) {
            session.lost();
        }
    }

    /// Gives up every connection to a server of an older epoch. In-flight writes there have an unknown outcome, and clients with a
    /// session are closed. When this returns, nothing more is sent to that server or read from it.
    pub fn leave_server(&self, epoch: u64) {
        self.losses.set(self.losses.get() + 1);
        let lost = Lost::from(&errors::MOVED).because(UnknownWrite::ServerChanged);
        let links: Vec<_> = self.all_links.borrow().values().cloned().collect();
        links.iter().for_each(|link| link.leave(self, epoch, &lost));
        let clients: Vec<_> = self.clients.borrow().values().cloned().collect();
        let sessions = clients.iter().filter_map(|client| client.session());
        sessions.filter(|session| session.link.is_closed()).for_each(|session| session.lost());
        self.publish();
    }

    fn lose_all(&self, link: &Link, why: &str) {
        let lost = Lost::from(&errors::given_up(why)).because(UnknownWrite::GivenUp);
        for expected in link.close() {
            expected.lose(self, &lost, true);
        }
        self.publish();
    }

    /// Gives up all connections, at shutdown.
    pub fn close(&self) {
        let identities: Vec<_> = self.identities.borrow().iter().filter_map(Weak::upgrade).collect();
        let anonymous = self.anonymous();
        let links = identities.iter().chain([&anonymous]).flat_map(|identity| identity.take_all());
        links.chain(self.auth_links.take()).for_each(|link| drop(link.close()));
        self.all_links.borrow_mut().clear();
        self.flights.borrow_mut().clear();
        self.queued_logins.borrow_mut().clear();
    }
}
