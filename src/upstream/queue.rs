//! The requests of one connection, in order, from when they are appended until their replies arrive. Knows no socket.
//!
//! The bytes of a request are dropped once all of it has been sent, unless it may be repeated. A write is never repeated, and when
//! much is in flight it is mostly writes.

use std::collections::{HashSet, VecDeque};
use std::io::IoSlice;

use smallvec::SmallVec;

use crate::resp::Chunks;

use super::silence::Delay;

/// Number of places that an empty queue keeps allocated.
const KEPT_PLACES: usize = 1024;

/// Bytes of memory that an empty queue keeps allocated.
const KEPT_BYTES: usize = 256 << 10;

pub(super) struct Queue<E> {
    /// Requests that have not been sent completely.
    wire: Chunks,
    /// How many bytes of `wire` have been sent.
    written: usize,
    /// What waits for replies, the oldest first.
    waiting: VecDeque<Waiting<E>>,
    /// How many of these requests have been sent completely.
    sent: usize,
    /// Copies of the requests that may be repeated.
    kept: Chunks,
    /// Total size of the requests in `waiting`.
    pending: usize,
    /// How many of them are [`Delay::Long`].
    long: usize,
    /// Number of requests that were sent completely and are repeated.
    repeats: u64,
}

struct Waiting<E> {
    /// Size of the request.
    bytes: usize,
    /// A copy is in `kept`.
    kept: bool,
    repeated: bool,
    delay: Delay,
    expected: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Queue {
            wire: Chunks::default(),
            written: 0,
            waiting: VecDeque::new(),
            sent: 0,
            kept: Chunks::default(),
            pending: 0,
            long: 0,
            repeats: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Whether nothing waits for a reply.
    pub(super) fn is_idle(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Number of requests that wait for a reply.
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Size of the requests without a reply, or of all unsent bytes if that is more. Bytes without a reply of their own count only
    /// among the latter.
    #[inline]
    pub(super) fn pending(&self) -> usize {
        self.pending.max(self.wire.len())
    }

    /// Appends what `write` writes. `expected` gets the replies. `keep`: the request may be repeated.
    #[inline]
    pub(super) fn push(&mut self, expected: E, keep: bool, write: impl FnOnce(&mut Chunks)) {
        let before = self.wire.len();
        write(&mut self.wire);
        let bytes = self.wire.len() - before;
        if keep {
            self.wire.copy(before, bytes, &mut self.kept);
        }
        self.pending += bytes;
        self.waiting.push_back(Waiting { bytes, kept: keep, repeated: false, delay: Delay::None, expected });
    }

    /// Sets how long the reply to the last request may take.
    pub(super) fn delay_last(&mut self, delay: Delay) {
        if let Some(last) = self.waiting.back_mut() {
            self.long += usize::from(delay == Delay::Long);
            last.delay = delay;
        }
    }

    /// Whether one of the requests may take Redis long. Replies to earlier requests may be delayed by it too.
    pub(super) fn has_long(&self) -> bool {
        self.long > 0
    }

    /// How long the next due reply may take.
    pub(super) fn front_delay(&self) -> Delay {
        self.waiting.front().map_or(Delay::None, |waiting| waiting.delay)
    }

    /// Appends bytes that get no reply of their own. No request with a reply may be appended after them.
    pub(super) fn push_unanswered(&mut self, bytes: &[u8]) {
        self.wire.push_slice(bytes);
    }

    /// Fills `slices` with unsent bytes. Returns how many slices were filled.
    pub(super) fn unsent<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.wire.slices(self.written, slices)
    }

    /// Unsent bytes of the oldest request, if no earlier reply is due. Otherwise 0.
    pub(super) fn alone(&self) -> usize {
        match self.waiting.front() {
            Some(first) if self.sent == 0 => first.bytes - self.written,
            _ => 0,
        }
    }

    /// Number of unsent bytes.
    pub(super) fn unsent_len(&self) -> usize {
        self.wire.len() - self.written
    }

    /// How many bytes may be sent so that at most `most` are in flight. The oldest request may always be sent.
    pub(super) fn may_send(&self, most: usize) -> usize {
        let under_way = self.pending().saturating_sub(self.unsent_len());
        let room = most.saturating_sub(under_way);
        match self.waiting.front() {
            Some(front) if self.sent == 0 => room.max(front.bytes.saturating_sub(self.written)),
            _ => room,
        }
    }

    /// Counts bytes that have been sent. `done` is called for each request of which all has been sent now.
    pub(super) fn count_sent(&mut self, bytes: usize, mut done: impl FnMut(&mut E)) {
        self.written += bytes;
        let mut whole = 0;
        for waiting in self.waiting.range_mut(self.sent..) {
            if whole + waiting.bytes > self.written {
                break;
            }
            whole += waiting.bytes;
            self.sent += 1;
            done(&mut waiting.expected);
        }
        if self.sent == self.waiting.len() {
            // The rest gets no reply of its own, so it is done once it is sent.
            whole = self.written;
        }
        self.written -= whole;
        self.wire.advance(whole);
    }

    /// What gets the next reply.
    #[inline]
    pub(super) fn front(&self) -> Option<&E> {
        self.waiting.front().map(|waiting| &waiting.expected)
    }

    /// Whether its request has been sent completely.
    #[inline]
    pub(super) fn is_front_sent(&self) -> bool {
        self.sent > 0
    }

    /// Forbids repeating its request, if a part of it has been sent.
    pub(super) fn forbid_repeat_of_front(&mut self) {
        if let Some(front) = self.waiting.front_mut() {
            front.repeated = true;
        }
    }

    /// Removes it, because its reply has arrived. Call this only if its request has been sent completely.
    // Inlined, because the call would copy what waits once more.
    #[inline(always)]
    pub(super) fn pop(&mut self) -> Option<E> {
        let waiting = self.waiting.pop_front()?;
        self.sent -= 1;
        self.pending -= waiting.bytes;
        self.long -= usize::from(waiting.delay == Delay::Long);
        if waiting.kept {
            self.kept.advance(waiting.bytes);
        }
        if self.waiting.capacity() > KEPT_PLACES || self.waiting.is_empty() {
            self.give_back();
        }
        Some(waiting.expected)
    }

    /// Gives memory back that only a peak needed.
    #[inline(never)]
    fn give_back(&mut self) {
        if self.waiting.len() < self.waiting.capacity() / 8 {
            self.waiting.shrink_to(KEPT_PLACES.max(self.waiting.len() * 2));
        }
        if self.waiting.is_empty() {
            self.wire.give_back(KEPT_BYTES);
            self.kept.give_back(KEPT_BYTES);
        }
    }

    /// Puts back what waits for more replies. Its request is not repeated.
    pub(super) fn put_back(&mut self, expected: E) {
        self.waiting.push_front(Waiting { bytes: 0, kept: false, repeated: true, delay: Delay::None, expected });
        self.sent += 1;
    }

    /// Removes everything that waits, the oldest first, each with whether its request has been sent completely.
    pub(super) fn take(&mut self) -> impl Iterator<Item = (E, bool)> + use<E> {
        let Queue { waiting, sent, .. } = std::mem::take(self);
        waiting.into_iter().enumerate().map(move |(at, waiting)| (waiting.expected, at < sent))
    }

    /// Number of completely sent requests that were to be repeated, since the last call.
    pub(super) fn take_repeats(&mut self) -> u64 {
        std::mem::take(&mut self.repeats)
    }

    /// The connection broke. Keeps for the next connection what certainly did not run and what `may_repeat`. Returns the rest, each
    /// with whether it may have run.
    ///
    /// A read is not repeated if its client sent a write behind it that may have run: the repeated read would see that write.
    /// `askers` returns the clients of a request.
    pub(super) fn begin_again(
        &mut self,
        may_repeat: impl Fn(&E) -> bool,
        askers: impl Fn(&E) -> SmallVec<[usize; 1]>,
    ) -> Vec<(E, bool)> {
        let was = std::mem::take(self);
        let overtaken = overtaken(was.waiting.range(..was.sent), &may_repeat, &askers);
        let mut gone = Vec::new();
        let (mut in_kept, mut in_wire) = (0, 0);
        for (at, waiting) in was.waiting.into_iter().enumerate() {
            let Waiting { bytes, kept, repeated, delay, expected } = waiting;
            // Redis executes a request only when its last byte has arrived. A request that was sent in part may be the reason why
            // Redis closed the connection, so it is tried only once more.
            let ran = at < was.sent;
            let begun = ran || in_wire < was.written;
            let again = !ran || (kept && may_repeat(&expected) && !overtaken[at]);
            let (from, start) = if ran { (&was.kept, in_kept) } else { (&was.wire, in_wire) };
            if again && !(begun && repeated) {
                self.repeats += u64::from(ran);
                self.push(expected, kept, |wire| from.copy(start, bytes, wire));
                self.delay_last(delay);
                if let Some(waiting) = self.waiting.back_mut() {
                    waiting.repeated = repeated || begun;
                }
            } else {
                gone.push((expected, ran));
            }
            in_kept += if kept { bytes } else { 0 };
            in_wire += if ran { 0 } else { bytes };
        }
        gone
    }
}

/// For each completely sent request: whether its client sent a write behind it.
fn overtaken<'a, E: 'a>(
    sent: impl DoubleEndedIterator<Item = &'a Waiting<E>>,
    may_repeat: impl Fn(&E) -> bool,
    askers: impl Fn(&E) -> SmallVec<[usize; 1]>,
) -> Vec<bool> {
    let mut wrote = HashSet::new();
    let youngest_first = sent.rev().map(|waiting| {
        let askers = askers(&waiting.expected);
        let overtaken = askers.iter().any(|asker| wrote.contains(asker));
        if !may_repeat(&waiting.expected) {
            wrote.extend(askers);
        }
        overtaken
    });
    let mut overtaken: Vec<bool> = youngest_first.collect();
    overtaken.reverse();
    overtaken
}

#[cfg(test)]
mod tests {
    use std::io::IoSlice;

    use smallvec::{SmallVec, smallvec};

    use super::{KEPT_BYTES, KEPT_PLACES, Queue};

    /// Lower-case letters are reads, capitals are writes.
    fn queue(requests: &[&'static str]) -> Queue<&'static str> {
        let mut queue = Queue::default();
        for request in requests {
            queue.push(*request, reads(request), |wire| wire.push_slice(request.as_bytes()));
        }
        queue
    }

    fn reads(request: &&str) -> bool {
        request.starts_with(char::is_lowercase)
    }

    /// Each letter is a client.
    fn askers(request: &&str) -> SmallVec<[usize; 1]> {
        smallvec![request.as_bytes()[0].to_ascii_lowercase().into()]
    }

    fn unsent(queue: &Queue<&str>) -> String {
        let mut slices = [IoSlice::new(&[]); 16];
        let used = queue.unsent(&mut slices);
        slices[..used].iter().map(|slice| String::from_utf8_lossy(slice)).collect()
    }

    #[test]
    fn a_request_that_was_sent_completely_waits_without_its_bytes() {
        let mut queue = queue(&["aaa", "BBB", "ccc"]);
        queue.count_sent(4, |_| ());
        assert_eq!((unsent(&queue).as_str(), queue.pending(), queue.wire.len()), ("BBccc", 9, 6));
        assert!(queue.is_front_sent());
        assert_eq!((queue.pop(), queue.is_front_sent(), queue.pending()), (Some("aaa"), false, 6));
        queue.count_sent(5, |_| ());
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("BBB"), Some("ccc"), None));
        assert_eq!((queue.pending(), queue.kept.len(), queue.wire.len()), (0, 0, 0));
    }

    #[test]
    fn a_write_that_was_sent_completely_is_returned() {
        let mut queue = queue(&["aaa", "BBB", "ccc", "DDD", "eee", "FFF"]);
        assert_eq!((queue.count_sent(3, |_| ()), queue.pop()), ((), Some("aaa")));
        queue.count_sent(8, |_| ());
        assert_eq!(queue.begin_again(reads, askers), [("BBB", true)]);
        assert_eq!((unsent(&queue).as_str(), queue.pending()), ("cccDDDeeeFFF", 12));
        // A request that was sent in part twice is given up, whether or not it is a read. The others are kept.
        queue.count_sent(4, |_| ());
        assert_eq!(queue.begin_again(reads, askers), [("ccc", true), ("DDD", false)]);
        assert_eq!(unsent(&queue), "eeeFFF");
        queue.count_sent(6, |_| ());
        assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Some("eee"), Some("FFF"), None));
    }

    #[test]
    fn a_read_is_not_repeated_after_a_later_write_of_its_client() {
        let mut queue = queue(&["aa", "bb", "cc", "BB", "bbb", "A", "a"]);
        queue.count_sent(11, |_| ());
        assert_eq!(queue.begin_again(reads, askers), [("bb", true), ("BB", true)]);
        // The write that was not sent completely is still behind the read.
        assert_eq!(unsent(&queue), "aaccbbbAa");
        // "aa", "cc" and "bbb" had been sent completely. The others were not repeats.
        assert_eq!((queue.take_repeats(), queue.take_repeats()), (3, 0));
    }

    #[test]
    fn a_request_that_waits_for_more_replies_is_not_sent_again() {
        let mut queue = queue(&["aaa", "bbb"]);
        queue.count_sent(6, |_| ());
        let first = queue.pop().expect("it waits");
        queue.put_back(first);
        assert_eq!(queue.begin_again(reads, askers), [("aaa", true)]);
        assert_eq!(unsent(&queue), "bbb");
    }

    #[test]
    fn a_request_that_is_sent_alone_waits_for_the_reply_before_it() {
        let mut queue = queue(&["aaa", "bb"]);
        assert_eq!(queue.alone(), 3);
        queue.count_sent(1, |_| ());
        assert_eq!(queue.alone(), 2);
        queue.count_sent(2, |_| ());
        assert_eq!(queue.alone(), 0);
        assert_eq!((queue.pop(), queue.alone()), (Some("aaa"), 2));
    }

    #[test]
    fn no_more_bytes_are_in_flight_than_may_be() {
        let mut queue = queue(&["aaaa", "BBBB", "cccc"]);
        assert_eq!((queue.may_send(6), queue.may_send(3), queue.may_send(100)), (6, 4, 100));
        queue.count_sent(2, |_| ());
        assert_eq!((queue.may_send(6), queue.may_send(1)), (4, 2));
        queue.count_sent(4, |_| ());
        assert_eq!((queue.may_send(6), queue.may_send(8)), (0, 2));
        assert_eq!((queue.pop(), queue.may_send(6), queue.may_send(1)), (Some("aaaa"), 4, 2));
        queue.count_sent(6, |_| ());
        assert_eq!((queue.pop(), queue.pop(), queue.may_send(6)), (Some("BBBB"), Some("cccc"), 6));
    }

    #[test]
    fn memory_is_released_after_a_peak() {
        let mut queue: Queue<&str> = Queue::default();
        let large = vec![b'x'; 100];
        for _ in 0..50_000 {
            queue.push("a", true, |wire| wire.push_slice(&large));
        }
        queue.count_sent(50_000 * large.len(), |_| ());
        while queue.pop().is_some() {}
        assert!(queue.waiting.capacity() <= 2 * KEPT_PLACES, "{}", queue.waiting.capacity());
        assert!(queue.wire.capacity() <= KEPT_BYTES, "{}", queue.wire.capacity());
        assert!(queue.kept.capacity() <= KEPT_BYTES, "{}", queue.kept.capacity());
    }

    #[test]
    fn bytes_without_a_reply_are_finished_when_they_are_sent() {
        let mut queue = queue(&["aaa"]);
        queue.push_unanswered(b"xxx");
        assert_eq!(unsent(&queue), "aaaxxx");
        queue.count_sent(4, |_| ());
        assert_eq!((unsent(&queue).as_str(), queue.pop()), ("xx", Some("aaa")));
        queue.count_sent(2, |_| ());
        assert_eq!((queue.pending(), queue.is_idle()), (0, true));
    }
}
