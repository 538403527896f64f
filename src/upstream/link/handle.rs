//! What the rest of the proxy does with a link: ask whether it may send, send, retire, close. The link's task holds another handle.

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

/// What all links of a worker have in common.
#[derive(Debug)]
pub struct LinkSettings {
    /// How to connect.
    pub dialer: Arc<Dialer>,
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// How long to wait, and between attempts.
    pub timeouts: Live<Timeouts>,
    /// The name of the connections (CLIENT SETNAME).
    pub name: String,
    /// Bytes that may wait for their replies on one connection; may change at a reload.
    pub pending_limit: Cell<usize>,
    /// What the server takes on one connection.
    pub server_limits: Arc<ServerLimits>,
    /// Which rights Shortstop's own user lacks.
    pub own_rights: OwnRights,
}

/// What a connection is made for.
#[derive(Clone, Debug)]
pub struct LinkProfile {
    /// Its login; none: it has none, as every connection begins.
    pub login: Option<Rc<Login>>,
    /// The database that it is in.
    pub db: u32,
    /// Its version of RESP.
    pub version: Version,
}

/// A handle to the connection; the connection's task holds another.
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
    /// Its number in Redis (CLIENT ID); 0: not known.
    pub(super) id: Cell<u64>,
    /// It is used for logins only, and carries no client's data.
    pub(super) for_logins: Cell<bool>,
    pub(super) state: RefCell<State<E>>,
}

impl<E: Expected> Link<E> {
    /// A connection, which connects at once and must be driven by [`Link::drive`].
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

    /// The database that the connection is in.
    pub fn db(&self) -> u32 {
        self.0.db.get()
    }

    /// A SELECT on it succeeded.
    pub fn set_db(&self, db: u32) {
        self.0.db.set(db);
    }

    /// Its version of RESP.
    pub fn version(&self) -> Version {
        self.0.version.get()
    }

    /// A HELLO on it succeeded.
    pub fn set_version(&self, version: Version) {
        self.0.version.set(version);
    }

    /// Its number in Redis (CLIENT ID), once it stands.
    pub fn id(&self) -> Option<u64> {
        Some(self.0.id.get()).filter(|id| *id > 0)
    }

    /// Whether both are handles to one connection.
    pub fn is(&self, other: &Link<E>) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nothing waits for a reply.
    pub fn is_idle(&self) -> bool {
        self.0.state.borrow().queue.is_idle()
    }

    /// Whether it has ended for good.
    pub fn is_closed(&self) -> bool {
        self.0.state.borrow().is_closed()
    }

    /// From now on the connection is used for logins only.
    pub fn use_for_logins(&self) {
        self.0.for_logins.set(true);
    }

    /// Whether it is being made: its handshake has not ended.
    pub fn is_connecting(&self) -> bool {
        self.0.state.borrow().is_connecting()
    }

    /// Whether it stands, and has since before that time.
    pub fn stands_since(&self, then: Instant) -> bool {
        self.0.state.borrow().stands_since(then)
    }

    /// Waits until the attempt to connect has ended.
    ///
    /// # Cancel safety
    /// Dropped, it has done nothing.
    pub async fn settled(&self) {
        let changed = self.0.state.borrow().changed();
        loop {
            // Created before the look, so that no change is missed.
            let next = changed.notified();
            if !self.is_connecting() {
                return;
            }
            next.await;
        }
    }

    /// How long ago Redis said that this connection, which has no login, needs one; none: it did not, or there is no connection.
    #[inline]
    pub fn locked_for(&self) -> Option<Duration> {
        self.0.state.borrow().locked_since().map(|since| since.elapsed())
    }

    /// Whether the connection stands, and Redis executes requests on it.
    #[inline]
    pub fn is_let_in(&self) -> bool {
        self.0.state.borrow().is_let_in()
    }

    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// Redis is away, or too much waits already.
    #[inline]
    pub fn check(&self) -> Result<(), Lost> {
        self.0.state.borrow().check(self.0.settings.pending_limit.get())
    }

    /// Whether [`Link::check`] is fine; cheaper.
    #[inline]
    pub fn may_send(&self) -> bool {
        self.0.state.borrow().may_send(self.0.settings.pending_limit.get())
    }

    /// Appends what `write` writes; `expected` gets the replies. Only right after [`Link::check`].
    #[inline]
    pub fn send(&self, expected: E, write: impl FnOnce(&mut Chunks)) {
        let mut state = self.0.state.borrow_mut();
        // What may be sent again is kept; a private connection ends with its bytes.
        let keep = state.is_shared() && expected.may_repeat();
        state.queue.push(expected, keep, write);
        state.wake();
    }

    /// What was just sent may take that long.
    pub fn may_take(&self, delay: Delay) {
        self.0.state.borrow_mut().queue.delay_last(delay);
    }

    /// Whether Redis may be executing for long what was sent.
    pub fn has_long(&self) -> bool {
        self.0.state.borrow().has_long()
    }

    /// Since when nothing has come of the reply that is due next; none: no reply is due that Redis could give at once.
    pub fn owed_since(&self) -> Option<Instant> {
        self.0.state.borrow().owed_since()
    }

    /// What was just sent is a script, which may run for long.
    pub fn sent_script(&self, now: Instant) {
        self.0.state.borrow_mut().sent_script(now);
    }

    /// Whether a script seems to hold up what is sent behind it: Redis reads nothing from a connection while it runs a script of it.
    #[inline]
    pub fn is_held_up(&self, now: Instant) -> bool {
        self.0.state.borrow().is_held_up(now)
    }

    /// Sends bytes that get no reply of their own (a session in a stream).
    pub fn send_unanswered(&self, bytes: &[u8]) {
        let mut state = self.0.state.borrow_mut();
        state.queue.push_unanswered(bytes);
        state.wake();
    }

    /// Bytes that have not been sent.
    pub fn unsent(&self) -> usize {
        self.0.state.borrow().queue.unsent_len()
    }

    /// Lets `tap` see each frame first.
    pub fn set_tap(&self, tap: Option<Rc<dyn Tap>>) {
        self.0.state.borrow_mut().tap = tap;
    }

    /// Closes the link when all that waits has been answered. Until then the tap takes what is no reply. On a raw connection
    /// Redis learns that nothing more comes, and the link closes when Redis closes the connection.
    pub fn retire(&self) {
        let mut state = self.0.state.borrow_mut();
        state.retire();
        state.finish();
        state.wake();
    }

    /// Nothing more is sent on a raw connection. Redis may go on.
    pub fn finish(&self) {
        let mut state = self.0.state.borrow_mut();
        state.finish();
        state.wake();
    }

    /// Has the connection's task look whether there is anything to do.
    pub fn wake(&self) {
        self.0.state.borrow_mut().wake();
    }

    /// Whether [`Link::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.0.state.borrow().is_retiring()
    }

    /// Closes the link at once. Hands back what waits.
    pub fn close(&self) -> Vec<E> {
        let mut state = self.0.state.borrow_mut();
        let waiting = state.close();
        state.wake();
        waiting
    }

    /// Gives the connection up if it leads to a server of an older epoch than this: nothing more is sent or read there. What
    /// waits is lost or goes on over the next connection, as when one breaks.
    pub fn leave(&self, context: &E::Context, epoch: u64, why: &Lost) {
        let inner = &*self.0;
        if inner.state.borrow().is_older_than(epoch) {
            inner.end_connection(context, why);
            self.wake();
        }
    }

    /// Gives the connection up, because Redis does not answer on it. Each request gets the error, and so does whatever comes before
    /// there is another connection.
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
    /// There is no connection any more. What certainly did not run, and what only reads, waits for the next one.
    pub(super) fn end_connection(&self, context: &E::Context, lost: &Lost) {
        let (gone, repeats) = {
            let mut state = self.state.borrow_mut();
            (state.connection_ended(), state.queue.take_repeats())
        };
        E::repeated(context, repeats);
        self.lose(context, gone, lost);
    }

    /// Answers what will get no reply, each with whether it may have run. A private connection's tap learns that it has ended.
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
