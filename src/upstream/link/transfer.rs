//! Writes a link's requests and reads its replies, on one connection, until it ends. Does not connect, and does not answer what is
//! lost with the connection.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::{Buf, BytesMut};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::resp::ReplyScanner;

use super::expected::{Expected, Reply};
use super::handle::Inner;
use super::state::State;

/// From this size on a reply is handed over without a copy.
const LARGE: usize = 32 << 10;

/// From this size on a reply that is still coming is passed on in parts, if what waits for it takes parts.
const PART: usize = 128 << 10;

/// Bytes that a shared connection reads in one go; a private one takes less, there may be thousands.
const SHARED_INBOX: usize = 128 << 10;
const PRIVATE_INBOX: usize = 4 << 10;

/// Reads in a row before others get their turn.
const READS_IN_A_ROW: usize = 16;

/// Why a connection ended: Redis closed it.
pub(super) const CLOSED: &str = "it closed the connection";

/// Writes what there is to write and reads what there is to read, until the connection ends. Returns why; none: the link has given
/// the connection up, or is closed.
pub(super) async fn transfer<E: Expected>(link: &Inner<E>, stream: TcpStream, context: &E::Context) -> Option<String> {
    let mut wire = Wire { link, context, stream, inbox: BytesMut::new(), scanner: None };
    poll_fn(|task| wire.poll(task)).await
}

/// One connection of a link.
struct Wire<'a, E: Expected> {
    link: &'a Inner<E>,
    context: &'a E::Context,
    stream: TcpStream,
    /// What was read and not handed over.
    inbox: BytesMut,
    /// Of the reply that the inbox begins with, if a part of it has been looked at.
    scanner: Option<ReplyScanner>,
}

impl<E: Expected> Wire<'_, E> {
    fn poll(&mut self, task: &mut Context<'_>) -> Poll<Option<String>> {
        {
            // Sending wakes this task: also while it delivers, when what is sent comes too late for this turn.
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
            // Only after reading: Redis may have sent replies, and an error with the reason, before it closed the connection.
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
                // One at a time: newer servers close a connection without a login when much is due on it.
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
                0 => self.stream.try_write(&slices[0][..most]),
                whole => self.stream.try_write_vectored(&slices[..whole]),
            };
            match written {
                Ok(count) => {
                    some = true;
                    state.sent(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match self.stream.poll_write_ready(task) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => break,
                },
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        if state.is_raw() && state.queue.unsent_len() == 0 {
            if state.take_finish() {
                // Should it fail, the connection is broken, and the next read says so.
                let _ = SockRef::from(&self.stream).shutdown(Shutdown::Write);
            }
            let tap = state.tap.clone().filter(|_| some);
            drop(state);
            if let Some(tap) = tap {
                tap.sent();
            }
        }
        Poll::Pending
    }

    /// How many bytes may be sent now. A server that reads and does not answer (CLIENT PAUSE) closes a connection on which too many
    /// bytes wait. On a private connection that only concerns its client.
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
                // What is passed on in parts needs no room for the whole.
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
                    // A lane lets go of what only a large reply needed.
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

    /// Hands over every reply that is complete.
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
            // In the midst of a reply nothing else comes.
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
                break Err("it sent a reply that nobody waits for".to_owned());
            };
            if fresh && inbox[at] == b'>' && !takes_push {
                // Taken for a reply, it would shift all replies behind it to the wrong clients.
                break Err("it pushed something that nobody asked for".to_owned());
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
                    // It stays where it is, and is answered when the connection ends. Sent again, it would be refused again.
                    state.queue.send_front_no_more();
                    let words =
                        inbox[at..].strip_prefix(b"-").and_then(|text| text.split(|byte| *byte == b'\r').next());
                    let words = words.map(|text| format!(": {}", String::from_utf8_lossy(text))).unwrap_or_default();
                    break Err(format!("it answered a request that was not sent whole{words}"));
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

/// Hands over what has come of a large reply, if it is wanted before the rest.
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
