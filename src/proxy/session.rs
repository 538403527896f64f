//! A client's own upstream connection, for as long as it has state there: a transaction, watched keys, subscriptions, a
//! command that blocks, or anything that the proxy does not know how to undo.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Instant;

use crate::resp::{Bulk, Version, build, bulk_of, elements};
use crate::upstream::{Link, Tap};

use super::context::Context;
use super::identity::Identity;
use super::login::Greeting;
use super::outlet::Outlet;
use super::transaction::Queued;
use super::waiting::{Then, Waiting};

/// Bytes of a raw connection that may wait for the client, or for Redis, before no more is taken from the other side.
const RAW_HIGH_WATER: usize = 256 << 10;

/// What is subscribed to: each has its own count of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// The connection, and what is known of its state.
pub(super) struct Session {
    pub(super) link: Link<Waiting>,
    /// Whose the connection is when it is clean.
    identity: Rc<Identity>,
    outlet: Rc<Outlet>,
    /// A transaction is open; what is in it.
    multi: RefCell<Option<Queued>>,
    /// Keys are watched.
    watching: Cell<bool>,
    /// State that only the end of the connection undoes.
    pinned: Cell<bool>,
    monitor: Cell<bool>,
    /// Commands that may wait for long and have not been answered.
    blocked: Cell<usize>,
    /// Acknowledgements of subscriptions are due.
    acknowledging: Cell<usize>,
    subscriptions: RefCell<[HashSet<Box<[u8]>>; 3]>,
    /// The connection broke.
    lost: Cell<bool>,
    /// The client has left, and what still waits for its reply does so without it.
    left: Cell<bool>,
    /// Whom CLIENT TRACKING redirects to, in the proxy's numbers.
    pub(super) redirect: Cell<u64>,
    /// Others know the connection's number, and mean this client by it.
    told: Cell<bool>,
    /// The next script is run by Redis's debugger (SCRIPT DEBUG).
    debugs: Cell<bool>,
    /// The rest of EXEC's reply is due: a push belongs there.
    in_exec: Cell<bool>,
    /// The debugger talks with the client: requests and replies are no more than bytes.
    raw: Cell<bool>,
}

impl Session {
    pub(super) fn new(link: Link<Waiting>, identity: Rc<Identity>, outlet: Rc<Outlet>) -> Self {
        Session {
            link,
            identity,
            outlet,
            multi: RefCell::default(),
            watching: Cell::default(),
            pinned: Cell::default(),
            monitor: Cell::default(),
            blocked: Cell::default(),
            acknowledging: Cell::default(),
            subscriptions: RefCell::default(),
            lost: Cell::default(),
            left: Cell::default(),
            redirect: Cell::default(),
            told: Cell::default(),
            debugs: Cell::default(),
            in_exec: Cell::default(),
            raw: Cell::default(),
        }
    }

    /// Whether nothing is left on the connection, so that it may be anybody's.
    pub(super) fn is_clean(&self) -> bool {
        !self.in_multi()
            && !self.watching.get()
            && !self.pinned.get()
            && !self.monitor.get()
            && !self.is_subscribed()
            && !self.lost.get()
            && self.link.is_idle()
    }

    pub(super) fn in_multi(&self) -> bool {
        self.multi.borrow().is_some()
    }

    /// Whether a transaction is open, or being prepared with WATCH.
    pub(super) fn in_transaction(&self) -> bool {
        self.in_multi() || self.watching.get()
    }

    pub(super) fn begin_multi(&self) {
        *self.multi.borrow_mut() = Some(Queued::default());
    }

    /// Puts a command into the transaction.
    pub(super) fn queue(&self, add: impl FnOnce(&mut Queued)) {
        if let Some(queued) = self.multi.borrow_mut().as_mut() {
            add(queued);
        }
    }

    /// The transaction is executed or discarded; with it go the watched keys.
    pub(super) fn end_multi(&self) -> Queued {
        self.watching.set(false);
        self.multi.take().unwrap_or_default()
    }

    pub(super) fn watch(&self) {
        self.watching.set(true);
    }

    pub(super) fn unwatch(&self) {
        self.watching.set(false);
    }

    pub(super) fn pin(self: &Rc<Self>) {
        self.pinned.set(true);
        if self.link.version() == Version::Resp3 {
            // Whatever it is that is left there, Redis may have to tell something without being asked.
            self.listen();
        }
    }

    /// HELLO or AUTH was agreed to.
    pub(super) fn greeted(self: &Rc<Self>, greeting: &Greeting) {
        if greeting.login.is_some() {
            self.pin();
        }
        if let Some(version) = greeting.version {
            self.link.set_version(version);
            if self.is_pinned() {
                // What it left there may be told of now.
                self.pin();
            }
        }
    }

    pub(super) fn is_pinned(&self) -> bool {
        self.pinned.get()
    }

    /// What [`Session::pin`] was for did not come to be.
    pub(super) fn unpin(&self) {
        self.pinned.set(false);
        if !self.is_subscribed() && !self.is_monitor() {
            self.link.set_tap(None);
        }
    }

    /// Others are told the connection's number in Redis: it must not become another client's.
    pub(super) fn tell_number(&self) {
        self.told.set(true);
    }

    /// Puts a connection that was made in advance into the database that its client is in by now.
    pub(super) fn go_to(&self, db: u32) {
        if self.link.db() == db || self.link.check().is_err() {
            return;
        }
        let select = Waiting { to: None, sent: Instant::now(), then: Then::Pass { repeat: false } };
        self.link.send(select, |wire| {
            wire.push_with(|out| build::request(out, [&b"SELECT"[..], db.to_string().as_bytes()].into_iter()));
        });
        self.link.set_db(db);
    }

    /// Whether it is a connection of that identity, in that protocol.
    pub(super) fn fits(&self, identity: &Rc<Identity>, version: Version) -> bool {
        Rc::ptr_eq(&self.identity, identity) && self.link.version() == version && !self.link.is_closed()
    }

    fn listen(self: &Rc<Self>) {
        self.outlet.pushed.set(true);
        self.link.set_tap(Some(Rc::clone(self) as Rc<dyn Tap>));
    }

    pub(super) fn selected(&self, db: u32) {
        self.link.set_db(db);
        self.outlet.profile.set_db(db);
    }

    pub(super) fn is_monitor(&self) -> bool {
        self.monitor.get()
    }

    pub(super) fn begin_monitor(self: &Rc<Self>) {
        self.monitor.set(true);
        self.outlet.streaming.set(true);
        self.listen();
    }

    /// SCRIPT DEBUG was agreed to.
    pub(super) fn set_debugs(&self, debugs: bool) {
        self.debugs.set(debugs);
    }

    /// Whether a script would be run by the debugger.
    pub(super) fn debugs(&self) -> bool {
        self.debugs.get()
    }

    /// The debugger has begun to talk. Redis ends the connection when it has done.
    pub(super) fn begin_raw(self: &Rc<Self>) {
        self.raw.set(true);
        self.listen();
        // A client that has left meanwhile says nothing more, and Redis is to know that.
        self.link.wake();
    }

    pub(super) fn is_in_raw(&self) -> bool {
        self.raw.get()
    }

    /// Sends bytes of the client on a raw connection. Tells how many it took; when there is room again, the client is woken.
    pub(super) fn pass_on(&self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(RAW_HIGH_WATER.saturating_sub(self.link.unsent()));
        self.link.send_unanswered(&bytes[..taken]);
        taken
    }

    pub(super) fn block(&self) {
        self.blocked.set(self.blocked.get() + 1);
    }

    pub(super) fn unblocked(&self) {
        self.blocked.set(self.blocked.get() - 1);
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.blocked.get() > 0
    }

    /// Whether acknowledgements are due: until they are here, nobody knows what may be sent.
    pub(super) fn is_acknowledging(&self) -> bool {
        self.acknowledging.get() > 0
    }

    /// Whether messages may come.
    pub(super) fn is_subscribed(&self) -> bool {
        self.acknowledging.get() > 0 || self.subscriptions.borrow().iter().any(|set| !set.is_empty())
    }

    /// Whether anything may come that is nobody's reply.
    pub(super) fn may_push(&self) -> bool {
        self.is_pinned() || self.is_subscribed()
    }

    pub(super) fn set_in_exec(&self, in_exec: bool) {
        self.in_exec.set(in_exec);
    }

    /// Whether the frame looks like a message of something that is subscribed to.
    pub(super) fn is_message(&self, frame: &[u8]) -> bool {
        let mut parts = elements(frame).into_iter().flatten().map(bulk_of);
        let kind = match parts.next() {
            Some(Bulk::Value(b"message")) => Kind::Channel,
            Some(Bulk::Value(b"pmessage")) => Kind::Pattern,
            Some(Bulk::Value(b"smessage")) => Kind::Shard,
            _ => return false,
        };
        matches!(parts.next(), Some(Bulk::Value(name)) if self.subscriptions.borrow()[kind as usize].contains(name))
    }

    /// A command of the SUBSCRIBE family is about to be sent.
    pub(super) fn begin_acknowledging(self: &Rc<Self>) {
        self.acknowledging.set(self.acknowledging.get() + 1);
        self.outlet.streaming.set(true);
        self.listen();
    }

    /// How many acknowledgements an UNSUBSCRIBE of everything gets.
    pub(super) fn subscriptions(&self, kind: Kind) -> usize {
        self.subscriptions.borrow()[kind as usize].len()
    }

    /// An acknowledgement that came in the reply of EXEC.
    pub(super) fn acknowledged_in_exec(self: &Rc<Self>, kind: Kind, frame: &[u8]) {
        self.begin_acknowledging();
        self.acknowledged(kind, frame, true);
    }

    /// One acknowledgement, `last`: of its command.
    pub(super) fn acknowledged(&self, kind: Kind, frame: &[u8], last: bool) {
        if let Some(mut parts) = elements(frame)
            && let (Some(Bulk::Value(what)), Some(Bulk::Value(name))) =
                (parts.next().map(bulk_of), parts.next().map(bulk_of))
        {
            let set = &mut self.subscriptions.borrow_mut()[kind as usize];
            if what.ends_with(b"unsubscribe") {
                set.remove(name);
            } else {
                set.insert(name.into());
            }
        }
        if last {
            self.acknowledging.set(self.acknowledging.get() - 1);
            if !self.is_subscribed() && !self.is_monitor() {
                self.outlet.streaming.set(false);
                if !self.pinned.get() {
                    self.link.set_tap(None);
                }
            }
        }
    }

    /// The connection broke: the state is gone, and the client has to know.
    pub(super) fn lost(&self) {
        if self.left.get() {
            // Whoever the client is by now, it is nothing to it.
            return;
        }
        self.lost.set(true);
        self.outlet.closing.set(true);
        self.outlet.wake();
    }

    /// Nobody knows any more what comes on the connection.
    pub(super) fn give_up(&self) {
        self.pinned.set(true);
        self.in_exec.set(false);
        self.lost();
    }

    /// The client leaves the session, or is gone altogether.
    pub(super) fn end(&self, context: &Context) {
        self.outlet.pushed.set(false);
        let clean = self.is_clean() && !self.told.get();
        self.left.set(true);
        self.outlet.streaming.set(false);
        if !clean && !self.is_blocked() && !self.is_monitor() {
            // What is under way is waited for: its guards come down with the replies.
            self.link.retire();
        }
        context.end_session(&self.identity, self.link.clone(), clean);
    }
}

impl Tap for Session {
    fn wants(&self, first: u8) -> bool {
        self.is_monitor() || first == if self.link.version() == Version::Resp3 { b'>' } else { b'*' }
    }

    fn take(&self, frame: &[u8]) -> bool {
        if self.in_exec.get() {
            return false;
        }
        let is_message = self.is_monitor() || {
            let kind = elements(frame).and_then(|mut all| all.next()).map(bulk_of);
            match (frame.first(), kind) {
                // Whatever is pushed and acknowledges nothing that was asked.
                (Some(b'>'), Some(Bulk::Value(kind))) => !(kind.ends_with(b"subscribe") && self.is_acknowledging()),
                (Some(b'*'), Some(Bulk::Value(b"message" | b"pmessage" | b"smessage"))) => self.is_subscribed(),
                _ => false,
            }
        };
        if is_message && !self.left.get() {
            match broken_redirection(frame, self.redirect.get()) {
                Some(frame) => self.outlet.push(&frame),
                None => self.outlet.push(frame),
            }
        }
        is_message
    }

    fn ended(&self) {
        self.lost();
    }

    fn is_raw(&self) -> bool {
        self.raw.get()
    }

    fn pass(&self, bytes: &[u8]) {
        if !self.left.get() {
            self.outlet.push(bytes);
        }
    }

    fn is_full(&self) -> bool {
        !self.left.get() && self.outlet.len() >= RAW_HIGH_WATER
    }

    fn sent(&self) {
        self.outlet.wake();
    }
}

/// The push that says that the client which invalidations go to has gone, with the proxy's number for it.
fn broken_redirection(frame: &[u8], client: u64) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n:";
    frame.starts_with(BEGIN).then(|| [BEGIN, client.to_string().as_bytes(), b"\r\n"].concat())
}
