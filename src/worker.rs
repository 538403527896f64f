//! One thread that serves clients: its runtime, its connections, and the clock that enforces their limits.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;
use tokio::sync::mpsc;

use crate::arrival::Arrival;
use crate::client::{End, READ_AHEAD, serve};
use crate::client_state::buffers::ALWAYS_SERVED;
use crate::client_state::client_info::ClientInfo;
use crate::client_state::reply_queue::ReplyQueue;
use crate::command::Table;
use crate::exchange::pending::{ClientState, Profile};
use crate::metrics::outcome::{DropReason, EventKind, Outcome};
use crate::net::Stream;
use crate::upstream::{LinkSettings, Login};
use crate::worker_state::context::{Context, Shared, WorkerTask};
use crate::worker_state::policy::View;

/// Interval of checks for idle and stalled clients: the precision of those limits.
const TICK: Duration = Duration::from_millis(250);

/// An order to a worker.
#[derive(Debug)]
pub enum Order {
    /// Serve this client.
    Client(Arrival),
    /// Use this command table from now on.
    Table(Arc<Table>),
    /// The rights of unauthenticated clients have changed.
    AnonymousRights {
        /// When they were last seen unchanged.
        since: Instant,
        /// See [`crate::client_state::users::Users::anonymous_rights_changed`].
        was: u32,
    },
    /// Redis accepts no commands from unauthenticated clients.
    AnonymousLocked {
        /// When Redis was last seen to refuse them, too.
        since: Instant,
        /// When Redis was asked.
        asked: Instant,
    },
    /// Give up all connections to Redis that are older than this epoch ([`crate::upstream::Endpoint`]).
    Leave {
        /// The new epoch.
        epoch: u64,
        /// Dropped when it is done.
        done: mpsc::Sender<()>,
    },
    /// Run this task of this or another worker.
    WorkerTask(WorkerTask),
    /// Answer pending requests, and end.
    Drain,
}

/// What a worker starts with.
pub struct Setup {
    /// Its number.
    pub number: usize,
    /// The state that all workers share.
    pub shared: Arc<Shared>,
    /// The first rules and command table.
    pub view: View,
    /// How it connects to Redis.
    pub links: LinkSettings,
    /// The login that unauthenticated clients use in Redis.
    pub anonymous: Option<Login>,
    /// Number of clients that were passed to it and are still connected.
    pub load: Arc<AtomicUsize>,
}

/// Runs until it was told to drain and has done so, or until its last worker handle is dropped.
pub fn run(setup: Setup, orders: mpsc::UnboundedReceiver<Order>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start: the system provides no event queue");
            return;
        }
    };
    runtime.block_on(work(setup, orders));
}

async fn work(setup: Setup, mut orders: mpsc::UnboundedReceiver<Order>) {
    let context = Context::new(setup.shared, setup.number, setup.view, setup.links, setup.anonymous);
    context.warm_up();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Client(arrival)) => accept(arrival, &context, &setup.load),
                Some(Order::Table(table)) => context.set_table(table),
                Some(Order::AnonymousRights { since, was }) => context.anonymous_rights_changed(since, was),
                Some(Order::AnonymousLocked { since, asked }) => context.anonymous_is_locked(since, asked),
                Some(Order::Leave { epoch, done }) => {
                    context.leave_server(epoch);
                    drop(done);
                }
                Some(Order::WorkerTask(task)) => task.run(&context),
                Some(Order::Drain) => {
                    context.draining.set(true);
                    context.clients.borrow().values().for_each(|client| client.reply_queue.wake());
                }
                None => break,
            },
            _ = ticks.tick() => {
                enforce(&context);
                context.check_replies(Instant::now());
                context.end_spare_auth_links();
                if let Some(client) = context.panicked.take() {
                    let journal = &context.shared.stats.shared.journal;
                    journal.note(EventKind::ClientPanicked, "serving a client panicked; the others continue");
                    tracing::error!(client, "serving a client panicked; its connection is closed, and the others \
                        continue");
                }
                if context.draining.get() && context.clients.borrow().is_empty() && context.is_settled() {
                    break;
                }
            }
        }
    }
    context.close();
}

fn accept(arrival: Arrival, context: &Rc<Context>, load: &Arc<AtomicUsize>) {
    let (context, load) = (Rc::clone(context), Load(Arc::clone(load)));
    tokio::task::spawn_local(async move {
        let _load = load;
        let id = arrival.number;
        let Some(stream) = arrival.admit(&context).await else { return };
        let info = ClientInfo::new(id, &stream, Instant::now());
        let profile = context.first_profile();
        attend(stream, context, profile, info).await;
    });
}

/// Serves a client inside of this process, with the identity of a client of this user that is connected to this worker; user 0: of one
/// that has just connected. `warms`: what it reads is kept at its first request. Returns false, and takes no socket, if there is no such client.
pub(crate) fn serve_inside(
    context: &Rc<Context>,
    user: u32,
    db: u32,
    warms: bool,
    socket: impl FnOnce() -> Option<std::os::unix::net::UnixStream>,
) -> bool {
    let identity = match user {
        0 => Some(context.anonymous()),
        user => {
            let clients = context.clients.borrow();
            let known = clients.values().find(|client| client.profile.user() == user);
            known.map(|client| client.profile.identity())
        }
    };
    let Some(identity) = identity else { return false };
    let Some(Ok(socket)) = socket().map(UnixStream::from_std) else { return false };
    let (stream, context) = (Stream::Unix(socket), Rc::clone(context));
    let id = context.shared.client_ids.fetch_add(1, Ordering::Relaxed) + 1;
    let mut info = ClientInfo::new(id, &stream, Instant::now());
    info.is_warming = warms;
    tokio::task::spawn_local(async move {
        attend(stream, context, Profile::new(identity, db), info).await;
    });
    true
}

/// Serves a client until it is gone.
async fn attend(stream: Stream, context: Rc<Context>, profile: Profile, info: ClientInfo) {
    let id = info.id;
    let reply_queue = ReplyQueue::new(Instant::now(), Rc::clone(&context.buffers));
    let client = Rc::new(ClientState::new(reply_queue, profile, info));
    let peer = client.info.addr.clone();
    context.clients.borrow_mut().insert(id, Rc::clone(&client));
    context.stats().clients.add(1);
    context.stats().clients_accepted.add(1);
    // However the task ends, even by a panic, this guard removes the client.
    let gone = Gone { id, context: Rc::clone(&context) };
    if let End::Dropped(why) = serve(stream, context, client).await {
        gone.context.stats().clients_dropped.count(why);
        let journal = &gone.context.shared.stats.shared.journal;
        let address = peer.as_ref().map(ToString::to_string).unwrap_or_default();
        let text = format_args!("client {id} {address}: {}", why.text());
        journal.note_for(EventKind::ClientDropped, why.name(), text);
        crate::seldom!(warn, "a client was dropped", client = id, ?peer, why = why.text());
    }
}

/// Counts a client for a worker, from when it is passed to the worker until its connection has ended.
struct Load(Arc<AtomicUsize>);

impl Drop for Load {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Removes a client from the worker's list on drop.
struct Gone {
    id: u64,
    context: Rc<Context>,
}

impl Drop for Gone {
    fn drop(&mut self) {
        self.context.clients.borrow_mut().remove(&self.id);
        self.context.stats().clients.sub(1);
        if std::thread::panicking() {
            self.context.shared.stats.shared.panics.fetch_add(1, Ordering::Relaxed);
            // Logged later: if logging panicked during this unwinding, the process would abort.
            self.context.panicked.set(Some(self.id));
        }
    }
}

/// Drops clients that are idle for too long, and clients that do not read their replies.
fn enforce(context: &Context) {
    let now = Instant::now();
    let view = context.view();
    let limits = &view.policy.limits;
    share_buffers(context, &view, now);
    for client in context.clients.borrow().values() {
        let (reply_queue, info) = (&client.reply_queue, &client.info);
        let longer = |since: Instant, limit| now.saturating_duration_since(since) > limit;
        if reply_queue.outstanding() > 0 && info.unread.get() >= READ_AHEAD && reply_queue.stalled.get().is_some() {
            // Redis holds the client up, and nothing more is read from it. It may be a client that sends all its requests before it
            // reads.
            reply_queue.stalled.set(Some(now));
        }
        let messages = client.reply_queue.len() > limits.pubsub_buffer_soft && limits.pubsub_buffer_soft > 0;
        let is_subscribed = || client.session().is_some_and(|session| session.is_subscribed());
        let above_soft = (messages && is_subscribed()).then(|| reply_queue.above_soft.get().unwrap_or(now));
        reply_queue.above_soft.set(above_soft);
        let limit = if above_soft.is_some_and(|since| longer(since, limits.pubsub_buffer_time)) {
            Some(DropReason::PubsubBuffer)
        } else if reply_queue.stalled.get().is_some_and(|since| longer(since, limits.stall_timeout)) {
            Some(DropReason::StallTimeout)
        } else if reply_queue.is_empty()
            && reply_queue.outstanding() == 0
            && !reply_queue.streaming.get()
            && !info.in_line.get()
            && !limits.idle_timeout.is_zero()
        {
            longer(reply_queue.active.get(), limits.idle_timeout).then_some(DropReason::IdleTimeout)
        } else {
            None
        };
        if let Some(limit) = limit {
            reply_queue.drop_for(limit);
        }
    }
}

/// Wakes the clients that `limits.buffers_total` has stopped, lets one of them finish its current request, and drops the client
/// with the largest buffers if stopping is not enough.
fn share_buffers(context: &Context, view: &View, now: Instant) {
    context.held.publish();
    let clients = context.clients.borrow();
    let unread = |client: &&Rc<ClientState>| client.info.unread.get();
    for client in clients.values().filter(|client| client.reply_queue.stopped.get()) {
        let reply_queue = &client.reply_queue;
        let is_silent = now.saturating_duration_since(reply_queue.active.get()) > view.policy.limits.stall_timeout;
        if reply_queue.goes_first.replace(false) && is_silent {
            reply_queue.drop_for(DropReason::StallTimeout);
        }
        reply_queue.wake();
    }
    let sends = |client: &&Rc<ClientState>| {
        let reply_queue = &client.reply_queue;
        reply_queue.stopped.get() && reply_queue.is_empty() && reply_queue.ending().dropped().is_none()
    };
    if let Some(first) = clients.values().filter(sends).max_by_key(unread) {
        first.reply_queue.goes_first.set(true);
    }
    if context.held.all() > view.policy.buffers_total.saturating_mul(2) {
        let held = |client: &&Rc<ClientState>| client.reply_queue.len() + client.info.unread.get();
        let most = clients.values().filter(|client| client.reply_queue.ending().dropped().is_none()).max_by_key(held);
        if let Some(most) = most.filter(|most| held(most) >= ALWAYS_SERVED) {
            most.reply_queue.drop_for(DropReason::BuffersTotal);
        }
    }
}
