//! Every transition of a link, without a socket.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::FutureExt;
use smallvec::{SmallVec, smallvec};

use super::expected::{Expected, Reply};
use super::lost::Lost;
use super::state::{HELD_UP, IDLE, State};
use crate::errors;
use crate::upstream::login::Login;
use crate::upstream::silence::Delay;

/// Lower-case letters are reads, capitals are writes. Each has a client of its own.
type Request = &'static str;

impl Expected for Request {
    type Context = ();

    fn replies(&self) -> usize {
        1
    }

    fn may_repeat(&self) -> bool {
        self.starts_with(char::is_lowercase)
    }

    fn asked(&self) -> Instant {
        Instant::now()
    }

    fn written(&mut self, _: u32) {}

    fn moment((): &()) -> u32 {
        0
    }

    fn askers(&self) -> SmallVec<[usize; 1]> {
        smallvec![self.as_ptr() as usize]
    }

    fn deliver(self, (): &(), _: Reply<'_>, _: Instant) -> Option<Self> {
        None
    }

    fn takes_parts(&self, _: &[u8]) -> bool {
        false
    }

    fn takes_push(&self) -> bool {
        false
    }

    fn deliver_part(self, (): &(), _: Bytes) -> Self {
        self
    }

    fn lose(self, (): &(), _: &Lost, _: bool) {}

    fn settled((): &()) {}

    fn repeated((): &(), _: u64) {}

    fn reconnected((): &(), _: bool) {}

    fn accepted_again((): &(), _: &Rc<Login>, _: Instant) {}

    fn login_refused((): &(), _: &Rc<Login>) {}
}

const LANE: bool = true;
const PRIVATE: bool = false;
const NO_LIMIT: usize = usize::MAX;

fn live(shared: bool, requests: &[Request]) -> State<Request> {
    let mut state = State::new(shared);
    assert_eq!(state.established(Instant::now(), 1, false), Some(vec![]));
    send(&mut state, requests);
    state
}

fn send(state: &mut State<Request>, requests: &[Request]) {
    for request in requests {
        let keep = state.is_shared() && request.may_repeat();
        state.queue.push(*request, keep, |wire| wire.push_slice(request.as_bytes()));
    }
}

fn lost(why: &str) -> Lost {
    Lost::from(&errors::given_up(why))
}

#[test]
fn requests_wait_while_the_link_connects() {
    let mut state = State::new(LANE);
    assert!(state.is_connecting() && !state.is_accepted());
    assert_eq!(state.check(NO_LIMIT), Ok(()));
    send(&mut state, &["a"]);
    assert_eq!(state.established(Instant::now(), 1, false), Some(vec![]));
    assert!(state.is_live() && state.is_accepted() && !state.queue.is_idle());
}

#[test]
fn a_lane_that_cannot_connect_refuses_requests_until_it_can() {
    let mut state = State::new(LANE);
    send(&mut state, &["a", "B"]);
    assert_eq!(state.attempt_failed(&lost("refused")), ["a", "B"]);
    assert!(state.is_down());
    assert_eq!(state.check(NO_LIMIT), Err(lost("refused")));
    assert_eq!(state.attempt_failed(&lost("still refused")), [""; 0]);
    assert_eq!(state.check(NO_LIMIT), Err(lost("still refused")));
    assert!(state.established(Instant::now(), 1, false).is_some() && state.is_live());
    assert_eq!(state.check(NO_LIMIT), Ok(()));
}

#[test]
fn a_private_link_that_cannot_connect_is_closed() {
    let mut state = State::new(PRIVATE);
    send(&mut state, &["a"]);
    assert_eq!(state.attempt_failed(&lost("refused")), ["a"]);
    assert!(state.is_closed() && state.check(NO_LIMIT).is_err());
}

#[test]
fn a_lane_that_breaks_connects_again_and_repeats_only_reads() {
    let mut state = live(LANE, &["a", "B", "C"]);
    state.queue.count_sent(2, |_| ());
    assert_eq!(state.connection_ended(), [("B", true)]);
    assert!(state.is_connecting());
    assert_eq!(state.established(Instant::now(), 1, false), Some(vec![]));
    state.queue.count_sent(2, |_| ());
    assert_eq!((state.answered(b"+OK\r\n"), state.answered(b"+OK\r\n")), (Some("a"), Some("C")));
}

#[test]
fn a_private_link_that_breaks_is_closed_and_repeats_nothing() {
    let mut state = live(PRIVATE, &["a", "B"]);
    state.queue.count_sent(1, |_| ());
    assert_eq!(state.connection_ended(), [("a", true), ("B", false)]);
    assert!(state.is_closed());
}

#[test]
fn nothing_has_run_on_a_connection_that_lacks_a_login() {
    let mut state = live(PRIVATE, &["A"]);
    state.set_locked(Some(Instant::now()));
    assert!(!state.is_accepted());
    state.queue.count_sent(1, |_| ());
    assert_eq!(state.connection_ended(), [("A", false)]);
}

#[test]
fn requests_that_need_a_login_are_not_sent_without_one() {
    let mut state = State::new(LANE);
    send(&mut state, &["a", "B"]);
    state.set_locked(Some(Instant::now()));
    assert_eq!(state.established(Instant::now(), 1, true), Some(vec!["a", "B"]));
    assert!(state.is_live() && state.queue.is_idle());
}

#[test]
fn a_retiring_link_closes_when_the_last_reply_has_come() {
    let mut state = live(LANE, &["a"]);
    state.retire();
    assert!(!state.close_if_done() && state.is_live() && !state.is_accepted());
    state.queue.count_sent(1, |_| ());
    assert_eq!(state.answered(b"$-1\r\n"), Some("a"));
    assert!(state.close_if_done() && state.is_closed());
}

#[test]
fn a_retiring_lane_connects_for_what_waits_and_gives_up_when_it_cannot() {
    let mut state = live(LANE, &["a"]);
    state.retire();
    state.queue.count_sent(1, |_| ());
    assert_eq!(state.connection_ended(), []);
    assert!(state.is_connecting() && !state.close_if_done());
    assert_eq!(state.attempt_failed(&lost("refused")), ["a"]);
    assert!(state.is_closed());
}

#[test]
fn an_unused_link_is_not_established() {
    let mut state: State<Request> = State::new(LANE);
    state.retire();
    assert_eq!(state.established(Instant::now(), 1, false), None);
    assert!(state.is_closed());
}

#[test]
fn a_lane_on_which_redis_hangs_repeats_nothing_and_refuses_requests() {
    let mut state = live(LANE, &["a", "B", "C"]);
    state.queue.count_sent(2, |_| ());
    assert!(state.owed_since().is_some());
    assert_eq!(state.hung(&lost("silent")), [("a", true), ("B", true), ("C", false)]);
    assert!(state.is_down() && state.owed_since().is_none());
    assert_eq!(state.check(NO_LIMIT), Err(lost("silent")));
    for (shared, retires) in [(PRIVATE, false), (LANE, true)] {
        let mut state = live(shared, &["a"]);
        if retires {
            state.retire();
        }
        assert_eq!(state.hung(&lost("silent")), [("a", false)]);
        assert!(state.is_closed());
    }
}

#[test]
fn blocking_requests_are_never_overdue_and_long_ones_are_known() {
    let mut state = live(LANE, &["a", "B"]);
    assert!(!state.has_long());
    state.queue.delay_last(Delay::Long);
    assert!(state.has_long() && state.owed_since().is_some());
    state.queue.count_sent(2, |_| ());
    assert_eq!((state.answered(b"$-1\r\n"), state.answered(b":1\r\n")), (Some("a"), Some("B")));
    assert!(!state.has_long() && state.owed_since().is_none());
    send(&mut state, &["B"]);
    state.queue.delay_last(Delay::Blocks);
    assert!(state.owed_since().is_none());
}

#[test]
fn a_closed_link_stays_closed() {
    let mut state = live(LANE, &["a"]);
    assert_eq!(state.close(), ["a"]);
    assert_eq!((state.attempt_failed(&lost("refused")), state.connection_ended()), (vec![], vec![]));
    assert!(state.is_closed());
    assert_eq!(state.established(Instant::now(), 2, false), None);
    assert!(state.is_closed() && state.check(NO_LIMIT).is_err());
}

#[test]
fn each_change_of_the_phase_is_notified() {
    let mut state = State::new(LANE);
    let changed = state.changed();
    let seen = |state: &mut State<Request>, event: &dyn Fn(&mut State<Request>)| {
        let mut next = Box::pin(changed.notified());
        assert!(next.as_mut().now_or_never().is_none());
        event(state);
        assert!(next.now_or_never().is_some());
    };
    seen(&mut state, &|state| drop(state.attempt_failed(&lost("refused"))));
    seen(&mut state, &|state| drop(state.established(Instant::now(), 1, false)));
    seen(&mut state, &|state| drop(state.connection_ended()));
    seen(&mut state, &|state| drop(state.close()));
}

#[test]
fn requests_above_the_pending_limit_are_refused() {
    let state = live(LANE, &["aaaa", "BBBB"]);
    assert_eq!(state.check(8), Ok(()));
    assert!(state.check(7).is_err());
}

#[test]
fn a_connection_knows_its_time_and_epoch() {
    let start = Instant::now();
    let mut state: State<Request> = State::new(LANE);
    assert!(!state.is_older_than(2) && !state.stands_since(start + IDLE));
    assert!(state.established(start, 1, false).is_some());
    assert!(state.is_older_than(2) && !state.is_older_than(1));
    assert!(state.stands_since(start + Duration::from_millis(1)) && !state.stands_since(start));
    // A connection that was given up no longer counts as connected, even before there is another.
    state.connection_ended();
    assert!(!state.is_older_than(2) && !state.stands_since(start + IDLE));
}

#[test]
fn a_script_holds_up_later_requests_until_its_reply_arrives() {
    let start = Instant::now();
    let late = start + 2 * HELD_UP;
    let mut state = live(LANE, &["a", "SCRIPT"]);
    state.sent_script(start);
    assert!(!state.is_held_up(start + HELD_UP) && state.is_held_up(late));
    send(&mut state, &["b"]);
    state.queue.count_sent(8, |_| ());
    // A reply to an earlier request is a sign of life.
    state.replies_came(late);
    assert_eq!(state.answered(b"+a\r\n"), Some("a"));
    assert!(!state.is_held_up(late + HELD_UP) && state.is_held_up(late + 2 * HELD_UP));
    assert_eq!(state.answered(b"+s\r\n"), Some("SCRIPT"));
    assert!(!state.is_held_up(late + 2 * HELD_UP));
}

#[test]
fn a_script_that_was_lost_holds_up_nothing() {
    let start = Instant::now();
    let mut state = live(LANE, &["SCRIPT"]);
    state.sent_script(start);
    state.queue.count_sent(6, |_| ());
    assert_eq!(state.connection_ended(), [("SCRIPT", true)]);
    assert!(!state.is_held_up(start + 2 * HELD_UP));
}

#[test]
fn only_an_unexplained_close_may_mean_that_the_user_was_deleted() {
    let start = Instant::now();
    let state = live(PRIVATE, &[]);
    assert!(!state.is_close_unexplained(start));
    let mut state = live(LANE, &["a", "b"]);
    state.queue.count_sent(2, |_| ());
    assert!(state.is_close_unexplained(start) && !state.is_close_unexplained(start + 2 * IDLE));
    state.replies_came(start + 2 * IDLE);
    assert_eq!(state.answered(b"-ERR other\r\n"), Some("a"));
    assert!(state.is_close_unexplained(start + 2 * IDLE));
    assert_eq!(state.answered(b"-ERR Protocol error: x\r\n"), Some("b"));
    assert!(!state.is_close_unexplained(start + 2 * IDLE));
}

#[test]
fn a_connection_has_served_when_it_gave_more_than_errors() {
    let mut state = live(LANE, &["a", "b"]);
    state.queue.count_sent(2, |_| ());
    assert_eq!((state.answered(b"-ERR x\r\n"), state.take_served()), (Some("a"), false));
    assert_eq!((state.answered(b"$-1\r\n"), state.take_served(), state.take_served()), (Some("b"), true, false));
}

#[test]
fn redis_is_told_once_that_no_more_input_comes() {
    let mut state = live(PRIVATE, &[]);
    assert!(!state.take_finish());
    state.finish();
    assert!(state.take_finish() && !state.take_finish());
    state.finish();
    assert!(!state.take_finish());
}
