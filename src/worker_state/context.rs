//! What a worker owns, and what all workers of a proxy share.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::runtime::Handle;

use crate::bus::{Event, Outbox};
use crate::coherence::Coherence;
use crate::command::Table;
use crate::config::{self, Config, Limits, Reads, UpstreamUrl};
use crate::errors::{self, OwnError};
use crate::near_cache::{Admission, EntryId, HotSet};
use crate::resp::{ScanLimits, Version};
use crate::rules::Rules;
use crate::scripts::Scripts;
use crate::stats::{FlushReason, Stats, Worker};
use crate::upstream::{Endpoint, Expected, Link, LinkProfile, LinkSettings, Login, Lost, ServerLimits};

use crate::client_state::buffers::{Buffers, Held};
use crate::client_state::identity::Identity;
use crate::client_state::profile::Profile;
use crate::client_state::reply_queue::{MOST_OUTSTANDING, ReplyQueue};
use crate::client_state::users::Users;
use crate::proxy::auth::QueuedLogin;
use crate::proxy::flight::Flight;
use crate::replies::deliver::Pending;
use crate::worker_state::turns::Turns;
use crate::worker_state::worker_tasks::Mailboxes;

/// After two clients have taken turns, each leaves room on the shared connections for this long.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// Requests that one client may have due from Redis while others are active: theirs wait behind these.
const MOST_WHILE_SHARED: usize = 64;
/// How long to wait, after a connection was lost, until it is known whether others were lost together with it.
const OTHERS_WERE_LOST: Duration = Duration::from_millis(250);

/// What the configuration says about requests; replaced as a whole at a reload.
#[derive(Debug)]
pub struct Policy {
    /// What happens to which keys.
    pub rules: Rules,
    /// Whether any key may be cached.
    pub caches: bool,
    /// Commands whose replies are kept of some key.
    pub reads: Reads,
    /// Whether MGET is one of them for every key that is kept at all.
    pub mget_everywhere: bool,
    /// Bytes of the smallest value that may be compressed; none: nothing is.
    pub compresses_from: Option<usize>,
    /// Bounds of L1; of the hot set, here.
    pub l1: config::L1,
    /// Bounds of buffers and queues.
    pub limits: Limits,
    /// `limits.buffers_total` in bytes.
    pub buffers_total: usize,
    /// Bounds of a request.
    pub scan: ScanLimits,
    /// Bytes above which a value is compressed and opened elsewhere.
    pub offload_above: usize,
    /// Whether `PROXY DEBUG` is allowed.
    pub debug_command: bool,
    /// Whether the configuration says which keys scripts write (`scripts`).
    pub trusts_scripts: bool,
}

impl Policy {
    /// From a checked configuration, on a machine with so many bytes of memory.
    pub fn new(config: &Config, memory: usize) -> Self {
        let rules = Rules::compile(config);
        Policy {
            caches: rules.caches_anything(),
            reads: rules.reads(),
            mget_everywhere: rules.mget_everywhere(),
            compresses_from: rules.compresses_from(),
            rules,
            l1: config.l1.clone(),
            limits: config.limits.clone(),
            buffers_total: config.limits.buffers_total.of(memory),
            scan: ScanLimits {
                bulk_length: config.limits.max_bulk_length,
                arguments: config.limits.max_arguments,
                line_length: config.limits.max_inline_length,
            },
            offload_above: config.offload_above,
            debug_command: config.enable_debug_command,
            trusts_scripts: config.scripts.are_trusted(),
        }
    }
}

fn hot_set(l1: &config::L1) -> HotSet {
    let slots = if l1.enabled { l1.hot_entries } else { 1 };
    HotSet::new(slots, l1.hot_max_value + 32)
}

/// What a request is decided by: a worker's own handle, so that looking costs nothing shared.
#[derive(Clone, Debug)]
pub struct View {
    /// From the configuration.
    pub policy: Arc<Policy>,
    /// From the server.
    pub table: Arc<Table>,
}

/// Answers the PROXY command and adds to INFO; the windows of the house, which stand above this floor.
pub trait Windows: Send + Sync {
    /// The answer to `PROXY …`, a whole frame.
    fn proxy(&self, args: &[&[u8]]) -> Vec<u8>;

    /// What `INFO [section …]` shows beside Redis's own sections.
    fn info(&self, sections: &[&[u8]]) -> String;
}

/// What all workers of a proxy share.
pub struct Shared {
    /// What may be served.
    pub coherence: Arc<Coherence>,
    /// What is counted.
    pub stats: Arc<Stats>,
    /// The server that connections lead to.
    pub endpoint: Arc<Endpoint>,
    /// Where writes are told to the fleet; none: a single instance.
    pub outbox: Option<Outbox>,
    /// PROXY and INFO.
    pub windows: Box<dyn Windows>,
    /// Runs what must not hold up a worker.
    pub control: Handle,
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
    me: Weak<Context>,
    /// Of all workers.
    pub shared: Arc<Shared>,
    /// This worker's number.
    pub worker: usize,
    view: RefCell<Rc<View>>,
    links: Rc<LinkSettings>,
    /// Who a client is before it authenticates.
    anonymous: RefCell<Rc<Identity>>,
    /// Shortstop's own identity, once it was needed.
    pub(crate) own: RefCell<Option<Rc<Identity>>>,
    /// Those who have.
    identities: RefCell<Vec<Weak<Identity>>>,
    /// Where logins are tried: AUTH answers there whoever it was that asked before.
    auth_link: RefCell<Option<Link<Pending>>>,
    /// Logins that are to be tried there; a client has one at most.
    pub(crate) queued_logins: RefCell<VecDeque<QueuedLogin>>,
    /// Its clients, by number.
    pub clients: RefCell<HashMap<u64, Rc<ReplyQueue>>>,
    /// All connections of the worker to Redis.
    all_links: RefCell<HashMap<u64, Link<Pending>>>,
    /// Connections made so far.
    links_made: Cell<u64>,
    /// How often acknowledged writes may have been lost: a connection was lost on which Redis had answered, or another server took
    /// the place of this one.
    pub(crate) losses: Cell<u64>,
    /// Private connections in the hands of clients, and who waits for one.
    pub(crate) turns: Turns,
    pub(crate) hot: RefCell<HotSet>,
    pub(crate) admission: RefCell<Admission>,
    pub(crate) flights: RefCell<HashMap<EntryId, Rc<Flight>>>,
    events: RefCell<Vec<Event>>,
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
    last_asker: Cell<u64>,
    /// Until then clients leave room for each other.
    shared_until: Cell<Option<Instant>>,
    /// No more is asked of clients.
    pub draining: Cell<bool>,
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
            held: Held::new(Arc::clone(&shared.stats)),
            shared,
            worker,
            view: RefCell::new(Rc::new(view)),
            links: Rc::new(links),
            anonymous: RefCell::new(Rc::new(Identity::new(anonymous.map(Rc::new), 0))),
            own: RefCell::default(),
            identities: RefCell::default(),
            auth_link: RefCell::default(),
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
        self.next_turns();
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

    /// Goes by another table. The last commands of the clients keep their names.
    pub fn set_table(&self, table: Arc<Table>) {
        let before = self.view();
        for reply_queue in self.clients.borrow().values() {
            let last = &reply_queue.info.last;
            last.set(table.renumbered(last.get(), &before.table));
        }
        self.set_view(|view| view.table = table);
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

    /// What a client may do without authentication has changed after `since`, when such clients had the number `was`. Nobody knows
    /// when: who came after that time is as who comes now, lest it stays in where Redis would not have let it in.
    pub fn first_rights_changed(&self, since: Instant, was: u32) {
        for reply_queue in self.clients.borrow().values() {
            if reply_queue.profile.user() == was && reply_queue.info.came_after(since) {
                reply_queue.profile.set_identity(self.anonymous());
            }
        }
    }

    /// The database that a new client is in.
    fn first_db(&self) -> u32 {
        self.links.upstream.db
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

    /// An error in Shortstop's own words, counted, as a reply.
    pub(crate) fn own_error(&self, error: &OwnError) -> Vec<u8> {
        self.stats().count_error(error.side());
        error.frame()
    }

    /// Redis could not be asked: counts the error that somebody gets for that.
    pub(crate) fn count_lost(&self, lost: &Lost) {
        self.stats().upstream_errors.add(1);
        self.stats().count_error(lost.side());
    }

    /// Connects at once: the first client does not wait for it, and the log says early that Redis is away.
    pub fn warm_up(self: &Rc<Self>) {
        self.lane(&self.anonymous(), self.first_db(), Version::Resp2);
    }

    /// The lane of an identity to a database.
    pub(crate) fn lane(self: &Rc<Self>, identity: &Identity, db: u32, version: Version) -> Link<Pending> {
        identity.lane(db, version, || self.connect(LinkProfile { login: identity.login.clone(), db, version }, true))
    }

    /// Gives up a lane that cannot be trusted; the next request makes another.
    pub(crate) fn drop_lane(&self, identity: &Identity, db: u32, version: Version) {
        if let Some(lane) = identity.drop_lane(db, version) {
            self.lose_all(&lane, "its state is in doubt");
        }
    }

    /// Gives a lane up, so that the next request gets a new one. The old lane still answers what waits on it.
    pub(crate) fn renew_lane(&self, identity: &Identity, db: u32, version: Version) {
        if let Some(lane) = identity.drop_lane(db, version) {
            lane.retire();
        }
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

    /// Where a login is tried.
    pub(crate) fn auth_link(self: &Rc<Self>) -> Link<Pending> {
        let known = self.auth_link.borrow().clone().filter(|auth_link| !auth_link.is_closed());
        known.unwrap_or_else(|| {
            let auth_link = self.connect(LinkProfile { login: None, db: 0, version: Version::Resp2 }, true);
            auth_link.use_for_logins();
            *self.auth_link.borrow_mut() = Some(auth_link.clone());
            auth_link
        })
    }

    /// A private connection for whoever has taken a place for it.
    pub(crate) fn session(self: &Rc<Self>, identity: &Identity, db: u32, version: Version) -> Link<Pending> {
        self.stats().sessions.add(1);
        let connect = || self.connect(LinkProfile { login: identity.login.clone(), db, version }, false);
        identity.take_spare(db, version).unwrap_or_else(connect)
    }

    /// Where Redis is, and who Shortstop is there.
    pub(crate) fn upstream(&self) -> &UpstreamUrl {
        &self.links.upstream
    }

    /// How long a connection to Redis is waited for.
    pub(crate) fn connect_timeout(&self) -> Duration {
        self.links.timeouts.get().connect
    }

    /// A private connection for one request, which ends when it is retired. It is in no particular database.
    pub(crate) fn connection_for_one(self: &Rc<Self>, identity: &Identity, version: Version) -> Link<Pending> {
        self.connect(LinkProfile { login: identity.login.clone(), db: 0, version }, false)
    }

    /// Takes a private connection back: for the next session of its identity if it is `clean`, else it ends.
    pub(crate) fn end_session(&self, identity: &Identity, link: Link<Pending>, clean: bool) {
        self.stats().sessions.sub(1);
        if clean && !link.is_closed() {
            link.set_tap(None);
            if let Some(one_too_many) = identity.keep_spare(link) {
                one_too_many.retire();
            }
        } else if !link.is_retired() {
            self.lose_all(&link, "its client has gone");
        }
        // Not before the connection is among the spares: whoever comes next takes that one.
        self.give_back();
    }

    fn connect(self: &Rc<Self>, profile: LinkProfile, shared: bool) -> Link<Pending> {
        let db = profile.db;
        let link = Link::new(Rc::clone(&self.links), profile, shared);
        let context = Rc::clone(self);
        let driven = link.clone();
        let number = self.links_made.get();
        self.links_made.set(number + 1);
        self.all_links.borrow_mut().insert(number, link.clone());
        context.stats().upstream_connections.add(1);
        tokio::task::spawn_local(async move {
            let task = tokio::task::spawn_local(driven.clone().drive(Rc::clone(&context)));
            if let Err(error) = task.await
                && error.is_panic()
            {
                context.shared.stats.shared.panics.fetch_add(1, Ordering::Relaxed);
                crate::seldom!(error, "the task of an upstream connection panicked; it is given up", db, shared);
                context.shared.coherence.flush_for(FlushReason::Upstream, "an upstream connection was given up");
                // A lane that is closed is made anew by whoever needs it next.
                context.lose_all(&driven, "of a fault in the proxy");
            }
            if !shared && !driven.is_retired() {
                context.lose_session(&driven);
            }
            context.all_links.borrow_mut().remove(&number);
            context.stats().upstream_connections.sub(1);
        });
        link
    }

    /// A private connection has ended. If its client had state there, the client has to know at once, as at Redis.
    fn lose_session(&self, link: &Link<Pending>) {
        let clients: Vec<_> = self.clients.borrow().values().cloned().collect();
        let mut sessions = clients.iter().filter_map(|reply_queue| reply_queue.info.session.borrow().upgrade());
        if let Some(session) = sessions.find(|session| session.link.is(link) && !session.is_clean()) {
            session.lost();
        }
    }

    /// Redis does not let a login in any more. Closes the clients of this login to whom no answer is due; nothing is written to them.
    /// A client that waits for an answer is closed with the answer, unless it has become another user by then (AUTH).
    pub(crate) fn refuse(&self, login: &Rc<Login>) {
        for reply_queue in self.clients.borrow().values().filter(|reply_queue| reply_queue.outstanding() == 0) {
            if reply_queue.profile.identity().login.as_ref().is_some_and(|known| Rc::ptr_eq(known, login)) {
                reply_queue.close();
            }
        }
    }

    /// Redis closed a lane of a login, and lets the login in again. If it closed connections of this user alone, the user was deleted
    /// and made again (ACL DELUSER, ACL LOAD), or its clients were killed (CLIENT KILL): its clients are closed, on all workers.
    /// When connections of others ended, too, Redis or something on the way was restarted, and no client is closed.
    pub(crate) fn let_in_again(&self, login: &Rc<Login>, closed: Instant) {
        let is_it = |known: &Rc<Identity>| known.login.as_ref().is_some_and(|known| Rc::ptr_eq(known, login));
        let user = self.identities.borrow().iter().filter_map(Weak::upgrade).find(is_it).map(|known| known.user());
        let (Some(user), Some(context)) = (user, self.rc()) else { return };
        tokio::task::spawn_local(async move {
            tokio::time::sleep(OTHERS_WERE_LOST).await;
            let identities: Vec<_> = context.identities.borrow().iter().filter_map(Weak::upgrade).collect();
            let others = identities.iter().filter(|other| other.user() != user);
            let nobody = Rc::clone(&context.anonymous.borrow());
            if others.chain([&nobody]).any(|other| other.stood_through(closed)) {
                tracing::info!(
                    "Redis ended the connections of a user, and lets the user in again; the user's clients are closed, as Redis does"
                );
                context.shared.users.end_number(user);
                context.end_clients_of(vec![user]);
            }
        });
    }

    /// Redis has deleted these users and closed their connections (ACL DELUSER): their clients are closed on all workers, also if
    /// there is a user of the same name again.
    pub(crate) fn end_users(&self, names: &[Vec<u8>]) {
        let gone = self.shared.users.end(names);
        if !gone.is_empty() {
            self.end_clients_of(gone);
        }
    }

    fn end_clients_of(&self, gone: Vec<u32>) {
        let end = move |context: &Context| {
            for reply_queue in
                context.clients.borrow().values().filter(|reply_queue| gone.contains(&reply_queue.profile.user()))
            {
                reply_queue.user_ended.set(true);
                reply_queue.close();
            }
        };
        // Here at once: the end of the user's connections may have come in the same read.
        end(self);
        self.run_on_all_workers(move |context| end(context));
    }

    /// Gives up every connection to a server of an older epoch. Writes that are under way there have an unknown outcome, and clients
    /// with a private connection are closed. When this returns, nothing more is sent to that server or read from it.
    pub fn leave_server(&self, epoch: u64) {
        self.losses.set(self.losses.get() + 1);
        let lost = Lost::from(&errors::MOVED);
        let links: Vec<_> = self.all_links.borrow().values().cloned().collect();
        links.iter().for_each(|link| link.leave(self, epoch, &lost));
        let clients: Vec<_> = self.clients.borrow().values().cloned().collect();
        let sessions = clients.iter().filter_map(|reply_queue| reply_queue.info.session.borrow().upgrade());
        sessions.filter(|session| session.link.is_closed()).for_each(|session| session.lost());
        self.publish();
    }

    fn lose_all(&self, link: &Link<Pending>, why: &str) {
        let lost = Lost::from(&errors::given_up(why));
        for expected in link.close() {
            expected.lose(self, &lost, true);
        }
        self.publish();
    }

    /// Whether no write is under way: guards are down, and what was to be told is with the bus.
    pub fn is_settled(&self) -> bool {
        self.writes.get() == 0
    }

    /// Lets go of all connections, at the end.
    pub fn close(&self) {
        let identities: Vec<_> = self.identities.borrow().iter().filter_map(Weak::upgrade).collect();
        let anonymous = self.anonymous();
        let links = identities.iter().chain([&anonymous]).flat_map(|identity| identity.take_all());
        links.chain(self.auth_link.take()).for_each(|link| drop(link.close()));
        self.all_links.borrow_mut().clear();
        self.flights.borrow_mut().clear();
        self.queued_logins.borrow_mut().clear();
    }

    /// Tells the fleet, together with what else came in the same read.
    pub(crate) fn queue_event(&self, event: Event) {
        if self.shared.outbox.is_some() {
            self.events.borrow_mut().push(event);
        }
    }

    /// Tells the fleet that a script may have written anything; many in the same read are one. `lost`: it may still be running.
    pub(crate) fn publish_script(&self, lost: bool) {
        if self.shared.outbox.is_none() {
            return;
        }
        let event = Event::Script { lost, clear: !self.view().policy.trusts_scripts };
        let mut events = self.events.borrow_mut();
        if !events.contains(&event) {
            events.push(event);
        }
    }

    /// Hands what is to be told to the bus.
    pub(crate) fn publish(&self) {
        let mut events = self.events.borrow_mut();
        if let (Some(outbox), false) = (&self.shared.outbox, events.is_empty()) {
            // A full queue answers for itself: a flush takes the place of what was dropped.
            let _ = outbox.try_send(std::mem::take(&mut events));
        }
    }

    /// Does `work` on a thread that serves nobody, and `then` here; `then` gets none if the work panicked.
    pub(crate) fn offload_to_control<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        on_reply: impl FnOnce(&Context, Option<T>) + 'static,
    ) {
        let job = self.shared.control.spawn_blocking(work);
        let Some(context) = self.me.upgrade() else { return };
        tokio::task::spawn_local(async move {
            let done = job.await.ok();
            on_reply(&context, done);
            context.publish();
        });
    }

    /// How long a key whose write has an unknown outcome is not kept.
    pub fn max_staleness(&self) -> Duration {
        self.shared.coherence.max_staleness()
    }
}
