//! What waits for a reply on an upstream connection: whose it is, and how to handle it. Data only: `proxy` creates it, and
//! `replies` acts on it.
//!
//! These types stand in one file because they refer to each other: a connection holds its pending requests, and a pending request
//! may hold a connection.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::client_state::connection_state::{Kind, Sent};
use crate::client_state::reply_queue::{ReplyQueue, Slot};
use crate::client_state::{client, identity, profile, session, waiter};
use crate::coherence::{ServePermit, Ticket};
use crate::command::ProxySubcommand;
use crate::exchange::client_command::ClientCommand;
use crate::exchange::greeting::Greeting;
use crate::exchange::observed::Observed;
use crate::exchange::plain::Strings;
use crate::exchange::reply_shape::ReplyShape;
use crate::exchange::script_request::ScriptRequest;
use crate::exchange::transaction::Queued;
use crate::exchange::values::Values;
use crate::exchange::write_guard::WriteGuard;
use crate::metrics::outcome::Family;
use crate::near_cache::{Asked, EntryId, KeyId};
use crate::reads::Absent;
use crate::resp::Version;
use crate::rules::CacheRule;
use crate::strings::Look;
use crate::upstream::{self, Lost};

/// A connection to Redis.
pub type Link = upstream::Link<Pending>;

/// A client's session (private connection).
pub type Session = session::Session<Pending>;

/// The state of one client.
pub type ClientState = client::ClientState<Pending>;

/// A client's identity towards Redis: its user and its connections.
pub type Identity = identity::Identity<Pending>;

/// A client's connection state as Redis would see it.
pub type Profile = profile::Profile<Pending>;

/// A connection on which a client waits for replicas.
pub type Waiter = waiter::Waiter<Pending>;

/// A request that was sent and has no reply yet.
pub struct Pending {
    /// Who gets the reply. `None` for a request of Shortstop's own.
    pub(crate) to: Option<(Rc<ReplyQueue>, Slot)>,
    pub(crate) sent: Instant,
    pub(crate) on_reply: OnReply,
    /// What its latency and the slow log need.
    pub(crate) call: CallMark,
}

/// What the latency, the slow log and the hot keys need of a request.
#[derive(Clone, Copy, Debug, Default)]
pub struct CallMark {
    /// Where `worker_state::calls` keeps the call. 0: nowhere.
    pub(crate) place: u32,
    /// When all of it had been sent to Redis, as `Context::micros` tells. 0 until then.
    pub(crate) written: u32,
    /// Its number among the requests that are counted in the worker's hot keys. 0: it is none of them.
    pub(crate) sample: u16,
    /// `None`: its latency is not measured, or counts as that of a miss.
    pub(crate) family: Option<Family>,
}

/// How to handle the reply.
pub enum OnReply {
    /// Pass it on unchanged. With `repeat`, the request may be sent again if the connection breaks.
    Pass { repeat: bool },
    /// Like `Pass`, once a part of the reply has been passed on.
    Rest,
    /// GET whose reply is not kept. No id: L1 keeps nothing at all.
    Value { id: Option<EntryId>, observed: Option<Box<Observed>> },
    /// Another read that L1 could keep, but whose reply is not kept this time.
    Read { id: EntryId, observed: Option<Box<Observed>> },
    /// GET or another read, followed by PTTL, whose reply is to be kept.
    Fill(Rc<Flight>),
    /// MGET, followed by PTTL for each key that may be kept.
    Values(Box<Values>),
    /// A read that reveals something about these keys, in a form that cannot be compared with the entries of L1.
    Content { keys: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// A command that runs only if the strings that it looks into are plain.
    Guarded(Box<Guarded>),
    /// A write.
    Write { guard: WriteGuard, shape: ReplyShape },
    /// SORT … GET: values of other keys among the elements. It has a guard if it writes, otherwise the keys it reads, as in
    /// [`OnReply::Content`].
    Elements { guard: Option<Box<WriteGuard>>, observed: SmallVec<[KeyId; 1]>, shape: ReplyShape },
    /// SELECT, and the SELECT that restores the lane's database.
    Select { client: Rc<ClientState>, db: u32 },
    /// The first SELECT of an identity, on a connection of its own.
    FirstSelect(Box<FirstSelect>),
    /// HELLO or AUTH. With `back`, followed by the HELLO that restores the lane's protocol. No greeting: Redis will refuse the
    /// command.
    Greet { client: Rc<ClientState>, greeting: Option<Box<Greeting>>, back: bool },
    /// Redis's reply shows whether the client may change its configuration. If so, carry out the subcommand of PROXY.
    Proxy { client: Rc<ClientState>, subcommand: ProxySubcommand, args: Vec<Vec<u8>> },
    /// CLIENT PAUSE for this long. `None` for CLIENT UNPAUSE.
    Paused(Option<Duration>),
    /// INFO, with Shortstop's own sections to add.
    Info { added: String },
    /// Pass this many replies, in one piece, to a task of Shortstop's own. `repeat` as in `Pass`.
    Ask { replies: usize, repeat: bool, answer: oneshot::Sender<Result<Vec<u8>, Lost>> },
    /// A CLIENT command. Redis was asked whether it accepts the command. If so, Shortstop carries it out.
    ClientCommand(Box<AskedClientCommand>),
    /// SHUTDOWN. If Redis shuts down, the client's connection closes without a reply, as with Redis itself.
    ShutDown { reply_queue: Rc<ReplyQueue>, slot: Slot },
    /// Shortstop's own RESET, for a client that leaves its session. The client gets `answer` when Redis has replied.
    Unsubscribed { reply_queue: Rc<ReplyQueue>, slot: Slot, answer: &'static [u8] },
    /// A command in a transaction: Redis answers QUEUED or an error.
    Queued(Rc<Session>),
    /// A command on the client's session.
    Session { session: Rc<Session>, on_reply: Box<InSession> },
}

impl OnReply {
    /// Whether its latency counts as that of a miss.
    #[inline]
    pub(crate) fn is_miss(&self) -> bool {
        matches!(self, OnReply::Value { .. } | OnReply::Read { .. } | OnReply::Fill(_) | OnReply::Values(_))
    }

    /// Boxed: it is rare and large, and would otherwise make every pending request large.
    pub(crate) fn session(session: &Rc<Session>, on_reply: InSession) -> OnReply {
        OnReply::Session { session: Rc::clone(session), on_reply: Box::new(on_reply) }
    }
}

/// A command in a script that checks first that strings are plain.
pub struct Guarded {
    pub(crate) request: ScriptRequest,
    /// Who sent it, and where.
    pub(crate) identity: Rc<Identity>,
    pub(crate) link: Link,
    /// The strings that must be plain, and their database.
    pub(crate) strings: (u32, Strings),
    /// What the command asks of its string, if Shortstop may fetch the value and answer from it.
    pub(crate) look: Option<Look>,
    /// How the command's own reply is handled.
    pub(crate) then: OnReply,
    /// How often it was sent.
    pub(crate) sent: u32,
}

/// How a reply on a session is handled.
pub enum InSession {
    /// A command that begins or ends state, or changes none.
    Sent(Sent),
    /// EXEC: the transaction was executed as a whole, or not at all.
    Exec { client: Rc<ClientState>, queued: Box<Queued> },
    /// A command that Shortstop does not know. It may have changed any key and the connection's state.
    Unknown(WriteGuard),
    /// Shortstop's own command behind an EXEC. Its reply shows that the messages of the transaction have come.
    BehindExec,
    /// The client's SELECT of this database.
    Select { client: Rc<ClientState>, db: u32 },
    /// Shortstop's own SELECT of this database, on a connection that was made in advance.
    Move(u32),
    /// HELLO or AUTH.
    Greet { client: Rc<ClientState>, greeting: Greeting },
    /// SCRIPT DEBUG: whether the debugger runs the next script.
    ScriptDebug(bool),
    /// A script that the debugger runs, unless Redis refuses it. It may change any key until the connection closes.
    Debugged(WriteGuard),
    /// The debugger has started. There are no replies any more, and Redis closes the connection.
    Raw(WriteGuard),
    /// MONITOR.
    Monitor,
    /// A command of the SUBSCRIBE family with this many acknowledgements due. With `muted`, the client receives no error.
    Acknowledge { kind: Kind, left: usize, muted: bool },
    /// A command that may block: what it changes, and the keys it reads, as in [`OnReply::Content`].
    Blocked { guard: WriteGuard, observed: SmallVec<[KeyId; 1]> },
}

/// The first SELECT of an identity.
pub struct FirstSelect {
    pub(crate) client: Rc<ClientState>,
    pub(crate) slot: Slot,
    pub(crate) identity: Rc<Identity>,
    pub(crate) db: u32,
}

/// A CLIENT command that waits for Redis's verdict.
pub struct AskedClientCommand {
    pub(crate) client: Rc<ClientState>,
    pub(crate) slot: Slot,
    pub(crate) command: ClientCommand,
    /// The command is carried out even if Redis is away.
    pub(crate) without_redis: bool,
}

/// A login that waits for the auth link.
pub struct QueuedLogin {
    pub(crate) words: Vec<Vec<u8>>,
    pub(crate) pending: Pending,
}

/// A read that may be kept, with the readers that wait for its reply. Shared by the pending request and by the lookup of later
/// readers on the same worker.
///
/// A reader that joins did not send the request, so the reply may be older than the reader's question. The reader gets the reply
/// only if L1 could serve it as a hit, both when the reader joins and when the reply arrives. Otherwise the reader's question is
/// sent separately.
pub struct Flight {
    pub(crate) id: EntryId,
    pub(crate) asked: Asked,
    pub(crate) rule: CacheRule,
    pub(crate) absent: Absent,
    pub(crate) ticket: RefCell<Option<Ticket>>,
    /// A time read before the request was sent.
    pub(crate) sent: Instant,
    /// The connection on which the request was sent.
    pub(crate) link: Link,
    /// GET was sent in the place of the request: what the request asks of the value.
    pub(crate) look: Option<Box<Look>>,
    pub(crate) readers: RefCell<Vec<Reader>>,
}

/// A client that waits for the reply to another client's request.
pub struct Reader {
    pub(crate) reply_queue: Rc<ReplyQueue>,
    pub(crate) slot: Slot,
    /// The protocol version in which the reader asked.
    pub(crate) version: Version,
    /// When the reader asked.
    pub(crate) asked: Instant,
}

impl Flight {
    /// Whether a reader with this permit may wait for the reply, as far as is known before the reply arrives.
    pub(crate) fn may_be_joined(&self, permit: &ServePermit, max_staleness: Duration) -> bool {
        let deadline = self.sent + self.rule.ttl.min(max_staleness);
        self.ticket.borrow().as_ref().is_some_and(|ticket| ticket.may_serve(permit, self.sent, deadline))
    }
}
