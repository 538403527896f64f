//! A client's replies, in order: each request opens a slot, the code that has the reply fills it, and bytes leave in the order of
//! the slots. Must not know the client: not its socket, user, session or commands.

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

/// Expected size of a reply before any has arrived. A client that requests many large values at once gets few of them at a time,
/// and one that requests small values reaches full speed within some replies.
const EXPECTED_AT_FIRST: usize = 256 << 10;

/// Maximum number of in-flight requests of one client.
pub const MOST_OUTSTANDING: usize = 1024;

/// Maximum number of slots of one client. A reply that arrives before an earlier one keeps its slot, and so its memory.
const MOST_SLOTS: usize = 2 * MOST_OUTSTANDING;

/// Maximum size of all replies of one client that are due from Redis, by estimate. Replies that arrived before earlier ones count
/// too. This bound does not depend on how fast the client reads.
const MOST_DUE: usize = 1 << 20;

/// From this size on, waiting bytes become a chunk of their own, so that later bytes do not move them.
const PIECE: usize = 64 << 10;

/// A position in the order of a client's replies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(u64);

/// The replies that are due to a client, and flags that other code sets or reads while they are due.
pub struct ReplyQueue {
    state: RefCell<State>,
    buffers: Rc<Buffers>,
    ending: Cell<Ending>,
    /// Messages may arrive without a request, so a silent client is not idle.
    pub streaming: Cell<bool>,
    /// As `streaming`, or invalidations may arrive: the position of pushes among the replies matters.
    pub pushed: Cell<bool>,
    /// When bytes were last received from the client or sent to it. The limit on idle clients counts from here.
    pub active: Cell<Instant>,
    /// Since when the client has read nothing although replies are ready.
    pub stalled: Cell<Option<Instant>>,
    /// Since when more bytes of messages wait than `limits.pubsub_buffer_soft`.
    pub above_soft: Cell<Option<Instant>>,
    /// No more requests are read or taken, because of `limits.buffers_total`.
    pub stopped: Cell<bool>,
    /// Although stopped, the client may finish sending its current request. Otherwise stopped clients could wait for each other for
    /// ever.
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
    /// Slots without a reply.
    open: usize,
    /// Slots whose replies have arrived but must still be decoded, in order, and the pushes that arrived meanwhile.
    late: Vec<Late>,
    /// Expected size of the next reply.
    expected: usize,
    waker: Option<Waker>,
    /// The client's task has been woken since it last ran.
    woken: bool,
    /// The client has disconnected.
    abandoned: bool,
}

impl State {
    /// The chunks that gather ready replies. Takes a buffer if there are none.
    #[inline]
    fn ready(&mut self, buffers: &Buffers) -> &mut Chunks {
        if self.ready.is_empty() && self.ready.capacity() == 0 {
            self.ready = Chunks::with_buffer(buffers.take());
        }
        &mut self.ready
    }

    /// Releases memory that an idle client does not need.
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

/// Pushes that stand behind the reply of a slot.
#[derive(Debug)]
struct Late {
    slot: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
enum SlotState {
    /// No complete reply yet; the parts that have arrived. The reply of a muted slot is dropped (CLIENT REPLY OFF).
    Open {
        muted: bool,
        part: Vec<u8>,
        /// Bytes of all parts so far, including those already sent.
        come: usize,
    },
    /// The reply, which waits for an earlier one.
    Done(Vec<u8>),
    DoneLarge(Bytes),
}

impl ReplyQueue {
    /// An empty queue.
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

    /// Adds a reply that is known at once.
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

    /// Fills a slot with its reply.
    #[inline]
    pub fn fill(&self, slot: Slot, reply: Reply<'_>) {
        self.put(slot, reply, true);
    }

    /// Fills a slot with a part of its reply. More parts follow.
    pub fn fill_part(&self, slot: Slot, part: Reply<'_>) {
        self.put(slot, part, false);
    }

    #[inline]
    fn put(&self, slot: Slot, reply: Reply<'_>, last: bool) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let length = reply.bytes().len();
        // The usual case: the next reply that is due, in one piece, with no later reply waiting.
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

    /// Whether the client does not want the reply of a slot.
    pub fn is_muted(&self, slot: Slot) -> bool {
        let state = self.state.borrow();
        let at = slot.0.checked_sub(state.base).and_then(|at| usize::try_from(at).ok());
        matches!(at.and_then(|at| state.slots.get(at)), Some(SlotState::Open { muted: true, .. }))
    }

    /// Closes a muted slot without a reply. Returns false if the slot is not muted.
    pub fn close_if_muted(&self, slot: Slot) -> bool {
        let muted = self.is_muted(slot);
        if muted {
            self.fill(slot, Reply::Borrowed(b""));
        }
        muted
    }

    /// The reply of a slot has arrived, but may have to be decoded first. Pushes that arrive from now on go behind it: if an
    /// invalidation came before an older value, the client would take that value for the new one.
    pub fn is_coming(&self, slot: Slot) {
        let mut state = self.state.borrow_mut();
        let at = slot.0.checked_sub(state.base).and_then(|at| usize::try_from(at).ok());
        let is_open = matches!(at.and_then(|at| state.slots.get(at)), Some(SlotState::Open { .. }));
        if is_open && state.late.last().is_none_or(|last| last.slot < slot.0) {
            state.late.push(Late { slot: slot.0, bytes: Vec::new() });
        }
    }

    /// Adds a push (such as a message of a subscription) behind what has arrived so far.
    pub fn push(&self, bytes: &[u8]) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        if state.abandoned {
            return;
        }
        if let (Some(SlotState::Open { muted: false, come: 1.., .. }), true) =
            (state.slots.front(), state.late.is_empty())
        {
            // A part of the reply has left already. The push must not stand in its middle.
            state.late.push(Late { slot: state.base, bytes: Vec::new() });
        }
        let Some(last) = state.late.last_mut() else {
            state.ready(&self.buffers).push_slice(bytes);
            state.wake();
            return;
        };
        state.held += bytes.len();
        // Replies behind the last one that is being decoded have arrived already.
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

    /// Number of slots without a reply.
    #[inline]
    pub fn outstanding(&self) -> usize {
        self.state.borrow().open
    }

    /// Bytes ready for the client.
    #[inline]
    pub fn len(&self) -> usize {
        let state = self.state.borrow();
        state.ready.len() + state.held
    }

    /// Whether another request may be taken: `Some` with the bytes that are ready for the client, or `None`. `limit` bounds these
    /// bytes, `most` the in-flight requests.
    ///
    /// Replies due from Redis have a bound of their own. It shrinks as Redis replies, whether the client reads or not, so a client
    /// that writes all its requests before it reads can go on until its replies reach `limit`. An eighth of `limit` is reserved for
    /// replies that turn out larger than expected.
    #[inline]
    pub fn room(&self, limit: usize, most: usize) -> Option<usize> {
        let state = self.state.borrow();
        let due = state.held + state.open.saturating_mul(state.expected);
        let waiting = state.ready.len() + state.held;
        if state.open < most
            && state.slots.len() < MOST_SLOTS
            && due + state.ready.len() + state.expected <= MOST_DUE.min(limit / 4)
        {
            // The usual case.
            return Some(waiting);
        }
        let next = state.expected.min(limit / 2);
        let is_full = state.open >= most
            || state.slots.len() >= MOST_SLOTS
            || due >= MOST_DUE.min(limit / 2)
            || (state.ready.len() + due + next > limit - limit / 8 && waiting + state.open > 0);
        (!is_full).then_some(waiting)
    }

    /// Whether the client will receive anything for its requests so far.
    pub fn has_due_replies(&self) -> bool {
        let state = self.state.borrow();
        let heard = |place: &SlotState| matches!(place, SlotState::Open { muted: false, .. });
        state.ready.len() + state.held > 0 || state.slots.iter().any(heard)
    }

    /// Whether no byte is ready for the client.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client has disconnected: drops all later replies.
    pub fn abandon(&self) {
        let mut state = self.state.borrow_mut();
        state.abandoned = true;
        state.waker = None;
        state.ready = Chunks::default();
        let late: usize = state.late.iter().map(|late| late.bytes.len()).sum();
        state.held -= late;
        state.late = Vec::new();
    }

    /// Passes ready bytes to `write`, which returns how many it took, until it takes none. Returns whether it took all.
    ///
    /// # Errors
    /// The errors of `write`.
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

    /// Sets the task to wake when bytes are ready. Call this whenever the task runs.
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

    /// Closes the connection once the due replies are written.
    pub fn close(&self) {
        self.end(Ending::close);
    }

    /// Closes the connection once the due replies are written, because the client's user was deleted.
    pub fn delete_user(&self) {
        self.end(Ending::delete_user);
    }

    /// Closes the connection now. Due replies are not waited for.
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

    fn written(reply_queue: &ReplyQueue) -> Vec<u8> {
        let mut out = Vec::new();
        let Ok(_) = reply_queue.drain::<Infallible>(|slices| {
            let before = out.len();
            slices.iter().for_each(|slice| out.extend_from_slice(slice));
            Ok(out.len() - before)
        });
        out
    }

    #[test]
    fn replies_leave_in_the_order_of_the_requests() {
        let reply_queue = reply_queue();
        reply_queue.local(b"a", false);
        let b = reply_queue.open(false);
        let c = reply_queue.open(false);
        reply_queue.local(b"d", false);
        reply_queue.local(b"e", false);
        let f = reply_queue.open(false);
        assert_eq!((written(&reply_queue), reply_queue.outstanding()), (b"a".to_vec(), 3));
        reply_queue.fill(c, Reply::Owned(Bytes::from_static(b"c")));
        reply_queue.fill(f, Reply::Borrowed(b"f"));
        assert_eq!((written(&reply_queue), reply_queue.outstanding(), reply_queue.len()), (b"".to_vec(), 1, 4));
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        assert_eq!((written(&reply_queue), reply_queue.outstanding(), reply_queue.len()), (b"bcdef".to_vec(), 0, 0));
        reply_queue.local(b"g", false);
        assert_eq!(written(&reply_queue), b"g");
    }

    #[test]
    fn parts_are_joined_and_the_front_slot_streams() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(false), reply_queue.open(false));
        reply_queue.fill_part(b, Reply::Borrowed(b"b1"));
        reply_queue.fill_part(a, Reply::Borrowed(b"a1"));
        assert_eq!(written(&reply_queue), b"a1");
        reply_queue.fill(a, Reply::Borrowed(b"a2"));
        reply_queue.fill(b, Reply::Borrowed(b"b2"));
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"a2b1b2".to_vec(), 0));
    }

    #[test]
    fn a_push_does_not_split_a_reply() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(false), reply_queue.open(false));
        reply_queue.push(b"0");
        reply_queue.fill_part(a, Reply::Borrowed(b"a1"));
        reply_queue.push(b"P");
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        assert_eq!(written(&reply_queue), b"0a1");
        reply_queue.fill(a, Reply::Borrowed(b"a2"));
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"a2Pb".to_vec(), 0));
        reply_queue.push(b"Q");
        assert_eq!(written(&reply_queue), b"Q");
    }

    #[test]
    fn a_push_stands_behind_a_reply_that_is_being_decoded() {
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
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"".to_vec(), 7));
        reply_queue.fill(d, Reply::Owned(Bytes::from_static(b"d")));
        reply_queue.push(b"U");
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"aPbQcRdSTU".to_vec(), 0));
        reply_queue.push(b"V");
        reply_queue.fill(e, Reply::Borrowed(b"e"));
        reply_queue.is_coming(e);
        reply_queue.push(b"W");
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"VeW".to_vec(), 0));
    }

    #[test]
    fn a_push_behind_a_muted_reply_is_sent() {
        let reply_queue = reply_queue();
        let a = reply_queue.open(true);
        reply_queue.is_coming(a);
        reply_queue.push(b"P");
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!((written(&reply_queue), reply_queue.len()), (b"P".to_vec(), 0));
    }

    #[test]
    fn muted_replies_are_dropped() {
        let reply_queue = reply_queue();
        let (a, b) = (reply_queue.open(true), reply_queue.open(false));
        reply_queue.local(b"x", true);
        reply_queue.fill(b, Reply::Borrowed(b"b"));
        reply_queue.fill(a, Reply::Borrowed(b"a"));
        assert_eq!(written(&reply_queue), b"b");
    }
}
