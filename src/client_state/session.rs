//! A client's own upstream connection, for as long as it has state there: a transaction, watched keys, subscriptions, a
//! command that blocks, or anything that the proxy does not know how to undo.

use std::cell::Cell;
use std::rc::Rc;

use crate::client_state::connection_state::{Answer, ConnectionState, ExecReply, Kind, Mode, Reason, Sent};
use crate::client_state::identity::Identity;
use crate::client_state::reply_queue::ReplyQueue;
use crate::resp::{Bulk, Version, bulk_of, elements};
use crate::upstream::{Expected, Link, Tap, is_own};

/// Bytes of a raw connection that may wait for the client, or for Redis, before no more is taken from the other side.
const RAW_HIGH_WATER: usize = 256 << 10;

/// Who has the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Holder {
    /// Its client.
    #[default]
    Client,
    /// Its client, which is to end, because the connection broke.
    Lost,
    /// Nobody: the client has left, and what still waits for its reply does so without it.
    Nobody,
}

/// The connection, and what is known of its state.
pub struct Session<E: Expected> {
    pub(crate) link: Link<E>,
    /// Whose the connection is when it is clean.
    identity: Rc<Identity<E>>,
    reply_queue: Rc<ReplyQueue>,
    /// What Redis's answers say of the connection.
    state: ConnectionState,
    holder: Cell<Holder>,
    /// Whom CLIENT TRACKING redirects to, in the proxy's numbers.
    pub(crate) redirect: Cell<u64>,
}

impl<E: Expected> Session<E> {
    pub(crate) fn new(link: Link<E>, identity: Rc<Identity<E>>, reply_queue: Rc<ReplyQueue>) -> Self {
        Session {
            link,
            identity,
            reply_queue,
            state: ConnectionState::default(),
            holder: Cell::default(),
            redirect: Cell::default(),
        }
    }

    /// Whether the client has nothing on the connection, and may go back to a lane.
    pub(crate) fn is_clean(&self) -> bool {
        self.holder.get() != Holder::Lost && self.state.is_free() && self.link.is_idle()
    }

    pub(crate) fn in_multi(&self) -> bool {
        self.state.in_multi()
    }

    /// Whether a transaction is open, or being prepared with WATCH.
    pub(crate) fn in_transaction(&self) -> bool {
        self.in_multi() || self.state.is_watching()
    }

    /// The answer to a command that begins or ends state. An answer that the command cannot have closes
    /// the connection and the client: its next command would run in an unknown state.
    pub(crate) fn answered(&self, sent: Sent, reply: &[u8]) -> Answer {
        let answer = self.state.answered(sent, reply);
        if answer == Answer::Unexpected {
            self.give_up();
        }
        answer
    }

    /// The answer to a command that was sent in a transaction. `false`: it may have been executed.
    pub(crate) fn queued(&self, reply: &[u8]) -> bool {
        let queued = self.state.queued(reply);
        if !queued {
            self.give_up();
        }
        queued
    }

    /// WATCH is about to be sent.
    pub(crate) fn begin_watch(&self) {
        self.state.begin_watch();
    }

    /// EXEC is about to be sent. Commands sent behind EXEC are outside the transaction, but the connection counts as in a
    /// transaction until the answer is here.
    pub(crate) fn begin_exec(&self) {
        self.state.begin_exec();
    }

    /// The connection stays with its client until it ends.
    pub(crate) fn bind(self: &Rc<Self>, reason: Reason) {
        self.state.bind(reason);
        self.listen_if_bound();
    }

    /// The client is about to leave: no other client gets the connection, whatever still comes on it.
    pub(crate) fn never_reuse(&self) {
        self.state.bind(Reason::Ended);
    }

    /// Something that may leave state on the connection will be sent.
    pub(crate) fn begin_attempt(self: &Rc<Self>) {
        self.state.begin_attempt();
        self.listen_if_bound();
    }

    /// The outcome is known, see [`ConnectionState::end_attempt`].
    pub(crate) fn end_attempt(&self) {
        self.state.end_attempt();
        self.listen_no_more();
    }

    /// Passes messages that are no reply on to the client, if there may be any.
    pub(crate) fn listen_if_bound(self: &Rc<Self>) {
        if self.is_bound() && self.link.version() == Version::Resp3 {
            // Whatever it is that is left there, Redis may have to tell something without being asked.
            self.listen();
        }
    }

    fn listen_no_more(&self) {
        if !self.is_subscribed() && !self.is_bound() {
            self.link.set_tap(None);
        }
    }

    /// HELLO or AUTH was agreed to.
    pub(crate) fn greeted(self: &Rc<Self>, has_login: bool, version: Option<Version>) {
        if has_login {
            self.bind(Reason::Login);
        }
        if let Some(version) = version {
            self.link.set_version(version);
            // In RESP3 Redis may push messages about what was left there before.
            self.listen_if_bound();
        }
    }

    /// Whether there is something on the connection that only its end undoes.
    pub(crate) fn is_bound(&self) -> bool {
        self.state.is_bound()
    }

    /// Others are told the connection's number in Redis: it must not become another client's.
    pub(crate) fn expose_number(&self) {
        self.state.bind(Reason::NumberKnown);
    }

    /// Whether it is a connection of that identity, in that protocol.
    pub(crate) fn fits(&self, identity: &Rc<Identity<E>>, version: Version) -> bool {
        let stands = !self.link.is_closed() && !self.state.is_bound_by(Reason::Unproven);
        Rc::ptr_eq(&self.identity, identity) && self.link.version() == version && stands
    }

    fn listen(self: &Rc<Self>) {
        self.reply_queue.pushed.set(true);
        self.link.set_tap(Some(Rc::clone(self) as Rc<dyn Tap>));
    }

    /// The answer to a SELECT. `false`: the connection is where it was.
    pub(crate) fn moved(&self, db: u32, reply: &[u8]) -> bool {
        let moved = reply == b"+OK\r\n";
        if moved {
            self.link.set_db(db);
        } else if !reply.starts_with(b"-") {
            self.give_up();
        }
        moved
    }

    pub(crate) fn is_monitor(&self) -> bool {
        self.state.mode() == Mode::Monitor
    }

    pub(crate) fn begin_monitor(self: &Rc<Self>) {
        self.state.begin_monitor();
        self.reply_queue.streaming.set(true);
        self.listen();
    }

    /// SYNC or PSYNC is about to be sent. What comes from now on is passed on as it is.
    pub(crate) fn begin_replication(self: &Rc<Self>) {
        self.state.begin_replication();
        self.reply_queue.streaming.set(true);
        self.listen();
    }

    pub(crate) fn is_replication(&self) -> bool {
        self.state.mode() == Mode::Replication
    }

    /// SCRIPT DEBUG was agreed to.
    pub(crate) fn set_debugs(&self, debugs: bool) {
        self.state.script_debug(debugs);
    }

    /// Whether a script would be run by the debugger.
    pub(crate) fn debugs(&self) -> bool {
        self.state.mode() == Mode::Debugger
    }

    /// The debugger has begun to talk. Redis ends the connection when it has done.
    pub(crate) fn begin_raw(self: &Rc<Self>) {
        self.state.begin_raw();
        self.listen();
        // A client that has left meanwhile says nothing more, and Redis is to know that.
        self.link.wake();
    }

    pub(crate) fn is_in_raw(&self) -> bool {
        self.state.mode() == Mode::Raw
    }

    /// Sends bytes of the client on a raw connection. Tells how many it took; when there is room again, the client is woken.
    pub(crate) fn pass_on(&self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(RAW_HIGH_WATER.saturating_sub(self.link.unsent()));
        self.link.send_unanswered(&bytes[..taken]);
        taken
    }

    pub(crate) fn block(&self) {
        self.state.block();
    }

    pub(crate) fn unblocked(&self) {
        self.state.unblocked();
    }

    pub(crate) fn is_blocked(&self) -> bool {
        self.state.is_blocked()
    }

    /// Whether acknowledgements are due: until they are here, nobody knows what may be sent.
    pub(crate) fn is_acknowledging(&self) -> bool {
        self.state.is_acknowledging()
    }

    /// Whether messages may come.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.state.is_subscribed()
    }

    /// Whether anything may come that is nobody's reply.
    pub(crate) fn may_push(&self) -> bool {
        self.is_bound() || self.is_subscribed()
    }

    /// Some of EXEC's reply has come, or the mark behind it.
    pub(crate) fn set_exec_reply(&self, exec_reply: ExecReply) {
        self.state.set_exec_reply(exec_reply);
    }

    /// Whether the frame looks like a message of something that is subscribed to.
    pub(crate) fn is_message(&self, frame: &[u8]) -> bool {
        let mut parts = elements(frame).into_iter().flatten().map(bulk_of);
        let kind = match parts.next() {
            Some(Bulk::Value(b"message")) => Kind::Channel,
            Some(Bulk::Value(b"pmessage")) => Kind::Pattern,
            Some(Bulk::Value(b"smessage")) => Kind::Shard,
            _ => return false,
        };
        matches!(parts.next(), Some(Bulk::Value(name)) if self.state.is_subscribed_to(kind, name))
    }

    /// A command of the SUBSCRIBE family is about to be sent.
    pub(crate) fn begin_acknowledging(self: &Rc<Self>) {
        self.state.begin_acknowledging();
        self.reply_queue.streaming.set(true);
        self.listen();
    }

    /// How many acknowledgements an UNSUBSCRIBE of everything gets.
    pub(crate) fn subscriptions(&self, kind: Kind) -> usize {
        self.state.subscriptions(kind)
    }

    /// An acknowledgement that came in the reply of EXEC.
    pub(crate) fn acknowledged_in_exec(self: &Rc<Self>, kind: Kind, frame: &[u8]) {
        self.begin_acknowledging();
        self.acknowledged(kind, frame, true);
    }

    /// One acknowledgement, `last`: of its command.
    pub(crate) fn acknowledged(&self, kind: Kind, frame: &[u8], last: bool) {
        if self.state.acknowledged(kind, frame, last) == Answer::Unexpected {
            self.give_up();
        }
        if last && !self.is_subscribed() && !self.is_monitor() {
            self.reply_queue.streaming.set(false);
            self.listen_no_more();
        }
    }

    /// The connection broke: the state is gone, and the client has to know.
    pub(crate) fn lost(&self) {
        if self.holder.get() == Holder::Nobody {
            // Whoever the client is by now, it is nothing to it.
            return;
        }
        self.holder.set(Holder::Lost);
        self.reply_queue.close();
    }

    /// Nobody knows any more what comes on the connection.
    pub(crate) fn give_up(&self) {
        self.state.bind(Reason::Unproven);
        if self.state.exec_reply() == ExecReply::Due {
            self.state.set_exec_reply(ExecReply::None);
        }
        self.lost();
    }

    /// The client leaves the session, or is gone altogether. Tells whether another client may have the connection.
    pub(crate) fn leave(&self) -> bool {
        self.reply_queue.pushed.set(false);
        let clean = self.is_clean() && self.state.is_reusable();
        self.holder.set(Holder::Nobody);
        self.reply_queue.streaming.set(false);
        if !clean && !self.is_blocked() && !self.is_monitor() && !self.is_replication() {
            // What is under way is waited for: its guards come down with the replies.
            self.link.retire();
        }
        clean
    }

    /// Whose the connection is when it is clean.
    pub(crate) fn identity(&self) -> &Rc<Identity<E>> {
        &self.identity
    }
}

impl<E: Expected> Tap for Session<E> {
    fn wants(&self, first: u8) -> bool {
        // What was pushed before HELLO 2 in a transaction comes behind the transaction.
        self.is_monitor() || first == b'>' || (first == b'*' && self.link.version() == Version::Resp2)
    }

    fn take(&self, frame: &[u8]) -> bool {
        if self.state.exec_reply() == ExecReply::Due {
            return false;
        }
        let is_message = self.is_monitor() || {
            let kind = elements(frame).and_then(|mut all| all.next()).map(bulk_of);
            match (frame.first(), kind) {
                // Whatever is pushed and acknowledges nothing that was asked.
                (Some(b'>'), Some(Bulk::Value(kind))) => !(kind.ends_with(b"subscribe") && self.is_acknowledging()),
                (Some(b'*'), Some(Bulk::Value(b"message" | b"pmessage" | b"smessage"))) => {
                    self.is_subscribed() || self.state.exec_reply() == ExecReply::MessagesDue
                }
                _ => false,
            }
        };
        let is_hidden = self.is_monitor() && is_own(frame);
        if is_message && !is_hidden && self.holder.get() != Holder::Nobody {
            match broken_redirection(frame, self.redirect.get()) {
                Some(frame) => self.reply_queue.push(&frame),
                None => self.reply_queue.push(frame),
            }
        }
        is_message
    }

    fn ended(&self) {
        self.lost();
    }

    fn is_raw(&self) -> bool {
        matches!(self.state.mode(), Mode::Raw | Mode::Replication)
    }

    fn pass(&self, bytes: &[u8]) {
        if self.holder.get() != Holder::Nobody {
            self.reply_queue.push(bytes);
        }
    }

    fn is_full(&self) -> bool {
        self.holder.get() != Holder::Nobody && self.reply_queue.len() >= RAW_HIGH_WATER
    }

    fn sent(&self) {
        self.reply_queue.wake();
    }
}

/// The push that says that the client which invalidations go to has gone, with the proxy's number for it.
fn broken_redirection(frame: &[u8], client: u64) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n:";
    frame.starts_with(BEGIN).then(|| [BEGIN, client.to_string().as_bytes(), b"\r\n"].concat())
}
