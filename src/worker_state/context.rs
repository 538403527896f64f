//! What a worker owns, and what all workers of a proxy share.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::runtime::Handle;

use crate::bus::{Event, Outbox};
use crate::client_state::buffers::{AllBuffers, Buffers, Held};
use crate::client_state::reply_queue::MOST_OUTSTANDING;
use crate::client_state::users::Users;
use crate::coherence::Coherence;
use crate::command::ProxySubcommand;
use crate::config::{self, UpstreamUrl};
use crate::errors::OwnError;
use crate::exchange::pending::{ClientState, Flight, Identity, Link, Profile, QueuedLogin};
use crate::metrics::outcome::FlushReason;
use crate::metrics::slots::{Stats, Worker};
use crate::near_cache::{Admission, EntryId, HotSet};
use crate::scripts::Scripts;
use crate::upstream::{Endpoint, LinkSettings, Login, Lost, ServerLimits};
use crate::worker_state::mailboxes;
use crate::worker_state::offload_memory::Offload;
use crate::worker_state::policy::{Policy, View};
use crate::worker_state::turns::Turns;

/// What a worker is asked to do by another.
pub type WorkerTask = mailboxes::WorkerTask<Context>;

/// Takes a task to one worker.
pub type Mailbox = mailboxes::Mailbox<Context>;

/// The ways to all workers.
pub type Mailboxes = mailboxes::Mailboxes<Context>;

/// After two clients have taken turns, each leaves room on the shared connections for this long.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// Requests that one client may have due from Redis while others are active: theirs wait behind these.
const MOST_WHILE_SHARED: usize = 64;
/// Answers the PROXY command and adds to INFO; the windows of the house, which stand above this floor.
pub trait Windows: Send + Sync {
    /// The answer to `PROXY …`, a whole frame, where nothing has to be done for it.
    fn proxy(&self, subcommand: ProxySubcommand, args: &[&[u8]]) -> Vec<u8>;

    /// What `INFO [section …]` shows beside Redis's own sections.
    fn info(&self, sections: &[&[u8]]) -> String;
}

/// What all workers of a proxy share.
pub struct Shared {
    /// What may be served.
    pub coherence: Arc<Coherence>,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// Bytes in the buffers of clients.
    pub buffers: Arc<AllBuffers>,
    /// The server that connections lead to.
    pub endpoint: Arc<Endpoint>,
    /// Where writes are told to the fleet; none: a single instance.
    pub outbox: Option<Outbox>,
    /// PROXY and INFO.
    pub windows: Arc<dyn Windows>,
    /// Runs what must not hold up a worker.
    pub control: Handle,
    /// How much of that there is.
    pub offload: Arc<Offload>,
    /// Who has a number of its own in L1.
    pub users: Users,
    /// What one worker asks all of them.
    pub mailboxes: Mailboxes,
    /// What scripts may write.
    pub scripts: Arc<Scripts>,
    /// What the server takes.
    pub server_limits: Arc<ServerLimits>,
}

/// What one worker owns.
pub struct Context {
    pub(crate) me: Weak<Context>,
    /// Of all workers.
    pub shared: Arc<Shared>,
    /// This worker's number.
    pub worker: usize,
    pub(crate) view: RefCell<Rc<View>>,
    pub(crate) links: Rc<LinkSettings>,
    /// Who a client is before it authenticates.
    pub(crate) anonymous: RefCell<Rc<Identity>>,
    /// Shortstop's own identity, once it was needed.
    pub(crate) own: RefCell<Option<Rc<Identity>>>,
    /// Those who have.
    pub(crate) identities: RefCell<Vec<Weak<Identity>>>,
    /// Where logins are tried, one at a time on each: AUTH answers there whoever it was that asked before.
    pub(crate) auth_links: RefCell<Vec<Link>>,
    /// Logins that are to be tried there; a client has one at most.
    pub(crate) queued_logins: RefCell<VecDeque<QueuedLogin>>,
    /// Its clients, by number.
    pub clients: RefCell<HashMap<u64, Rc<ClientState>>>,
    /// All connections of the worker to Redis.
    pub(crate) all_links: RefCell<HashMap<u64, Link>>,
    /// Connections made so far.
    pub(crate) links_made: Cell<u64>,
    /// How often acknowledged writes may have been lost: a connection was lost on which Redis had answered, or another server took
    /// the place of this one.
    pub(crate) losses: Cell<u64>,
    /// Private connections in the hands of clients, and who waits for one.
    pub(crate) turns: Turns,
    pub(crate) hot: RefCell<HotSet>,
    pub(crate) admission: RefCell<Admission>,
    pub(crate) flights: RefCell<HashMap<EntryId, Rc<Flight>>>,
    pub(crate) events: RefCell<Vec<Event>>,
    /// Writes that have been sent and not been answered.
    pub(crate) writes: Cell<usize>,
    /// Where replies are gathered.
    pub buffers: Rc<Buffers>,
    /// Bytes in the buffers of clients.
    pub held: Held,
    /// Where clients are read into.
    pub scratch: RefCell<BytesMut>,
    /// The last client whose serving ended in a panic, until the log has it.
    pub panicked: Cell<Option<u64>>,
    /// The client that was served last.
    pub(crate) last_asker: Cell<u64>,
    /// Until then clients leave room for each other.
    pub(crate) shared_until: Cell<Option<Instant>>,
    /// Connections on which a reply is overdue.
    pub(crate) overdue: Cell<usize>,
    /// No more is asked of clients.
    pub draining: Cell<bool>,
}

fn hot_set(l1: &config::L1) -> HotSet {
    let slots = if l1.enabled { l1.hot_entries } else { 1 };
    HotSet::new(slots, l1.hot_max_value + 32)
}

impl Context {
    /// A worker's belongings.
    pub fn new(
        shared: Arc<Shared>,
        worker: usize,
        view: View,
        links: LinkSettings,
        anonymous: Option<Login>,
    ) -> Rc<Self> {
        let hot = RefCell::new(hot_set(&view.policy.l1));
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
            flights: RefCell::default(),
            events: RefCell::default(),
            writes: Cell::default(),
            buffers: Rc::default(),
            scratch: RefCell::default(),
            panicked: Cell::default(),
            last_asker: Cell::new(0),
            shared_until: Cell::new(None),
            overdue: Cell::default(),
            draining: Cell::new(false),
        })
    }

    /// The rules and the table as they are now.
    #[inline]
    pub fn view(&self) -> Rc<View> {
        Rc::clone(&self.view.borrow())
    }

    /// Decides by another configuration from now on. What was kept under the old rules is dropped.
    pub fn set_policy(&self, policy: Arc<Policy>) {
        self.links.pending_limit.set(policy.limits.upstream_pending);
        if self.view().policy.l1 != policy.l1 {
            self.hot.replace(hot_set(&policy.l1));
        }
        self.set_view(|view| view.policy = policy);
        // There may be more places than before.
        self.turns.next(self.max_sessions());
        self.shared.coherence.flush("the rules were reloaded");
    }

    /// Other rules, or another table.
    pub fn set_view(&self, change: impl FnOnce(&mut View)) {
        let mut view = View::clone(&self.view.borrow());
        change(&mut view);
        let before = self.view.replace(Rc::new(view));
        if !self.view().table.cacheable().contains(before.table.cacheable()) {
            // Another server, on which what was kept may end without a word.
            self.shared.coherence.flush_for(FlushReason::Upstream, "the server has another table of commands");
        }
    }

    /// How many requests the client that is served now may have due from Redis. A client that is alone may fill the connection.
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

    /// Itself, for what outlives a call; none at the very end.
    pub(crate) fn rc(&self) -> Option<Rc<Context>> {
        self.me.upgrade()
    }

    /// What a new client is, and one that has sent RESET.
    pub fn first_profile(&self) -> Profile {
        Profile::new(self.anonymous(), self.first_db())
    }

    /// Who a client is that connects now.
    pub(crate) fn anonymous(&self) -> Rc<Identity> {
        let number = self.shared.users.anonymous();
        let mut anonymous = self.anonymous.borrow_mut();
        if anonymous.user() != number {
            *anonymous = Rc::new(Identity::new(anonymous.login.clone(), number));
        }
        Rc::clone(&anonymous)
    }

    /// Whether a client that comes now can do anything without a password or a certificate; none: Redis has not been asked so far, and
    /// was not for as long as a connection to it may take.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn lets_anybody_in(&self) -> Option<bool> {
        if self.anonymous().login.is_some() {
            return Some(true);
        }
        tokio::time::timeout(self.connect_timeout() * 2, self.shared.users.first_answer()).await.ok()
    }

    /// The database that a new client is in.
    pub(crate) fn first_db(&self) -> u32 {
        self.links.dialer.upstream().db
    }

    /// As a new connection.
    pub(crate) fn reset(&self, profile: &Profile) {
        profile.reset(self.anonymous(), self.first_db());
    }

    /// The name that its connections to Redis have.
    pub(crate) fn connection_name(&self) -> &str {
        &self.links.name
    }

    /// This worker's counters.
    #[inline]
    pub fn stats(&self) -> &Worker {
        &self.shared.stats.workers[self.worker]
    }

    /// The identity of a login that Redis has let in.
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

    /// Where Redis is, and who Shortstop is there.
    pub(crate) fn upstream(&self) -> &UpstreamUrl {
        self.links.dialer.upstream()
    }

    /// How long a connection to Redis is waited for.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.links.timeouts.get().connect
    }

    /// Whether no write is under way: guards are down, and what was to be told is with the bus.
    pub fn is_settled(&self) -> bool {
        self.writes.get() == 0
    }

    /// How long a key whose write has an unknown outcome is not kept.
    pub fn max_staleness(&self) -> Duration {
        self.shared.coherence.max_staleness()
    }

    /// Who Shortstop is: the user in the upstream URL.
    pub(crate) fn own_identity(&self) -> Rc<Identity> {
        let Some(login) = Login::of(self.upstream()) else { return self.anonymous() };
        let identity = self.identity(login);
        // Kept, so that its connections outlive a WAIT.
        *self.own.borrow_mut() = Some(Rc::clone(&identity));
        identity
    }

    /// An error in Shortstop's own words, counted, as a reply.
    pub(crate) fn own_error(&self, error: &OwnError) -> Vec<u8> {
        self.stats().errors.count(error.side());
        error.frame()
    }

    /// Redis could not be asked: counts the error that somebody gets for that.
    pub(crate) fn count_lost(&self, lost: &Lost) {
        self.stats().upstream_errors.add(1);
        self.stats().errors.count(lost.side());
    }

    /// Private connections that clients may have.
    pub(crate) fn max_sessions(&self) -> usize {
        self.view.borrow().policy.limits.max_sessions
    }
}
