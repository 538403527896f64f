//! One pipelined connection to Redis. Requests are appended, replies come back in order and go to whoever waits.
//!
//! Shared (a lane), it lives as long as its worker: it connects again with back-off, sends again what certainly did not run
//! or only reads, and answers the rest with an error; so is a read that would see what its client wrote after it. Private (a
//! session), it ends with its connection, because the state that it was made for ended too. Nothing that may write is ever sent
//! twice.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::io::poll_read_buf;

use crate::config::{Live, Timeouts, UpstreamUrl};
use crate::resp::{Chunks, ReplyScanner, Version};

use super::endpoint::{Endpoint, Server, Suspicion};
use super::handshake::{Handshake, NotTaken, OwnRights, Purpose};
use super::limits::ServerLimits;
use super::login::{Login, NOAUTH, is_busy, is_too_many};
use super::queue::Queue;

/// From this size on a reply is handed over without a copy.
const LARGE: usize = 32 << 10;

/// From this size on a reply that is still coming is passed on in parts, if whoever waits for it takes them.
const PART: usize = 128 << 10;

/// Bytes that a shared connection reads in one go; a private one takes less, there may be thousands.
const SHARED_INBOX: usize = 128 << 10;
const PRIVATE_INBOX: usize = 4 << 10;

/// How long sent bytes may stay unacknowledged before the connection counts as lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long a server that has taken a connection may be silent at first. It may be paused (CLIENT PAUSE) or busy with something
/// long, and then it is waited for as on a connection that stands; but one behind something that takes connections in its name
/// may be gone for good.
const GREETING: Duration = Duration::from_secs(60);

/// Why a connection ended: Redis closed it.
const CLOSED: &str = "it closed the connection";

/// A connection that was idle for this long may have been closed for that: by Redis (`timeout`), or by something on the way.
const IDLE: Duration = Duration::from_secs(30);

/// A script that has not been answered for this long holds up the requests behind it.
const HELD_UP: Duration = Duration::from_millis(100);

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

    /// Who gets the reply, each by a number of its own.
    fn askers(&self) -> SmallVec<[usize; 1]>;

    /// The reply is here. What is handed back waits for more.
    fn deliver(self, context: &Self::Context, reply: Reply<'_>, now: Instant) -> Option<Self>;

    /// Whether the reply, of which this is the beginning, is taken in parts as it comes.
    fn takes_parts(&self, beginning: &[u8]) -> bool;

    /// Whether a push of RESP3 may be its reply, or a part of it.
    fn takes_push(&self) -> bool;

    /// A part of the reply, the first or another; [`Expected::deliver`] gets the last. From now on it may not be repeated.
    fn deliver_part(self, context: &Self::Context, part: Bytes) -> Self;

    /// The reply will never come. `ran`: it may have run all the same.
    fn lose(self, context: &Self::Context, why: &Lost, ran: bool);

    /// All that was read in one go has been delivered.
    fn settled(context: &Self::Context);

    /// A connection stands again after one was lost. `served`: Redis had answered on the lost one with more than errors, so that L1
    /// or clients may have what came over it.
    fn reconnected(context: &Self::Context, served: bool);

    /// Redis closed a lane of this login at that time, and has let the login in again.
    fn let_in_again(context: &Self::Context, login: &Rc<Login>, closed: Instant);

    /// Redis does not let this login in any more.
    fn login_refused(context: &Self::Context, login: &Rc<Login>);
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
    /// Whether a frame that begins so may be for it.
    fn wants(&self, first: u8) -> bool;

    /// Whether the frame was no reply, and has been taken.
    fn take(&self, frame: &[u8]) -> bool;

    /// The connection has ended.
    fn ended(&self);

    /// Whether the connection speaks in its own way from now on: its bytes are passed on as they come, whatever they are.
    fn is_raw(&self) -> bool;

    /// Bytes of a raw connection.
    fn pass(&self, bytes: &[u8]);

    /// Whether nothing more of a raw connection can be taken. Who says so wakes it later ([`Link::wake`]).
    fn is_full(&self) -> bool;

    /// All that was to be sent on a raw connection has been sent.
    fn sent(&self);
}

/// Why Redis cannot be asked, for the error that the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The error, with its code.
    text: Rc<str>,
    login_refused: bool,
}

impl Lost {
    /// In our own words, which have no code.
    pub fn new(text: impl std::fmt::Display) -> Self {
        Lost { text: format!("ERR shortstop: {text}").into(), login_refused: false }
    }

    /// In Redis's words, with their code: it did not take the connection.
    fn said(text: &str, login_refused: bool) -> Self {
        Lost { text: text.into(), login_refused }
    }

    /// The error, with its code.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether Redis is there, and serves nothing while a script runs.
    pub fn is_busy(&self) -> bool {
        is_busy(self.text.as_bytes())
    }

    /// Whether another attempt may succeed soon: Redis has too many connections.
    pub fn may_pass(&self) -> bool {
        is_too_many(&self.text)
    }

    /// Whether Redis does not let the connection's user in: whoever came as that user has to go.
    pub fn is_login_refused(&self) -> bool {
        self.login_refused
    }
}

/// What all links of a worker have in common.
#[derive(Debug)]
pub struct LinkSettings {
    /// The name of Redis, and the login there.
    pub upstream: UpstreamUrl,
    /// Where it is.
    pub endpoint: Arc<Endpoint>,
    /// How long to wait, and between attempts.
    pub timeouts: Live<Timeouts>,
    /// The name of the connections (CLIENT SETNAME).
    pub name: String,
    /// Bytes that may wait for their replies on one connection; may change at a reload.
    pub pending_limit: Cell<usize>,
    /// What the server takes on one connection.
    pub server_limits: Arc<ServerLimits>,
    /// Which rights Shortstop's own user lacks.
    pub own_rights: OwnRights,
}

/// A handle to the connection; the connection's task holds another.
pub struct Link<E: Expected>(Rc<Inner<E>>);

impl<E: Expected> Clone for Link<E> {
    fn clone(&self) -> Self {
        Link(Rc::clone(&self.0))
    }
}

/// What a connection is made for.
#[derive(Clone, Debug)]
pub struct Place {
    /// Who it is; none: nobody, as every connection begins.
    pub login: Option<Rc<Login>>,
    /// The database that it is in.
    pub db: u32,
    /// What it speaks.
    pub version: Version,
}

struct Inner<E: Expected> {
    settings: Rc<LinkSettings>,
    login: Option<Rc<Login>>,
    db: Cell<u32>,
    version: Cell<Version>,
    /// Its number in Redis (CLIENT ID); 0: not known.
    id: Cell<u64>,
    /// The endpoint's epoch when the connection that stands, or the last one, was made.
    epoch: Cell<u64>,
    shared: bool,
    /// It is used for logins alone, and carries nobody's data.
    for_logins: Cell<bool>,
    /// The connection has no login, and this is when Redis said that one is needed.
    locked: Cell<Option<Instant>>,
    /// A reply other than an error has come since it was made.
    served: Cell<bool>,
    /// Since when it stands.
    stands_since: Cell<Option<Instant>>,
    /// When the last reply came, if the connection has been used.
    last_reply: Cell<Option<Instant>>,
    /// Redis has answered with a protocol error, after which it closes the connection.
    is_broken: Cell<bool>,
    /// Replies that are due up to that of the last script; 0: no script runs, or is to run.
    script_due: Cell<usize>,
    /// When that script was sent.
    script_sent: Cell<Option<Instant>>,
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
    /// Told whenever the status changes.
    changed: Rc<Notify>,
    queue: Queue<E>,
    /// The connection's task.
    waker: Option<Waker>,
    tap: Option<Rc<dyn Tap>>,
    /// Ends when nothing waits any more.
    retired: bool,
    /// The connection is to be dropped unread: it led to another server.
    dropped: bool,
    /// What a raw connection is to do when all is sent; of no other does it say anything.
    finish: Finish,
    /// As many bytes wait for replies as may. More is sent when replies come.
    is_held: bool,
}

/// The end of what is sent on a raw connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Finish {
    /// More may come.
    No,
    /// Nothing more comes, and Redis is to know when it has all.
    Wanted,
    /// Redis knows.
    Done,
}

impl<E> State<E> {
    fn is_raw(&self) -> bool {
        self.tap.as_ref().is_some_and(|tap| tap.is_raw())
    }
}

impl<E> State<E> {
    fn set_status(&mut self, status: Status) {
        self.status = status;
        self.changed.notify_waiters();
    }

    /// Whether the connection has ended for good: now, if nothing waits any more on one that is retired.
    fn has_ended(&mut self) -> bool {
        if self.retired && self.queue.is_idle() {
            self.set_status(Status::Closed);
            self.tap = None;
        }
        matches!(self.status, Status::Closed)
    }
}

impl<E: Expected> Link<E> {
    /// A connection, which connects at once and must be driven by [`Link::drive`].
    pub fn new(settings: Rc<LinkSettings>, place: Place, shared: bool) -> Self {
        let state = State {
            status: Status::Connecting,
            changed: Rc::default(),
            queue: Queue::default(),
            waker: None,
            tap: None,
            retired: false,
            dropped: false,
            finish: Finish::No,
            is_held: false,
        };
        Link(Rc::new(Inner {
            settings,
            login: place.login,
            db: Cell::new(place.db),
            version: Cell::new(place.version),
            id: Cell::new(0),
            epoch: Cell::new(0),
            shared,
            for_logins: Cell::default(),
            locked: Cell::default(),
            served: Cell::default(),
            stands_since: Cell::default(),
            last_reply: Cell::default(),
            script_due: Cell::default(),
            script_sent: Cell::default(),
            is_broken: Cell::default(),
            state: RefCell::new(state),
        }))
    }

    /// The database that the connection is in.
    pub fn db(&self) -> u32 {
        self.0.db.get()
    }

    /// A SELECT on it succeeded.
    pub fn set_db(&self, db: u32) {
        self.0.db.set(db);
    }

    /// What it speaks.
    pub fn version(&self) -> Version {
        self.0.version.get()
    }

    /// A HELLO on it succeeded.
    pub fn set_version(&self, version: Version) {
        self.0.version.set(version);
    }

    /// Its number in Redis (CLIENT ID), once it stands.
    pub fn id(&self) -> Option<u64> {
        Some(self.0.id.get()).filter(|id| *id > 0)
    }

    /// Whether both are handles to one connection.
    pub fn is(&self, other: &Link<E>) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Whether nothing waits for a reply.
    pub fn is_idle(&self) -> bool {
        self.0.state.borrow().queue.is_idle()
    }

    /// Whether it has ended for good.
    pub fn is_closed(&self) -> bool {
        matches!(self.0.state.borrow().status, Status::Closed)
    }

    /// The connection is used for logins alone.
    pub fn use_for_logins(&self) {
        self.0.for_logins.set(true);
    }

    /// Whether it is being made: its handshake has not ended.
    pub fn is_connecting(&self) -> bool {
        matches!(self.0.state.borrow().status, Status::Connecting)
    }

    /// Whether it stands, and has since before that time.
    pub fn stands_since(&self, then: Instant) -> bool {
        self.0.stands_since.get().is_some_and(|since| since < then)
    }

    /// Waits until it stands, or does not.
    ///
    /// # Cancel safety
    /// Dropped, it has done nothing.
    pub async fn settled(&self) {
        let changed = Rc::clone(&self.0.state.borrow().changed);
        loop {
            // Created before the look, so that no change is missed.
            let next = changed.notified();
            if !self.is_connecting() {
                return;
            }
            next.await;
        }
    }

    /// How long ago Redis said that this connection, which has no login, needs one; none: it did not, or there is no connection.
    #[inline]
    pub fn locked_for(&self) -> Option<Duration> {
        self.0.locked.get().map(|since| since.elapsed())
    }

    /// Whether the connection stands, and Redis lets it do something.
    #[inline]
    pub fn is_let_in(&self) -> bool {
        let state = self.0.state.borrow();
        matches!(state.status, Status::Up) && !state.retired && self.0.locked.get().is_none()
    }

    /// Whether a request may be sent now.
    ///
    /// # Errors
    /// Redis is away, or too much waits already.
    #[inline]
    pub fn check(&self) -> Result<(), Lost> {
        let state = self.0.state.borrow();
        match &state.status {
            Status::Connecting | Status::Up if state.queue.pending() <= self.0.settings.pending_limit.get() => Ok(()),
            Status::Connecting | Status::Up => Err(Lost::new(format_args!(
                "{} bytes wait for Redis on one connection (limits.upstream_pending); try again later",
                state.queue.pending()
            ))),
            Status::Down(lost) => Err(lost.clone()),
            Status::Closed => Err(Lost::new("the connection to Redis has ended")),
        }
    }

    /// Appends what `write` writes; `expected` gets the replies. Only right after [`Link::check`].
    #[inline]
    pub fn send(&self, expected: E, write: impl FnOnce(&mut Chunks)) {
        let mut state = self.0.state.borrow_mut();
        // What may be sent again is kept; a private connection ends with its bytes.
        let keep = self.0.shared && expected.may_repeat();
        state.queue.push(expected, keep, write);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// What was just sent is a script, which may run for long.
    pub fn sent_script(&self, now: Instant) {
        self.0.script_due.set(self.0.state.borrow().queue.len());
        self.0.script_sent.set(Some(now));
    }

    /// Whether a script seems to hold up what is sent behind it: Redis reads nothing from a connection while it runs a script of it.
    #[inline]
    pub fn is_held_up(&self, now: Instant) -> bool {
        self.0.script_due.get() > 0
            && self.0.script_sent.get().max(self.0.last_reply.get()).is_some_and(|since| now > since + HELD_UP)
    }

    /// Sends bytes that get no reply of their own (a session in a stream).
    pub fn send_unanswered(&self, bytes: &[u8]) {
        let mut state = self.0.state.borrow_mut();
        state.queue.push_unanswered(bytes);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// Bytes that have not been sent.
    pub fn unsent(&self) -> usize {
        self.0.state.borrow().queue.unsent_len()
    }

    /// Lets `tap` see each frame first.
    pub fn set_tap(&self, tap: Option<Rc<dyn Tap>>) {
        self.0.state.borrow_mut().tap = tap;
    }

    /// Ends the connection when all that waits has been answered. Until then the tap takes what is nobody's reply. A raw one
    /// ends when Redis ends it, which is told that nothing more comes.
    pub fn retire(&self) {
        self.0.state.borrow_mut().retired = true;
        self.finish();
    }

    /// Nothing more is sent on a raw connection. Redis may go on.
    pub fn finish(&self) {
        {
            let mut state = self.0.state.borrow_mut();
            if state.finish == Finish::No {
                state.finish = Finish::Wanted;
            }
        }
        self.wake();
    }

    /// Has the connection's task look whether there is anything to do.
    pub fn wake(&self) {
        if let Some(waker) = self.0.state.borrow_mut().waker.take() {
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
        state.set_status(Status::Closed);
        state.tap = None;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        state.queue.take().map(|(expected, _)| expected).collect()
    }

    /// Gives the connection up if it leads to a server of an older epoch than this: nothing more is sent or read there. What
    /// waits is lost or goes on over the next connection, as when one breaks.
    pub fn leave(&self, context: &E::Context, epoch: u64, why: &Lost) {
        let inner = &*self.0;
        {
            let mut state = inner.state.borrow_mut();
            if !matches!(state.status, Status::Up) || inner.epoch.get() >= epoch {
                return;
            }
            state.dropped = true;
        }
        inner.end_connection(context, why);
        self.wake();
    }

    /// The connection's task: returns when it has ended for good.
    pub async fn drive(self, context: Rc<E::Context>) {
        let inner = &*self.0;
        let endpoint = &inner.settings.endpoint;
        let mut backoff = inner.settings.timeouts.get().backoff_min;
        let (mut was_up, mut was_left) = (false, false);
        let until = Instant::now() + inner.settings.timeouts.get().connect;
        let mut closed = None;
        loop {
            let connected = tokio::select! {
                connected = inner.connect() => connected,
                () = inner.given_up() => return,
            };
            match connected {
                // Nothing else runs between the end of the wait and here.
                Ok((_, epoch)) if epoch != endpoint.epoch() => {}
                Ok((stream, epoch)) => {
                    inner.epoch.set(epoch);
                    if was_up {
                        if !was_left {
                            crate::seldom!(info, "Redis is back", shared = inner.shared);
                        }
                        E::reconnected(&context, inner.served.replace(false) && !inner.for_logins.get());
                        if let (Some(login), Some(closed)) = (&inner.login, closed.take()) {
                            E::let_in_again(&context, login, closed);
                        }
                    }
                    (was_up, was_left) = (true, false);
                    if !inner.up(&context) {
                        return;
                    }
                    let since = Instant::now();
                    let Some(why) = inner.exchange(stream, &context).await else {
                        if self.is_closed() {
                            return;
                        }
                        was_left = true;
                        backoff = inner.settings.timeouts.get().backoff_min;
                        continue;
                    };
                    closed = inner.was_closed(&why).then(Instant::now);
                    if !inner.broken(&context, &why) {
                        return;
                    }
                    if since.elapsed() > inner.settings.timeouts.get().backoff_max {
                        backoff = inner.settings.timeouts.get().backoff_min;
                    } else {
                        // A connection that does not last is not made again as fast as can be.
                        inner.pause(backoff, epoch).await;
                        backoff = (backoff * 2).min(inner.settings.timeouts.get().backoff_max);
                    }
                }
                Err(not_taken) if !inner.shared && not_taken.may_pass() && Instant::now() < until => {
                    // Others have all the connections that there may be: one may end in time.
                    tokio::select! {
                        () = tokio::time::sleep(backoff.min(until.saturating_duration_since(Instant::now()))) => {}
                        () = inner.given_up() => return,
                    }
                    backoff = (backoff * 2).min(inner.settings.timeouts.get().backoff_max);
                }
                Err(not_taken) => {
                    // Asked for before the clients hear of it, so that the next attempt finds another server.
                    endpoint.report(Suspicion::Connection);
                    let epoch = endpoint.epoch();
                    let lost = match not_taken {
                        NotTaken::Io(error) => {
                            let address = inner.settings.upstream.address();
                            Lost::new(format_args!("Redis at {address} cannot be reached: {error}"))
                        }
                        NotTaken::Away(why) => {
                            let address = inner.settings.upstream.address();
                            Lost::new(format_args!("Redis at {address} cannot be reached: {why}"))
                        }
                        NotTaken::Said { text, login } => Lost::said(&text, login),
                    };
                    if let (Some(login), true) = (&inner.login, lost.is_login_refused()) {
                        E::login_refused(&context, login);
                    }
                    if !inner.down(&context, lost) {
                        return;
                    }
                    inner.pause(backoff, epoch).await;
                    backoff = (backoff * 2).min(inner.settings.timeouts.get().backoff_max);
                }
            }
        }
    }
}

fn silent(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}

impl<E: Expected> Inner<E> {
    /// A connection to the server of the current epoch, and that epoch.
    async fn connect(&self) -> Result<(TcpStream, u64), NotTaken> {
        let endpoint = &self.settings.endpoint;
        loop {
            let (epoch, server) = endpoint.target().await.map_err(NotTaken::Away)?;
            let dialed = tokio::select! {
                dialed = self.dial(&server) => dialed?,
                () = endpoint.passed(epoch) => continue,
            };
            if let Some(stream) = dialed {
                return Ok((stream, epoch));
            }
            // The address leads to another server now. The control plane moves all connections there, or finds a better one.
            endpoint.report(Suspicion::Connection);
            let limit = self.settings.timeouts.get().connect;
            if tokio::time::timeout(limit, endpoint.passed(epoch)).await.is_err() {
                let text = "another server than before answers there";
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text).into());
            }
        }
    }

    /// Waits before the next attempt, no longer than the epoch lasts.
    async fn pause(&self, backoff: Duration, epoch: u64) {
        let passed = self.settings.endpoint.passed(epoch);
        // Whichever comes first.
        let _ = tokio::time::timeout(backoff, passed).await;
    }

    /// A connection to this server; none: it is another that answers.
    async fn dial(&self, server: &Server) -> Result<Option<TcpStream>, NotTaken> {
        let limit = self.settings.timeouts.get().connect;
        let connecting = TcpStream::connect(server.address);
        let mut stream = tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(silent(limit)))?;
        stream.set_nodelay(true)?;
        // A peer that is gone without a word is noticed within two minutes.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keep-alive does not run while bytes wait to be acknowledged.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        let greeted = tokio::time::timeout(GREETING, self.handshake(&mut stream, server)).await;
        let is_server = greeted.unwrap_or_else(|_| Err(silent(GREETING).into()))?;
        Ok(is_server.then_some(stream))
    }

    /// Waits until nobody wants the connection any more that is being made.
    async fn given_up(&self) {
        poll_fn(|task| {
            self.wake_with(task);
            if self.state.borrow_mut().has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Whether this server answers. True also when the server does not tell.
    async fn handshake(&self, stream: &mut TcpStream, server: &Server) -> Result<bool, NotTaken> {
        let purpose = match (self.for_logins.get(), self.shared) {
            (true, true) => Purpose::Logins,
            (false, true) => Purpose::Lane,
            (_, false) => Purpose::Private,
        };
        let handshake = Handshake {
            upstream: &self.settings.upstream,
            name: &self.settings.name,
            rights: &self.settings.own_rights,
            login: self.login.as_deref(),
            db: self.db.get(),
            version: self.version.get(),
            purpose,
            server,
        };
        self.locked.set(None);
        let greeted = handshake.shake_hands(stream).await?;
        if greeted.is_another_server {
            return Ok(false);
        }
        if greeted.locked && !self.shared && !(self.for_logins.get() && self.db.get() == 0) {
            // A private connection without the needed login is of no use, except to try a login on it in database 0.
            return Err(NotTaken::Said { text: NOAUTH.to_owned(), login: false });
        }
        self.id.set(greeted.id);
        self.locked.set(greeted.locked.then(Instant::now));
        Ok(true)
    }

    /// The connection stands. `false`: nobody wants it any more.
    fn up(&self, context: &E::Context) -> bool {
        let refused: Vec<E> = {
            let mut state = self.state.borrow_mut();
            if state.has_ended() {
                return false;
            }
            state.set_status(Status::Up);
            self.stands_since.set(Some(Instant::now()));
            self.last_reply.set(None);
            self.is_broken.set(false);
            if self.locked.get().is_some() && self.shared && !self.for_logins.get() {
                // These requests were sent while Redis needed no login. On this connection Redis might close it for them.
                state.queue.take().map(|(expected, _)| expected).collect()
            } else {
                Vec::new()
            }
        };
        if !refused.is_empty() {
            self.answer(
                context,
                refused.into_iter().map(|expected| (expected, false)).collect(),
                &Lost::said(NOAUTH, false),
            );
        }
        true
    }

    /// Whether the connection is a lane, and Redis has closed it for no reason that is known of the connection itself.
    fn was_closed(&self, why: &str) -> bool {
        let used = self.last_reply.get().or(self.stands_since.get());
        let idle = used.is_none_or(|used| used.elapsed() > IDLE);
        self.shared && why == CLOSED && !self.is_broken.get() && !idle
    }

    /// The connection broke. `false`: there is no next one.
    fn broken(&self, context: &E::Context, why: &str) -> bool {
        let address = self.settings.upstream.address();
        let lost = Lost::new(format_args!("the connection to Redis at {address} was lost: {why}"));
        let (raw, unanswered) = {
            self.stands_since.set(None);
            let state = self.state.borrow();
            if matches!(state.status, Status::Closed) {
                return false;
            }
            (state.is_raw(), state.queue.len())
        };
        if raw {
            // That is how Redis says that it has come to the end.
            crate::seldom!(debug, "a connection to Redis has come to its end", why);
        } else {
            crate::seldom!(warn, "a connection to Redis was lost", shared = self.shared, unanswered, address, why);
            self.settings.endpoint.report(Suspicion::Connection);
        }
        self.end_connection(context, &lost);
        self.shared
    }

    /// There is no connection any more. What certainly did not run, and what only reads, waits for the next one.
    fn end_connection(&self, context: &E::Context, lost: &Lost) {
        let gone = {
            let mut state = self.state.borrow_mut();
            let mut gone: Vec<(E, bool)> = if self.shared {
                state.set_status(Status::Connecting);
                state.queue.begin_again(E::may_repeat, E::askers)
            } else {
                state.set_status(Status::Closed);
                state.queue.take().collect()
            };
            if self.locked.get().is_some() {
                // Redis executes nothing there.
                gone.iter_mut().for_each(|(_, ran)| *ran = false);
            }
            gone
        };
        self.answer(context, gone, lost);
    }

    /// An attempt failed: what waits is answered, what comes is refused. `false`: there will be no other attempt.
    fn down(&self, context: &E::Context, lost: Lost) -> bool {
        let gone: Vec<(E, bool)> = {
            let mut state = self.state.borrow_mut();
            if matches!(state.status, Status::Closed) {
                return false;
            }
            if !matches!(state.status, Status::Down(_)) {
                crate::seldom!(warn, "there is no connection to Redis", why = lost.text());
            }
            let goes_on = self.shared && !state.retired;
            state.set_status(if goes_on { Status::Down(lost.clone()) } else { Status::Closed });
            // It was never sent, or is what was left over when the last connection broke.
            state.queue.take().map(|(expected, _)| (expected, false)).collect()
        };
        self.answer(context, gone, &lost);
        !matches!(self.state.borrow().status, Status::Closed)
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

    /// Writes what there is to write and reads what there is to read, until the connection ends. Returns why; none: it was given
    /// up ([`Link::leave`]).
    async fn exchange(&self, mut stream: TcpStream, context: &E::Context) -> Option<String> {
        let mut inbox = BytesMut::new();
        let mut scanner = None;
        poll_fn(|task| {
            self.wake_with(task);
            if std::mem::take(&mut self.state.borrow_mut().dropped) {
                return Poll::Ready(None);
            }
            let written = self.write(&stream, task);
            let read = self.read(&mut stream, context, &mut inbox, &mut scanner, task);
            if let (Poll::Ready(why), Poll::Pending) = (written, &read) {
                // Only after reading: Redis may have sent replies, and an error with the reason, before it closed the connection.
                return Poll::Ready(Some(why));
            }
            let mut state = self.state.borrow_mut();
            if state.is_held && self.may_send(&state.queue) > 0 {
                task.waker().wake_by_ref();
            }
            if state.has_ended() {
                return Poll::Ready(Some(String::new()));
            }
            read.map(Some)
        })
        .await
    }

    /// Who sends wakes this task: also while it delivers, when what is sent comes too late for this turn.
    fn wake_with(&self, task: &Context<'_>) {
        let mut state = self.state.borrow_mut();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(task.waker())) {
            state.waker = Some(task.waker().clone());
        }
    }

    fn write(&self, stream: &TcpStream, task: &mut Context<'_>) -> Poll<String> {
        let mut state = self.state.borrow_mut();
        let mut some = false;
        state.is_held = false;
        loop {
            let mut slices = [IoSlice::new(&[]); 16];
            let used = state.queue.unsent(&mut slices);
            if used == 0 {
                break;
            }
            let most = match self.locked.get() {
                // One at a time: newer servers close a connection without a login when much is due on it.
                Some(_) => slices[0].len().min(state.queue.alone()),
                None => self.may_send(&state.queue),
            };
            let fits = |bytes: &mut usize, slice: &IoSlice<'_>| {
                *bytes = bytes.checked_sub(slice.len())?;
                Some(())
            };
            let whole = slices[..used].iter().scan(most, fits).count();
            let written = match whole {
                0 if most == 0 => {
                    state.is_held = self.locked.get().is_none();
                    break;
                }
                0 => stream.try_write(&slices[0][..most]),
                whole => stream.try_write_vectored(&slices[..whole]),
            };
            match written {
                Ok(count) => {
                    some = true;
                    state.queue.count_sent(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_write_ready(task) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => return Poll::Ready(error.to_string()),
                    Poll::Pending => break,
                },
                Err(error) => return Poll::Ready(error.to_string()),
            }
        }
        if state.is_raw() && state.queue.unsent_len() == 0 {
            if state.finish == Finish::Wanted {
                state.finish = Finish::Done;
                // Should it fail, the connection is broken, and the next read says so.
                let _ = SockRef::from(stream).shutdown(Shutdown::Write);
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
    fn may_send(&self, queue: &Queue<E>) -> usize {
        if self.shared { queue.may_send(self.settings.server_limits.shared()) } else { usize::MAX }
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
            if self.state.borrow().tap.as_ref().is_some_and(|tap| tap.is_raw() && tap.is_full()) {
                return Poll::Pending;
            }
            let need = scanner.as_ref().map_or(0, ReplyScanner::need).saturating_sub(inbox.len());
            // What is passed on in parts needs no room for the whole.
            let in_parts =
                need > PART && self.state.borrow().queue.front().is_some_and(|front| front.takes_parts(inbox));
            let need = if in_parts { PART } else { need };
            inbox.reserve(need.max(if self.shared { SHARED_INBOX } else { PRIVATE_INBOX }));
            match poll_read_buf(Pin::new(&mut *stream), task, inbox) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(0)) => return Poll::Ready(CLOSED.to_owned()),
                Poll::Ready(Ok(_)) => {
                    let sound = self.deliver(context, inbox, scanner);
                    E::settled(context);
                    if self.locked.get().is_some() {
                        // The next request may be sent now.
                        task.waker().wake_by_ref();
                    }
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
        self.last_reply.set(Some(now));
        let mut at = 0;
        let sound = loop {
            if at == inbox.len() {
                break Ok(());
            }
            let (replies, takes_push, tap) = {
                let state = self.state.borrow();
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
            let fresh = scanner.is_none();
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
            let this = scanner.get_or_insert_with(|| ReplyScanner::of(replies));
            let length = match this.scan(&inbox[at..]) {
                Ok(Some(length)) => length,
                Ok(None) => {
                    inbox.advance(std::mem::take(&mut at));
                    if this.seen() >= PART {
                        self.deliver_part(context, inbox, this);
                    }
                    break Ok(());
                }
                Err(error) => break Err(error.to_string()),
            };
            *scanner = None;
            let expected = {
                let mut state = self.state.borrow_mut();
                if !state.queue.is_front_sent() {
                    // It stays where it is: whoever ends the connection answers it. Sent again, it would be refused again.
                    state.queue.send_front_no_more();
                    let words =
                        inbox[at..].strip_prefix(b"-").and_then(|text| text.split(|byte| *byte == b'\r').next());
                    let words = words.map(|text| format!(": {}", String::from_utf8_lossy(text))).unwrap_or_default();
                    break Err(format!("it answered a request that was not sent whole{words}"));
                }
                state.queue.pop()
            };
            let Some(expected) = expected else { break Ok(()) };
            self.script_due.set(self.script_due.get().saturating_sub(1));
            match inbox[at] {
                b'-' if inbox[at..].starts_with(b"-ERR Protocol error") => self.is_broken.set(true),
                b'-' => {}
                _ if self.served.get() => {}
                _ => self.served.set(true),
            }
            let more = if length >= LARGE {
                inbox.advance(at);
                at = 0;
                let reply = inbox.split_to(length).freeze();
                expected.deliver(context, Reply::Owned(reply), now)
            } else {
                let reply = Reply::Borrowed(&inbox[at..at + length]);
                at += length;
                expected.deliver(context, reply, now)
            };
            if let Some(expected) = more {
                self.state.borrow_mut().queue.put_back(expected);
            }
        };
        inbox.advance(at);
        sound
    }
}

impl<E: Expected> Inner<E> {
    /// Hands over what has come of a large reply, if it is wanted before the rest.
    fn deliver_part(&self, context: &E::Context, inbox: &mut BytesMut, scanner: &mut ReplyScanner) {
        let front = {
            let mut state = self.state.borrow_mut();
            let wanted = state.queue.front().is_some_and(|front| front.takes_parts(inbox));
            if !(wanted && state.queue.is_front_sent()) {
                return;
            }
            state.queue.pop()
        };
        let Some(expected) = front else { return };
        let part = inbox.split_to(scanner.seen()).freeze();
        scanner.passed_on(part.len());
        let expected = expected.deliver_part(context, part);
        self.state.borrow_mut().queue.put_back(expected);
    }
}
