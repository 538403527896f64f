//! What waits on an upstream connection for a reply: whose it is, and what is to be done with it. Data alone: `proxy` makes it, and
//! `replies` does it.
//!
//! These types stand in one file because a connection holds what waits on it, and what waits may hold a connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::client_state::connection_state::{Kind, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::{client, identity, profile, session, waiter};
use crate::coherence::{ServePermit, Ticket};
use crate::exchange::client_command::ClientCommand;
use crate::exchange::greeting::Greeting;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::transaction::Queued;
use crate::exchange::values::Values;
use crate::exchange::write_guard::WriteGuard;
use crate::near_cache::{Asked, EntryId, KeyId};
use crate::reads::Absent;
use crate::resp::Version;
use crate::rules::CacheRule;
use crate::upstream::{self, Lost};

/// A connection to Redis.
pub type Link = upstream::Link<Pending>;

/// A client's private connection.
pub type Session = session::Session<Pending>;

/// All that is known of a client.
pub type ClientState = client::ClientState<Pending>;

/// Who a client is to Redis.
pub type Identity = identity::Identity<Pending>;

/// What a client's connection would be to Redis.
pub type Profile = profile::Profile<Pending>;

/// A connection on which a client waits for replicas.
pub type Waiter = waiter::Waiter<Pending>;

/// A request that was sent, and whose reply is due.
pub struct Pending {
    /// Who gets the reply; none: a request of Shortstop's own.
    pub(crate) to: Option<(Rc<ReplyQueue>, Slot)>,
    /// When it was sent.
    pub(crate) sent: Instant,
    pub(crate) on_reply: OnReply,
}

/// What is to be done with the reply.
pub enum OnReply {
    /// Pass it on as it is. `repeat`: the request may be sent again when the connection broke.
    Pass { repeat: bool },
    /// As `Pass`, after a part of the reply has been passed on.
    Rest,
    /// GET whose reply is not kept. No id: L1 keeps nothing at all.
    Value { id: Option<EntryId> },
    /// Another read whose reply L1 could keep, and does not keep this time.
    Read { id: EntryId },
    /// GET or another read, and PTTL, to be kept.
    Fill(Rc<Flight>),
    /// MGET, and PTTL for each key that may be kept.
    Values(Box<Values>),
    /// A read that tells something of what these keys hold, in a way that cannot be compared with what L1 has of them.
    Content { keys: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// A write.
    Write { guard: WriteGuard, shape: ReplyShape },
    /// SORT … GET: values of other keys among the elements. What it writes, or else what it tells of, as [`OnReply::Content`] does.
    Elements { guard: Option<Box<WriteGuard>>, observed: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// SELECT, and SELECT back.
    Select { client: Rc<ClientState>, db: u32 },
    /// The first SELECT of an identity, on a connection of its own.
    FirstSelect(Box<FirstSelect>),
    /// HELLO or AUTH, and with `back` HELLO back. None: Redis will refuse it.
    Greet { client: Rc<ClientState>, greeting: Option<Box<Greeting>>, back: bool },
    /// PROXY FLUSH: Redis says whether the client may configure it. If so, L1 is flushed.
    Flush,
    /// CLIENT PAUSE for so long; none: CLIENT UNPAUSE.
    Paused(Option<Duration>),
    /// INFO, with the sections that are added.
    Info { added: String },
    /// Hand so many replies, in one piece, to a task of Shortstop's own. `repeat` as in `Pass`.
    Ask { replies: usize, repeat: bool, answer: oneshot::Sender<Result<Vec<u8>, Lost>> },
    /// A command of the CLIENT family. Redis was asked whether it has anything against it; now Shortstop does it.
    ClientCommand(Box<AskedClientCommand>),
    /// SHUTDOWN. When Redis ends, the client's connection ends without an answer, as it would at Redis.
    ShutDown { reply_queue: Rc<ReplyQueue>, slot: Slot },
    /// Shortstop's own RESET, for a client that leaves its session. When it is answered, the client gets `answer`.
    Unsubscribed { reply_queue: Rc<ReplyQueue>, slot: Slot, answer: &'static [u8] },
    /// A command in a transaction: Redis says that it is queued, or why not.
    Queued(Rc<Session>),
    /// The first command that needs a connection of its own, or one that leaves something on it.
    Session { session: Rc<Session>, on_reply: Box<InSession> },
}

impl OnReply {
    /// In a box: it is rare and large, and would make every pending request large.
    pub(crate) fn session(session: &Rc<Session>, on_reply: InSession) -> OnReply {
        OnReply::Session { session: Rc::clone(session), on_reply: Box::new(on_reply) }
    }
}

/// What a reply changes of a session.
pub enum InSession {
    /// A command that begins or ends state, or leaves nothing.
    Sent(Sent),
    /// EXEC: what was queued is done, or nothing of it.
    Exec { client: Rc<ClientState>, queued: Queued },
    /// A command that nobody knows: what it may change, and leave on the connection.
    Unknown(WriteGuard),
    /// Shortstop's own command behind an EXEC: the messages of the transaction have come.
    BehindExec,
    /// The client's SELECT of this database.
    Select { client: Rc<ClientState>, db: u32 },
    /// Shortstop's own SELECT of this database, on a connection that was made in advance.
    Move(u32),
    /// HELLO or AUTH.
    Greet { client: Rc<ClientState>, greeting: Greeting },
    /// SCRIPT DEBUG: whether the next script is to be run by the debugger.
    ScriptDebug(bool),
    /// A script that is run by the debugger, unless Redis refuses it: it may change anything, until the connection ends.
    Debugged(WriteGuard),
    /// The debugger talks; there are no replies any more, and Redis ends the connection.
    Raw(WriteGuard),
    /// MONITOR.
    Monitor,
    /// A command of the SUBSCRIBE family: so many acknowledgements are due. `muted`: an error would not be told.
    Acknowledge { kind: Kind, left: usize, muted: bool },
    /// May wait for long. What it changes, and what it tells of, as [`OnReply::Content`] does.
    Blocked { guard: WriteGuard, observed: SmallVec<[KeyId; 1]> },
}

/// The first SELECT of an identity.
pub struct FirstSelect {
    pub(crate) client: Rc<ClientState>,
    pub(crate) slot: Slot,
    pub(crate) identity: Rc<Identity>,
    pub(crate) db: u32,
}

/// A command of the CLIENT family that Redis has been asked about.
pub struct AskedClientCommand {
    pub(crate) client: Rc<ClientState>,
    pub(crate) slot: Slot,
    pub(crate) command: ClientCommand,
    /// It is done also when Redis is away.
    pub(crate) without_redis: bool,
}

/// A login whose turn on the auth link has not come.
pub struct QueuedLogin {
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) pending: Pending,
}

/// A read that may be kept, and the readers that wait for the same answer. Shared by the request that was sent and by the look-up of
/// later readers of the same worker.
///
/// A reader that joins did not send the request, so the answer may be older than the reader's question. The reader gets the answer
/// only where L1 would serve it as a hit, both when the reader joins and when the answer is here. Otherwise the reader's question
/// is sent on its own.
pub struct Flight {
    pub(crate) id: EntryId,
    pub(crate) asked: Asked,
    pub(crate) rule: CacheRule,
    pub(crate) absent: Absent,
    pub(crate) ticket: RefCell<Option<Ticket>>,
    /// When the request was sent, by a clock that was read before.
    pub(crate) sent: Instant,
    /// Where the request was sent.
    pub(crate) link: Link,
    /// What was sent in the place of the request.
    pub(crate) instead: Option<Bytes>,
    pub(crate) readers: RefCell<Vec<Reader>>,
}

/// A client that waits for the answer to a request that another client sent.
pub struct Reader {
    pub(crate) reply_queue: Rc<ReplyQueue>,
    pub(crate) slot: Slot,
    /// The protocol in which the reader asked.
    pub(crate) version: Version,
    /// When the reader asked.
    pub(crate) asked: Instant,
}

impl Flight {
    /// Whether a reader with this permit may wait for the answer, as far as can be told before the answer is here.
    pub(crate) fn may_be_joined(&self, permit: &ServePermit, max_staleness: Duration) -> bool {
        let deadline = self.sent + self.rule.ttl.min(max_staleness);
        self.ticket.borrow().as_ref().is_some_and(|ticket| ticket.may_serve(permit, self.sent, deadline))
    }
}
