//! One pipelined connection to Redis. Requests are appended, replies come back in order and go to whoever waits.
//!
//! Shared (a lane), it lives as long as its worker: it connects again with back-off, sends again what certainly did not run
//! or only reads, and answers the rest with an error. Private (a session), it ends with its connection, because the state that
//! it was made for ended too. Nothing that may write is ever sent twice.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use crate::config::{Timeouts, UpstreamUrl};
use crate::resp::{Chunks, ReplyScanner, build};

/// From this size on a reply is handed over without a copy.
const LARGE: usize = 32 << 10;

/// Bytes that a shared connection reads in one go; a private one takes less, there may be thousands.
const SHARED_INBOX: usize = 128 << 10;
const PRIVATE_INBOX: usize = 4 << 10;

/// How long sent bytes may stay unacknowledged before the connection counts as lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// Reads in a row before others get their turn.
const READS_IN_A_ROW: usize = 16;

/// What waits for a reply.
pub trait Expected: Sized + 'static {
    /// What is handed back with each reply.
    type Context: 'static;

    /// How many replies in a row it takes, handed over as one piece. At least 1.
    fn replies(&self) -> usize;

    /// Whether it may be sent again after the connection broke: it only reads.
    fn may_repeat(&self) -> bool;

    /// The reply is here. What is handed back waits for more.
    fn deliver(self, context: &Self::Context, reply: Reply<'_>, now: Instant) -> Option<Self>;

    /// The reply will never come. `ran`: it may have run all the same.
    fn lose(self, context: &Self::Context, why: &Lost, ran: bool);

    /// All that was read in one go has been delivered.
    fn settled(context: &Self::Context);

    /// A connection stands again after one was lost.
    fn reconnected(context: &Self::Context);
}

/// A reply's bytes.
#[derive(Debug)]
pub enum Reply<'a> {
    /// In the connection's buffer.
    Borrowed(&'a [u8]),
    /// A large one, to be passed on without a copy.
    Owned(Bytes),
}

impl Reply<'_> {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Reply::Borrowed(bytes) => bytes,
            Reply::Owned(bytes) => bytes,
        }
    }

    /// The bytes, for keeps.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Reply::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Reply::Owned(bytes) => bytes.clone(),
        }
    }
}

/// Sees the frames of a private connection before whoever waits for a reply: messages of a subscription are nobody's reply.
pub trait Tap {
    /// Whether the frame was no reply, and has been taken.
    fn take(&self, frame: &[u8]) -> bool;

    /// The connection has ended.
    fn ended(&self);
}

/// Why Redis cannot be asked, for the error that the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost(Rc<str>);

impl Lost {
    /// `text` has no code.
    pub fn new(text: impl Into<Rc<str>>) -> Self {
        Lost(text.into())
    }

    /// The text, without a code.
    pub fn text(&self) -> &str {
        &self.0
    }
}

/// What all links of a worker have in common.
#[derive(Debug)]
pub struct LinkSettings {
    /// Where Redis is, and who we are there.
    pub upstream: UpstreamUrl,
    /// How long to wait, and between attempts.
    pub timeouts: Timeouts,
    /// The name of the connections (CLIENT SETNAME).
    pub name: String,
    /// Bytes that may wait for their replies on one connection; may change at a reload.
    pub pending_limit: Cell<usize>,
}

/// A handle to the connection; the connection's task holds another.
pub struct Link<E: Expected>(Rc<Inner<E>>);

impl<E: Expected> Clone for Link<E> {
    fn clone(&self) -> Self {
        Link(Rc::clone(&self.0))
    }
}

struct Inner<E: Expected> {
    settings: Rc<LinkSettings>,
    db: Cell<u32>,
    shared: bool,
    state: RefCell<State<E>>,
}

enum Status {
    /// Not standing yet; what is sent waits.
    Connecting,
    Up,
    /// The last attempt failed; what is sent is refused.
    Down(Lost),
    Closed,
}

struct State<E> {
    status: Status,
    /// The bytes of all that has no reply yet, sent or not.
    wire: Chunks,
    /// Bytes of it that are sent.
    written: usize,
    waiting: VecDeque<Waiting<E>>,
    /// The connection's task.
    waker: Option<Waker>,
    tap: Option<Rc<dyn Tap>>,
    /// Ends when nothing waits any more.
    retired: bool,
}

struct Waiting<E> {
    /// Bytes of the request on the wire.
    bytes: usize,
    repeated: bool,
    expected: E,
}

impl<E: Expected> Link<E> {
    /// A connection to database `db`, which connects at once and must be driven by [`Link::drive`].
    pub fn new(settings: Rc<LinkSettings>, db: u32, shared: bool) -> Self {
        let state = State {
            status: Status::Connecting,
            wire: Chunks::default(),
            written: 0,
            waiting: VecDeque::new(),
            waker: None,
            tap: None,
            retired: false,
        };
        Link(Rc::new(Inner { settings, db: Cell::new(db), shared, state: RefCell::new(state) }))
    }

    /// The database that the connection is in.
    pub fn db(&self) -> u32 {
        self.0.db.get()
    }

    /// A SELECT on it succeeded.
    pub fn set_db(&self, db: u32) {
        self.0.db.set(db);
    }

    /// Whether both are handles to one connection.
    pub fn is(&self, other: &Link<E>) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nothing waits for a reply.
    pub fn is_idle(&self) -> bool {
        self.0.state.borrow().waiting.is_empty()
    }

    /// Whether it has ended for good.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.state.borrow().status, Status::Closed)
    }

    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// Redis is away, or too much waits already.
    #[inline]
    pub fn check(&self) -> Result<(), Lost> {
        let state = self.0.state.borrow();
        match &state.status {
            Status::Connecting | Status::Up if state.wire.len() <= self.0.settings.pending_limit.get() => Ok(()),
            Status::Connecting | Status::Up => Err(Lost::new(format!(
                "{} bytes wait for Redis on one connection (limits.upstream_pending); try again later",
                state.wire.len()
            ))),
            Status::Down(lost) => Err(lost.clone()),
            Status::Closed => Err(Lost::new("the connection to Redis has ended")),
        }
    }

    /// Appends what `write` writes; `expected` gets the replies. Only right after [`Link::check`].
    #[inline]
    pub fn send(&self, expected: E, write: impl FnOnce(&mut Chunks)) {
        let mut state = self.0.state.borrow_mut();
        let before = state.wire.len();
        write(&mut state.wire);
        let bytes = state.wire.len() - before;
        state.waiting.push_back(Waiting { bytes, repeated: false, expected });
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Sends bytes that get no reply of their own (a session in a stream).
    pub fn send_unanswered(&self, bytes: &[u8]) {
        let mut state = self.0.state.borrow_mut();
        state.wire.push_slice(bytes);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Lets `tap` see each frame first.
    pub fn set_tap(&self, tap: Option<Rc<dyn Tap>>) {
        self.0.state.borrow_mut().tap = tap;
    }

    /// Ends the connection when all that waits has been answered.
    pub fn retire(&self) {
        let mut state = self.0.state.borrow_mut();
        state.retired = true;
        state.tap = None;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Whether [`Link::retire`] was called.
    pub fn is_retired(&self) -> bool {
        self.0.state.borrow().retired
    }

    /// Ends the connection at once. Hands back what waits.
    pub fn close(&self) -> Vec<E> {
        let mut state = self.0.state.borrow_mut();
        state.status = Status::Closed;
        state.tap = None;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        state.waiting.drain(..).map(|waiting| waiting.expected).collect()
    }

    /// The connection's task: returns when it has ended for good.
    pub async fn drive(self, context: Rc<E::Context>) {
        let inner = &*self.0;
        let mut backoff = inner.settings.timeouts.backoff_min;
        let mut was_up = false;
        loop {
            let attempt = inner.settings.timeouts.connect;
            let connected = match tokio::time::timeout(attempt, inner.connect()).await {
                Ok(connected) => connected,
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {attempt:?}"))),
            };
            match connected {
                Ok(stream) => {
                    if was_up {
                        tracing::info!(shared = inner.shared, "Redis is back");
                        E::reconnected(&context);
                    }
                    was_up = true;
                    if !inner.up() {
                        return;
                    }
                    let since = Instant::now();
                    let why = inner.exchange(stream, &context).await;
                    if !inner.broken(&context, &why) {
                        return;
                    }
                    if since.elapsed() > inner.settings.timeouts.backoff_max {
                        backoff = inner.settings.timeouts.backoff_min;
                    } else {
                        // A connection that does not last is not made again as fast as can be.
                        tokio::time::sleep(backoff).await;
                        backoff = (backoff * 2).min(inner.settings.timeouts.backoff_max);
                    }
                }
                Err(error) => {
                    let address = inner.settings.upstream.address();
                    let lost = Lost::new(format!("Redis at {address} cannot be reached: {error}"));
                    if !inner.down(&context, lost) {
                        return;
                    }
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(inner.settings.timeouts.backoff_max);
                }
            }
        }
    }
}

impl<E: Expected> Inner<E> {
    async fn connect(&self) -> io::Result<TcpStream> {
        let upstream = &self.settings.upstream;
        let mut stream = TcpStream::connect((upstream.host.as_str(), upstream.port)).await?;
        stream.set_nodelay(true)?;
        // A peer that is gone without a word is noticed within two minutes.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keep-alive does not run while bytes wait to be acknowledged.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        self.handshake(&mut stream).await?;
        Ok(stream)
    }

    async fn handshake(&self, stream: &mut TcpStream) -> io::Result<()> {
        let upstream = &self.settings.upstream;
        let mut steps: Vec<(Vec<&[u8]>, bool)> = Vec::new();
        if let Some(password) = &upstream.password {
            let user = upstream.user.as_ref().map(String::as_bytes);
            let words = [Some(&b"AUTH"[..]), user, Some(password.expose().as_bytes())];
            steps.push((words.into_iter().flatten().collect(), true));
        }
        // A name is a courtesy: a server that forbids it is served all the same.
        steps.push((vec![b"CLIENT", b"SETNAME", self.settings.name.as_bytes()], false));
        let db = self.db.get().to_string();
        if self.db.get() != 0 {
            steps.push((vec![b"SELECT", db.as_bytes()], true));
        }
        // Tells a server that is still loading, or that wants a password, before a client's request finds out.
        steps.push((vec![b"PING"], true));
        let mut request = Vec::new();
        for (words, _) in &steps {
            build::request(&mut request, words.iter().copied());
        }
        stream.write_all(&request).await?;
        let mut inbox = BytesMut::new();
        for (words, needed) in &steps {
            let mut scanner = ReplyScanner::default();
            let end = loop {
                match scanner.scan(&inbox) {
                    Ok(Some(end)) => break end,
                    Ok(None) if stream.read_buf(&mut inbox).await? == 0 => {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection"));
                    }
                    Ok(None) => {}
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                }
            };
            let reply = inbox.split_to(end);
            // A user without the right to PING may have all others.
            let no_ping = words[0] == b"PING" && reply.starts_with(b"-NOPERM");
            if *needed && reply.starts_with(b"-") && !no_ping {
                let text = String::from_utf8_lossy(&reply[1..]).trim_end().to_owned();
                return Err(io::Error::other(format!("it says '{text}'")));
            }
        }
        Ok(())
    }

    /// The connection stands. `false`: nobody wants it any more.
    fn up(&self) -> bool {
        let mut state = self.state.borrow_mut();
        if matches!(state.status, Status::Closed) {
            return false;
        }
        state.status = Status::Up;
        state.written = 0;
        true
    }

    /// The connection broke. What certainly did not run, and what only reads, waits for the next one. `false`: there is none.
    fn broken(&self, context: &E::Context, why: &str) -> bool {
        let lost =
            Lost::new(format!("the connection to Redis at {} was lost: {why}", self.settings.upstream.address()));
        let mut gone = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            if matches!(state.status, Status::Closed) {
                return false;
            }
            let written = std::mem::take(&mut state.written);
            let wire = std::mem::take(&mut state.wire);
            state.status = if self.shared { Status::Connecting } else { Status::Closed };
            let mut end = 0;
            for mut waiting in std::mem::take(&mut state.waiting) {
                let start = end;
                end += waiting.bytes;
                // Redis runs a request only when its last byte has come. What it has seen the beginning of may be why it ended the
                // connection, and is tried once more, not for ever.
                let (ran, begun) = (end <= written, start < written);
                let again = if ran { waiting.expected.may_repeat() } else { true } && !(begun && waiting.repeated);
                if self.shared && again {
                    waiting.repeated |= begun;
                    copy(&wire, start, waiting.bytes, &mut state.wire);
                    state.waiting.push_back(waiting);
                } else {
                    gone.push((waiting.expected, ran));
                }
            }
        }
        tracing::warn!(shared = self.shared, unanswered = gone.len(), "{}", lost.text());
        self.answer(context, gone, &lost);
        self.shared
    }

    /// An attempt failed: what waits is answered, what comes is refused. `false`: there will be no other attempt.
    fn down(&self, context: &E::Context, lost: Lost) -> bool {
        let gone: Vec<(E, bool)> = {
            let mut state = self.state.borrow_mut();
            if matches!(state.status, Status::Closed) {
                return false;
            }
            if !matches!(state.status, Status::Down(_)) {
                tracing::warn!("{}", lost.text());
            }
            state.status = if self.shared { Status::Down(lost.clone()) } else { Status::Closed };
            state.wire = Chunks::default();
            state.waiting.drain(..).map(|waiting| (waiting.expected, false)).collect()
        };
        self.answer(context, gone, &lost);
        self.shared
    }

    fn answer(&self, context: &E::Context, gone: Vec<(E, bool)>, lost: &Lost) {
        for (expected, ran) in gone {
            expected.lose(context, lost, ran);
        }
        E::settled(context);
        let tap = self.state.borrow_mut().tap.take_if(|_| !self.shared);
        if let Some(tap) = tap {
            tap.ended();
        }
    }

    /// Writes what there is to write and reads what there is to read, until the connection ends. Returns why.
    async fn exchange(&self, mut stream: TcpStream, context: &E::Context) -> String {
        let mut inbox = BytesMut::new();
        let mut scanner = None;
        poll_fn(|task| {
            if let Poll::Ready(why) = self.write(&stream, task) {
                return Poll::Ready(why);
            }
            let read = self.read(&mut stream, context, &mut inbox, &mut scanner, task);
            let mut state = self.state.borrow_mut();
            if state.retired && state.waiting.is_empty() {
                state.status = Status::Closed;
            }
            if matches!(state.status, Status::Closed) {
                return Poll::Ready(String::new());
            }
            if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
                state.waker = Some(task.waker().clone());
            }
            read
        })
        .await
    }

    fn write(&self, stream: &TcpStream, task: &mut Context<'_>) -> Poll<String> {
        let mut state = self.state.borrow_mut();
        while state.written < state.wire.len() {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = state.wire.slices(state.written, &mut slices);
            match stream.try_write_vectored(&slices[..used]) {
                Ok(count) => state.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_write_ready(task) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => break,
                },
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        if state.waiting.is_empty() {
            // What is sent and gets no reply of its own is done with.
            let sent = std::mem::take(&mut state.written);
            state.wire.advance(sent);
        }
        Poll::Pending
    }

    fn read(
        &self,
        stream: &mut TcpStream,
        context: &E::Context,
        inbox: &mut BytesMut,
        scanner: &mut Option<ReplyScanner>,
        task: &mut Context<'_>,
    ) -> Poll<String> {
        for _ in 0..READS_IN_A_ROW {
            let need = scanner.as_ref().map_or(0, ReplyScanner::need).saturating_sub(inbox.len());
            inbox.reserve(need.max(if self.shared { SHARED_INBOX } else { PRIVATE_INBOX }));
            match poll_read_buf(Pin::new(&mut *stream), task, inbox) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready("it closed the connection".to_owned()),
                Poll::Ready(Ok(_)) => {
                    let sound = self.deliver(context, inbox, scanner);
                    E::settled(context);
                    if let Err(why) = sound {
                        return Poll::Ready(why);
                    }
                    if inbox.is_empty() && !self.shared {
                        *inbox = BytesMut::new();
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
            }
        }
        task.waker().wake_by_ref();
        Poll::Pending
    }

    /// Hands over every reply that is complete.
    fn deliver(
        &self,
        context: &E::Context,
        inbox: &mut BytesMut,
        scanner: &mut Option<ReplyScanner>,
    ) -> Result<(), String> {
        let now = Instant::now();
        let mut at = 0;
        let sound = loop {
            if at == inbox.len() {
                break Ok(());
            }
            let (replies, tap) = {
                let state = self.state.borrow();
                (state.waiting.front().map(|waiting| waiting.expected.replies()), state.tap.clone())
            };
            if let Some(tap) = tap {
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
            let this = scanner.get_or_insert_with(|| ReplyScanner::of(replies));
            let length = match this.scan(&inbox[at..]) {
                Ok(Some(length)) => length,
                Ok(None) => break Ok(()),
                Err(error) => break Err(error.to_string()),
            };
            *scanner = None;
            let waiting = {
                let mut state = self.state.borrow_mut();
                let waiting = state.waiting.pop_front();
                if let Some(waiting) = &waiting {
                    if state.written < waiting.bytes {
                        break Err("it answered a request that was not sent yet".to_owned());
                    }
                    state.written -= waiting.bytes;
                    state.wire.advance(waiting.bytes);
                }
                waiting
            };
            let Some(waiting) = waiting else { break Ok(()) };
            let more = if length >= LARGE {
                inbox.advance(at);
                at = 0;
                let reply = inbox.split_to(length).freeze();
                waiting.expected.deliver(context, Reply::Owned(reply), now)
            } else {
                let reply = Reply::Borrowed(&inbox[at..at + length]);
                at += length;
                waiting.expected.deliver(context, reply, now)
            };
            if let Some(expected) = more {
                let mut state = self.state.borrow_mut();
                state.waiting.push_front(Waiting { bytes: 0, repeated: true, expected });
            }
        };
        inbox.advance(at);
        sound
    }
}

/// Appends a range of one queue to another.
fn copy(from: &Chunks, start: usize, length: usize, to: &mut Chunks) {
    let end = start + length;
    let mut at = start;
    while at < end {
        let mut slice = [IoSlice::new(&[])];
        if from.slices(at, &mut slice) == 0 {
            return;
        }
        let part = &slice[0][..slice[0].len().min(end - at)];
        to.push_slice(part);
        at += part.len();
    }
}
