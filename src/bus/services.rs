//! The two tasks of the JSON subject: one applies requests of services, the other publishes the written keys to services. These
//! messages have no sequence numbers, so a lost one cannot be noticed. Requests may also come on the subject of updates.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use tokio::time::{MissedTickBehavior, interval};
use tracing::warn;

use crate::metrics::slots::BusStats;

use super::client::{connection, publish};
use super::event::{Event, Sink};
use super::json::{self, Passed, Request};
use super::log_limit::LogLimit;
use super::outbox::Inlet;
use super::peers::HEARTBEAT;

/// Applies requests of services. `passed`: whose messages ask for nothing.
pub(super) async fn apply_requests(
    mut subscription: Subscriber,
    passed: Passed,
    sink: Arc<dyn Sink>,
    stats: Arc<BusStats>,
) {
    let log = LogLimit::default();
    while let Some(message) = subscription.next().await {
        let request = json::read(&message.payload, &passed);
        if matches!(request, Ok(Request::Ours)) {
            continue;
        }
        stats.json_received.fetch_add(1, Ordering::Relaxed);
        match request {
            Ok(Request::Key(key)) => sink.invalidate_key(&key),
            Ok(Request::Pattern(glob)) => sink.invalidate_pattern(&glob),
            Ok(Request::Clear) => sink.flush("bus: a service requested it"),
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

/// Publishes the written keys to services. One `clear`, sent as soon as possible, stands for all messages that could not be sent.
pub(super) struct JsonWriter {
    pub(super) client: Client,
    pub(super) subject: String,
    pub(super) instance: String,
    pub(super) stats: Arc<BusStats>,
    pub(super) owes_clear: bool,
}

impl JsonWriter {
    /// Ends when the publisher has dropped its end of the queue and everything is sent.
    pub(super) async fn run(mut self, mut inlet: Inlet) {
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
                        // They have not asked which keys Shortstops keep.
                        if !matches!(event, Event::Script { clear: false, .. } | Event::Forget { .. } | Event::Plain { .. }) {
                            self.send(event).await;
                        }
                    }
                }
                _ = look.tick(), if self.owes_clear => {}
            }
            if self.owes_clear && connection(&self.client).is_some() {
                self.owes_clear = false;
                self.send(Event::Flush).await;
            }
        }
    }

    async fn send(&mut self, event: Event) {
        // One `clear` at the end of the batch is enough.
        let sent = !self.owes_clear && connection(&self.client).is_some() && {
            let now = SystemTime::now();
            let message = match event {
                Event::Invalidate { key, .. } | Event::Quarantine { key, .. } | Event::Plain { key, .. } => {
                    json::invalidate(key.bytes(), &self.instance, now)
                }
                Event::Flush | Event::QuarantineAll | Event::Script { .. } | Event::Forget { .. } => {
                    json::clear(&self.instance, now)
                }
            };
            publish(&self.client, &self.subject, message).await
        };
        self.owes_clear |= !sent;
        let counter = if sent { &self.stats.json_published } else { &self.stats.json_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
