//! The wire of the bus: carries batches out, applies what comes in, over one NATS connection. The only file that
//! knows the client library.
//!
//! The library is trusted with bytes, not with being alive: it buffers commands while disconnected and then blocks, it
//! says "connected" before the subscriptions are back, and it drops messages when they are not taken fast enough.
//! So nothing is published while disconnected, nothing waits longer than [`PUBLISH`], and whether this proxy hears
//! its peers is decided in `peers`, by echoes and numbers. Decisions do not belong here.
//!
//! Up to four tasks: publisher, receiver, and one for each direction of the JSON subject, so that neither a
//! stalled link nor a flood of JSON can delay the fleet's subject. The lease speaks for the fleet's subject only.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use async_nats::connection::State;
use async_nats::{Client, ConnectOptions, ServerAddr, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use crate::config::{NatsLogin, NatsUrl};

use super::json::{self, Request};
use super::message::{About, Body, MAX_BYTES, Message, Probe, split};
use super::outbox::{Inlet, Outbox, queue};
use super::peers::{Action, HEARTBEAT, Input, Peers};
use super::{BusStats, Event, Instance, Settings, Sink, connection_name};

/// How long one publish may wait for the client library.
const PUBLISH: Duration = Duration::from_millis(50);
/// How often the connection's state, the silence of peers and requests from outside are looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long the end may take, BYE included.
const SHUTDOWN: Duration = Duration::from_secs(1);
/// NATS pings, for links that are dead and do not say so: three unanswered ones close the connection.
const PING: Duration = Duration::from_secs(2);
/// One attempt to connect.
const CONNECT: Duration = Duration::from_secs(2);
/// Back-off between attempts: doubles from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Commands queued in the library; with [`MAX_BYTES`] this bounds what a stalled link holds to 16 MB.
const COMMANDS: usize = 256;
/// Messages received and not yet taken, for each subject.
const WAITING: usize = 65_536;
/// Most instances that the log names at once.
const NAMED: usize = 8;
/// One line in the log for faults that can repeat at any rate.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Why the bus could not be started. No text holds the URL: it may contain a password.
#[derive(Debug, Error)]
pub enum BusError {
    /// The URL cannot be used.
    #[error("the host of the NATS URL cannot be used; type nats://host:port")]
    Url,
    /// The fleet's name or the JSON subject cannot be a NATS subject.
    #[error("{0:?} is not a usable subject: no spaces, no wildcards, no empty part between dots")]
    Subject(String),
    /// The credentials file cannot be used.
    #[error("the credentials file {path} cannot be used: {error}")]
    Credentials {
        /// The file, as configured.
        path: PathBuf,
        /// What is wrong with it.
        error: io::Error,
    },
}

/// A running bus. Dropped without [`Bus::shutdown`] it ends at once and says no BYE: peers will miss it.
#[derive(Debug)]
pub struct Bus {
    outbox: Outbox,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    shared: Arc<Shared>,
}

/// What the tasks, the library's callbacks and the [`Bus`] have in common.
#[derive(Debug, Default)]
struct Shared {
    /// The bus has ended: the library must not go on connecting.
    ended: AtomicBool,
    /// The library has dropped messages that came in.
    overflowed: AtomicBool,
    /// A hash of the run id of the Redis behind; 0: not known.
    upstream: AtomicU64,
    /// This proxy is subscribed to the fleet's channel at Redis.
    subscribed: AtomicBool,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    lost: Vec<u64>,
    /// Peers that are subscribed, as far as is known.
    subscribers: u64,
    /// A peer is lost, or an instance is not heard.
    wants_shown: bool,
    /// An instance may be unheard; one more look decides.
    hurries: bool,
    /// The last list of what Redis shows, until the receiver takes it.
    shown: Option<Vec<Instance>>,
    /// The connection over which Redis is asked is a new one since the receiver looked.
    asked_anew: bool,
}

impl Shared {
    fn upstream(&self) -> Option<u64> {
        Some(self.upstream.load(Ordering::Relaxed)).filter(|upstream| *upstream != 0)
    }

    fn lists(&self) -> MutexGuard<'_, Lists> {
        // Nothing that is done under this lock can leave the lists half changed.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the bus on `handle` and returns at once, connected or not. `sink.set_doubtful(true)` has been called by then;
/// it ends when a heartbeat has come back. NATS may come and go at any time.
///
/// # Errors
/// Only for what can be known without a connection: a bad URL, subject or credentials file (which is read here).
pub fn start(handle: &Handle, settings: Settings, sink: Arc<dyn Sink>, stats: Arc<BusStats>) -> Result<Bus, BusError> {
    let servers = servers(&settings.nats)?;
    let subject = subject(format!("shortstop.v1.{}", settings.fleet))?;
    let json_subject = settings.json.clone().map(self::subject).transpose()?;
    let shared = Arc::new(Shared::default());
    let options = options(&settings, &shared)?;
    let (outbox, inlet) = queue(settings.queue);
    let (stop, stopped) = oneshot::channel();
    sink.set_doubtful(true);
    let wire = Wire { settings, subject, json_subject, sink, stats, shared: Arc::clone(&shared) };
    let task = handle.spawn(async move {
        match options.connect(servers).await {
            Ok(client) => wire.run(client, inlet, stopped).await,
            Err(error) => warn!(%error, "nats: cannot start; this proxy runs alone"),
        }
    });
    Ok(Bus { outbox, task, stop: Some(stop), shared })
}

impl Bus {
    /// A sending end; one for each worker.
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// A handle for the part that asks Redis which instances are connected. It does not keep the bus alive.
    pub fn peers(&self) -> PeerWatch {
        PeerWatch(Arc::clone(&self.shared))
    }

    /// See [`PeerWatch::lost`].
    pub fn lost_peers(&self) -> Vec<u64> {
        self.peers().lost()
    }

    /// Sends what is queued, says BYE, and ends; waits at most a second. Whoever calls this must be done with
    /// writing to Redis: the peers stop watching out for this proxy.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the task has ended already.
            let _ = stop.send(());
        }
        if timeout(SHUTDOWN, &mut self.task).await.is_err() {
            info!("nats: no answer; leaving without it");
        }
    }
}

/// Tells the bus which instances Redis shows, and what the bus wants to know of them.
#[derive(Clone, Debug)]
pub struct PeerWatch(Arc<Shared>);

impl PeerWatch {
    /// Peers that fell silent without a BYE and may still be writing, until Redis has not shown them for some time
    /// ([`PeerWatch::shown`]).
    pub fn lost(&self) -> Vec<u64> {
        self.0.lists().lost.clone()
    }

    /// Redis is asked over a new connection. `upstream` is a hash of the server's run id; `subscribed`: this instance is subscribed
    /// to the fleet's channel. Both travel with the heartbeats.
    pub fn connected(&self, upstream: Option<u64>, subscribed: bool) {
        self.0.upstream.store(upstream.unwrap_or(0), Ordering::Relaxed);
        self.0.subscribed.store(subscribed, Ordering::Relaxed);
        self.0.lists().asked_anew = true;
    }

    /// This instance is not subscribed any more.
    pub fn disconnected(&self) {
        self.0.subscribed.store(false, Ordering::Relaxed);
    }

    /// How many subscribers the fleet's channel should have.
    pub fn subscribers(&self) -> u64 {
        self.0.lists().subscribers + u64::from(self.0.subscribed.load(Ordering::Relaxed))
    }

    /// Whether it matters now which instances Redis shows: a peer is lost, or an instance is not heard.
    pub fn wants_shown(&self) -> bool {
        self.0.lists().wants_shown
    }

    /// Whether Redis should be asked at once: an instance may be unheard.
    pub fn hurries(&self) -> bool {
        self.0.lists().hurries
    }

    /// All instances of the fleet that Redis shows now, by the names of their connections ([`connection_name`]).
    pub fn shown(&self, instances: Vec<Instance>) {
        self.0.lists().shown = Some(instances);
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// The servers as the library wants them, without logins: it would not use the user in a URL, and would show it in its log at
/// debug level.
fn servers(nats: &NatsUrl) -> Result<Vec<ServerAddr>, BusError> {
    nats.servers().map(|server| server.parse().map_err(|_| BusError::Url)).collect()
}

fn subject(name: String) -> Result<String, BusError> {
    let bad = |token: &str| {
        token.is_empty() || token.contains(|c: char| c.is_whitespace() || c.is_control() || "*>".contains(c))
    };
    if name.split('.').any(bad) { Err(BusError::Subject(name)) } else { Ok(name) }
}

fn options(settings: &Settings, shared: &Arc<Shared>) -> Result<ConnectOptions, BusError> {
    let on_event = Arc::clone(shared);
    let on_delay = Arc::clone(shared);
    let limit = Arc::new(LogLimit::default());
    let options = ConnectOptions::new()
        .name(connection_name(&settings.fleet, settings.incarnation))
        .retry_on_initial_connect()
        .connection_timeout(CONNECT)
        .ping_interval(PING)
        .client_capacity(COMMANDS)
        .subscription_capacity(WAITING)
        .reconnect_delay_callback(move |attempt| {
            if on_delay.ended.load(Ordering::Relaxed) {
                // The library notices that its client is gone only while connected. A sleeping task is all that
                // is left of it until the runtime ends.
                return Duration::from_secs(u64::from(u32::MAX));
            }
            let doublings = u32::try_from(attempt).unwrap_or(u32::MAX).saturating_sub(1).min(16);
            (BACKOFF.0 * (1 << doublings)).min(BACKOFF.1)
        })
        .event_callback(move |event| {
            let (shared, limit) = (Arc::clone(&on_event), Arc::clone(&limit));
            async move { noted(&event, &shared, &limit) }
        });
    let options = match settings.nats.login() {
        Some(NatsLogin::Password { user, password }) => {
            options.user_and_password(user.clone(), password.expose().to_owned())
        }
        Some(NatsLogin::Token(token)) => options.token(token.expose().to_owned()),
        None => options,
    };
    match &settings.credentials {
        Some(path) => with_credentials(options, path),
        None => Ok(options),
    }
}

fn with_credentials(options: ConnectOptions, path: &Path) -> Result<ConnectOptions, BusError> {
    std::fs::read_to_string(path)
        .and_then(|text| options.credentials(&text))
        .map_err(|error| BusError::Credentials { path: path.to_owned(), error })
}

/// Whether a credentials file can be used.
///
/// # Errors
/// It cannot be read, or holds no credentials.
pub fn check_credentials(path: &Path) -> Result<(), BusError> {
    with_credentials(ConnectOptions::new(), path).map(drop)
}

/// What the library says of itself: for the log, and a flag. Events can be lost; nothing that must be right hangs on them.
fn noted(event: &async_nats::Event, shared: &Shared, limit: &LogLimit) {
    match event {
        async_nats::Event::Connected => info!("nats: connected"),
        async_nats::Event::Disconnected => warn!("nats: disconnected"),
        async_nats::Event::SlowConsumer(_) => {
            shared.overflowed.store(true, Ordering::Relaxed);
            if let Some(times) = limit.allow() {
                warn!(times, "nats: messages came faster than they could be taken");
            }
        }
        other => {
            if let Some(times) = limit.allow() {
                warn!(times, "nats: {other}");
            }
        }
    }
}

/// Lets one fault through every [`LOG_EVERY`] and counts the rest.
#[derive(Debug, Default)]
struct LogLimit(Mutex<(Option<Instant>, u64)>);

impl LogLimit {
    /// `Some(times)`: write a line; it stands for so many faults.
    fn allow(&self) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 += 1;
        let now = Instant::now();
        if state.0.is_some_and(|last| now < last + LOG_EVERY) {
            return None;
        }
        state.0 = Some(now);
        Some(std::mem::take(&mut state.1))
    }
}

/// The number of this connection, `None` while there is none.
fn connection(client: &Client) -> Option<u64> {
    // The number first: the library raises it before it says Connected, so a replaced connection is never taken
    // for its successor.
    let number = client.statistics().connects.load(Ordering::SeqCst);
    (client.connection_state() == State::Connected).then_some(number)
}

/// Hands one message to the library, which has to take it soon.
async fn publish(client: &Client, subject: &str, bytes: Vec<u8>) -> bool {
    matches!(timeout(PUBLISH, client.publish(subject.to_owned(), Bytes::from(bytes))).await, Ok(Ok(())))
}

/// What the tasks are made from.
struct Wire {
    settings: Settings,
    subject: String,
    json_subject: Option<String>,
    sink: Arc<dyn Sink>,
    stats: Arc<BusStats>,
    shared: Arc<Shared>,
}

impl Wire {
    async fn run(self, client: Client, inlet: Inlet, stopped: oneshot::Receiver<()>) {
        let origin = Instant::now();
        // Dropped with this future, and the tasks with it.
        let mut tasks = JoinSet::new();
        let subscription = match client.subscribe(self.subject.clone()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                warn!(%error, "nats: cannot subscribe; this proxy runs alone");
                return;
            }
        };
        let (ended, bye_is_back) = oneshot::channel();
        let receiver = Receiver {
            client: client.clone(),
            peers: Peers::new(self.settings.incarnation, origin),
            sink: Arc::clone(&self.sink),
            stats: Arc::clone(&self.stats),
            shared: Arc::clone(&self.shared),
            actions: Vec::new(),
            ended: Some(ended),
            log: LogLimit::default(),
            instances: Vec::new(),
            unheard: BTreeSet::new(),
            other_upstream: BTreeSet::new(),
        };
        tasks.spawn(receiver.run(subscription));
        let (json, json_done) = self.start_json(&client, &mut tasks).await.unzip();
        let mut publisher = Publisher {
            client,
            subject: self.subject,
            incarnation: self.settings.incarnation,
            origin,
            stats: self.stats,
            shared: Arc::clone(&self.shared),
            json,
            sequence: 0,
            greeted: false,
            beat: None,
        };
        if !publisher.run(inlet, stopped).await {
            return;
        }
        publisher.json = None;
        if let Some(done) = json_done {
            // An error is the task's end as well.
            let _ = done.await;
        }
        if publisher.send(Body::Bye).await {
            // Its echo shows that the server has routed it, and all before it. The caller limits the wait.
            let _ = bye_is_back.await;
        }
    }

    /// The two tasks of the JSON subject, the queue to the one that sends, and the news of its end.
    async fn start_json(&self, client: &Client, tasks: &mut JoinSet<()>) -> Option<(Outbox, oneshot::Receiver<()>)> {
        let subject = self.json_subject.clone()?;
        let subscription = match client.subscribe(subject.clone()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                warn!(%error, "nats: cannot subscribe to the JSON subject");
                return None;
            }
        };
        tasks.spawn(hear_json(subscription, Arc::clone(&self.sink), Arc::clone(&self.stats)));
        let (outbox, inlet) = queue(self.settings.queue);
        let (done, when_done) = oneshot::channel();
        let writer = JsonWriter {
            client: client.clone(),
            subject,
            instance: connection_name(&self.settings.fleet, self.settings.incarnation),
            stats: Arc::clone(&self.stats),
            owes_clear: false,
        };
        tasks.spawn(async move {
            writer.run(inlet).await;
            // Nobody listens unless the bus is ending.
            let _ = done.send(());
        });
        Some((outbox, when_done))
    }
}

/// Sends the fleet's messages; the only one who numbers them.
struct Publisher {
    client: Client,
    subject: String,
    incarnation: u64,
    /// Zero of the clock in the heartbeats.
    origin: Instant,
    stats: Arc<BusStats>,
    shared: Arc<Shared>,
    json: Option<Outbox>,
    /// The last number used, by a message that was sent or should have been.
    sequence: u64,
    /// HELLO has been sent.
    greeted: bool,
    /// When the last heartbeat was sent, and on which connection.
    beat: Option<(Instant, u64)>,
}

impl Publisher {
    /// Until told to stop, and then what is queued. `false`: there is nobody left to end in good order for.
    async fn run(&mut self, mut inlet: Inlet, mut stopped: oneshot::Receiver<()>) -> bool {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::new();
        loop {
            tokio::select! {
                biased;
                stop = &mut stopped => match stop {
                    Ok(()) => break,
                    // The Bus was dropped and this task is being aborted: nothing more may be said, a BYE least of all.
                    Err(_) => return false,
                },
                _ = look.tick() => self.heartbeat().await,
                lost = inlet.drain(&mut events) => match lost {
                    Some(lost) => self.publish(&mut events, lost).await,
                    // Cannot be while there is a Bus, which holds an Outbox.
                    None => return false,
                },
            }
        }
        let lost = inlet.drain_now(&mut events);
        self.publish(&mut events, lost).await;
        true
    }

    /// Sends a heartbeat if one is due, or the connection is new.
    async fn heartbeat(&mut self) {
        let Some(connection) = connection(&self.client) else {
            return;
        };
        let now = Instant::now();
        if self.beat.is_some_and(|(last, on)| on == connection && now < last + HEARTBEAT) {
            return;
        }
        // A clock that ran for 584 years would stop the leases, nothing worse.
        let sent = u64::try_from(now.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let about =
            About { upstream: self.shared.upstream(), subscribed: self.shared.subscribed.load(Ordering::Relaxed) };
        if self.send(Body::Heartbeat(Probe { connection, sent }, about)).await {
            self.beat = Some((now, connection));
        }
    }

    /// Publishes and empties `events`; `lost` more did not fit the queue.
    async fn publish(&mut self, events: &mut Vec<Event>, lost: u64) {
        self.stats.dropped.fetch_add(lost, Ordering::Relaxed);
        // Where there is a flush it says all that the keys would say: the peers apply it after all of these
        // writes. It does not keep a key from being filled again, so quarantines are sent beside it.
        let flush = events.contains(&Event::Flush);
        let all = events.contains(&Event::QuarantineAll);
        // One message stands for all scripts of a batch. Beside a flush none is needed, unless a script may still be running.
        let script = |lost| events.iter().any(|event| matches!(event, Event::Script { lost: is, .. } if *is == lost));
        let (ran, lost_script) = (script(false), script(true));
        let script = (!all && (lost_script || ran && !flush)).then_some(Body::Script { lost: lost_script });
        let written = events.iter().filter_map(|event| match event {
            Event::Invalidate { hash, key } if !flush && !all => Some((key.db(), *hash)),
            _ => None,
        });
        let doubtful = events.iter().filter_map(|event| match event {
            Event::Quarantine { hash, key } => Some((key.db(), *hash)),
            _ => None,
        });
        let max = MAX_BYTES.min(self.client.max_payload());
        let flush = (flush && !all).then_some(Body::Flush);
        let all = all.then_some(Body::QuarantineAll);
        let written = split(written, max).into_iter().map(Body::Invalidate);
        let doubtful = split(doubtful, max).into_iter().map(Body::Quarantine);
        let mut stalled = false;
        for body in flush.into_iter().chain(all).chain(script).chain(doubtful).chain(written) {
            if stalled {
                self.skip(&body);
            } else {
                // One wait for each batch is enough: a link that did not take this one will not take the next.
                stalled = !self.send(body).await;
            }
        }
        match &self.json {
            // Not taken: the queue has put a flush in its place.
            Some(json) => drop(json.try_send(std::mem::take(events))),
            None => events.clear(),
        }
    }

    /// Sends one message, HELLO before the first. `false`: it was not sent; its number is used up all the same, so
    /// that the peers see a hole.
    async fn send(&mut self, body: Body) -> bool {
        if connection(&self.client).is_none() {
            self.skip(&body);
            return false;
        }
        if !self.greeted {
            let hello = self.encode(Body::Hello);
            self.greeted = publish(&self.client, &self.subject, hello).await;
            if !self.greeted {
                self.skip(&body);
                return false;
            }
        }
        let events = body.events();
        if body.counts() {
            self.sequence += 1;
        }
        let message = self.encode(body);
        let sent = publish(&self.client, &self.subject, message).await;
        let counter = if sent { &self.stats.published } else { &self.stats.dropped };
        counter.fetch_add(events, Ordering::Relaxed);
        sent
    }

    fn skip(&mut self, body: &Body) {
        if body.counts() {
            self.sequence += 1;
        }
        self.stats.dropped.fetch_add(body.events(), Ordering::Relaxed);
    }

    fn encode(&self, body: Body) -> Vec<u8> {
        Message { incarnation: self.incarnation, sequence: self.sequence, body }.encode()
    }
}

/// Takes the fleet's messages and carries out what `peers` decides.
struct Receiver {
    client: Client,
    peers: Peers,
    sink: Arc<dyn Sink>,
    stats: Arc<BusStats>,
    shared: Arc<Shared>,
    /// Kept for its memory.
    actions: Vec<Action>,
    ended: Option<oneshot::Sender<()>>,
    log: LogLimit,
    /// What Redis showed last.
    instances: Vec<Instance>,
    /// Those that the log has named.
    unheard: BTreeSet<u64>,
    other_upstream: BTreeSet<u64>,
}

impl Receiver {
    async fn run(mut self, mut subscription: Subscriber) {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = subscription.next() => match message {
                    Some(message) => self.take(&message.payload),
                    None => return,
                },
                _ = look.tick() => self.look(),
            }
        }
    }

    /// One message. The state of the link is looked at first: an echo counts only for the connection it came over.
    fn take(&mut self, payload: &[u8]) {
        self.look_at_link();
        match Message::decode(payload) {
            Ok(message) => self.step(Input::Heard(&message)),
            Err(error) => {
                self.stats.unreadable.fetch_add(1, Ordering::Relaxed);
                if let Some(times) = self.log.allow() {
                    warn!(times, %error, "nats: a message on the fleet's subject could not be understood");
                }
                self.step(Input::Unreadable);
            }
        }
    }

    fn look(&mut self) {
        self.look_at_link();
        let (asked_anew, shown) = {
            let mut lists = self.shared.lists();
            (std::mem::take(&mut lists.asked_anew), lists.shown.take())
        };
        self.step(Input::Upstream(self.shared.upstream()));
        if asked_anew {
            self.step(Input::AskedAnew);
        }
        if let Some(instances) = shown {
            let shown = instances.iter().map(|instance| instance.incarnation).collect();
            self.instances = instances;
            self.step(Input::Shown(&shown));
        }
        self.step(Input::Tick);
        self.show();
        self.name_unheard();
        self.log_other_upstream();
    }

    /// Names in the log instances that are not heard, and those that are heard again or gone.
    fn name_unheard(&mut self) {
        let unheard = self.peers.unheard();
        for incarnation in unheard.difference(&self.unheard).take(NAMED) {
            let found = self.instances.iter().find(|instance| instance.incarnation == *incarnation);
            warn!(
                instance = format_args!("{incarnation:016x}"),
                address = found.map_or("", |instance| instance.address.as_str()),
                "a Shortstop of this fleet is connected to Redis and is not heard on NATS. Until it is heard or gone, values are \
                 served for up to degraded_staleness. It has no NATS in its configuration, another one, or cannot reach it: look for \
                 nats_configured and nats_connected in its PROXY INFO"
            );
        }
        for incarnation in self.unheard.difference(&unheard).take(NAMED) {
            let instance = format_args!("{incarnation:016x}");
            info!(%instance, "a Shortstop that was not heard on NATS is heard now, or gone from Redis");
        }
        self.unheard = unheard;
    }

    /// Names in the log peers that have another Redis.
    fn log_other_upstream(&mut self) {
        let other_upstream = self.peers.other_upstream(Instant::now());
        for incarnation in other_upstream.difference(&self.other_upstream).take(NAMED) {
            warn!(
                instance = format_args!("{incarnation:016x}"),
                "a Shortstop with this fleet's name on this NATS has another Redis. Its writes drop values from L1 here for nothing; \
                 give it another fleet name, or the same upstream"
            );
        }
        self.other_upstream = other_upstream;
    }

    fn look_at_link(&mut self) {
        self.step(Input::Connection(connection(&self.client)));
        if self.shared.overflowed.swap(false, Ordering::Relaxed) {
            self.step(Input::Overflow);
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.peers.step(Instant::now(), input, &mut actions);
        if actions.iter().any(|action| *action != Action::Apply) {
            // Before the cache is told, so that whoever it tells finds the list up to date.
            self.show();
        }
        for action in actions.drain(..) {
            self.act(action, input);
        }
        self.actions = actions;
        if let Input::Heard(message) = input
            && self.peers.is_peer(message.incarnation)
        {
            self.stats.received.fetch_add(message.body.events(), Ordering::Relaxed);
        }
    }

    fn act(&mut self, action: Action, input: Input<'_>) {
        match (action, input) {
            (Action::Apply, Input::Heard(message)) => self.apply(&message.body),
            // Only a message that was heard can be applied.
            (Action::Apply, _) => {}
            (Action::Flush(doubt), _) => {
                if doubt.is_gap() {
                    self.stats.gaps.fetch_add(1, Ordering::Relaxed);
                }
                debug!(why = doubt.as_str(), "flush");
                self.sink.flush(doubt.as_str());
            }
            (Action::Lease(until), _) => self.sink.lease(until),
            (Action::Doubtful(doubtful), _) => self.sink.set_doubtful(doubtful),
            (Action::Ended, _) => {
                if let Some(ended) = self.ended.take() {
                    // Nobody waits unless the bus is ending.
                    let _ = ended.send(());
                }
            }
        }
    }

    fn apply(&self, body: &Body) {
        match body {
            Body::Invalidate(groups) => {
                for keys in groups {
                    keys.hashes.iter().for_each(|hash| self.sink.invalidate(keys.db, *hash));
                }
            }
            Body::Quarantine(groups) => {
                for keys in groups {
                    keys.hashes.iter().for_each(|hash| self.sink.quarantine(keys.db, *hash));
                }
            }
            Body::Flush => self.sink.changed(),
            Body::Script { lost } => self.sink.script(*lost),
            Body::QuarantineAll => self.sink.quarantine_all(),
            Body::Hello | Body::Heartbeat(..) | Body::Bye => {}
        }
        self.stats.applied.fetch_add(body.events(), Ordering::Relaxed);
    }

    /// What others may see of the state.
    fn show(&self) {
        self.stats.peers.store(self.peers.count() as u64, Ordering::Relaxed);
        self.stats.connected.store(self.peers.proven(), Ordering::Relaxed);
        let unheard = self.peers.unheard().len();
        self.stats.unheard.store(unheard as u64, Ordering::Relaxed);
        self.stats.other_upstream.store(self.peers.other_upstream(Instant::now()).len() as u64, Ordering::Relaxed);
        let mut lists = self.shared.lists();
        lists.lost = self.peers.lost().iter().copied().collect();
        lists.subscribers = self.peers.subscribers();
        lists.wants_shown = self.peers.wants_shown();
        lists.hurries = self.peers.is_unsure();
    }
}

/// Applies what services ask for.
async fn hear_json(mut subscription: Subscriber, sink: Arc<dyn Sink>, stats: Arc<BusStats>) {
    let log = LogLimit::default();
    while let Some(message) = subscription.next().await {
        let request = json::read(&message.payload);
        if matches!(request, Ok(Request::Ours)) {
            continue;
        }
        stats.json_received.fetch_add(1, Ordering::Relaxed);
        match request {
            Ok(Request::Key(key)) => sink.invalidate_key(&key),
            Ok(Request::Pattern(glob)) => sink.invalidate_pattern(&glob),
            Ok(Request::Clear) => sink.flush("bus: a service asks for it"),
            Ok(Request::Ours) => continue,
            Err(error) => {
                stats.json_bad.fetch_add(1, Ordering::Relaxed);
                if let Some(times) = log.allow() {
                    warn!(times, %error, "nats: a JSON message was ignored");
                }
                continue;
            }
        }
        stats.applied.fetch_add(1, Ordering::Relaxed);
    }
}

/// Tells services of written keys. They see no numbers, so whatever could not be sent is made up for by one `clear`
/// as soon as something can be sent.
struct JsonWriter {
    client: Client,
    subject: String,
    instance: String,
    stats: Arc<BusStats>,
    owes_clear: bool,
}

impl JsonWriter {
    /// Ends when the publisher has dropped its end of the queue and all is sent.
    async fn run(mut self, mut inlet: Inlet) {
        let mut events = Vec::new();
        let mut look = interval(HEARTBEAT);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                lost = inlet.drain(&mut events) => {
                    let Some(lost) = lost else { return };
                    self.stats.json_dropped.fetch_add(lost, Ordering::Relaxed);
                    for event in events.drain(..) {
                        if !matches!(event, Event::Script { clear: false, .. }) {
                            self.tell(event).await;
                        }
                    }
                }
                _ = look.tick(), if self.owes_clear => {}
            }
            if self.owes_clear && connection(&self.client).is_some() {
                self.owes_clear = false;
                self.tell(Event::Flush).await;
            }
        }
    }

    async fn tell(&mut self, event: Event) {
        // One `clear` at the end of the batch says it all.
        let sent = !self.owes_clear && connection(&self.client).is_some() && {
            let now = SystemTime::now();
            let message = match event {
                Event::Invalidate { key, .. } | Event::Quarantine { key, .. } => {
                    json::invalidate(key.bytes(), &self.instance, now)
                }
                Event::Flush | Event::QuarantineAll | Event::Script { .. } => json::clear(&self.instance, now),
            };
            publish(&self.client, &self.subject, message).await
        };
        self.owes_clear |= !sent;
        let counter = if sent { &self.stats.json_published } else { &self.stats.json_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{LogLimit, servers, subject};

    #[test]
    fn the_library_gets_no_login() {
        let nats = "nats://b,tls://us%40er:hunter2@a.b_c:4223,[::1]:1".parse().expect("good");
        let found: Vec<_> = servers(&nats).expect("good").iter().map(|server| server.as_url_str().to_owned()).collect();
        assert_eq!(found, ["nats://b", "tls://a.b_c:4223", "nats://[::1]:1"]);
    }

    #[test]
    fn subjects() {
        assert!(subject("shortstop.v1.default".into()).is_ok());
        for bad in ["", "a..b", "a.", "a b", "a.*", "a.>", "a\r\nb"] {
            assert!(subject(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_fault_that_repeats_is_logged_once() {
        let limit = LogLimit::default();
        assert_eq!(limit.allow(), Some(1));
        assert_eq!((0..100).filter_map(|_| limit.allow()).count(), 0);
    }
}
