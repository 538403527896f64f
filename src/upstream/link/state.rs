//! The phases of a link and every transition between them. Knows no socket. Returns the requests that must be answered.
//!
//! | from | event | to |
//! | --- | --- | --- |
//! | connecting, down | [`State::established`]: the handshake has ended | live |
//! | connecting, down | [`State::attempt_failed`] | down; closed, if the link is private or retiring |
//! | live | [`State::connection_ended`] | connecting; closed, if the link is private |
//! | live | [`State::hung`]: Redis does not answer | down; closed, if the link is private or retiring |
//! | any | [`State::close_if_done`]: retiring, and nothing waits | closed |
//! | any | [`State::close`] | closed |
//!
//! A link may be retired ([`State::retire`]) in any phase: it continues until the last pending request has its reply.

use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::errors;
use crate::upstream::queue::Queue;
use crate::upstream::silence::Delay;

use super::expected::{Expected, Tap};
use super::lost::Lost;

/// A connection that was idle for this long may have been closed for that reason: by Redis (`timeout`), or by a device in the
/// network.
pub(super) const IDLE: Duration = Duration::from_secs(30);

/// A script without a reply for this long holds up the requests behind it.
pub(super) const HELD_UP: Duration = Duration::from_millis(100);

/// The phase of a link.
#[derive(Debug)]
enum Phase {
    /// The connection is being opened. Requests wait for it.
    Connecting,
    /// Connected: requests are sent and replies arrive.
    Live(Live),
    /// The last attempt failed. Requests are refused until an attempt succeeds.
    Down(Lost),
    /// There will be no more connection.
    Closed,
}

/// An established connection.
#[derive(Debug)]
struct Live {
    since: Instant,
    /// The endpoint's epoch when it was opened.
    epoch: u64,
    /// `None`: it has not been used.
    last_reply: Option<Instant>,
    /// When a part of the oldest request was sent. `None`: each request was sent in one piece.
    last_part: Option<Instant>,
    /// Redis has replied with a protocol error, after which it closes the connection.
    had_protocol_error: bool,
}

/// The end of the input on a raw connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// More may be sent.
    Open,
    /// Nothing more is sent. Redis does not know it yet.
    Wanted,
    /// Redis knows it.
    Done,
}

pub(super) struct State<E> {
    phase: Phase,
    shared: bool,
    /// Closes when nothing waits any more.
    retiring: bool,
    /// Notified of each change of the phase.
    changed: Rc<Notify>,
    /// Requests to send and requests without a reply.
    pub(super) queue: Queue<E>,
    /// The link's task.
    waker: Option<Waker>,
    pub(super) tap: Option<Rc<dyn Tap>>,
    /// For a raw connection.
    finish: Finish,
    /// The maximum number of bytes is in flight. More is sent when replies arrive.
    pub(super) is_held: bool,
    /// The last handshake had no login, and at this time Redis said that it requires one.
    locked_since: Option<Instant>,
    /// A reply other than an error has arrived since the last [`State::take_served`].
    served: bool,
    /// Number of due replies up to that of the last script. 0: no script is pending.
    script_due: usize,
    script_sent: Option<Instant>,
}

impl<E: Expected> State<E> {
    pub(super) fn new(shared: bool) -> Self {
        State {
            phase: Phase::Connecting,
            shared,
            retiring: false,
            changed: Rc::default(),
            queue: Queue::default(),
            waker: None,
            tap: None,
            finish: Finish::Open,
            is_held: false,
            locked_since: None,
            served: false,
            script_due: 0,
            script_sent: None,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.changed.notify_waiters();
    }

    /// The connection is established. Returns the requests that must not be sent on it, because it `takes_logins_only`. `None` if
    /// the link is closed.
    pub(super) fn established(&mut self, now: Instant, epoch: u64, takes_logins_only: bool) -> Option<Vec<E>> {
        if self.close_if_done() {
            return None;
        }
        self.enter(Phase::Live(Live {
            since: now,
            epoch,
            last_reply: None,
            last_part: None,
            had_protocol_error: false,
        }));
        // They were sent while Redis required no login. On this connection Redis might close it because of them.
        Some(if takes_logins_only { self.take_waiting() } else { Vec::new() })
    }

    /// A connection attempt has failed. Returns what waits. None of it has run.
    pub(super) fn attempt_failed(&mut self, lost: &Lost) -> Vec<E> {
        if !self.is_closed() {
            let goes_on = self.shared && !self.retiring;
            self.enter(if goes_on { Phase::Down(lost.clone()) } else { Phase::Closed });
        }
        self.take_waiting()
    }

    /// The connection has ended. On a shared link, what certainly did not run and what only reads waits for the next connection.
    /// Returns the rest, each with whether it may have run.
    pub(super) fn connection_ended(&mut self) -> Vec<(E, bool)> {
        let mut gone: Vec<(E, bool)> = if self.shared && !self.is_closed() {
            self.enter(Phase::Connecting);
            self.queue.begin_again(E::may_repeat, E::askers)
        } else {
            self.enter(Phase::Closed);
            self.queue.take().collect()
        };
        // A lost script holds up nothing.
        self.script_due = self.script_due.min(self.queue.len());
        if self.is_locked() {
            // Redis executes nothing on such a connection.
            gone.iter_mut().for_each(|(_, ran)| *ran = false);
        }
        gone
    }

    /// The connection is given up, because Redis does not answer on it. Returns everything that waits, each with whether it may
    /// have run.
    pub(super) fn hung(&mut self, lost: &Lost) -> Vec<(E, bool)> {
        let has_login = !self.is_locked();
        let goes_on = self.shared && !self.retiring;
        self.enter(if goes_on { Phase::Down(lost.clone()) } else { Phase::Closed });
        self.script_due = 0;
        self.queue.take().map(|(expected, ran)| (expected, ran && has_login)).collect()
    }

    /// Closes the link once nothing waits any more.
    pub(super) fn retire(&mut self) {
        self.retiring = true;
    }

    /// Closes a retiring link on which nothing waits. Returns whether the link is closed.
    pub(super) fn close_if_done(&mut self) -> bool {
        if self.retiring && self.queue.is_idle() {
            self.close();
        }
        self.is_closed()
    }

    /// Closes the link. Returns what waits.
    pub(super) fn close(&mut self) -> Vec<E> {
        self.enter(Phase::Closed);
        self.tap = None;
        self.take_waiting()
    }

    fn take_waiting(&mut self) -> Vec<E> {
        self.script_due = 0;
        self.queue.take().map(|(expected, _)| expected).collect()
    }

    pub(super) fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting)
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live(_))
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down(_))
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    pub(super) fn is_retiring(&self) -> bool {
        self.retiring
    }

    pub(super) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Whether a request may be sent now.
    #[inline]
    pub(super) fn check(&self, pending_limit: usize) -> Result<(), Lost> {
        match &self.phase {
            Phase::Connecting | Phase::Live(_) if self.queue.pending() <= pending_limit => Ok(()),
            Phase::Connecting | Phase::Live(_) => Err(Lost::from(&errors::too_much_pending(self.queue.pending()))),
            Phase::Down(lost) => Err(lost.clone()),
            Phase::Closed => Err(Lost::from(&errors::ENDED)),
        }
    }

    /// Whether [`State::check`] would succeed. Cheaper, because it says no reason.
    #[inline]
    pub(super) fn may_send(&self, pending_limit: usize) -> bool {
        matches!(self.phase, Phase::Connecting | Phase::Live(_)) && self.queue.pending() <= pending_limit
    }

    /// Whether it is connected, and Redis executes its requests.
    #[inline]
    pub(super) fn is_accepted(&self) -> bool {
        self.is_live() && !self.retiring && !self.is_locked()
    }

    /// Whether it is connected, and has been since before that time.
    pub(super) fn stands_since(&self, then: Instant) -> bool {
        matches!(&self.phase, Phase::Live(live) if live.since < then)
    }

    /// Whether it is connected to a server of an older epoch.
    pub(super) fn is_older_than(&self, epoch: u64) -> bool {
        matches!(&self.phase, Phase::Live(live) if live.epoch < epoch)
    }

    /// Whether Redis requires a login that the connection does not have.
    #[inline]
    pub(super) fn is_locked(&self) -> bool {
        self.locked_since.is_some()
    }

    /// Since when that is known.
    #[inline]
    pub(super) fn locked_since(&self) -> Option<Instant> {
        self.locked_since
    }

    /// Sets since when Redis is known to require a login that the connection does not have. `None`: it is not known to.
    pub(super) fn set_locked(&mut self, since: Option<Instant>) {
        self.locked_since = since;
    }

    /// Replies have arrived.
    pub(super) fn replies_came(&mut self, now: Instant) {
        if let Phase::Live(live) = &mut self.phase {
            live.last_reply = Some(now);
        }
    }

    /// Bytes have been sent, at the [`Expected::moment`] `at`.
    #[inline]
    pub(super) fn sent(&mut self, bytes: usize, at: u32) {
        self.queue.count_sent(bytes, |expected| expected.written(at));
        if !self.queue.is_front_sent()
            && let Phase::Live(live) = &mut self.phase
        {
            live.last_part = Some(Instant::now());
        }
    }

    /// Whether one of the requests may take Redis long.
    pub(super) fn has_long(&self) -> bool {
        self.is_live() && self.queue.has_long()
    }

    /// Since when the next due reply has made no progress. `None` if no reply is due that Redis could send at once.
    pub(super) fn owed_since(&self) -> Option<Instant> {
        let front = self.queue.front().filter(|_| !self.is_raw() && self.queue.front_delay() != Delay::Blocks)?;
        match &self.phase {
            Phase::Connecting => Some(front.asked()),
            Phase::Live(live) => {
                let moved = [Some(live.since), live.last_reply, live.last_part];
                Some(moved.into_iter().flatten().fold(front.asked(), Instant::max))
            }
            Phase::Down(_) | Phase::Closed => None,
        }
    }

    /// The reply to the oldest request begins like this. Removes what waits for the reply.
    #[inline]
    pub(super) fn answered(&mut self, reply: &[u8]) -> Option<E> {
        let expected = self.queue.pop()?;
        self.script_due = self.script_due.saturating_sub(1);
        match (reply.first(), &mut self.phase) {
            (Some(b'-'), Phase::Live(live)) => live.had_protocol_error |= reply.starts_with(b"-ERR Protocol error"),
            (Some(b'-'), _) => {}
            _ => self.served = true,
        }
        Some(expected)
    }

    /// Whether Redis has replied with more than errors since the last call.
    pub(super) fn take_served(&mut self) -> bool {
        std::mem::take(&mut self.served)
    }

    /// Whether the connection is a lane, and nothing that happened on it explains why Redis closed it.
    pub(super) fn is_close_unexplained(&self, now: Instant) -> bool {
        let Phase::Live(live) = &self.phase else { return false };
        let used = live.last_reply.unwrap_or(live.since);
        self.shared && !live.had_protocol_error && now.duration_since(used) <= IDLE
    }

    /// The last request is a script, which may run for long.
    pub(super) fn sent_script(&mut self, now: Instant) {
        self.script_due = self.queue.len();
        self.script_sent = Some(now);
    }

    /// Whether a script seems to block later requests.
    #[inline]
    pub(super) fn is_held_up(&self, now: Instant) -> bool {
        if self.script_due == 0 {
            return false;
        }
        let last_reply = if let Phase::Live(live) = &self.phase { live.last_reply } else { None };
        self.script_sent.max(last_reply).is_some_and(|since| now > since + HELD_UP)
    }

    pub(super) fn is_raw(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_raw())
    }

    /// Sends nothing more on a raw connection.
    pub(super) fn finish(&mut self) {
        if self.finish == Finish::Open {
            self.finish = Finish::Wanted;
        }
    }

    /// Whether Redis must be told now that no more input comes. True once.
    pub(super) fn take_finish(&mut self) -> bool {
        let wanted = self.finish == Finish::Wanted;
        if wanted {
            self.finish = Finish::Done;
        }
        wanted
    }

    /// Wakes the link's task.
    #[inline]
    pub(super) fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The task to wake.
    pub(super) fn wake_with(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Notified of each change of the phase.
    pub(super) fn changed(&self) -> Rc<Notify> {
        Rc::clone(&self.changed)
    }
}
