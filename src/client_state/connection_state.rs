//! What is known of the state of a private connection: by what was sent on it and what Redis answered, never by an assumption.
//!
//! One place per transition. A connection may serve another client only if everything that was sent on it is understood, has been
//! answered, and has been undone by an answer. Whatever is not listed here binds the connection to its client until it ends.
//! Must not know a client or a socket.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use crate::resp::{Bulk, bulk_of, elements, parse_int};

/// What is subscribed to: each has its own count of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Pattern,
    Shard,
}

/// Why a connection stays with its client until it ends. Reasons add up: none replaces or removes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// HELLO or AUTH changed its user, or may have.
    Login = 1,
    /// CLIENT TRACKING was agreed to.
    Tracking = 1 << 1,
    /// The invalidations of another client may be sent to it.
    RedirectTarget = 1 << 2,
    /// Redis agreed to a command whose effect on the connection the proxy does not know how to undo.
    Setting = 1 << 3,
    /// MONITOR was agreed to.
    Monitor = 1 << 4,
    /// Redis answered what the command cannot answer.
    Unproven = 1 << 5,
    /// Commands of other clients may name it (CLIENT UNBLOCK). The client need not stay on it.
    NumberKnown = 1 << 6,
    /// The proxy itself sent RESET on it, or its client ended while an answer was due. The client is gone from it.
    Ended = 1 << 7,
    /// SYNC or PSYNC was sent: Redis sends what it sends to a replica.
    Replication = 1 << 8,
}

impl Reason {
    /// Reasons that leave nothing of the client on the connection: the client may leave it, but no other client may have it.
    const WITHOUT_THE_CLIENT: u16 = Reason::NumberKnown as u16 | Reason::Ended as u16;
}

/// A command that begins or ends state, by what its answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    /// A command that may leave something on the connection if Redis agrees to it, and nothing if Redis refuses it.
    Setting,
    /// A command that leaves nothing, whatever the answer is: it reads, writes, or waits.
    Plain,
}

/// What an answer means for its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Agreed,
    /// An error that changed nothing.
    Refused,
    /// The connection is not in the state that is known of it. Nothing more may be sent on it.
    Unexpected,
}

/// Where a connection is with MULTI and EXEC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    #[default]
    None,
    /// Redis has agreed to MULTI, and queues what is sent.
    Open,
    /// EXEC has been sent. What is sent behind it is outside of the transaction; the connection is in it until the answer is here.
    Executing,
}

/// What the bytes on a connection are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Requests and their replies, and messages in between.
    #[default]
    Requests,
    /// As before, but the next script is run by Redis's debugger (SCRIPT DEBUG).
    Debugger,
    /// What Redis tells of the requests of others (MONITOR), until the connection ends.
    Monitor,
    /// What the client and the debugger say to each other, until the connection ends.
    Raw,
    /// What Redis says to a replica (SYNC, PSYNC), until the connection ends.
    Replication,
}

/// Where the reply of EXEC is, on a connection on which messages may come with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ExecReply {
    #[default]
    None,
    /// The rest of it is due: a push belongs there.
    Due,
    /// It has come, and the reply to the command that marks the end of its messages comes next.
    MessagesDue,
}

/// What is known of a connection by its answers.
#[derive(Debug, Default)]
pub struct ConnectionState {
    mode: Cell<Mode>,
    exec_reply: Cell<ExecReply>,
    /// Commands that may wait for long and have not been answered.
    blocked: Cell<usize>,
    transaction: Cell<Transaction>,
    watching: Cell<bool>,
    /// WATCHes whose answer is due.
    watches_due: Cell<usize>,
    subscriptions: RefCell<[HashSet<Box<[u8]>>; 3]>,
    /// Commands of the SUBSCRIBE family whose last acknowledgement is due.
    acknowledging: Cell<usize>,
    /// Commands that are about to be sent, or whose answer is due, and that may leave something behind.
    attempts: Cell<usize>,
    reasons: Cell<u16>,
}

impl ConnectionState {
    /// The answer to a command is here.
    pub(crate) fn answered(&self, sent: Sent, reply: &[u8]) -> Answer {
        let is_ok = reply == b"+OK\r\n";
        if sent == Sent::Watch {
            self.watches_due.set(self.watches_due.get().saturating_sub(1));
        }
        let answer = match (sent, reply.first()) {
            (_, None) => Answer::Unexpected,
            (Sent::Exec, Some(b'*' | b'_')) => Answer::Agreed,
            // The null of RESP2. (An array that is null begins as an array does.)
            (Sent::Exec, Some(b'$')) if reply == b"$-1\r\n" => Answer::Agreed,
            (Sent::Exec, Some(b'-')) if reply.starts_with(b"-EXECABORT") => Answer::Agreed,
            // Before 6.2 a user without the right to EXEC stays in its transaction.
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
            (Sent::Multi, _) => self.transaction.set(Transaction::Open),
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

    /// Redis has agreed to SCRIPT DEBUG. A stream stays one.
    pub(crate) fn script_debug(&self, on: bool) {
        self.mode.set(match self.mode.get() {
            Mode::Requests | Mode::Debugger if on => Mode::Debugger,
            Mode::Requests | Mode::Debugger => Mode::Requests,
            stream => stream,
        });
    }

    /// Redis has agreed to MONITOR.
    pub(crate) fn begin_monitor(&self) {
        self.bind(Reason::Monitor);
        self.mode.set(Mode::Monitor);
    }

    /// SYNC or PSYNC is about to be sent.
    pub(crate) fn begin_replication(&self) {
        self.bind(Reason::Replication);
        self.mode.set(Mode::Replication);
    }

    /// The debugger has begun to talk. Redis ends the connection when it has done.
    pub(crate) fn begin_raw(&self) {
        self.mode.set(Mode::Raw);
    }

    /// Where the reply of EXEC is.
    pub(crate) fn exec_reply(&self) -> ExecReply {
        self.exec_reply.get()
    }

    /// Some of EXEC's reply has come, or the mark behind it.
    pub(crate) fn set_exec_reply(&self, exec_reply: ExecReply) {
        self.exec_reply.set(exec_reply);
    }

    /// A command that may wait for long is about to be sent.
    pub(crate) fn block(&self) {
        self.blocked.set(self.blocked.get() + 1);
    }

    /// Such a command has been answered.
    pub(crate) fn unblocked(&self) {
        self.blocked.set(self.blocked.get() - 1);
    }

    /// Whether such a command waits.
    pub(crate) fn is_blocked(&self) -> bool {
        self.blocked.get() > 0
    }

    /// EXEC is about to be sent.
    pub(crate) fn begin_exec(&self) {
        self.transaction.set(Transaction::Executing);
    }

    /// Whether what is sent now is queued in a transaction.
    pub(crate) fn in_multi(&self) -> bool {
        self.transaction.get() == Transaction::Open
    }

    /// The answer to a command that was sent in a transaction, and not to end it. `false`: Redis did not queue it, and did not
    /// refuse it either.
    pub(crate) fn queued(&self, reply: &[u8]) -> bool {
        let as_expected = reply == QUEUED || reply.first() == Some(&b'-');
        if !as_expected {
            self.bind(Reason::Unproven);
        }
        as_expected
    }

    /// The connection stays with its client.
    pub(crate) fn bind(&self, reason: Reason) {
        self.reasons.set(self.reasons.get() | reason as u16);
    }

    pub(crate) fn is_bound_by(&self, reason: Reason) -> bool {
        self.reasons.get() & reason as u16 != 0
    }

    /// Whether there is something on the connection, or may be, that only its end undoes.
    pub(crate) fn is_bound(&self) -> bool {
        self.attempts.get() > 0 || self.reasons.get() & !Reason::WITHOUT_THE_CLIENT != 0
    }

    /// Something that may leave state behind is about to be sent. Binds the connection until [`ConnectionState::end_attempt`].
    pub(crate) fn begin_attempt(&self) {
        self.attempts.set(self.attempts.get() + 1);
    }

    /// The outcome is known; if it left state behind, [`ConnectionState::bind`] was called.
    pub(crate) fn end_attempt(&self) {
        self.attempts.set(self.attempts.get() - 1);
    }

    /// WATCH is about to be sent.
    pub(crate) fn begin_watch(&self) {
        self.watches_due.set(self.watches_due.get() + 1);
    }

    /// Whether keys are watched, or will be if Redis agrees.
    pub(crate) fn is_watching(&self) -> bool {
        self.watching.get() || self.watches_due.get() > 0
    }

    /// Whether, by the answers so far, the client has nothing on the connection.
    pub(crate) fn is_free(&self) -> bool {
        self.transaction.get() == Transaction::None && !self.is_watching() && !self.is_subscribed() && !self.is_bound()
    }

    /// Whether, by the answers so far, the connection may serve another client.
    pub(crate) fn is_reusable(&self) -> bool {
        self.is_free() && self.reasons.get() == 0
    }

    /// A command of the SUBSCRIBE family is about to be sent.
    pub(crate) fn begin_acknowledging(&self) {
        self.acknowledging.set(self.acknowledging.get() + 1);
    }

    /// Whether acknowledgements are due: until they are here, nobody knows what may be sent.
    pub(crate) fn is_acknowledging(&self) -> bool {
        self.acknowledging.get() > 0
    }

    /// Whether messages may come.
    pub(crate) fn is_subscribed(&self) -> bool {
        self.is_acknowledging() || self.subscriptions.borrow().iter().any(|set| !set.is_empty())
    }

    /// How many subscriptions there are. An UNSUBSCRIBE of everything gets this many acknowledgements.
    pub(crate) fn subscriptions(&self, kind: Kind) -> usize {
        self.subscriptions.borrow()[kind as usize].len()
    }

    pub(crate) fn is_subscribed_to(&self, kind: Kind, name: &[u8]) -> bool {
        self.subscriptions.borrow()[kind as usize].contains(name)
    }

    /// One acknowledgement, `last`: of its command. An error refuses the whole command.
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

    /// Takes an acknowledgement. Tells whether Redis counts as many subscriptions as are known; none: it is no acknowledgement of
    /// that kind.
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
        // Channels and patterns are counted together.
        let known = match kind {
            Kind::Shard => all[Kind::Shard as usize].len(),
            _ => all[Kind::Channel as usize].len() + all[Kind::Pattern as usize].len(),
        };
        let count = count.strip_prefix(b":").and_then(|count| count.strip_suffix(b"\r\n")).and_then(parse_int);
        Some(count.and_then(|count| usize::try_from(count).ok()) == Some(known))
    }
}

const QUEUED: &[u8] = b"+QUEUED\r\n";

/// Whether an error says that the connection is, or is not, in a transaction, against what is known.
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
    fn only_answers_that_undo_all_state_make_a_connection_reusable() {
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
        // MULTI behind an EXEC that is not answered.
        state.answered(Sent::Multi, OK);
        state.begin_exec();
        state.answered(Sent::Exec, b"*-1\r\n");
        state.answered(Sent::Multi, OK);
        assert!(state.in_multi());
        state.answered(Sent::Discard, OK);
        assert!(!state.in_multi() && state.is_reusable());
    }

    #[test]
    fn what_the_bytes_are() {
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
    fn commands_that_wait_are_counted() {
        let state = ConnectionState::default();
        state.block();
        state.block();
        state.unblocked();
        assert!(state.is_blocked(), "the second one waits");
        state.unblocked();
        assert!(!state.is_blocked());
    }

    #[test]
    fn an_answer_that_cannot_be_is_told() {
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
    fn keys_are_taken_to_be_watched_until_redis_has_refused() {
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
    fn reasons_do_not_take_each_other_away() {
        let state = ConnectionState::default();
        state.begin_attempt();
        state.begin_attempt();
        state.end_attempt();
        assert!(state.is_bound() && !state.is_free(), "one attempt is left");
        state.bind(Reason::RedirectTarget);
        state.end_attempt();
        assert!(state.is_bound() && !state.is_reusable(), "another client redirects to it");

        let state = ConnectionState::default();
        for reason in [Reason::NumberKnown, Reason::Ended] {
            state.bind(reason);
            assert!(
                state.is_free() && !state.is_reusable(),
                "{reason:?}: the client may leave it, no other may have it"
            );
        }
    }
}
