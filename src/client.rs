//! One client's connection: reads, has requests handled in order, and writes replies in order.
//!
//! Holds no buffer while the client is idle. Must not know what a command means.

mod intake;

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context as Task, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio_util::io::poll_read_buf;

use crate::client_state::buffers::ALWAYS_SERVED;
use crate::client_state::client_info::count;
use crate::client_state::ending::Ending;
use crate::client_state::reply_queue::{MOST_OUTSTANDING, ReplyQueue};
use crate::coherence::ServePermit;
use crate::errors;
use crate::exchange::pending::ClientState;
use crate::metrics::outcome::DropReason;
use crate::net::Stream;
use crate::proxy::{Client, Next, Request};
use crate::resp::{ProtocolError, Scan, Scanner, build};
use crate::worker_state::context::Context;
use crate::worker_state::policy::View;

use intake::Intake;

/// Maximum number of bytes per read.
const READ: usize = 64 << 10;

/// From this size on a request is passed on without a copy.
const LARGE: usize = 32 << 10;

/// Maximum number of bytes to read ahead while requests cannot be taken.
pub const READ_AHEAD: usize = 64 << 10;

/// Number of requests that are taken from one client before the worker's other clients get their turn.
const TURN: usize = 96;

/// Number of bytes that are written to one client before others get their turn.
const TURN_BYTES: usize = 256 << 10;

/// From this number of arguments on, the scan of an incomplete request is resumed instead of repeated.
const WORTH_RESUMING: usize = 32;

/// How a TLS connection begins: a handshake record, of any version.
const TLS_HANDSHAKE: [u8; 2] = [0x16, 3];

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client closed it, or asked to close it (QUIT).
    Client,
    /// Another client closed it (CLIENT KILL).
    Killed,
    /// A limit was reached, or Shortstop cannot continue.
    Dropped(DropReason),
    /// Shortstop is shutting down.
    Drained,
}

/// Serves a client until its connection ends.
pub async fn serve(stream: Stream, context: Rc<Context>, state: Rc<ClientState>) -> End {
    let mut connection = Connection {
        client: Client::new(Rc::clone(&context), Rc::clone(&state)),
        stream,
        context,
        reply_queue: Rc::clone(&state.reply_queue),
        state,
        inbox: BytesMut::new(),
        scanner: Scanner::default(),
        need: 1,
        intake: Intake::Running,
        ended: false,
        flushed: true,
        turn: 0,
        tolerated: 0,
        counted: 0,
        most: MOST_OUTSTANDING,
    };
    let end = poll_fn(|task| connection.poll(task)).await;
    if connection.stream.is_buffered() && !matches!(end, End::Dropped(_)) {
        // Tell the client that the connection ends in order, if that is possible without waiting.
        let _ = connection.stream.shutdown().now_or_never();
    }
    end
}

struct Connection {
    stream: Stream,
    client: Client,
    context: Rc<Context>,
    reply_queue: Rc<ReplyQueue>,
    state: Rc<ClientState>,
    /// Bytes that were read but not taken. Holds no memory when empty.
    inbox: BytesMut,
    /// Scan of the request at the start of the inbox.
    scanner: Scanner,
    /// Number of bytes that the inbox must have before it is scanned again.
    need: usize,
    intake: Intake,
    /// The client has closed its side.
    ended: bool,
    /// No written bytes wait in a buffer of the stream.
    flushed: bool,
    /// Requests that may still be taken in this turn.
    turn: usize,
    /// Bytes that may wait above `limits.output_buffer`: the last request was taken below that bound, and its reply exceeded it. 0:
    /// none.
    tolerated: usize,
    /// The bytes in the client's buffers that are included in the worker's count.
    counted: usize,
    /// Maximum number of this client's in-flight requests.
    most: usize,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.context.held.change(self.counted, 0);
    }
}

impl Connection {
    fn poll(&mut self, task: &mut Task<'_>) -> Poll<End> {
        self.reply_queue.set_waker(task.waker());
        self.turn = TURN;
        let view = self.context.view();
        let outcome = self.advance(task, &view);
        let held = self.reply_queue.len() + self.inbox.len();
        if held != self.counted {
            self.context.held.change(self.counted, held);
            self.counted = held;
        }
        outcome
    }

    fn advance(&mut self, task: &mut Task<'_>, view: &View) -> Poll<End> {
        // A client that sends faster than it can be served gives others their turn after a few reads.
        for _ in 0..8 {
            let mut inbox = std::mem::take(&mut self.inbox);
            self.take(view, &mut inbox);
            self.keep(inbox);
            let Ok(more) = self.write(task, view) else {
                return Poll::Ready(End::Client);
            };
            if let Some(end) = self.end(view) {
                return Poll::Ready(end);
            }
            if more || self.turn == 0 {
                break;
            }
            if self.can_go_on(view) {
                continue;
            }
            if !self.wants_more(view) {
                // Code that fills or drains the reply queue wakes this task.
                return Poll::Pending;
            }
            match self.read(task, view) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => return Poll::Ready(End::Client),
            }
        }
        give_way(task);
        Poll::Pending
    }

    fn end(&self, view: &View) -> Option<End> {
        let waiting = self.reply_queue.len();
        if waiting > view.policy.limits.output_buffer.max(self.tolerated) {
            return Some(End::Dropped(DropReason::OutputBuffer));
        }
        let messages = view.policy.limits.pubsub_buffer;
        if messages > 0 && waiting > messages && self.client.is_subscribed() {
            return Some(End::Dropped(DropReason::PubsubBuffer));
        }
        if let Some(why) = self.reply_queue.ending().dropped() {
            return Some(End::Dropped(why));
        }
        if self.state.info.is_killed() {
            return Some(End::Killed);
        }
        if self.ended && self.client.is_blocked() {
            // As in Redis: the reply may never come, and later requests do not matter.
            return Some(End::Client);
        }
        if self.client.is_offloaded() || waiting > 0 || !self.flushed {
            return None;
        }
        if self.reply_queue.ending() != Ending::None {
            return Some(End::Client);
        }
        let leaving = self.context.draining.get();
        if self.client.is_raw() {
            if self.ended && self.inbox.is_empty() {
                // Redis may still send replies to what the client has sent.
                self.client.finish_raw();
            }
            return leaving.then_some(End::Drained);
        }
        if leaving && self.client.is_blocked() {
            return Some(End::Drained);
        }
        if self.reply_queue.outstanding() > 0 {
            return None;
        }
        if self.intake == Intake::Discarding && !self.ended {
            return leaving.then_some(End::Drained);
        }
        if self.intake.is_over() || (self.ended && !self.can_take()) {
            return Some(End::Client);
        }
        (leaving && !self.can_take()).then_some(End::Drained)
    }

    /// Whether the inbox may contain a request that can be taken now or later.
    fn can_take(&self) -> bool {
        !self.intake.is_over() && (self.intake == Intake::Paused || self.inbox.len() >= self.need.max(1))
    }

    /// Whether no more requests are taken, because the connection is ending.
    fn is_over(&self) -> bool {
        self.intake.is_over() || self.reply_queue.ending() != Ending::None
    }

    /// Whether the next request in the inbox may be taken now.
    fn can_go_on(&self, view: &View) -> bool {
        let blocked =
            self.is_over() || self.intake == Intake::Paused || self.client.is_offloaded() || self.is_full(view);
        // Everything that can be passed on has been.
        let blocked = blocked || (self.client.is_raw() && self.intake != Intake::Paused);
        !blocked && self.inbox.len() >= self.need.max(1)
    }

    /// Whether the replies due to the client have reached the limits.
    #[inline]
    fn is_full(&self, view: &View) -> bool {
        match self.reply_queue.room(view.policy.limits.output_buffer, self.most) {
            Some(waiting) => self.is_stopped(view, waiting),
            None => true,
        }
    }

    /// Whether the client must wait, with `own` bytes in its buffers, because of the buffers of all clients.
    #[inline]
    fn is_stopped(&self, view: &View, own: usize) -> bool {
        own >= ALWAYS_SERVED && self.context.held.must_wait(own, self.counted, view.policy.buffers_total)
    }

    fn wants_more(&self, view: &View) -> bool {
        self.reply_queue.stopped.set(false);
        // After QUIT behind a blocking command, reading continues: only a read shows that the client has disconnected.
        let is_read = !self.is_over() || self.intake == Intake::Discarding || self.client.is_blocked();
        !self.ended && is_read && !self.context.draining.get() && {
            let waits = self.intake == Intake::Paused
                || self.client.is_offloaded()
                || self.is_full(view)
                || self.client.is_raw();
            let waits = waits || (self.is_over() && self.intake != Intake::Discarding);
            let stopped = self.is_stopped(view, self.reply_queue.len() + self.inbox.len());
            self.reply_queue.stopped.set(stopped);
            // Also while waiting: only a read shows whether the client is still connected.
            let ahead = self.inbox.len() < READ_AHEAD;
            if waits { ahead } else { ahead || !stopped || self.reply_queue.goes_first.get() }
        }
    }

    fn read(&mut self, task: &mut Task<'_>, view: &View) -> Poll<io::Result<()>> {
        if !self.inbox.is_empty() {
            // Grows with the bytes received, not with the announced length.
            let missing = self.need.saturating_sub(self.inbox.len());
            self.inbox.reserve(missing.min(self.inbox.len()).max(READ));
            // Unlike `try_read`, this knows that a read that did not fill the buffer has emptied the socket, and does not try
            // again.
            let read = ready!(poll_read_buf(Pin::new(&mut self.stream), task, &mut self.inbox))?;
            self.has_read(read);
            // A client that uploads is not idle.
            self.reply_queue.active.set(Instant::now());
            if self.inbox.len() > view.policy.limits.query_buffer {
                self.reply_queue.drop_for(DropReason::QueryBuffer);
            }
            return Poll::Ready(Ok(()));
        }
        // All clients of the worker are read into one buffer. Bytes that cannot be taken at once are copied out of it.
        let mut scratch = self.context.scratch.take();
        scratch.clear();
        scratch.reserve(READ);
        let read = poll_read_buf(Pin::new(&mut self.stream), task, &mut scratch);
        if let Poll::Ready(Ok(read)) = read {
            self.has_read(read);
            self.take(view, &mut scratch);
            if !scratch.is_empty() {
                self.inbox = BytesMut::from(&scratch[..]);
            }
        }
        scratch.clear();
        *self.context.scratch.borrow_mut() = scratch;
        read.map_ok(|_| ())
    }

    fn has_read(&mut self, read: usize) {
        self.ended = read == 0;
        count(&self.state.info.received, read as u64);
        if read > 0 && self.reply_queue.stalled.get().is_some() {
            // The client may send all its requests before it reads a reply.
            self.reply_queue.stalled.set(Some(Instant::now()));
        }
    }

    /// Stores the bytes that were not taken. Releases an empty buffer.
    fn keep(&mut self, inbox: BytesMut) {
        self.state.info.unread.set(inbox.len());
        if !inbox.is_empty() {
            self.inbox = inbox;
        }
    }

    /// Takes as many requests as can be taken now.
    fn take(&mut self, view: &View, inbox: &mut BytesMut) {
        if self.intake == Intake::Discarding {
            return inbox.clear();
        }
        let outstanding = self.reply_queue.outstanding();
        if outstanding == 0 {
            self.intake = self.intake.answered();
            self.client.refresh();
        }
        if self.client.is_offloaded() {
            let permit = self.context.shared.coherence.permit(Instant::now());
            let Some(next) = self.client.resume_offloaded(view, &permit) else { return };
            self.follow(next);
        }
        if self.client.is_raw() && self.intake != Intake::Paused && !self.is_over() {
            self.pass_raw(inbox);
            return;
        }
        if inbox.len() < self.need.max(1) || self.intake == Intake::Paused || self.is_over() {
            return;
        }
        let mut permit = self.context.shared.coherence.permit(Instant::now());
        self.reply_queue.active.set(permit.now);
        self.most = self.context.most_outstanding(self.state.info.id, permit.now);
        let mut at = 0;
        let mut taken = 0;
        while at < inbox.len() && self.turn > 0 && self.intake == Intake::Running && !self.client.is_offloaded() {
            if self.is_full(view) {
                self.need = 1;
                break;
            }
            if taken == 0 && inbox[at..].starts_with(&TLS_HANDSHAKE) {
                self.refuse(errors::SPEAKS_TLS.text());
                break;
            }
            let hits = self.client.hits();
            let found = self.scanner.scan(&inbox[at..], &view.policy.scan);
            let length =
                match found {
                    Ok(Scan::More { need }) => {
                        self.need = need;
                        if self.scanner.args.len() < WORTH_RESUMING {
                            self.scanner.forget();
                        }
                        break;
                    }
                    Ok(Scan::Nothing { len }) => {
                        at += len;
                        self.scanner.forget();
                        self.need = 1;
                        continue;
                    }
                    Ok(Scan::Inline { len, words }) => {
                        let mut raw = Vec::new();
                        build::request(&mut raw, words.iter().map(Vec::as_slice));
                        if self.request_anew(view, &permit, &raw) { len } else { break }
                    }
                    Ok(Scan::Request { len, regular: false }) => {
                        let mut raw = Vec::new();
                        let from = &inbox[at..];
                        build::request(&mut raw, self.scanner.args.iter().map(|range| &from[range.clone()]));
                        if self.request_anew(view, &permit, &raw) { len } else { break }
                    }
                    Ok(Scan::Request { len, regular: true }) if len >= LARGE => {
                        inbox.advance(std::mem::take(&mut at));
                        let owned = inbox.split_to(len).freeze();
                        if !self.request(view, &permit, &owned, Some(&owned)) {
                            let rest = std::mem::take(inbox);
                            *inbox = BytesMut::from(owned);
                            inbox.unsplit(rest);
                            break;
                        }
                        0
                    }
                    Ok(Scan::Request { len, regular: true }) => {
                        if self.request(view, &permit, &inbox[at..at + len], None) { len } else { break }
                    }
                    Err(error) => {
                        self.protocol_error(&error);
                        break;
                    }
                };
            at += length;
            taken += 1;
            self.turn -= 1;
            self.scanner.forget();
            self.need = 1;
            if self.client.hits() == hits {
                self.renew(&mut permit);
            }
        }
        inbox.advance(at);
        if taken > 0 {
            let waiting = self.reply_queue.len();
            self.tolerated = if waiting > view.policy.limits.output_buffer { waiting } else { 0 };
        }
        self.context.stats().commands.add(taken);
        count(&self.state.info.commands, taken);
    }

    /// Gets another permit if the last request has flushed L1, because the next request of the same read must not see older
    /// entries. Not called for hits, which change nothing.
    fn renew(&self, permit: &mut ServePermit) {
        let coherence = &self.context.shared.coherence;
        if !coherence.is_current(permit) {
            *permit = coherence.permit(Instant::now());
        }
    }

    /// Passes bytes on unchanged: they are no requests.
    fn pass_raw(&mut self, inbox: &mut BytesMut) {
        if inbox.is_empty() {
            return;
        }
        self.reply_queue.active.set(Instant::now());
        inbox.advance(self.client.pass_raw(inbox));
        self.need = 1;
    }

    /// Handles a request whose bytes had to be normalised first.
    fn request_anew(&mut self, view: &View, permit: &ServePermit, raw: &[u8]) -> bool {
        self.scanner.forget();
        match self.scanner.scan(raw, &view.policy.scan) {
            Ok(Scan::Request { .. }) => self.request(view, permit, raw, None),
            // Longer than allowed after normalisation.
            _ => {
                self.protocol_error(&ProtocolError::BulkLength);
                true
            }
        }
    }

    /// Handles one request. Returns false if it must be taken again.
    fn request(&mut self, view: &View, permit: &ServePermit, raw: &[u8], owned: Option<&Bytes>) -> bool {
        let request = Request { raw, ranges: &self.scanner.args, owned };
        let next = self.client.handle(view, permit, request);
        self.follow(next);
        next != Next::Again
    }

    /// Applies the result of a request.
    fn follow(&mut self, next: Next) {
        self.intake = self.intake.after(next);
        if next == Next::Again {
            self.scanner.forget();
            self.need = 1;
        }
    }

    fn protocol_error(&mut self, error: &ProtocolError) {
        self.refuse(&format!("ERR Protocol error: {error}"));
    }

    /// Sends an error and takes no more requests.
    fn refuse(&mut self, text: &str) {
        let mut out = Vec::new();
        build::error(&mut out, text);
        let muted = self.client.is_muted();
        self.reply_queue.local(&out, muted);
        self.intake = Intake::refused(muted && !self.reply_queue.has_due_replies());
    }

    /// Writes ready bytes, at most [`TURN_BYTES`]. Returns whether the client could take more.
    fn write(&mut self, task: &mut Task<'_>, view: &View) -> io::Result<bool> {
        let hits = self.client.take_hits();
        if hits > 0 {
            // Before the client can receive the replies and ask for the count.
            self.context.stats().l1_hits.add(hits);
        }
        if self.intake == Intake::Discarding && !self.reply_queue.is_empty() {
            // As in Redis, when the next reply would be sent.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let stream = &mut self.stream;
        let mut some = false;
        let mut stalled = false;
        let mut more = false;
        let mut left = TURN_BYTES;
        loop {
            let all = self.reply_queue.drain(|slices| match poll_write_some(stream, task, slices, left) {
                Poll::Ready(Ok(written)) => {
                    some |= written > 0;
                    left -= written;
                    count(&self.state.info.sent, written as u64);
                    Ok(written)
                }
                Poll::Ready(Err(error)) => Err(error),
                Poll::Pending => {
                    stalled = true;
                    Ok(0)
                }
            })?;
            if all || stalled {
                break;
            }
            // A client above `limits.output_buffer` is about to be dropped: first give it all bytes that it takes.
            if self.reply_queue.len() <= view.policy.limits.output_buffer {
                more = true;
                break;
            }
            left = TURN_BYTES;
        }
        if stream.is_buffered() {
            self.flushed = Pin::new(stream).poll_flush(task)?.is_ready();
            stalled |= !self.flushed;
        }
        if !stalled {
            self.reply_queue.stalled.set(None);
        } else if some || self.reply_queue.stalled.get().is_none() {
            self.reply_queue.stalled.set(Some(Instant::now()));
        }
        if some && self.client.gets_raw() {
            self.client.raw_was_taken();
        }
        if some || hits > 0 {
            let now = Instant::now();
            if hits > 0 {
                let took = now.saturating_duration_since(self.reply_queue.active.get());
                self.context.stats().hit.record(took, hits);
            }
            self.reply_queue.active.set(now);
        }
        Ok(more)
    }
}

/// Writes up to `most` bytes in one call. Does nothing if `most` is 0.
fn poll_write_some(
    stream: &mut Stream,
    task: &mut Task<'_>,
    slices: &[IoSlice<'_>],
    most: usize,
) -> Poll<io::Result<usize>> {
    let mut room = most;
    let whole = slices.iter().take_while(|slice| {
        let fits = slice.len() <= room;
        room -= if fits { slice.len() } else { 0 };
        fits
    });
    match (whole.count(), slices.first()) {
        (0, Some(_)) if most == 0 => Poll::Ready(Ok(0)),
        (0, Some(first)) => Pin::new(stream).poll_write(task, &first[..most]),
        (whole, _) => Pin::new(stream).poll_write_vectored(task, &slices[..whole]),
    }
}

/// Runs the task again after the other tasks, and after the runtime has polled their sockets. A task that only wakes itself would
/// run many times before that.
fn give_way(task: &mut Task<'_>) {
    let again = pin!(tokio::task::yield_now());
    let _ = again.poll(task);
}
