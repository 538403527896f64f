//! The task that receives the fleet's messages and carries out what `peers` decides. It decides nothing itself.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use crate::coherence::LEASE;
use crate::metrics::outcome::EventKind;
use crate::metrics::slots::BusStats;

use super::client::{LOOK, connection};
use super::event::Sink;
use super::log_limit::LogLimit;
use super::message::{Body, Message};
use super::peers::{Action, Input, Peers};
use super::watch::{Instance, Shared};

/// Maximum number of instances to name in the log at once.
const NAMED: usize = 8;

/// Receives the fleet's messages and carries out what `peers` decides.
pub(super) struct Receiver {
    pub(super) client: Client,
    pub(super) peers: Peers,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) stats: Arc<BusStats>,
    pub(super) shared: Arc<Shared>,
    /// Reused at each step.
    pub(super) actions: Vec<Action>,
    pub(super) ended: Option<oneshot::Sender<()>>,
    pub(super) log: LogLimit,
    /// The instances that Redis showed last.
    pub(super) instances: Vec<Instance>,
    /// Instances that the log has named because their messages do not arrive.
    pub(super) unheard: BTreeSet<u64>,
    pub(super) other_upstream: BTreeSet<u64>,
    /// Peers that the journal has named as found.
    pub(super) heard: BTreeSet<u64>,
    /// Peers that the journal has named as lost.
    pub(super) lost: BTreeSet<u64>,
}

impl Receiver {
    pub(super) async fn run(mut self, mut subscription: Subscriber) {
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

    /// Handles one message. Checks the connection first, because an echo counts only for the connection over which it came.
    fn take(&mut self, payload: &[u8]) {
        self.look_at_link();
        match Message::decode(payload) {
            Ok(message) => self.step(Input::Received(&message)),
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
        self.note_peers();
        self.name_unheard();
        self.log_other_upstream();
    }

    fn note(&self, kind: EventKind, why: impl Display) {
        self.stats.journal.note(kind, why);
    }

    /// Notes peers that were found, lost, or have ended.
    fn note_peers(&mut self) {
        let lost = self.peers.lost().clone();
        let known: BTreeSet<u64> = self.peers.known().collect();
        let heard: BTreeSet<u64> = known.difference(&lost).copied().collect();
        for incarnation in heard.difference(&self.heard).take(NAMED) {
            self.note(EventKind::PeerFound, format_args!("instance {incarnation:016x}"));
        }
        for incarnation in self.heard.difference(&heard).take(NAMED) {
            let kind = if lost.contains(incarnation) { EventKind::PeerLost } else { EventKind::PeerGone };
            self.note(kind, format_args!("instance {incarnation:016x}"));
        }
        for incarnation in self.lost.difference(&known).take(NAMED) {
            self.note(EventKind::PeerGone, format_args!("instance {incarnation:016x}: Redis shows it no longer"));
        }
        (self.heard, self.lost) = (heard, lost);
    }

    /// Logs instances whose messages do not arrive, and later that they arrive again or that the instance is gone.
    fn name_unheard(&mut self) {
        let unheard = self.peers.unheard();
        for incarnation in unheard.difference(&self.unheard).take(NAMED) {
            let found = self.instances.iter().find(|instance| instance.incarnation == *incarnation);
            self.note(
                EventKind::PeerUnheard,
                format_args!("instance {incarnation:016x} is connected to Redis, and not heard on NATS"),
            );
            warn!(
                instance = format_args!("{incarnation:016x}"),
                address = found.map_or("", |instance| instance.address.as_str()),
                "a Shortstop of this fleet is connected to Redis and is not heard on NATS. Until it is heard or \
                 gone, values are served for up to degraded_staleness. It has no NATS configured, uses another one, \
                 or cannot reach it: see nats_configured and nats_connected in its PROXY INFO"
            );
        }
        for incarnation in self.unheard.difference(&unheard).take(NAMED) {
            let instance = format_args!("{incarnation:016x}");
            self.note(EventKind::PeerHeard, format_args!("instance {instance} is heard, or gone from Redis"));
            info!(%instance, "a Shortstop that was not heard on NATS is heard now, or gone from Redis");
        }
        self.unheard = unheard;
    }

    /// Logs peers that use another Redis.
    fn log_other_upstream(&mut self) {
        let other_upstream = self.peers.other_upstream(Instant::now());
        for incarnation in other_upstream.difference(&self.other_upstream).take(NAMED) {
            warn!(
                instance = format_args!("{incarnation:016x}"),
                "a Shortstop with this fleet's name on this NATS uses another Redis. Its writes drop entries from \
                 L1 here for no reason; give it another fleet name, or the same upstream"
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
            // Before the cache acts, so that what it triggers finds these lists up to date.
            self.show();
        }
        for action in actions.drain(..) {
            self.act(action, input);
        }
        self.actions = actions;
        if let Input::Received(message) = input
            && self.peers.is_peer(message.incarnation)
        {
            self.stats.received.fetch_add(message.body.events(), Ordering::Relaxed);
        }
    }

    fn act(&mut self, action: Action, input: Input<'_>) {
        match (action, input) {
            (Action::Apply, Input::Received(message)) => self.apply(message.incarnation, &message.body),
            // Only a message can be applied.
            (Action::Apply, _) => {}
            (Action::Flush(doubt), _) => {
                if doubt.is_gap() {
                    self.stats.gaps.fetch_add(1, Ordering::Relaxed);
                }
                debug!(why = doubt.as_str(), "flush");
                self.sink.flush(doubt.as_str());
            }
            (Action::Lease(until), _) => {
                let took = (Instant::now() + LEASE).saturating_duration_since(until);
                let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
                self.stats.round_trip.store(nanos, Ordering::Relaxed);
                self.stats.round_trips.record(took, 1);
                self.sink.lease(until);
            }
            (Action::Doubtful(doubtful), _) => self.sink.set_doubtful(doubtful),
            (Action::Ended, _) => {
                if let Some(ended) = self.ended.take() {
                    // An error means that no task waits for the end.
                    let _ = ended.send(());
                }
            }
        }
    }

    fn apply(&self, from: u64, body: &Body) {
        match body {
            Body::Invalidate(groups) => {
                for keys in groups {
                    keys.hashes.iter().for_each(|hash| self.sink.invalidate(keys.db, *hash, from));
                }
            }
            Body::Quarantine(groups) => {
                for keys in groups {
                    keys.hashes.iter().for_each(|hash| self.sink.quarantine(keys.db, *hash));
                }
            }
            Body::Plain(groups) => {
                for keys in groups {
                    keys.hashes.iter().for_each(|hash| self.sink.plain(keys.db, *hash));
                }
            }
            Body::Flush => self.sink.changed(),
            Body::Script { lost } => self.sink.script(*lost),
            Body::QuarantineAll => self.sink.quarantine_all(),
            Body::Forget(glob) => self.sink.forget(glob),
            Body::Hello | Body::Heartbeat(..) | Body::Bye => {}
        }
        self.stats.applied.fetch_add(body.events(), Ordering::Relaxed);
    }

    /// Publishes the state: counters, and the lists for the task that asks Redis.
    fn show(&self) {
        self.stats.peers.store(self.peers.count() as u64, Ordering::Relaxed);
        let proven = self.peers.proven();
        match (self.stats.connected.swap(proven, Ordering::Relaxed), proven) {
            (false, true) => self.note(EventKind::NatsConnected, "a probe has come back"),
            (true, false) => self.note(EventKind::NatsLost, "the connection was lost or replaced"),
            _ => {}
        }
        let unheard = self.peers.unheard().len();
        self.stats.unheard.store(unheard as u64, Ordering::Relaxed);
        self.stats.lost.store(self.peers.lost().len() as u64, Ordering::Relaxed);
        self.stats.other_upstream.store(self.peers.other_upstream(Instant::now()).len() as u64, Ordering::Relaxed);
        let mut lists = self.shared.lists();
        lists.lost = self.peers.lost().iter().copied().collect();
        lists.subscribers = self.peers.subscribers();
        lists.needs_list = self.peers.needs_list();
        lists.needs_list_now = self.peers.is_unsure();
    }
}
