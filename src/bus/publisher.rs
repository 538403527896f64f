//! The task that publishes the fleet's messages: numbers them, sends HELLO and BYE, and sends heartbeats.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use async_nats::Client;
use tokio::sync::oneshot;
use tokio::time::{MissedTickBehavior, interval};

use crate::metrics::slots::BusStats;

use super::client::{LOOK, connection, publish};
use super::event::Event;
use super::message::{About, Body, MAX_BYTES, Message, Probe, split};
use super::outbox::{Inlet, Outbox};
use super::peers::HEARTBEAT;
use super::watch::Shared;

/// Publishes the fleet's messages, and gives them their sequence numbers.
pub(super) struct Publisher {
    pub(super) client: Client,
    pub(super) subject: String,
    pub(super) incarnation: u64,
    /// Zero of the clock in the heartbeats.
    pub(super) origin: Instant,
    pub(super) stats: Arc<BusStats>,
    pub(super) shared: Arc<Shared>,
    pub(super) json: Option<Outbox>,
    /// The last sequence number used, by a message that was sent or should have been.
    pub(super) sequence: u64,
    /// HELLO has been sent.
    pub(super) greeted: bool,
    /// When the last heartbeat was sent, and on which connection.
    pub(super) beat: Option<(Instant, u64)>,
}

impl Publisher {
    /// Runs until it is told to stop, then sends what is queued. Returns false if it was cut off; then no BYE may be sent.
    pub(super) async fn run(&mut self, mut inlet: Inlet, mut stopped: oneshot::Receiver<()>) -> bool {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut events = Vec::new();
        loop {
            tokio::select! {
                biased;
                stop = &mut stopped => match stop {
                    Ok(()) => break,
                    // The Bus was dropped and this task is being aborted: nothing more may be sent, least of all a BYE.
                    Err(_) => return false,
                },
                _ = look.tick() => self.heartbeat().await,
                lost = inlet.drain(&mut events) => match lost {
                    Some(lost) => self.publish(&mut events, lost).await,
                    // Impossible while there is a Bus, which holds an Outbox.
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
        // Overflows after 584 years. Then the leases end.
        let sent = u64::try_from(now.duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX);
        let about =
            About { upstream: self.shared.upstream(), subscribed: self.shared.subscribed.load(Ordering::Relaxed) };
        if self.send(Body::Heartbeat(Probe { connection, sent }, about)).await {
            self.beat = Some((now, connection));
        }
    }

    /// Publishes and empties `events`. `lost` more did not fit the queue.
    async fn publish(&mut self, events: &mut Vec<Event>, lost: u64) {
        self.stats.dropped.fetch_add(lost, Ordering::Relaxed);
        // A flush makes the invalidations of its batch redundant: the peers apply it after all of these writes. It does not keep a
        // key from being filled again, so quarantines are sent beside it.
        let flush = events.contains(&Event::Flush);
        let all = events.contains(&Event::QuarantineAll);
        // One message is enough for all scripts of a batch, and beside a flush none is needed, unless a script may still be
        // running.
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
        let plain = events.iter().filter_map(|event| match event {
            Event::Plain { hash, key } => Some((key.db(), *hash)),
            _ => None,
        });
        let forgotten: Vec<Body> = events
            .iter()
            .filter_map(|event| match event {
                Event::Forget { glob } => Some(Body::Forget(Arc::clone(glob))),
                _ => None,
            })
            .collect();
        let max = MAX_BYTES.min(self.client.max_payload());
        let flush = (flush && !all).then_some(Body::Flush);
        let all = all.then_some(Body::QuarantineAll);
        let written = split(written, max).into_iter().map(Body::Invalidate);
        let doubtful = split(doubtful, max).into_iter().map(Body::Quarantine);
        let plain = split(plain, max).into_iter().map(Body::Plain);
        let mut stalled = false;
        for body in
            flush.into_iter().chain(all).chain(script).chain(forgotten).chain(doubtful).chain(written).chain(plain)
        {
            if stalled {
                self.skip(&body);
            } else {
                // One timeout per batch is enough: a connection that did not take this message will not take the next.
                stalled = !self.send(body).await;
            }
        }
        match &self.json {
            // If the queue is full, it puts a flush in their place.
            Some(json) => drop(json.try_send(std::mem::take(events))),
            None => events.clear(),
        }
    }

    /// Sends one message, with a HELLO before the first. Returns false if it was not sent. Its sequence number is used up all the
    /// same, so that the peers see a gap.
    pub(super) async fn send(&mut self, body: Body) -> bool {
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
