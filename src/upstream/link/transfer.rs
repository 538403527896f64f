//! Writes a link's requests and reads its replies on one connection, until the connection ends. Does not connect, and does not
//! answer lost requests.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use crate::net::Stream;
use crate::resp::ReplyScanner;

use super::expected::{Expected, Reply};
use super::handle::Inner;
use super::state::State;

/// From this size on a reply is passed on without a copy.
const LARGE: usize = 32 << 10;

/// From this size on an incomplete reply is passed on in parts, if what waits for it takes parts.
const PART: usize = 128 << 10;

/// Bytes that a shared connection reads at once. A private one reads less, because there may be thousands.
const SHARED_INBOX: usize = 128 << 10;
const PRIVATE_INBOX: usize = 4 << 10;

/// Number of reads before other tasks get their turn.
const READS_IN_A_ROW: usize = 16;

/// Why a connection ended: Redis closed it.
pub(super) const CLOSED: &str = "it closed the connection";

/// Writes and reads until the connection ends. Returns why it ended, or `None` if the link has given the connection up or is
/// closed.
pub(super) async fn transfer<E: Expected>(link: &Inner<E>, stream: Stream, context: &E::Context) -> Option<String> {
    let mut wire = Wire { link, context, stream, inbox: BytesMut::new(), scanner: None, finishes: false };
    poll_fn(|task| wire.poll(task)).await
}

/// One connection of a link.
struct Wire<'a, E: Expected> {
    link: &'a Inner<E>,
    context: &'a E::Context,
    stream: Stream,
    /// Bytes that were read but not delivered.
    inbox: BytesMut,
    /// The scanner of the reply at the front of the inbox, if a part of it has been scanned.
    scanner: Option<ReplyScanner>,
    /// Redis must be told that no more input comes.
    finishes: bool,
}

impl<E: Expected> Wire<'_, E> {
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Option<String>> {
        {
            // Sending wakes this task, also while the task delivers replies: then the request is too late for this turn.
            let mut state = self.link.state.borrow_mut();
            state.wake_with(task.waker());
            if !state.is_live() {
                return Poll::Ready(None);
            }
        }
        let written = self.write(task);
        let read = self.read(task);
        let mut state = self.link.state.borrow_mut();
        if !state.is_live() {
            return Poll::Ready(None);
        }
        if let (Poll::Ready(why), Poll::Pending) = (written, &read) {
            // Only after reading: Redis may have sent replies and the reason before it closed the connection.
            return Poll::Ready(Some(why));
        }
        if state.is_held && self.may_send(&state) > 0 {
            task.waker().wake_by_ref();
        }
        if state.close_if_done() {
            return Poll::Ready(None);
        }
        read.map(Some)
    }

    fn write(&mut self, task: &mut Context<'_>) -> Poll<String> {
        let mut state = self.link.state.borrow_mut();
        let mut some = false;
        state.is_held = false;
        loop {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = state.queue.unsent(&mut slices);
            if used == 0 {
                break;
            }
            let most = if state.is_locked() {
                // One at a time: newer servers close an unauthenticated connection when many replies are due on it.
                slices[0].len().min(state.queue.alone())
            } else {
                self.may_send(&state)
            };
            let fits = |bytes: &mut usize, slice: &IoSlice<'_>| {
                *bytes = bytes.checked_sub(slice.len())?;
                Some(())
            };
            let whole = slices[..used].iter().scan(most, fits).count();
            let written = match whole {
                0 if most == 0 => {
                    state.is_held = !state.is_locked();
                    break;
                }
                0 => Pin::new(&mut self.stream).poll_write(task, &slices[0][..most]),
                whole => Pin::new(&mut self.stream).poll_write_vectored(task, &slices[..whole]),
            };
            match written {
                Poll::Ready(Ok(count)) => {
                    some = true;
                    state.sent(count, E::moment(self.context));
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                Poll::Pending => break,
            }
        }
        if let Poll::Ready(Err(error)) = Pin::new(&mut self.stream).poll_flush(task) {
            return Poll::Ready(error.to_string());
        }
        if state.is_raw() && state.queue.unsent_len() == 0 {
            self.finishes |= state.take_finish();
            // If this fails, the connection is broken, and the next read reports it.
            if self.finishes && Pin::new(&mut self.stream).poll_shutdown(task).is_ready() {
                self.finishes = false;
            }
            let tap = state.tap.clone().filter(|_| some);
            drop(state);
            if let Some(tap) = tap {
                tap.sent();
            }
        }
        Poll::Pending
    }

    /// How many bytes may be sent now. A server that reads but does not reply (CLIENT PAUSE) closes a connection on which too many
    /// bytes wait. On a private connection that concerns only its client.
    fn may_send(&self, state: &State<E>) -> usize {
        if state.is_shared() { state.queue.may_send(self.link.settings.server_limits.shared()) } else { usize::MAX }
    }

    fn read(&mut self, task: &mut Context<'_>) -> Poll<String> {
        for _ in 0..READS_IN_A_ROW {
            let shared = {
                let state = self.link.state.borrow();
                if state.tap.as_ref().is_some_and(|tap| tap.is_raw() && tap.is_full()) {
                    return Poll::Pending;
                }
                let need = self.scanner.as_ref().map_or(0, ReplyScanner::need).saturating_sub(self.inbox.len());
                // A reply that is passed on in parts needs no room for the whole.
                let in_parts = need > PART && state.queue.front().is_some_and(|front| front.takes_parts(&self.inbox));
                let need = if in_parts { PART } else { need };
                self.inbox.reserve(need.max(if state.is_shared() { SHARED_INBOX } else { PRIVATE_INBOX }));
                state.is_shared()
            };
            match poll_read_buf(Pin::new(&mut self.stream), task, &mut self.inbox) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(CLOSED.to_owned()),
                Poll::Ready(Ok(_)) => {
                    let sound = self.deliver();
                    E::settled(self.context);
                    if self.link.state.borrow().is_locked() {
                        // The next request may be sent now.
                        task.waker().wake_by_ref();
                    }
                    if let Err(why) = sound {
                        return Poll::Ready(why);
                    }
                    // A lane releases memory that only a large reply needed.
                    if self.inbox.is_empty() && (!shared || self.inbox.capacity() > 2 * SHARED_INBOX) {
                        self.inbox = BytesMut::new();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// Delivers every complete reply.
    fn deliver(&mut self) -> Result<(), String> {
        let now = Instant::now();
        self.link.state.borrow_mut().replies_came(now);
        let inbox = &mut self.inbox;
        let mut at = 0;
        let sound = loop {
            if at == inbox.len() {
                break Ok(());
            }
            let (replies, takes_push, tap) = {
                let state = self.link.state.borrow();
                let front = state.queue.front();
                let takes_push = inbox[at] == b'>' && front.is_some_and(E::takes_push);
                (front.map(E::replies), takes_push, state.tap.clone())
            };
            if let Some(tap) = tap.as_ref().filter(|tap| tap.is_raw()) {
                tap.pass(&inbox[at..]);
                at = inbox.len();
                break Ok(());
            }
            // No other frame can arrive in the middle of a reply.
            let fresh = self.scanner.is_none();
            if let Some(tap) = tap.filter(|tap| fresh && tap.wants(inbox[at])) {
                match ReplyScanner::default().scan(&inbox[at..]) {
                    Ok(Some(length)) if tap.take(&inbox[at..at + length]) => {
                        at += length;
                        continue;
                    }
                    Ok(Some(_)) => {}
                    Ok(None) => break Ok(()),
                    Err(error) => break Err(error.to_string()),
                }
            }
            let Some(replies) = replies else {
                break Err("it sent a reply without a request".to_owned());
            };
            if fresh && inbox[at] == b'>' && !takes_push {
                // If it counted as a reply, all later replies would go to the wrong clients.
                break Err("it sent an unexpected push".to_owned());
            }
            let scanner = self.scanner.get_or_insert_with(|| ReplyScanner::of(replies));
            let length = match scanner.scan(&inbox[at..]) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    inbox.advance(std::mem::take(&mut at));
                    if scanner.seen() >= PART {
                        deliver_part(self.link, self.context, inbox, scanner);
                    }
                    break Ok(());
                }
                Err(error) => break Err(error.to_string()),
            };
            self.scanner = None;
            let expected = {
                let mut state = self.link.state.borrow_mut();
                if !state.queue.is_front_sent() {
                    // The request stays in the queue and gets an error when the connection ends. If it were sent again, it would be
                    // refused again.
                    state.queue.forbid_repeat_of_front();
                    let words =
                        inbox[at..].strip_prefix(b"-").and_then(|text| text.split(|byte| *byte == b'\r').next());
                    let words = words.map(|text| format!(": {}", String::from_utf8_lossy(text))).unwrap_or_default();
                    break Err(format!("it replied to a request that was not sent completely{words}"));
                }
                state.answered(&inbox[at..])
            };
            let Some(expected) = expected else { break Ok(()) };
            let more = if length >= LARGE {
                inbox.advance(at);
                at = 0;
                let reply = inbox.split_to(length).freeze();
                expected.deliver(self.context, Reply::Owned(reply), now)
            } else {
                let reply = Reply::Borrowed(&inbox[at..at + length]);
                at += length;
                expected.deliver(self.context, reply, now)
            };
            if let Some(expected) = more {
                self.link.state.borrow_mut().queue.put_back(expected);
            }
        };
        inbox.advance(at);
        sound
    }
}

/// Delivers what has arrived of a large reply, if it is wanted before the rest.
fn deliver_part<E: Expected>(link: &Inner<E>, context: &E::Context, inbox: &mut BytesMut, scanner: &mut ReplyScanner) {
    let front = {
        let mut state = link.state.borrow_mut();
        let wanted = state.queue.front().is_some_and(|front| front.takes_parts(inbox));
        if !(wanted && state.queue.is_front_sent()) {
            return;
        }
        state.queue.pop()
    };
    let Some(front) = front else { return };
    let part = inbox.split_to(scanner.seen()).freeze();
    scanner.passed_on(part.len());
    let front = front.deliver_part(context, part);
    link.state.borrow_mut().queue.put_back(front);
}
