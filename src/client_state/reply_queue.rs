//! A client's replies in order: each request opens a slot, whoever has the answer fills it, and bytes leave in the order of
//! the slots. Must not know the client: neither its socket nor its user, neither its session nor a command.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

use bytes::Bytes;

use crate::client_state::buffers::Buffers;
use crate::client_state::ending::Ending;
use crate::metrics::outcome::DropReason;
use crate::resp::Chunks;
use crate::upstream::Reply;

/// What is expected of an answer before any was seen: a client that asks for many large values at once is given few of them
/// at a time, and one that asks for small ones gets up to speed within some replies.
const EXPECTED_AT_FIRST: usize = 256 << 10;

/// Most requests of one client whose answers may be due from Redis.
pub const MOST_OUTSTANDING: usize = 1024;

/// Most slots of one client. An answer that is there before an earlier one keeps its slot, and so its memory.
const MOST_SLOTS: usize = 2 * MOST_OUTSTANDING;

/// Most bytes that one client may have due from Redis, by estimate, answers that came before earlier ones included. This bound does
/// not depend on how fast the client reads.
const MOST_DUE: usize = 1 << 20;

/// From this size on, bytes that wait become a chunk of their own, so that bytes that come behind them do not move them.
const PIECE: usize = 64 << 10;

/// A place in the order of a client's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

/// The replies that are due to a client, and what has to be known of it while they are.
pub struct ReplyQueue {
    state: RefCell<State>,
    buffers: Rc<Buffers>,
    ending: Cell<Ending>,
    /// Messages may come without being asked for: silence of the client is no idleness.
    pub streaming: Cell<bool>,
    /// As `streaming`, or news of what it has read: their place among the replies matters.
    pub pushed: Cell<bool>,
    /// When bytes were last taken by the client or came from it; for the limit on idle clients.
    pub active: Cell<Instant>,
    /// Since when the client takes nothing of what is ready for it.
    pub stalled: Cell<Option<Instant>>,
    /// Since when more messages wait than `limits.pubsub_buffer_soft`.
    pub above_soft: Cell<Option<Instant>>,
    /// No more is read from the client or taken from it, because of `limits.buffers_total`.
    pub stopped: Cell<bool>,
    /// Although stopped, it may finish the request that it is sending: otherwise stopped clients could wait for each other for ever.
    pub goes_first: Cell<bool>,
}

#[derive(Debug)]
struct State {
    ready: Chunks,
    slots: VecDeque<SlotState>,
    /// Number of the slot at the front.
    base: u64,
    /// Bytes in slots that are not at the front.
    held: usize,
    /// Slots that wait for an answer.
    open: usize,
    /// Slots whose answers are on their way to them, in order, and what was pushed meanwhile.
    late: Vec<Late>,
    /// About as many bytes will the next answer have.
    expected: usize,
    waker: Option<Waker>,
    /// It has been woken since it last ran.
    woken: bool,
    /// Nobody will take what comes.
    abandoned: bool,
}

impl State {
    /// Where replies are gathered, with a buffer to do so.
    #[inline]
    fn ready(&mut self, buffers: &Buffers) -> &mut Chunks {
        if self.ready.is_empty() && self.ready.capacity() == 0 {
            self.ready = Chunks::with_buffer(buffers.take());
        }
        &mut self.ready
    }

    /// An idle client keeps little.
    #[inline]
    fn tidy(&mut self) {
        if self.slots.is_empty() && self.slots.capacity() > 64 {
            self.slots = VecDeque::new();
        }
    }

    #[inline]
    fn wake(&mut self) {
        if let Some(waker) = &self.waker
            && !self.woken
        {
            self.woken = true;
            waker.wake_by_ref();
        }
    }
}

/// What stands behind the answer of a slot.
#[derive(Debug)]
struct Late {
    slot: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum SlotState {
    /// Waits; what came of it so far. A muted one's answer is dropped (CLIENT REPLY OFF).
    Open {
        muted: bool,
        part: Vec<u8>,
        /// Bytes of all parts so far, those that have left included.
        come: usize,
    },
    /// Answered, behind one that is not.
    Done(Vec<u8>),
    DoneLarge(Bytes),
}

impl ReplyQueue {
    /// Nothing due.
    pub fn new(now: Instant, buffers: Rc<Buffers>) -> Self {
        ReplyQueue {
            buffers,
            state: RefCell::new(State {
                ready: Chunks::default(),
                slots: VecDeque::new(),
                base: 0,
                held: 0,
                open: 0,
                late: Vec::new(),
                expected: EXPECTED_AT_FIRST,
                waker: None,
                woken: false,
                abandoned: false,
            }),
            ending: Cell::default(),
            streaming: Cell::new(false),
            pushed: Cell::new(false),
            active: Cell::new(now),
            stalled: Cell::new(None),
            above_soft: Cell::new(None),
            stopped: Cell::new(false),
            goes_first: Cell::new(false),
        }
    }

    /// Opens the next slot.
    #[inline]
    pub fn open(&self, muted: bool) -> Slot {
        let mut state = self.state.borrow_mut();
        let slot = Slot(state.base + state.slots.len() as u64);
        state.slots.push_back(SlotState::Open { muted, part: Vec::new(), come: 0 });
        state.open += 1;
        slot
    }

    /// An answer that is known at once.
    #[inline]
    pub fn local(&self, bytes: &[u8], muted: bool) {
        if muted {
            return;
        }
        let mut state = self.state.borrow_mut();
        if state.slots.is_empty() {
            state.ready(&self.buffers).push_slice(bytes);
            return;
        }
        state.held += bytes.len();
        if let Some(SlotState::Done(held)) = state.slots.back_mut() {
            held.extend_from_slice(bytes);
        } else {
            state.slots.push_back(SlotState::Done(bytes.to_vec()));
        }
    }

    /// The answer of a slot.
    #[inline]
    pub fn fill(&self, slot: Slot, reply: Reply<'_>) {
        self.put(slot, reply, true);
    }

    /// A part of the answer of a slot; more is to come.
    pub fn fill_part(&self, slot: Slot, part: Reply<'_>) {
        self.put(slot, part, false);
    }

    #[inline]
    fn put(&self, slot: Slot, reply: Reply<'_>, last: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let length = reply.bytes().len();
        // Nearly always the answer that is due next, in one piece, with none behind it answered yet.
        if let (Some(SlotState::Open { muted: false, come: 0, .. }), Reply::Borrowed(bytes)) =
            (state.slots.front(), &reply)
            && (last && slot.0 == state.base && !state.abandoned && state.late.is_empty())
            && !matches!(state.slots.get(1), Some(SlotState::Done(_) | SlotState::DoneLarge(_)))
        {
            state.ready(&self.buffers).push_slice(bytes);
            state.slots.pop_front();
            state.base += 1;
            state.open -= 1;
            state.expected = length.max(state.expected - state.expected / 4);
            state.tidy();
            state.wake();
            return;
        }
        self.put_anywhere(state, slot, reply, last);
    }

    fn put_anywhere(&self, state: &mut State, slot: Slot, reply: Reply<'_>, last: bool) {
        let length = reply.bytes().len();
        let Some(at) = slot.0.checked_sub(state.base).map(|at| at as usize).filter(|at| *at < state.slots.len()) else {
            debug_assert!(false, "a slot is filled once");
            return;
        };
        let SlotState::Open { muted, part, come } = &mut state.slots[at] else {
            debug_assert!(false, "a slot is filled once");
            return;
        };
        *come += length;
        let length = *come;
        let late = state.late.iter().position(|late| last && late.slot == slot.0);
        let late = late.map(|late| state.late.remove(late).bytes).unwrap_or_default();
        if *muted || state.abandoned {
            if last {
                state.slots[at] = SlotState::Done(late);
            }
        } else if at == 0 {
            let part = std::mem::take(part);
            state.held -= part.len();
            let ready = state.ready(&self.buffers);
            ready.push_slice(&part);
            match reply {
                Reply::Borrowed(bytes) => ready.push_slice(bytes),
                Reply::Owned(bytes) => ready.push_bytes(bytes),
            }
            if last {
                state.slots.pop_front();
                state.base += 1;
                state.held -= late.len();
                state.ready(&self.buffers).push_slice(&late);
            }
        } else {
            state.held += reply.bytes().len();
            let mut part = std::mem::take(part);
            match reply {
                Reply::Owned(bytes) if last && part.is_empty() && late.is_empty() => {
                    state.slots[at] = SlotState::DoneLarge(bytes);
                }
                reply => {
                    part.extend_from_slice(reply.bytes());
                    part.extend_from_slice(&late);
                    state.slots[at] =
                        if last { SlotState::Done(part) } else { SlotState::Open { muted: false, part, come: length } };
                }
            }
        }
        if last {
            state.open -= 1;
            state.expected = length.max(state.expected - state.expected / 4);
        }
        while let Some(SlotState::Done(_) | SlotState::DoneLarge(_)) = state.slots.front() {
            match state.slots.pop_front() {
                Some(SlotState::Done(bytes)) => {
                    state.held -= bytes.len();
                    if bytes.len() < PIECE {
                        state.ready(&self.buffers).push_slice(&bytes);
                    } else {
                        state.ready(&self.buffers).push_bytes(Bytes::from(bytes));
                    }
                }
                Some(SlotState::DoneLarge(bytes)) => {
                    state.held -= bytes.len();
                    state.ready(&self.buffers).push_bytes(bytes);
                }
                _ => {}
            }
            state.base += 1;
        }
        state.tidy();
        state.wake();
    }

    /// Whether the answer of a slot is not wanted.
    pub fn is_muted(&self, slot: Slot) -> bool {
        let state = self.state.borrow();
        let at = slot.0.checked_sub(state.base).and_then(|at| usize::try_from(at).ok());
        matches!(at.and_then(|at| state.slots.get(at)), Some(SlotState::Open { muted: true, .. }))
    }

    /// Gives a slot no answer, if none is wanted; else tells that one is.
    pub fn skip(&self, slot: Slot) -> bool {
        let muted = self.is_muted(slot);
        if muted {
            self.fill(slot, Reply::Borrowed(b""));
        }
        muted
    }

    /// The answer of a slot is known by now, but not there if it has to be opened first. What is pushed from now on stands behind
    /// it: a value that comes behind the news that it is old would be taken for the new one.
    pub fn is_coming(&self, slot: Slot) {
        let mut state = self.state.borrow_mut();
        let at = slot.0.checked_sub(state.base).and_then(|at| usize::try_from(at).ok());
        let is_open = matches!(at.and_then(|at| state.slots.get(at)), Some(SlotState::Open { .. }));
        if is_open && state.late.last().is_none_or(|last| last.slot < slot.0) {
            state.late.push(Late { slot: slot.0, bytes: Vec::new() });
        }
    }

    /// Something that nobody asked for (a message of a subscription), right behind what is there.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.abandoned {
            return;
        }
        if let (Some(SlotState::Open { muted: false, come: 1.., .. }), true) =
            (state.slots.front(), state.late.is_empty())
        {
            // A part of the answer before it has left: this must not stand in its midst.
            state.late.push(Late { slot: state.base, bytes: Vec::new() });
        }
        let Some(last) = state.late.last_mut() else {
            state.ready(&self.buffers).push_slice(bytes);
            state.wake();
            return;
        };
        state.held += bytes.len();
        // Answers that came behind the last one that is on its way are there already.
        let next = usize::try_from(last.slot - state.base).map_or(usize::MAX, |at| at + 1);
        let done = state.slots.iter().skip(next).take_while(|place| !matches!(place, SlotState::Open { .. })).count();
        match done.checked_sub(1).and_then(|done| state.slots.get_mut(next + done)) {
            Some(SlotState::Done(held)) => held.extend_from_slice(bytes),
            Some(place @ SlotState::DoneLarge(_)) => {
                if let SlotState::DoneLarge(large) = place {
                    *place = SlotState::Done([&large[..], bytes].concat());
                }
            }
            _ => last.bytes.extend_from_slice(bytes),
        }
    }

    /// Slots that wait for their answer.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.state.borrow().open
    }

    /// Bytes that wait for the client.
    #[inline]
    pub fn len(&self) -> usize {
        let state = self.state.borrow();
        state.ready.len() + state.held
    }

    /// Whether another request may be taken: the bytes that wait for the client, or none if it may not. `limit` bounds the bytes
    /// that may wait, `most` the requests that may be due from Redis.
    ///
    /// What is due from Redis has a bound of its own. It gets smaller as Redis answers, whether the client reads or not, so a
    /// client that writes all its requests before it reads can go on until its replies reach `limit`. An eighth of `limit` is
    /// left for replies that turn out larger than expected.
    #[inline]
    pub fn room(&self, limit: usize, most: usize) -> Option<usize> {
        let state = self.state.borrow();
        let due = state.held + state.open.saturating_mul(state.expected);
        let waiting = state.ready.len() + state.held;
        if state.open < most
            && state.slots.len() < MOST_SLOTS
            && due + state.ready.len() + state.expected <= MOST_DUE.min(limit / 4)
        {
            // Nearly always.
            return Some(waiting);
        }
        let next = state.expected.min(limit / 2);
        let is_full = state.open >= most
            || state.slots.len() >= MOST_SLOTS
            || due >= MOST_DUE.min(limit / 2)
            || (state.ready.len() + due + next > limit - limit / 8 && waiting + state.open > 0);
        (!is_full).then_some(waiting)
    }

    /// Whether the client will get anything of what was asked so far.
    pub fn owes(&self) -> bool {
        let state = self.state.borrow();
        let heard = |place: &SlotState| matches!(place, SlotState::Open { muted: false, .. });
        state.ready.len() + state.held > 0 || state.slots.iter().any(heard)
    }

    /// Whether no byte waits for the client.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client has gone: what still comes for it is dropped.
    pub fn abandon(&self) {
        let mut state = self.state.borrow_mut();
        state.abandoned = true;
        state.waker = None;
        state.ready = Chunks::default();
        let late: usize = state.late.iter().map(|late| late.bytes.len()).sum();
        state.held -= late;
        state.late = Vec::new();
    }

    /// Hands what is ready to `write`, which tells how many bytes it took, until it takes none. Returns whether all was taken.
    ///
    /// # Errors
    /// Those of `write`.
    pub fn drain<F>(&self, mut write: impl FnMut(&[IoSlice<'_>]) -> Result<usize, F>) -> Result<bool, F> {
        let mut state = self.state.borrow_mut();
        while !state.ready.is_empty() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = state.ready.slices(0, &mut slices);
            let taken = write(&slices[..used])?;
            if taken == 0 {
                break;
            }
            state.ready.advance(taken);
        }
        if let Some(buffer) = state.ready.take_buffer() {
            self.buffers.give(buffer);
        }
        state.ready.close_from(PIECE);
        Ok(state.ready.is_empty())
    }

    /// Who is to be woken when something is ready; to be called whenever it runs.
    pub fn set_waker(&self, waker: &Waker) {
        let mut state = self.state.borrow_mut();
        state.woken = false;
        if !state.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
    }

    /// Whether the connection goes on.
    #[inline]
    pub fn ending(&self) -> Ending {
        self.ending.get()
    }

    /// Ends the connection as soon as what is due is written.
    pub fn close(&self) {
        self.end(Ending::close);
    }

    /// Ends the connection as soon as what is due is written, since the client's user was deleted.
    pub fn delete_user(&self) {
        self.end(Ending::delete_user);
    }

    /// Ends the connection now.
    pub fn drop_for(&self, why: DropReason) {
        self.end(|ending| ending.drop_for(why));
    }

    fn end(&self, how: impl FnOnce(Ending) -> Ending) {
        self.ending.set(how(self.ending.get()));
        self.wake();
    }

    /// Wakes the client's task.
    pub fn wake(&self) {
        self.state.borrow_mut().wake();
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Instant;

    use bytes::Bytes;

    use super::{Rc, Reply, ReplyQueue};

    fn reply_queue() -> ReplyQueue {
        ReplyQueue::new(Instant::now(), Rc::default())
    }

    fn guard(reply_queue: &ReplyQueue) -> Vec<u8> {
        let mut out = Vec::new();
        let Ok(_) = reply_queue.drain::<Infallible>(|slices| {
            let before = out.len();
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(out.len() - before)
        });
        out
    }

    #[test]
    fn answers_leave_in_the_order_of_the_requests() {
        let reply_queue = reply_queue();
        reply_queue.local(b"a", false);
        let b = reply_queue.open(false);
        let c = reply_queue.open(false);
        reply_queue.local(b"d", false);
        reply_queue.local(b"e", false);
        let f = reply_queue.open(false);
        assert_eq!((guard(&reply_queue), reply_queue.outstanding()), (b"a".to_vec(), 3));
        reply_queue.fill(c, Reply::Owned(Bytes::from_static(b"c")));
        reply_queue.fill(f, Reply::Borrowed(b"f"));
        assert_eq!((guard(&reply_queue), reply_queue.outstanding(), reply_queue.len()), (b"".to_vec(), 1, 4));
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        assert_eq!((guard(&reply_queue), reply_queue.outstanding(), reply_queue.len()), (b"bcdef".to_vec(), 0, 0));
        reply_queue.local(b"g", false);
        assert_eq!(guard(&reply_queue), b"g");
    }

    #[test]
    fn parts_are_put_together_and_the_front_streams() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(false), reply_queue.open(false));
        reply_queue.fill_part(b, Reply::Borrowed(b"b1"));
        reply_queue.fill_part(a, Reply::Borrowed(b"a1"));
        assert_eq!(guard(&reply_queue), b"a1");
        reply_queue.fill(a, Reply::Borrowed(b"a2"));
        reply_queue.fill(b, Reply::Borrowed(b"b2"));
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"a2b1b2".to_vec(), 0));
    }

    #[test]
    fn what_is_pushed_does_not_stand_in_the_midst_of_an_answer() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(false), reply_queue.open(false));
        reply_queue.push(b"0");
        reply_queue.fill_part(a, Reply::Borrowed(b"a1"));
        reply_queue.push(b"P");
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        assert_eq!(guard(&reply_queue), b"0a1");
        reply_queue.fill(a, Reply::Borrowed(b"a2"));
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"a2Pb".to_vec(), 0));
        reply_queue.push(b"Q");
        assert_eq!(guard(&reply_queue), b"Q");
    }

    #[test]
    fn what_is_pushed_stands_behind_an_answer_that_is_on_its_way() {
        let reply_queue = reply_queue();
        let [a, b, c, d, e] = [(); 5].map(|()| reply_queue.open(false));
        reply_queue.is_coming(a);
        reply_queue.push(b"P");
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        reply_queue.push(b"Q");
        reply_queue.fill(c, Reply::Owned(Bytes::from_static(b"c")));
        reply_queue.push(b"R");
        reply_queue.is_coming(d);
        reply_queue.push(b"S");
        reply_queue.push(b"T");
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"".to_vec(), 7));
        reply_queue.fill(d, Reply::Owned(Bytes::from_static(b"d")));
        reply_queue.push(b"U");
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"aPbQcRdSTU".to_vec(), 0));
        reply_queue.push(b"V");
        reply_queue.fill(e, Reply::Borrowed(b"e"));
        reply_queue.is_coming(e);
        reply_queue.push(b"W");
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"VeW".to_vec(), 0));
    }

    #[test]
    fn what_is_pushed_behind_a_muted_answer_is_heard() {
        let reply_queue = reply_queue();
        let a = reply_queue.open(true);
        reply_queue.is_coming(a);
        reply_queue.push(b"P");
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!((guard(&reply_queue), reply_queue.len()), (b"P".to_vec(), 0));
    }

    #[test]
    fn muted_answers_are_dropped() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(true), reply_queue.open(false));
        reply_queue.local(b"x", true);
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!(guard(&reply_queue), b"b");
    }
}
