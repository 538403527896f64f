//! What one worker owns, and what all workers share.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::bus::{Event, Outbox, Updates};
use crate::client_state::buffers::{AllBuffers, Buffers, Held};
use crate::client_state::reply_queue::MOST_OUTSTANDING;
use crate::client_state::users::Users;
use crate::coherence::Coherence;
use crate::config::{self, UpstreamUrl};
use crate::errors::OwnError;
use crate::exchange::pending::{ClientState, Flight, Identity, Link, Profile, QueuedLogin};
use crate::metrics::outcome::{EventKind, FlushReason, NotKept};
use crate::metrics::rules::RulePlace;
use crate::metrics::slots::{Stats, Worker};
use crate::near_cache::{Admission, EntryId, HotSet, KeyId};
use crate::scripts::Scripts;
use crate::traffic::{Accesses, BigKeys, HotKeys, Trials, Unkept, UnkeptReads, What};
use crate::upstream::{Endpoint, LinkSettings, Login, Lost, ServerLimits};
use crate::worker_state::calls::Calls;
use crate::worker_state::key_turns::KeyTurns;
use crate::worker_state::large_strings::LargeStrings;
use crate::worker_state::mailboxes;
use crate::worker_state::offload_memory::Offload;
use crate::worker_state::plain_keys::PlainKeys;
use crate::worker_state::policy::{Policy, View};
use crate::worker_state::turns::Turns;
use crate::worker_state::windows::Windows;

/// A task for another worker.
pub type WorkerTask = mailboxes::WorkerTask<Context>;

/// Delivers tasks to one worker.
pub type Mailbox = mailboxes::Mailbox<Context>;

/// The mailboxes of all workers.
pub type Mailboxes = mailboxes::Mailboxes<Context>;

/// After two clients have sent requests in turn, each leaves room on the lanes for the other for this long.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// Maximum number of in-flight requests per client while other clients are active: requests of others queue behind them.
const MOST_WHILE_SHARED: usize = 64;

/// Maximum number of values per worker that are turned to plain at the same time, each on a connection of its own.
const MOST_CONVERSIONS: usize = 4;

/// Maximum number of commands per worker that run at the same time on connections of their own, because their strings must be plain.
const MOST_PLAIN_RUNS: usize = 64;

/// What all workers share.
pub struct Shared {
    /// Decides what may be served from L1.
    pub coherence: Arc<Coherence>,
    /// The metrics.
    pub stats: Arc<Stats>,
    /// Bytes in the buffers of clients.
    pub buffers: Arc<AllBuffers>,
    /// The server to connect to.
    pub endpoint: Arc<Endpoint>,
    /// Publishes events to the fleet. `None` for a single instance.
    pub outbox: Option<Outbox>,
    /// Announces values to services. `None`: there are no such services.
    pub updates: Option<Updates>,
    /// PROXY and INFO.
    pub windows: Arc<dyn Windows>,
    /// The runtime for work that must not hold up a worker.
    pub control: Handle,
    /// The amount of offloaded work.
    pub offload: Arc<Offload>,
    /// The numbers of users in L1.
    pub users: Users,
    /// The ways from one worker to all others.
    pub mailboxes: Arc<Mailboxes>,
    /// What scripts may write.
    pub scripts: Arc<Scripts>,
    /// The turns of commands that watch keys.
    pub key_turns: KeyTurns,
    /// Strings that are not compressed for a while.
    pub plain_keys: Arc<PlainKeys>,
    /// The last client id. They count in the order of arrival, as in Redis, whichever worker serves the client.
    pub client_ids: Arc<AtomicU64>,
    /// The server's limits on requests.
    pub server_limits: Arc<ServerLimits>,
}

/// What one worker owns.
pub struct Context {
    pub(crate) me: Weak<Context>,
    pub shared: Arc<Shared>,
    /// This worker's number.
    pub worker: usize,
    pub(crate) view: RefCell<Rc<View>>,
    pub(crate) links: Rc<LinkSettings>,
    /// The identity of clients that have not authenticated.
    pub(crate) anonymous: RefCell<Rc<Identity>>,
    /// Shortstop's own identity, once it was needed.
    pub(crate) own: RefCell<Option<Rc<Identity>>>,
    /// The identities of authenticated clients.
    pub(crate) identities: RefCell<Vec<Weak<Identity>>>,
    /// The auth links. Each carries one login at a time: AUTH works there whatever user is logged in.
    pub(crate) auth_links: RefCell<Vec<Link>>,
    /// Logins that wait for an auth link. A client has one at most.
    pub(crate) queued_logins: RefCell<VecDeque<QueuedLogin>>,
    /// The worker's clients, by client id.
    pub clients: RefCell<HashMap<u64, Rc<ClientState>>>,
    /// All of the worker's connections to Redis.
    pub(crate) all_links: RefCell<HashMap<u64, Link>>,
    /// Number of connections opened so far.
    pub(crate) links_made: Cell<u64>,
    /// How often acknowledged writes may have been lost: a connection broke after Redis had replied on it, or another server took
    /// the place of the current one.
    pub(crate) losses: Cell<u64>,
    /// Number of private connections in use, and the clients that wait for one.
    pub(crate) turns: Turns,
    pub(crate) hot: RefCell<HotSet>,
    pub(crate) admission: RefCell<Admission>,
    pub(crate) unkept: RefCell<UnkeptReads>,
    /// So many requests are left out before the next one is counted in `hot_keys`.
    pub(crate) left_out: Cell<u32>,
    pub(crate) hot_keys: RefCell<HotKeys>,
    pub(crate) big_keys: RefCell<BigKeys>,
    /// The next request for this key names it in `big_keys`.
    pub(crate) nameless: Cell<Option<KeyId>>,
    /// A sample of the accesses to L1.
    pub(crate) accesses: Accesses,
    /// Values that may be turned to plain at the same time.
    pub(crate) conversions: Semaphore,
    /// Commands that may run at the same time on connections of their own.
    pub(crate) plain_runs: Semaphore,
    /// Strings that are too large to fetch whole.
    pub(crate) large_strings: LargeStrings,
    /// Values that would be compressed.
    pub(crate) trials: RefCell<Trials>,
    pub(crate) flights: RefCell<HashMap<EntryId, Rc<Flight>>>,
    pub(crate) events: RefCell<Vec<Event>>,
    /// Bytes of the values that are announced when their write has a reply.
    pub(crate) announced: Rc<Cell<usize>>,
    /// Writes that have been sent and have no reply yet.
    pub(crate) writes: Cell<usize>,
    /// Spare buffers for replies.
    pub buffers: Rc<Buffers>,
    /// Bytes in the buffers of clients.
    pub held: Held,
    /// The buffer into which bytes from clients are read.
    pub scratch: RefCell<BytesMut>,
    /// The last client whose task panicked, until this was logged.
    pub panicked: Cell<Option<u64>>,
    /// The client that was served last.
    pub(crate) last_asker: Cell<u64>,
    /// Until then clients leave room for each other.
    pub(crate) shared_until: Cell<Option<Instant>>,
    /// Number of connections on which a reply is overdue.
    pub(crate) overdue: Cell<usize>,
    /// The last calls that were sent to Redis.
    pub(crate) calls: RefCell<Calls>,
    /// Requests that take this long are logged. `None`: none are.
    pub(crate) slower_than: Cell<Option<Duration>>,
    /// When the last reply's request was read, when the reply came, and the time between.
    pub(crate) last_took: Cell<(Instant, Instant, Duration)>,
    /// When the last slow requests were answered, and how many at once.
    pub(crate) slow_at_once: Cell<(Option<Instant>, u32)>,
    /// The worker takes no more requests.
    pub draining: Cell<bool>,
}

fn hot_set(l1: &config::L1) -> HotSet {
    let slots = if l1.enabled { l1.hot_entries } else { 1 };
    HotSet::new(slots, l1.hot_max_value + 32)
}

impl Context {
    /// The state of a new worker.
    pub fn new(
        shared: Arc<Shared>,
        worker: usize,
        view: View,
        links: LinkSettings,
        anonymous: Option<Login>,
    ) -> Rc<Self> {
        let rule_counts = shared.stats.workers[worker].rules.change(Arc::clone(view.policy.rules.patterns()));
        let view = View { rule_counts, ..view };
        let hot = RefCell::new(hot_set(&view.policy.l1));
        let slower_than = view.policy.slowlog.limit();
        let now = Instant::now();
        Rc::new_cyclic(|me| Context {
            me: Weak::clone(me),
            held: Held::new(Arc::clone(&shared.buffers)),
            shared,
            worker,
            view: RefCell::new(Rc::new(view)),
            links: Rc::new(links),
            anonymous: RefCell::new(Rc::new(Identity::new(anonymous.map(Rc::new), 0))),
            own: RefCell::default(),
            identities: RefCell::default(),
            auth_links: RefCell::default(),
            queued_logins: RefCell::default(),
            all_links: RefCell::default(),
            links_made: Cell::default(),
            clients: RefCell::default(),
            losses: Cell::default(),
            turns: Turns::default(),
            hot,
            admission: RefCell::default(),
            unkept: RefCell::default(),
            left_out: Cell::default(),
            announced: Rc::default(),
            hot_keys: RefCell::new(HotKeys::new(now, worker as u64 + 1)),
            big_keys: RefCell::default(),
            nameless: Cell::default(),
            accesses: Accesses::default(),
            conversions: Semaphore::new(MOST_CONVERSIONS),
            plain_runs: Semaphore::new(MOST_PLAIN_RUNS),
            large_strings: LargeStrings::default(),
            trials: RefCell::default(),
            flights: RefCell::default(),
            events: RefCell::default(),
            writes: Cell::default(),
            buffers: Rc::default(),
            scratch: RefCell::default(),
            panicked: Cell::default(),
            last_asker: Cell::new(0),
            shared_until: Cell::new(None),
            overdue: Cell::default(),
            calls: RefCell::default(),
            slower_than: Cell::new(slower_than),
            last_took: Cell::new((now, now, Duration::ZERO)),
            slow_at_once: Cell::default(),
            draining: Cell::new(false),
        })
    }

    /// The current rules and command table.
    #[inline]
    pub fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Uses another configuration from now on. `empties`: entries kept under the old rules are dropped.
    pub fn set_policy(&self, policy: Arc<Policy>, empties: bool) {
        self.links.pending_limit.set(policy.limits.upstream_pending);
        if self.view().policy.l1 != policy.l1 {
            self.hot.replace(hot_set(&policy.l1));
        }
        self.slower_than.set(policy.slowlog.limit());
        let rule_counts = self.stats().rules.change(Arc::clone(policy.rules.patterns()));
        self.set_view(|view| {
            view.policy = policy;
            view.rule_counts = rule_counts;
        });
        // There may be more places than before.
        self.turns.next(self.max_sessions());
        if empties {
            self.shared.coherence.flush("the rules have changed");
        }
    }

    /// Changes the rules or the command table.
    pub fn set_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.borrow());
        change(&mut view);
        let before = self.view.replace(Rc::new(view));
        if !self.view().table.cacheable().contains(before.table.cacheable()) {
            // Another server: what was kept may have changed there without an invalidation.
            self.shared.coherence.flush_for(FlushReason::Upstream, "the server's command table has changed");
        }
    }

    /// Maximum number of in-flight requests for the client that is served now. A client that is alone may fill the connection.
    #[inline]
    pub fn most_outstanding(&self, client: u64, now: Instant) -> usize {
        if self.last_asker.replace(client) != client {
            self.shared_until.set(Some(now + SHARED_FOR));
        }
        match self.shared_until.get() {
            Some(until) if now < until => MOST_WHILE_SHARED,
            _ => MOST_OUTSTANDING,
        }
    }

    /// A compressed value has come from Redis. With `compression: off` there should be none: from the first one on, and until the
    /// restart, all is done as with `read`.
    pub(crate) fn met_compressed(&self) {
        if !self.view().policy.met_compressed() {
            return;
        }
        const WHY: &str = "Redis has a compressed value although compression is off: until the restart it counts as read. Set \
                           compression: read, or turn the compressed values back to plain";
        tracing::error!("{WHY}");
        self.shared.stats.shared.journal.note(EventKind::CompressedMet, WHY);
        // L1 may have replies that commands on strings gave for compressed bytes.
        self.shared.coherence.flush("a compressed value was met although compression is off");
    }

    /// A strong handle, for tasks that outlive a call. `None` during shutdown.
    pub(crate) fn rc(&self) -> Option<Rc<Context>> {
        self.me.upgrade()
    }

    /// The profile of a new client, or of one that has sent RESET.
    pub fn first_profile(&self) -> Profile {
        Profile::new(self.anonymous(), self.first_db())
    }

    /// The identity of clients that connect now.
    pub(crate) fn anonymous(&self) -> Rc<Identity> {
        let number = self.shared.users.anonymous();
        let mut anonymous = self.anonymous.borrow_mut();
        if anonymous.user() != number {
            *anonymous = Rc::new(Identity::new(anonymous.login.clone(), number));
        }
        Rc::clone(&anonymous)
    }

    /// Whether a client that connects now can use Redis without a password or a certificate. `None` if Redis could not be asked
    /// within the connect timeout.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn is_open_to_all(&self) -> Option<bool> {
        if self.anonymous().login.is_some() {
            return Some(true);
        }
        tokio::time::timeout(self.connect_timeout() * 2, self.shared.users.first_answer()).await.ok()
    }

    /// The database of a new client.
    pub(crate) fn first_db(&self) -> u32 {
        self.links.dialer.upstream().db
    }

    /// Resets a profile to that of a new connection.
    pub(crate) fn reset(&self, profile: &Profile) {
        profile.reset(self.anonymous(), self.first_db());
    }

    /// The name of Shortstop's connections to Redis.
    pub(crate) fn connection_name(&self) -> &str {
        &self.links.name
    }

    /// This worker's counters.
    #[inline]
    pub fn stats(&self) -> &Worker {
        &self.shared.stats.workers[self.worker]
    }

    /// The identity of a login that Redis has accepted.
    pub(crate) fn identity(&self, login: Login) -> Rc<Identity> {
        let mut identities = self.identities.borrow_mut();
        identities.retain(|known| known.strong_count() > 0);
        let known = identities.iter().filter_map(Weak::upgrade);
        let user = self.shared.users.number(login.user());
        let mut known = known.filter(|known| known.user() == user && known.login.as_deref() == Some(&login));
        known.next().unwrap_or_else(|| {
            let identity = Rc::new(Identity::new(Some(Rc::new(login)), user));
            identities.push(Rc::downgrade(&identity));
            identity
        })
    }

    /// The upstream URL: Redis's address and Shortstop's login.
    pub(crate) fn upstream(&self) -> &UpstreamUrl {
        self.links.dialer.upstream()
    }

    /// How long to wait for a connection to Redis.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.links.timeouts.get().connect
    }

    /// Whether no write is in flight: all guards are lowered, and all events have been passed to the bus.
    pub fn is_settled(&self) -> bool {
        self.writes.get() == 0
    }

    /// How long a key is not kept after a write with an unknown outcome.
    pub fn max_staleness(&self) -> Duration {
        self.shared.coherence.max_staleness()
    }

    /// Shortstop's own identity: the user in the upstream URL.
    pub(crate) fn own_identity(&self) -> Rc<Identity> {
        let Some(login) = Login::of(self.upstream()) else { return self.anonymous() };
        let identity = self.identity(login);
        // Kept, so that its connections outlive a WAIT.
        *self.own.borrow_mut() = Some(Rc::clone(&identity));
        identity
    }

    /// A read of a key was not kept.
    #[inline]
    pub(crate) fn not_kept(&self, key: KeyId, unkept: Unkept) {
        self.stats().not_kept.count(unkept.why);
        // The admission counts how often a key was requested.
        if unkept.why != NotKept::NotAdmitted {
            self.unkept.borrow_mut().note(key, unkept);
        }
    }

    /// Whether this request is counted in `hot_keys`.
    #[inline(always)]
    pub(crate) fn is_counted(&self) -> bool {
        let left_out = self.left_out.get();
        self.left_out.set(left_out.wrapping_sub(1));
        left_out == 0
    }

    /// Notes an access in the sample, if the key is one of it.
    #[inline]
    pub(crate) fn accessed(&self, id: EntryId, place: RulePlace, what: impl FnOnce() -> What) {
        if self.accesses.has(id.key()) {
            self.accesses.note(&self.shared.coherence.permit(Instant::now()), id, place, what());
        }
    }

    /// Notes a write in the sample, if the key is one of it.
    #[inline]
    pub(crate) fn key_written(&self, key: KeyId) {
        if self.accesses.has(key) {
            self.accesses.note_written(&self.shared.coherence.permit(Instant::now()), key);
        }
    }

    /// A value of a key has passed. `named` is the database and the key, if they are known here.
    #[inline]
    pub(crate) fn value_passed(&self, id: KeyId, bytes: usize, written: bool, named: Option<(u32, &[u8])>) {
        if bytes > 0 && self.big_keys.borrow().takes(bytes) {
            self.note_big(id, bytes, written, named);
        }
    }

    #[cold]
    fn note_big(&self, id: KeyId, bytes: usize, written: bool, named: Option<(u32, &[u8])>) {
        if self.big_keys.borrow_mut().note(id, bytes, written, named) {
            self.nameless.set(Some(id));
        }
    }

    /// A request for a key goes to Redis.
    #[inline(always)]
    pub(crate) fn key_asked(&self, id: KeyId, db: u32, key: &[u8]) {
        if self.nameless.get().is_some_and(|nameless| nameless == id) {
            self.name_big(id, db, key);
        }
    }

    #[cold]
    fn name_big(&self, id: KeyId, db: u32, key: &[u8]) {
        self.nameless.set(None);
        self.big_keys.borrow_mut().name(id, db, key);
    }

    /// One of Shortstop's own errors, counted, as a reply.
    pub(crate) fn own_error(&self, error: &OwnError) -> Vec<u8> {
        self.stats().errors.count(error.side());
        error.frame()
    }

    /// Counts the error for a request that Redis could not answer.
    pub(crate) fn count_lost(&self, lost: &Lost) {
        self.stats().upstream_errors.add(1);
        self.stats().errors.count(lost.side());
    }

    /// Maximum number of private connections for clients.
    pub(crate) fn max_sessions(&self) -> usize {
        self.view.borrow().policy.limits.max_sessions
    }
}
