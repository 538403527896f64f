//! The interface of a link for the rest of Shortstop: check whether it may send, send, retire, close. The link's task holds another
//! handle.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Live, Timeouts};
use crate::resp::{Chunks, Version};
use crate::upstream::dial::Dialer;
use crate::upstream::endpoint::{Endpoint, Suspicion};
use crate::upstream::handshake::OwnRights;
use crate::upstream::limits::ServerLimits;
use crate::upstream::login::Login;
use crate::upstream::silence::Delay;

use super::expected::{Expected, Tap};
use super::lost::Lost;
use super::state::State;

/// What all links of a worker share.
#[derive(Debug)]
pub struct LinkSettings {
    /// How to connect.
    pub dialer: Arc<Dialer>,
    /// The server to connect to.
    pub endpoint: Arc<Endpoint>,
    /// Timeouts, and the back-off between attempts.
    pub timeouts: Live<Timeouts>,
    /// The name of the connections (CLIENT SETNAME).
    pub name: String,
    /// Maximum number of bytes that wait for replies on one connection. A reload may change it.
    pub pending_limit: Cell<usize>,
    /// The server's limits per connection.
    pub server_limits: Arc<ServerLimits>,
    /// The rights that Shortstop's own user lacks.
    pub own_rights: OwnRights,
}

/// The login, database and protocol of a connection.
#[derive(Clone, Debug)]
pub struct LinkProfile {
    /// Its login. `None`: it has none, like every new connection.
    pub login: Option<Rc<Login>>,
    /// Its database.
    pub db: u32,
    /// Its version of RESP.
    pub version: Version,
}

/// A handle to a link. The link's task holds another.
pub struct Link<E: Expected>(pub(super) Rc<Inner<E>>);

impl<E: Expected> Clone for Link<E> {
    fn clone(&self) -> Self {
        Link(Rc::clone(&self.0))
    }
}

pub(super) struct Inner<E: Expected> {
    pub(super) settings: Rc<LinkSettings>,
    pub(super) login: Option<Rc<Login>>,
    pub(super) db: Cell<u32>,
    pub(super) version: Cell<Version>,
    /// Its id in Redis (CLIENT ID). 0: not known.
    pub(super) id: Cell<u64>,
    /// It is used for logins only, and carries no client's data.
    pub(super) for_logins: Cell<bool>,
    pub(super) state: RefCell<State<E>>,
}

impl<E: Expected> Link<E> {
    /// A link that connects at once. It must be driven by [`Link::drive`].
    pub fn new(settings: Rc<LinkSettings>, profile: LinkProfile, shared: bool) -> Self {
        Link(Rc::new(Inner {
            settings,
            login: profile.login,
            db: Cell::new(profile.db),
            version: Cell::new(profile.version),
            id: Cell::new(0),
            for_logins: Cell::default(),
            state: RefCell::new(State::new(shared)),
        }))
    }

    /// The connection's database.
    pub fn db(&self) -> u32 {
        self.0.db.get()
    }

    /// Records a SELECT that succeeded.
    pub fn set_db(&self, db: u32) {
        self.0.db.set(db);
    }

    /// Its version of RESP.
    pub fn version(&self) -> Version {
        self.0.version.get()
    }

    /// Records a HELLO that succeeded.
    pub fn set_version(&self, version: Version) {
        self.0.version.set(version);
    }

    /// Its id in Redis (CLIENT ID), once it is connected.
    pub fn id(&self) -> Option<u64> {
        Some(self.0.id.get()).filter(|id| *id > 0)
    }

    /// Whether both are handles to the same link.
    pub fn is(&self, other: &Link<E>) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nothing waits for a reply.
    pub fn is_idle(&self) -> bool {
        self.0.state.borrow().queue.is_idle()
    }

    /// Whether it has closed for good.
    pub fn is_closed(&self) -> bool {
        self.0.state.borrow().is_closed()
    }

    /// From now on the connection is used for logins only.
    pub fn use_for_logins(&self) {
        self.0.for_logins.set(true);
    }

    /// Whether its handshake has not ended yet.
    pub fn is_connecting(&self) -> bool {
        self.0.state.borrow().is_connecting()
    }

    /// Whether it is connected, and has been since before that time.
    pub fn stands_since(&self, then: Instant) -> bool {
        self.0.state.borrow().stands_since(then)
    }

    /// Waits until the connection attempt has ended.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn settled(&self) {
        let changed = self.0.state.borrow().changed();
        loop {
            // Created before the check, so that no change is missed.
            let next = changed.notified();
            if !self.is_connecting() {
                return;
            }
            next.await;
        }
    }

    /// How long ago Redis said that this connection needs a login that it does not have. `None` if it did not say so, or there is
    /// no connection.
    #[inline]
    pub fn locked_for(&self) -> Option<Duration> {
        self.0.state.borrow().locked_since().map(|since| since.elapsed())
    }

    /// Whether it is connected, and Redis executes its requests.
    #[inline]
    pub fn is_accepted(&self) -> bool {
        self.0.state.borrow().is_accepted()
    }

    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// Redis is away, or too many bytes wait already.
    #[inline]
    pub fn check(&self) -> Result<(), Lost> {
        self.0.state.borrow().check(self.0.settings.pending_limit.get())
    }

    /// Whether [`Link::check`] would succeed. Cheaper, because it says no reason.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.0.state.borrow().may_send(self.0.settings.pending_limit.get())
    }

    /// Appends what `write` writes. `expected` gets the replies. Call this only directly after [`Link::check`].
    #[inline]
    pub fn send(&self, expected: E, write: impl FnOnce(&mut Chunks)) {
        let mut state = self.0.state.borrow_mut();
        // Requests that may be repeated are kept. A private link ends with its connection and repeats nothing.
        let keep = state.is_shared() && expected.may_repeat();
        state.queue.push(expected, keep, write);
        state.wake();
    }

    /// Sets how long the last request may take.
    pub fn may_take(&self, delay: Delay) {
        self.0.state.borrow_mut().queue.delay_last(delay);
    }

    /// Whether one of the requests may take Redis long.
    pub fn has_long(&self) -> bool {
        self.0.state.borrow().has_long()
    }

    /// Since when the next due reply has made no progress. `None` if no reply is due that Redis could send at once.
    pub fn owed_since(&self) -> Option<Instant> {
        self.0.state.borrow().owed_since()
    }

    /// The last request is a script, which may run for long.
    pub fn sent_script(&self, now: Instant) {
        self.0.state.borrow_mut().sent_script(now);
    }

    /// Whether a script seems to block later requests: Redis reads nothing from a connection while it runs a script of that
    /// connection.
    #[inline]
    pub fn is_held_up(&self, now: Instant) -> bool {
        self.0.state.borrow().is_held_up(now)
    }

    /// Sends bytes that get no reply of their own (a session in stream mode).
    pub fn send_unanswered(&self, bytes: &[u8]) {
        let mut state = self.0.state.borrow_mut();
        state.queue.push_unanswered(bytes);
        state.wake();
    }

    /// Number of unsent bytes.
    pub fn unsent(&self) -> usize {
        self.0.state.borrow().queue.unsent_len()
    }

    /// Lets `tap` see each frame first.
    pub fn set_tap(&self, tap: Option<Rc<dyn Tap>>) {
        self.0.state.borrow_mut().tap = tap;
    }

    /// Closes the link once everything that waits has its reply. Until then the tap takes frames that are no reply. On a raw
    /// connection Redis is told that no more input comes, and the link closes when Redis closes the connection.
    pub fn retire(&self) {
        let mut state = self.0.state.borrow_mut();
        state.retire();
        state.finish();
        state.wake();
    }

    /// Sends nothing more on a raw connection. Redis may still send.
    pub fn finish(&self) {
        let mut state = self.0.state.borrow_mut();
        state.finish();
        state.wake();
    }

    /// Wakes the link's task.
    pub fn wake(&self) {
        self.0.state.borrow_mut().wake();
    }

    /// Whether [`Link::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.0.state.borrow().is_retiring()
    }

    /// Closes the link at once. Returns what waits.
    pub fn close(&self) -> Vec<E> {
        let mut state = self.0.state.borrow_mut();
        let waiting = state.close();
        state.wake();
        waiting
    }

    /// Gives the connection up if it leads to a server of an older epoch: nothing more is sent or read there. What waits is lost or
    /// continues on the next connection, as when a connection breaks.
    pub fn leave(&self, context: &E::Context, epoch: u64, why: &Lost) {
        let inner = &*self.0;
        if inner.state.borrow().is_older_than(epoch) {
            inner.end_connection(context, why);
            self.wake();
        }
    }

    /// Gives the connection up because Redis does not answer on it. Pending requests get an error, and so do new ones until there
    /// is another connection.
    pub fn give_up(&self, context: &E::Context, why: &Lost) {
        let inner = &*self.0;
        let gone = {
            let mut state = inner.state.borrow_mut();
            if !state.is_live() {
                return;
            }
            let (shared, unanswered) = (state.is_shared(), state.queue.len());
            crate::seldom!(
                warn,
                "Redis does not answer; the connection is given up",
                shared,
                unanswered,
                why = why.text()
            );
            state.hung(why)
        };
        inner.settings.endpoint.report(Suspicion::Connection);
        inner.lose(context, gone, why);
        self.wake();
    }
}

impl<E: Expected> Inner<E> {
    /// The connection has ended. What certainly did not run and what only reads waits for the next one.
    pub(super) fn end_connection(&self, context: &E::Context, lost: &Lost) {
        let (gone, repeats) = {
            let mut state = self.state.borrow_mut();
            (state.connection_ended(), state.queue.take_repeats())
        };
        E::repeated(context, repeats);
        self.lose(context, gone, lost);
    }

    /// Answers requests that will get no reply, each with whether it may have run. The tap of a private connection is told that the
    /// connection has ended.
    pub(super) fn lose(&self, context: &E::Context, gone: impl IntoIterator<Item = (E, bool)>, lost: &Lost) {
        for (expected, ran) in gone {
            expected.lose(context, lost, ran);
        }
        E::settled(context);
        let tap = {
            let mut state = self.state.borrow_mut();
            let shared = state.is_shared();
            state.tap.take_if(|_| !shared)
        };
        if let Some(tap) = tap {
            tap.ended();
        }
    }
}
