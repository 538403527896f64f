//! The running bus: starts its tasks on one NATS connection, and ends them in order.
//!
//! Shortstop relies on the library to transfer bytes, but not to detect failures: it buffers commands while disconnected and then
//! blocks, it reports "connected" before the subscriptions are back, and it drops messages that are not taken fast enough. So
//! nothing is published while disconnected, nothing waits longer than `client::PUBLISH`, and `peers` decides by echoes and sequence
//! numbers whether this Shortstop receives what its peers send. Decisions do not belong here.
//!
//! Up to nine tasks: publisher, receiver, one for notices, and one for each direction of the JSON subject, of the status subject and of
//! the subject of updates. So neither a stalled connection nor a flood of JSON can delay the fleet's subject. The lease is about the fleet's subject only.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use async_nats::Client;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tracing::{info, warn};

use crate::metrics::slots::BusStats;

use super::client::{connection, publish};
use super::connect::{BusError, options, servers, subject};
use super::event::Sink;
use super::json::Passed;
use super::log_limit::LogLimit;
use super::message::Body;
use super::notices::{self, Notice};
use super::outbox::{Inlet, Outbox, queue};
use super::peers::Peers;
use super::publisher::Publisher;
use super::receiver::Receiver;
use super::services::{JsonWriter, apply_requests};
use super::settings::{Settings, connection_name};
use super::status;
use super::updates::{self, Update, Updates};
use super::watch::{PeerWatch, Shared};
use crate::supervisor::End;

/// Timeout of the shutdown, BYE included.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// A running bus. If it is dropped without [`Bus::shutdown`], it ends at once and sends no BYE, so the peers count it as lost.
#[derive(Debug)]
pub struct Bus {
    outbox: Outbox,
    notices: mpsc::Sender<Notice>,
    status: mpsc::Sender<Vec<u8>>,
    updates: Option<Updates>,
    task: JoinHandle<()>,
    stop: Option<oneshot::Sender<()>>,
    shared: Arc<Shared>,
}

/// Starts the bus on `handle` and returns at once, connected or not. By then `sink.set_doubtful(true)` has been called; the doubt
/// ends when a heartbeat has come back. NATS may come and go at any time.
///
/// # Errors
/// Only what can be checked without a connection: a bad URL, subject or credentials file (which is read here).
pub fn start(handle: &Handle, settings: Settings, sink: Arc<dyn Sink>, stats: Arc<BusStats>) -> Result<Bus, BusError> {
    let servers = servers(&settings.nats)?;
    let fleet_subject = subject(format!("shortstop.v1.{}", settings.fleet))?;
    let json_subject = settings.json.clone().map(subject).transpose()?;
    let shared = Arc::new(Shared::default());
    let options = options(&settings, &shared)?;
    let (outbox, inlet) = queue(settings.queue);
    let (notices, to_publish) = mpsc::channel(notices::QUEUE);
    // One message: a later one tells more.
    let (status, to_tell) = mpsc::channel(1);
    let (to_updates, to_announce) = mpsc::channel(updates::QUEUE);
    let updates_subject = settings.updates.clone().map(subject).transpose()?;
    let updates = updates_subject.is_some().then(|| Updates { queue: to_updates, stats: Arc::clone(&stats) });
    let (stop, stopped) = oneshot::channel();
    sink.set_doubtful(true);
    let wire = Wire {
        settings,
        subject: fleet_subject,
        json_subject,
        updates_subject,
        sink,
        stats,
        shared: Arc::clone(&shared),
    };
    let queues = Queues { inlet, to_publish, to_tell, to_announce };
    let supervisor = wire.settings.supervisor.clone();
    let task = handle.spawn(supervisor.watch("the bus", End::Allowed, async move {
        match options.connect(servers).await {
            Ok(client) => wire.run(client, queues, stopped).await,
            Err(error) => warn!(%error, "nats: cannot start; this Shortstop runs alone"),
        }
    }));
    Ok(Bus { outbox, notices, status, updates, task, stop: Some(stop), shared })
}

impl Bus {
    /// A sender of events; one for each worker.
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// A sender of notices. It does not make its caller wait: a full queue takes no more.
    pub fn notices(&self) -> mpsc::Sender<Notice> {
        self.notices.clone()
    }

    /// A sender of announcements. `None` if there is no subject for them.
    pub fn updates(&self) -> Option<Updates> {
        self.updates.clone()
    }

    /// A sender of what this instance tells of itself on the status subject, `shortstop.v1.<fleet>.status`. A full queue takes no more, and
    /// what is sent while NATS is away is lost.
    pub fn status(&self) -> mpsc::Sender<Vec<u8>> {
        self.status.clone()
    }

    /// A handle for the task that asks Redis which instances are connected. It does not keep the bus alive.
    pub fn peers(&self) -> PeerWatch {
        PeerWatch(Arc::clone(&self.shared))
    }

    /// See [`PeerWatch::lost`].
    pub fn lost_peers(&self) -> Vec<u64> {
        self.peers().lost()
    }

    /// Sends what is queued, sends BYE, and ends. Takes a second at most. The caller must have finished writing to Redis, because
    /// the peers then forget this Shortstop.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // An error means that the task has ended already.
            let _ = stop.send(());
        }
        if timeout(SHUTDOWN, &mut self.task).await.is_err() {
            info!("nats: no answer; shutting down without it");
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        self.task.abort();
    }
}

/// What others of this process have for the bus.
struct Queues {
    inlet: Inlet,
    to_publish: mpsc::Receiver<Notice>,
    to_tell: mpsc::Receiver<Vec<u8>>,
    to_announce: mpsc::Receiver<Update>,
}

/// The parts from which the tasks are made.
struct Wire {
    settings: Settings,
    subject: String,
    json_subject: Option<String>,
    updates_subject: Option<String>,
    sink: Arc<dyn Sink>,
    stats: Arc<BusStats>,
    shared: Arc<Shared>,
}

impl Wire {
    async fn run(self, client: Client, queues: Queues, stopped: oneshot::Receiver<()>) {
        let Queues { inlet, to_publish, to_tell, to_announce } = queues;
        let origin = Instant::now();
        // Dropped with this future, which ends the tasks.
        let mut tasks = JoinSet::new();
        let subscription = match client.subscribe(self.subject.clone()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                warn!(%error, "nats: cannot subscribe; this Shortstop runs alone");
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
            heard: BTreeSet::new(),
            lost: BTreeSet::new(),
        };
        tasks.spawn(self.settings.supervisor.watch("the bus's receiver", End::Allowed, receiver.run(subscription)));
        let publishes = notices::run(client.clone(), to_publish);
        tasks.spawn(self.settings.supervisor.watch("the sender of notices", End::Allowed, publishes));
        let status_subject = format!("{}.status", self.subject);
        let tells = status::tell(client.clone(), status_subject.clone(), to_tell, Arc::clone(&self.stats));
        tasks.spawn(self.settings.supervisor.watch("the sender of summaries", End::Allowed, tells));
        match client.subscribe(status_subject.clone()).await {
            Ok(subscription) => {
                let listens = status::listen(subscription, Arc::clone(&self.sink), Arc::clone(&self.stats));
                tasks.spawn(self.settings.supervisor.watch("the receiver of summaries", End::Allowed, listens));
            }
            Err(error) => warn!(%error, "nats: cannot subscribe to the status subject"),
        }
        self.start_updates(&client, &mut tasks, to_announce).await;
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
            // An error also means that the task has ended.
            let _ = done.await;
        }
        let farewell = self.settings.farewell;
        if !farewell.is_empty() && connection(&publisher.client).is_some() {
            // Before the BYE, whose echo shows that both have been routed.
            publish(&publisher.client, &status_subject, farewell).await;
        }
        if publisher.send(Body::Bye).await {
            // Its echo shows that the server has routed it and everything before it. The caller sets a timeout.
            let _ = bye_is_back.await;
        }
    }

    /// Starts the two tasks of the subject of updates, if there is one.
    async fn start_updates(&self, client: &Client, tasks: &mut JoinSet<()>, to_announce: mpsc::Receiver<Update>) {
        let Some(subject) = self.updates_subject.clone() else { return };
        let instance = connection_name(&self.settings.fleet, self.settings.incarnation);
        match client.subscribe(subject.clone()).await {
            Ok(subscription) => {
                let passed = Passed::Of(instance.clone());
                let applies = apply_requests(subscription, passed, Arc::clone(&self.sink), Arc::clone(&self.stats));
                tasks.spawn(self.settings.supervisor.watch("the receiver of updates", End::Allowed, applies));
            }
            Err(error) => warn!(%error, "nats: cannot subscribe to the subject of updates"),
        }
        let announces = updates::run(client.clone(), subject, instance, to_announce, Arc::clone(&self.stats));
        tasks.spawn(self.settings.supervisor.watch("the sender of updates", End::Allowed, announces));
    }

    /// Starts the two tasks of the JSON subject. Returns the queue to the sending one, and a signal of its end.
    async fn start_json(&self, client: &Client, tasks: &mut JoinSet<()>) -> Option<(Outbox, oneshot::Receiver<()>)> {
        let subject = self.json_subject.clone()?;
        let subscription = match client.subscribe(subject.clone()).await {
            Ok(subscription) => subscription,
            Err(error) => {
                warn!(%error, "nats: cannot subscribe to the JSON subject");
                return None;
            }
        };
        let applies =
            apply_requests(subscription, Passed::OfShortstops, Arc::clone(&self.sink), Arc::clone(&self.stats));
        tasks.spawn(self.settings.supervisor.watch("the receiver of JSON", End::Allowed, applies));
        let (outbox, inlet) = queue(self.settings.queue);
        let (done, when_done) = oneshot::channel();
        let writer = JsonWriter {
            client: client.clone(),
            subject,
            instance: connection_name(&self.settings.fleet, self.settings.incarnation),
            stats: Arc::clone(&self.stats),
            owes_clear: false,
        };
        tasks.spawn(self.settings.supervisor.watch("the sender of JSON", End::Allowed, async move {
            writer.run(inlet).await;
            // An error means that no task waits for the end.
            let _ = done.send(());
        }));
        Some((outbox, when_done))
    }
}
