//! A client's session: its private connection to Redis, for as long as the connection has state that belongs to the client. Such
//! state is a transaction, watched keys, subscriptions, a blocking command, or anything that Shortstop cannot undo.

use std::cell::Cell;
use std::rc::Rc;

use crate::client_state::connection_state::{Answer, ConnectionState, ExecReply, Kind, Mode, Reason, Sent};
use crate::client_state::identity::Identity;
use crate::client_state::reply_queue::ReplyQueue;
use crate::resp::{Bulk, Version, bulk_of, elements};
use crate::upstream::{Expected, Link, Tap, is_own};

/// Bytes of a raw connection that may wait for one side before Shortstop stops reading from the other.
const RAW_HIGH_WATER: usize = 256 << 10;

/// Who uses the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Holder {
    /// Its client.
    #[default]
    Client,
    /// Its client, which is being closed because the connection broke.
    Lost,
    /// No client: it has left, and pending requests get their replies without it.
    Nobody,
}

/// The connection and its state.
pub struct Session<E: Expected> {
    pub(crate) link: Link<E>,
    /// The identity that may use the connection when it is clean.
    identity: Rc<Identity<E>>,
    reply_queue: Rc<ReplyQueue>,
    /// The connection's state according to Redis's replies.
    state: ConnectionState,
    holder: Cell<Holder>,
    executed_by_task: Cell<bool>,
    /// Shortstop's client id to which CLIENT TRACKING redirects.
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
            executed_by_task: Cell::default(),
            redirect: Cell::default(),
        }
    }

    /// Whether the client has no state on the connection, and may go back to a lane.
    pub(crate) fn is_clean(&self) -> bool {
        self.holder.get() != Holder::Lost && self.state.is_free() && self.link.is_idle()
    }

    pub(crate) fn in_multi(&self) -> bool {
        self.state.in_multi()
    }

    /// Whether a transaction is open or prepared with WATCH.
    pub(crate) fn in_transaction(&self) -> bool {
        self.in_multi() || self.state.is_watching()
    }

    /// Whether Redis has refused a command of the last transaction.
    pub(crate) fn refuses_exec(&self) -> bool {
        self.state.refuses_exec()
    }

    /// A task of Shortstop executes the transaction. The connection stays, also if the client disconnects.
    pub(crate) fn set_executed_by_task(&self, executed: bool) {
        self.executed_by_task.set(executed);
        if !executed && self.holder.get() == Holder::Nobody {
            // Pending requests get their replies.
            self.link.retire();
        }
    }

    /// See [`Session::set_executed_by_task`].
    pub(crate) fn is_executed_by_task(&self) -> bool {
        self.executed_by_task.get()
    }

    /// Whether keys are watched, or may be.
    pub(crate) fn is_watching(&self) -> bool {
        self.state.is_watching()
    }

    /// Handles the reply to a command that begins or ends state. A reply that is impossible for the command closes the connection
    /// and the client, because the next command would run in an unknown state.
    pub(crate) fn answered(&self, sent: Sent, reply: &[u8]) -> Answer {
        let answer = self.state.answered(sent, reply);
        if answer == Answer::Unexpected {
            self.give_up();
        }
        answer
    }

    /// Handles the reply to a command in a transaction. Returns false if Redis may have executed it.
    pub(crate) fn queued(&self, reply: &[u8]) -> bool {
        let queued = self.state.queued(reply);
        if !queued {
            self.give_up();
        }
        queued
    }

    /// Call this before sending WATCH.
    pub(crate) fn begin_watch(&self) {
        self.state.begin_watch();
    }

    /// Call this before sending EXEC. Commands sent behind EXEC are outside the transaction, but the connection counts as in a
    /// transaction until the reply arrives.
    pub(crate) fn begin_exec(&self) {
        self.state.begin_exec();
    }

    /// Binds the connection to its client until it closes.
    pub(crate) fn bind(self: &Rc<Self>, reason: Reason) {
        self.state.bind(reason);
        self.listen_if_bound();
    }

    /// The client is about to leave. No other client gets the connection.
    pub(crate) fn never_reuse(&self) {
        self.state.bind(Reason::Ended);
    }

    /// Call this before sending something that may change the connection's state.
    pub(crate) fn begin_attempt(self: &Rc<Self>) {
        self.state.begin_attempt();
        self.listen_if_bound();
    }

    /// The outcome is known; see [`ConnectionState::end_attempt`].
    pub(crate) fn end_attempt(&self) {
        self.state.end_attempt();
        self.stop_listening();
    }

    /// Passes pushes on to the client, if the connection is bound.
    pub(crate) fn listen_if_bound(self: &Rc<Self>) {
        if self.is_bound() && self.link.version() == Version::Resp3 {
            // Whatever state the connection has, Redis may send pushes because of it.
            self.listen();
        }
    }

    fn stop_listening(&self) {
        if !self.is_subscribed() && !self.is_bound() {
            self.link.set_tap(None);
        }
    }

    /// Redis has accepted HELLO or AUTH.
    pub(crate) fn greeted(self: &Rc<Self>, has_login: bool, version: Option<Version>) {
        if has_login {
            self.bind(Reason::Login);
        }
        if let Some(version) = version {
            self.link.set_version(version);
            // In RESP3 Redis may push messages because of earlier state.
            self.listen_if_bound();
        }
    }

    /// Whether the connection has state that only closing it undoes.
    pub(crate) fn is_bound(&self) -> bool {
        self.state.is_bound()
    }

    /// Other clients learn the connection's id in Redis, so the connection must not become another client's.
    pub(crate) fn expose_id(&self) {
        self.state.bind(Reason::IdKnown);
    }

    /// Whether the connection has this identity and protocol version.
    pub(crate) fn fits(&self, identity: &Rc<Identity<E>>, version: Version) -> bool {
        let stands = !self.link.is_closed() && !self.state.is_bound_by(Reason::Unproven);
        Rc::ptr_eq(&self.identity, identity) && self.link.version() == version && stands
    }

    fn listen(self: &Rc<Self>) {
        self.reply_queue.pushed.set(true);
        self.link.set_tap(Some(Rc::clone(self) as Rc<dyn Tap>));
    }

    /// Handles the reply to a SELECT. Returns false if the database has not changed.
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

    /// Call this before sending SYNC or PSYNC. From now on the bytes from Redis are passed on unchanged.
    pub(crate) fn begin_replication(self: &Rc<Self>) {
        self.state.begin_replication();
        self.reply_queue.streaming.set(true);
        self.listen();
    }

    pub(crate) fn is_replication(&self) -> bool {
        self.state.mode() == Mode::Replication
    }

    /// Redis has accepted SCRIPT DEBUG.
    pub(crate) fn set_debugs(&self, debugs: bool) {
        self.state.script_debug(debugs);
    }

    /// Whether the debugger runs the next script.
    pub(crate) fn debugs(&self) -> bool {
        self.state.mode() == Mode::Debugger
    }

    /// The debugger has started. Redis closes the connection when it has ended.
    pub(crate) fn begin_raw(self: &Rc<Self>) {
        self.state.begin_raw();
        self.listen();
        // If the client has disconnected meanwhile, Redis must learn that no more input comes.
        self.link.wake();
    }

    pub(crate) fn is_in_raw(&self) -> bool {
        self.state.mode() == Mode::Raw
    }

    /// Sends bytes of the client on a raw connection. Returns how many it took. The client is woken when there is room again.
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

    /// Whether acknowledgements are due. Until they arrive it is unknown which commands are allowed.
    pub(crate) fn is_acknowledging(&self) -> bool {
        self.state.is_acknowledging()
    }

    /// Whether messages may arrive.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.state.is_subscribed()
    }

    /// Whether anything may arrive that is not a reply.
    pub(crate) fn may_push(&self) -> bool {
        self.is_bound() || self.is_subscribed()
    }

    /// A part of EXEC's reply has arrived, or the reply that marks its end.
    pub(crate) fn set_exec_reply(&self, exec_reply: ExecReply) {
        self.state.set_exec_reply(exec_reply);
    }

    /// Whether the frame looks like a message of a current subscription.
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

    /// Call this before sending a command of the SUBSCRIBE family.
    pub(crate) fn begin_acknowledging(self: &Rc<Self>) {
        self.state.begin_acknowledging();
        self.reply_queue.streaming.set(true);
        self.listen();
    }

    /// Number of acknowledgements that an UNSUBSCRIBE of everything gets.
    pub(crate) fn subscriptions(&self, kind: Kind) -> usize {
        self.state.subscriptions(kind)
    }

    /// Handles an acknowledgement in EXEC's reply.
    pub(crate) fn acknowledged_in_exec(self: &Rc<Self>, kind: Kind, frame: &[u8]) {
        self.begin_acknowledging();
        self.acknowledged(kind, frame, true);
    }

    /// Handles one acknowledgement. `last` marks the last one of its command.
    pub(crate) fn acknowledged(&self, kind: Kind, frame: &[u8], last: bool) {
        if self.state.acknowledged(kind, frame, last) == Answer::Unexpected {
            self.give_up();
        }
        if last && !self.is_subscribed() && !self.is_monitor() {
            self.reply_queue.streaming.set(false);
            self.stop_listening();
        }
    }

    /// The connection broke: its state is lost, and the client must be told.
    pub(crate) fn lost(&self) {
        if self.holder.get() == Holder::Nobody {
            // The connection's former client is gone. The loss does not concern any other client.
            return;
        }
        self.holder.set(Holder::Lost);
        self.reply_queue.close();
    }

    /// Closes the connection, because it is unknown what arrives on it next.
    pub(crate) fn give_up(&self) {
        self.state.bind(Reason::Unproven);
        if self.state.exec_reply() == ExecReply::Due {
            self.state.set_exec_reply(ExecReply::None);
        }
        self.lost();
    }

    /// The client leaves the session or disconnects. Returns whether another client may use the connection.
    pub(crate) fn leave(&self) -> bool {
        self.reply_queue.pushed.set(false);
        let clean = self.is_clean() && self.state.is_reusable();
        self.holder.set(Holder::Nobody);
        self.reply_queue.streaming.set(false);
        if !clean && !self.is_executed_by_task() && !self.is_blocked() && !self.is_monitor() && !self.is_replication() {
            // Pending requests get their replies, which lower their guards.
            self.link.retire();
        }
        clean
    }

    /// The identity that may use the connection when it is clean.
    pub(crate) fn identity(&self) -> &Rc<Identity<E>> {
        &self.identity
    }
}

impl<E: Expected> Tap for Session<E> {
    fn wants(&self, first: u8) -> bool {
        // A message pushed before HELLO 2 in a transaction arrives in its old form after the transaction.
        self.is_monitor() || first == b'>' || (first == b'*' && self.link.version() == Version::Resp2)
    }

    fn take(&self, frame: &[u8]) -> bool {
        if self.state.exec_reply() == ExecReply::Due {
            return false;
        }
        let is_message = self.is_monitor() || {
            let kind = elements(frame).and_then(|mut all| all.next()).map(bulk_of);
            match (frame.first(), kind) {
                // Any push that does not acknowledge a request.
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

/// The push that reports that the target of redirected invalidations is gone, with Shortstop's client id in place of Redis's.
fn broken_redirection(frame: &[u8], client: u64) -> Option<Vec<u8>> {
    const BEGIN: &[u8] = b">2\r\n$21\r\ntracking-redir-broken\r\n:";
    frame.starts_with(BEGIN).then(|| [BEGIN, client.to_string().as_bytes(), b"\r\n"].concat())
}
