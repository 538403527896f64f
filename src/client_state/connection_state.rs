//! The state of a private connection, derived from what was sent on it and what Redis replied, never from an assumption.
//!
//! One function per transition. A connection may serve another client only if everything that was sent on it is understood, has
//! been answered, and has been undone by a reply. Anything else binds the connection to its client until it closes. Must not know a
//! client or a socket.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use crate::resp::{Bulk, bulk_of, elements, parse_int};

/// What a subscription is for. Each kind has its own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// Why a connection stays with its client until it closes. Reasons accumulate: none replaces or removes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// HELLO or AUTH changed its user, or may have changed it.
    Login = 1,
    /// Redis accepted CLIENT TRACKING.
    Tracking = 1 << 1,
    /// Another client's invalidations may be redirected to it.
    RedirectTarget = 1 << 2,
    /// Redis accepted a command whose effect on the connection Shortstop cannot undo.
    Setting = 1 << 3,
    /// Redis accepted MONITOR.
    Monitor = 1 << 4,
    /// Redis sent a reply that is impossible for the command.
    Unproven = 1 << 5,
    /// Commands of other clients may refer to its id (CLIENT UNBLOCK). The client may leave it.
    IdKnown = 1 << 6,
    /// Shortstop sent RESET on it, or its client disconnected while a reply was due. No client uses it any more.
    Ended = 1 << 7,
    /// SYNC or PSYNC was sent: Redis sends the replication stream.
    Replication = 1 << 8,
}

impl Reason {
    /// With only these reasons the client may leave the connection, but no other client may use it.
    const WITHOUT_THE_CLIENT: u16 = Reason::IdKnown as u16 | Reason::Ended as u16;
}

/// A command that begins or ends state. The variant determines what a reply to it means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    /// A command that may change the connection's state if Redis accepts it, and changes nothing if Redis refuses it.
    Setting,
    /// A command that leaves the connection's state unchanged, whatever the reply is: it reads, writes, or waits.
    Plain,
}

/// What a reply means for its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Agreed,
    /// An error that changed nothing.
    Refused,
    /// The connection is not in the state that Shortstop expects. Nothing more may be sent on it.
    Unexpected,
}

/// The state of the connection's transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    #[default]
    None,
    /// Redis has accepted MULTI, and queues what is sent.
    Open,
    /// EXEC has been sent. Later commands are outside of the transaction. The connection leaves this state when the reply arrives.
    Executing,
}

/// What the bytes on a connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Requests and replies, with messages between them.
    #[default]
    Requests,
    /// As before, but Redis's debugger runs the next script (SCRIPT DEBUG).
    Debugger,
    /// A stream of the requests of all clients (MONITOR), until the connection closes.
    Monitor,
    /// The dialogue between the client and the debugger, until the connection closes.
    Raw,
    /// The replication stream (SYNC, PSYNC), until the connection closes.
    Replication,
}

/// How much of EXEC's reply has arrived, on a connection that also receives messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecReply {
    #[default]
    None,
    /// The rest of the reply is due. A push belongs to it.
    Due,
    /// The reply has arrived. The reply to the command that marks the end of its messages comes next.
    MessagesDue,
}

/// The state of a connection according to the replies so far.
#[derive(Debug, Default)]
pub struct ConnectionState {
    mode: Cell<Mode>,
    exec_reply: Cell<ExecReply>,
    /// Commands that may block and have no reply yet.
    blocked: Cell<usize>,
    transaction: Cell<Transaction>,
    /// Redis has refused a command of the open transaction, and will refuse EXEC.
    refuses_exec: Cell<bool>,
    watching: Cell<bool>,
    /// WATCH commands that have no reply yet.
    watches_due: Cell<usize>,
    subscriptions: RefCell<[HashSet<Box<[u8]>>; 3]>,
    /// Commands of the SUBSCRIBE family whose last acknowledgement is due.
    acknowledging: Cell<usize>,
    /// Commands that may change the connection's state, from before they are sent until their reply arrives.
    attempts: Cell<usize>,
    reasons: Cell<u16>,
}

impl ConnectionState {
    /// Handles the reply to a command.
    pub(crate) fn answered(&self, sent: Sent, reply: &[u8]) -> Answer {
        let is_ok = reply == b"+OK\r\n";
        if sent == Sent::Watch {
            self.watches_due.set(self.watches_due.get().saturating_sub(1));
        }
        let answer = match (sent, reply.first()) {
            (_, None) => Answer::Unexpected,
            (Sent::Exec, Some(b'*' | b'_')) => Answer::Agreed,
            // RESP2's null. (A null array begins like any array.)
            (Sent::Exec, Some(b'$')) if reply == b"$-1\r\n" => Answer::Agreed,
            (Sent::Exec, Some(b'-')) if reply.starts_with(b"-EXECABORT") => Answer::Agreed,
            // Redis before 6.2 keeps the transaction open if the user has no right to EXEC.
            (Sent::Exec, _) => Answer::Unexpected,
            (_, Some(b'-')) if contradicts(sent, reply) => Answer::Unexpected,
            (_, Some(b'-')) => Answer::Refused,
            (Sent::Multi | Sent::Discard | Sent::Watch | Sent::Unwatch, _) if !is_ok => Answer::Unexpected,
            _ if reply == QUEUED => Answer::Unexpected,
            _ => Answer::Agreed,
        };
        match (sent, answer) {
            (_, Answer::Unexpected) => self.bind(Reason::Unproven),
            (_, Answer::Refused) | (Sent::Plain, _) => {}
            (Sent::Multi, _) => {
                self.transaction.set(Transaction::Open);
                self.refuses_exec.set(false);
            }
            (Sent::Exec | Sent::Discard, _) => {
                self.transaction.set(Transaction::None);
                self.watching.set(false);
            }
            (Sent::Watch, _) => self.watching.set(true),
            (Sent::Unwatch, _) => self.watching.set(false),
            (Sent::Setting, _) => self.bind(Reason::Setting),
        }
        answer
    }

    /// What the bytes on the connection are.
    pub(crate) fn mode(&self) -> Mode {
        self.mode.get()
    }

    /// Redis has accepted SCRIPT DEBUG. A stream stays a stream.
    pub(crate) fn script_debug(&self, on: bool) {
        self.mode.set(match self.mode.get() {
            Mode::Requests | Mode::Debugger if on => Mode::Debugger,
            Mode::Requests | Mode::Debugger => Mode::Requests,
            stream => stream,
        });
    }

    /// Redis has accepted MONITOR.
    pub(crate) fn begin_monitor(&self) {
        self.bind(Reason::Monitor);
        self.mode.set(Mode::Monitor);
    }

    /// Call this before sending SYNC or PSYNC.
    pub(crate) fn begin_replication(&self) {
        self.bind(Reason::Replication);
        self.mode.set(Mode::Replication);
    }

    /// The debugger has started. Redis closes the connection when it has ended.
    pub(crate) fn begin_raw(&self) {
        self.mode.set(Mode::Raw);
    }

    /// How much of EXEC's reply has arrived.
    pub(crate) fn exec_reply(&self) -> ExecReply {
        self.exec_reply.get()
    }

    /// A part of EXEC's reply has arrived, or the reply that marks its end.
    pub(crate) fn set_exec_reply(&self, exec_reply: ExecReply) {
        self.exec_reply.set(exec_reply);
    }

    /// Call this before sending a command that may block.
    pub(crate) fn block(&self) {
        self.blocked.set(self.blocked.get() + 1);
    }

    /// A command that may block has its reply.
    pub(crate) fn unblocked(&self) {
        self.blocked.set(self.blocked.get() - 1);
    }

    /// Whether a command that may block has no reply yet.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get() > 0
    }

    /// Call this before sending EXEC.
    pub(crate) fn begin_exec(&self) {
        self.transaction.set(Transaction::Executing);
    }

    /// Whether Redis queues what is sent now in a transaction.
    pub(crate) fn in_multi(&self) -> bool {
        self.transaction.get() == Transaction::Open
    }

    /// Handles the reply to a command in a transaction. Returns false if Redis neither queued nor refused the command.
    pub(crate) fn queued(&self, reply: &[u8]) -> bool {
        let is_error = reply.first() == Some(&b'-');
        let as_expected = reply == QUEUED || is_error;
        // After these two the transaction goes on, on old servers.
        let goes_on = [&b"-ERR MULTI calls can not be nested"[..], b"-ERR WATCH inside MULTI"];
        if is_error && !goes_on.iter().any(|text| reply.starts_with(text)) {
            self.refuses_exec.set(true);
        }
        if !as_expected {
            self.bind(Reason::Unproven);
        }
        as_expected
    }

    /// Whether Redis has refused a command of the last transaction.
    pub(crate) fn refuses_exec(&self) -> bool {
        self.refuses_exec.get()
    }

    /// Binds the connection to its client until it closes.
    pub(crate) fn bind(&self, reason: Reason) {
        self.reasons.set(self.reasons.get() | reason as u16);
    }

    pub(crate) fn is_bound_by(&self, reason: Reason) -> bool {
        self.reasons.get() & reason as u16 != 0
    }

    /// Whether the connection has state, or may have state, that only closing it undoes.
    pub(crate) fn is_bound(&self) -> bool {
        self.attempts.get() > 0 || self.reasons.get() & !Reason::WITHOUT_THE_CLIENT != 0
    }

    /// Call this before sending something that may change the connection's state. Binds the connection until
    /// [`ConnectionState::end_attempt`].
    pub(crate) fn begin_attempt(&self) {
        self.attempts.set(self.attempts.get() + 1);
    }

    /// The outcome is known. If the state has changed, [`ConnectionState::bind`] was called before.
    pub(crate) fn end_attempt(&self) {
        self.attempts.set(self.attempts.get() - 1);
    }

    /// Call this before sending WATCH.
    pub(crate) fn begin_watch(&self) {
        self.watches_due.set(self.watches_due.get() + 1);
    }

    /// Whether keys are watched, or may be.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.get() || self.watches_due.get() > 0
    }

    /// Whether the client may leave the connection, according to the replies so far.
    pub(crate) fn is_free(&self) -> bool {
        self.transaction.get() == Transaction::None && !self.is_watching() && !self.is_subscribed() && !self.is_bound()
    }

    /// Whether another client may use the connection, according to the replies so far.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_free() && self.reasons.get() == 0
    }

    /// Call this before sending a command of the SUBSCRIBE family.
    pub(crate) fn begin_acknowledging(&self) {
        self.acknowledging.set(self.acknowledging.get() + 1);
    }

    /// Whether acknowledgements are due. Until they arrive it is unknown which commands are allowed.
    pub(crate) fn is_acknowledging(&self) -> bool {
        self.acknowledging.get() > 0
    }

    /// Whether messages may arrive.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_acknowledging() || self.subscriptions.borrow().iter().any(|set| !set.is_empty())
    }

    /// Number of subscriptions. An UNSUBSCRIBE of everything gets this many acknowledgements.
    pub(crate) fn subscriptions(&self, kind: Kind) -> usize {
        self.subscriptions.borrow()[kind as usize].len()
    }

    pub(crate) fn is_subscribed_to(&self, kind: Kind, name: &[u8]) -> bool {
        self.subscriptions.borrow()[kind as usize].contains(name)
    }

    /// Handles one acknowledgement. `last` marks the last one of its command. An error refuses the whole command.
    pub(crate) fn acknowledged(&self, kind: Kind, frame: &[u8], last: bool) -> Answer {
        let answer = match self.count_of_acknowledgement(kind, frame) {
            _ if frame.first() == Some(&b'-') => Answer::Refused,
            Some(agrees) => {
                if !agrees {
                    self.bind(Reason::Unproven);
                }
                Answer::Agreed
            }
            None => {
                self.bind(Reason::Unproven);
                Answer::Unexpected
            }
        };
        if last {
            self.acknowledging.set(self.acknowledging.get() - 1);
        }
        answer
    }

    /// Handles an acknowledgement. Returns whether Redis's count of subscriptions agrees with Shortstop's. `None` if the frame is
    /// no acknowledgement of this kind.
    fn count_of_acknowledgement(&self, kind: Kind, frame: &[u8]) -> Option<bool> {
        let parts: Vec<&[u8]> = elements(frame)?.collect();
        let [word, name, count] = parts[..] else { return None };
        let Bulk::Value(word) = bulk_of(word) else { return None };
        let prefix: &[u8] = match kind {
            Kind::Channel => b"",
            Kind::Pattern => b"p",
            Kind::Shard => b"s",
        };
        let mut all = self.subscriptions.borrow_mut();
        match (word.strip_prefix(prefix), bulk_of(name)) {
            (Some(b"subscribe"), Bulk::Value(name)) => drop(all[kind as usize].insert(name.into())),
            (Some(b"unsubscribe"), Bulk::Value(name)) => drop(all[kind as usize].remove(name)),
            // There was nothing to unsubscribe from.
            (Some(b"unsubscribe"), Bulk::Null) => {}
            _ => return None,
        }
        // Redis counts channels and patterns together.
        let known = match kind {
            Kind::Shard => all[Kind::Shard as usize].len(),
            _ => all[Kind::Channel as usize].len() + all[Kind::Pattern as usize].len(),
        };
        let count = count.strip_prefix(b":").and_then(|count| count.strip_suffix(b"\r\n")).and_then(parse_int);
        Some(count.and_then(|count| usize::try_from(count).ok()) == Some(known))
    }
}

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Whether an error contradicts what Shortstop knows about the transaction.
fn contradicts(sent: Sent, error: &[u8]) -> bool {
    match sent {
        Sent::Multi => error.starts_with(b"-ERR MULTI calls can not be nested"),
        Sent::Watch => error.starts_with(b"-ERR WATCH inside MULTI"),
        Sent::Discard => error.starts_with(b"-ERR DISCARD without MULTI"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, ConnectionState, Kind, Mode, Reason, Sent};

    const OK: &[u8] = b"+OK\r\n";
    const NOPERM: &[u8] = b"-NOPERM no\r\n";

    fn after(steps: &[(Sent, &[u8])]) -> ConnectionState {
        let state = ConnectionState::default();
        for (sent, reply) in steps {
            state.answered(*sent, reply);
        }
        state
    }

    #[test]
    fn only_replies_that_undo_all_state_make_a_connection_reusable() {
        use Sent::{Discard, Exec, Multi, Plain, Setting, Unwatch, Watch};
        let aborted = &b"-EXECABORT Transaction discarded because of: NOPERM\r\n"[..];
        for (steps, reusable) in [
            (&[][..], true),
            (&[(Multi, OK)], false),
            (&[(Multi, NOPERM)], true),
            (&[(Multi, b"+QUEUED\r\n")], false),
            (&[(Multi, b"-ERR MULTI calls can not be nested\r\n")], false),
            (&[(Multi, OK), (Discard, OK)], true),
            (&[(Multi, OK), (Discard, NOPERM)], false),
            (&[(Multi, OK), (Discard, NOPERM), (Exec, aborted)], true),
            (&[(Multi, OK), (Discard, b"-ERR DISCARD without MULTI\r\n")], false),
            (&[(Multi, OK), (Exec, b"*1\r\n+OK\r\n")], true),
            (&[(Multi, OK), (Exec, b"*0\r\n")], true),
            (&[(Multi, OK), (Exec, b"*-1\r\n")], true),
            (&[(Multi, OK), (Exec, b"_\r\n")], true),
            (&[(Multi, OK), (Exec, aborted)], true),
            (&[(Multi, OK), (Exec, NOPERM)], false),
            (&[(Multi, OK), (Exec, b"+QUEUED\r\n")], false),
            (&[(Watch, OK)], false),
            (&[(Watch, NOPERM)], true),
            (&[(Watch, b":1\r\n")], false),
            (&[(Watch, OK), (Unwatch, OK)], true),
            (&[(Watch, OK), (Unwatch, NOPERM)], false),
            (&[(Watch, OK), (Unwatch, b":0\r\n"), (Unwatch, OK)], false),
            (&[(Watch, OK), (Multi, OK), (Exec, b"*-1\r\n")], true),
            (&[(Watch, OK), (Multi, OK), (Discard, OK)], true),
            (&[(Watch, OK), (Multi, OK), (Discard, NOPERM)], false),
            (&[(Multi, OK), (Exec, b"*0\r\n"), (Watch, OK)], false),
            (&[(Setting, NOPERM)], true),
            (&[(Setting, OK)], false),
            (&[(Plain, b"*-1\r\n"), (Plain, NOPERM), (Plain, b":1\r\n")], true),
            (&[(Plain, b"+QUEUED\r\n")], false),
            (&[(Plain, b"")], false),
        ] {
            let state = after(steps);
            assert_eq!((state.is_reusable(), state.is_free()), (reusable, reusable), "{steps:?}");
        }
    }

    #[test]
    fn a_transaction_is_open_from_the_answer_to_multi_until_exec_is_sent() {
        let state = ConnectionState::default();
        assert!(!state.in_multi());
        state.answered(Sent::Multi, NOPERM);
        assert!(!state.in_multi(), "Redis refused it");
        state.answered(Sent::Multi, OK);
        assert!(state.in_multi() && !state.is_free());
        state.answered(Sent::Discard, NOPERM);
        assert!(state.in_multi(), "Redis refused DISCARD, and the transaction is still there");
        state.begin_exec();
        assert!(!state.in_multi() && !state.is_free(), "what is sent behind EXEC is outside, but the answer is due");
        state.answered(Sent::Exec, b"*0\r\n");
        assert!(state.is_free());
        // MULTI behind an EXEC whose reply is due.
        state.answered(Sent::Multi, OK);
        state.begin_exec();
        state.answered(Sent::Exec, b"*-1\r\n");
        state.answered(Sent::Multi, OK);
        assert!(state.in_multi());
        state.answered(Sent::Discard, OK);
        assert!(!state.in_multi() && state.is_reusable());
    }

    #[test]
    fn modes_of_a_connection() {
        let state = ConnectionState::default();
        assert_eq!(state.mode(), Mode::Requests);
        state.script_debug(true);
        assert_eq!(state.mode(), Mode::Debugger);
        state.script_debug(false);
        assert_eq!(state.mode(), Mode::Requests);
        state.script_debug(true);
        state.begin_raw();
        assert_eq!(state.mode(), Mode::Raw);
        state.script_debug(false);
        assert_eq!(state.mode(), Mode::Raw, "a stream stays one until the connection ends");

        let state = ConnectionState::default();
        state.begin_monitor();
        state.script_debug(true);
        assert_eq!(state.mode(), Mode::Monitor);

        let replica = ConnectionState::default();
        replica.begin_replication();
        assert_eq!(replica.mode(), Mode::Replication);
        assert!(!replica.is_free() && !replica.is_reusable());

        assert!(state.is_bound_by(Reason::Monitor) && !state.is_free());
    }

    #[test]
    fn blocking_commands_are_counted() {
        let state = ConnectionState::default();
        state.block();
        state.block();
        state.unblocked();
        assert!(state.is_blocked(), "the second one waits");
        state.unblocked();
        assert!(!state.is_blocked());
    }

    #[test]
    fn an_impossible_reply_is_reported() {
        let state = ConnectionState::default();
        assert_eq!(state.answered(Sent::Multi, OK), Answer::Agreed);
        assert!(state.queued(b"+QUEUED\r\n") && state.queued(NOPERM));
        assert!(!state.is_bound_by(Reason::Unproven));
        assert!(!state.queued(b":1\r\n"), "it was executed");
        assert!(state.is_bound_by(Reason::Unproven));
        assert_eq!(state.answered(Sent::Exec, NOPERM), Answer::Unexpected);
    }

    fn acknowledge(state: &ConnectionState, kind: Kind, frames: &[&[u8]]) {
        state.begin_acknowledging();
        for (at, frame) in frames.iter().enumerate() {
            state.acknowledged(kind, frame, at + 1 == frames.len());
        }
    }

    #[test]
    fn subscriptions_are_counted_by_their_acknowledgements() {
        let state = ConnectionState::default();
        acknowledge(
            &state,
            Kind::Channel,
            &[b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", b"*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n"],
        );
        acknowledge(&state, Kind::Pattern, &[b">3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:3\r\n"]);
        acknowledge(&state, Kind::Shard, &[b"*3\r\n$10\r\nssubscribe\r\n$1\r\na\r\n:1\r\n"]);
        acknowledge(&state, Kind::Channel, &[NOPERM]);
        assert!(state.is_subscribed() && !state.is_acknowledging() && !state.is_free());
        assert_eq!(state.subscriptions(Kind::Channel), 2);
        assert!(state.is_subscribed_to(Kind::Pattern, b"a*") && !state.is_subscribed_to(Kind::Pattern, b"a"));
        acknowledge(
            &state,
            Kind::Channel,
            &[b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nb\r\n:2\r\n", b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n"],
        );
        acknowledge(&state, Kind::Pattern, &[b"*3\r\n$12\r\npunsubscribe\r\n$2\r\na*\r\n:0\r\n"]);
        assert!(!state.is_free(), "the shard is left");
        acknowledge(&state, Kind::Shard, &[b"*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n"]);
        acknowledge(&state, Kind::Channel, &[b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n"]);
        acknowledge(&state, Kind::Channel, &[b">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"]);
        assert!(state.is_reusable());
        state.begin_acknowledging();
        assert!(!state.is_free(), "an acknowledgement is due");
    }

    #[test]
    fn keys_count_as_watched_until_redis_refuses() {
        let state = ConnectionState::default();
        state.begin_watch();
        assert!(state.is_watching() && !state.is_free());
        state.answered(Sent::Watch, NOPERM);
        assert!(!state.is_watching() && state.is_reusable());
    }

    #[test]
    fn an_acknowledgement_that_does_not_fit_proves_nothing() {
        for frame in [
            &b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:2\r\n"[..],
            b"*3\r\n$10\r\npsubscribe\r\n$1\r\na\r\n:1\r\n",
            b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n",
            b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n",
            b"*2\r\n$9\r\nsubscribe\r\n$1\r\na\r\n",
            b"+OK\r\n",
            b"+QUEUED\r\n",
        ] {
            let state = ConnectionState::default();
            acknowledge(&state, Kind::Channel, &[frame]);
            assert!(state.is_bound_by(Reason::Unproven), "{}", frame.escape_ascii());
        }
    }

    #[test]
    fn a_reason_does_not_remove_another() {
        let state = ConnectionState::default();
        state.begin_attempt();
        state.begin_attempt();
        state.end_attempt();
        assert!(state.is_bound() && !state.is_free(), "one attempt is left");
        state.bind(Reason::RedirectTarget);
        state.end_attempt();
        assert!(state.is_bound() && !state.is_reusable(), "another client redirects to it");

        let state = ConnectionState::default();
        for reason in [Reason::IdKnown, Reason::Ended] {
            state.bind(reason);
            assert!(
                state.is_free() && !state.is_reusable(),
                "{reason:?}: the client may leave it, no other may have it"
            );
        }
    }
}
