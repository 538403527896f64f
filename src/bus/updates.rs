//! Announces to services the values that were written, on a subject of its own. An announcement is a help: what cannot be sent at once is
//! dropped and counted. The message about the written key goes another way, and is not lost with it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use async_nats::Client;
use bytes::Bytes;
use tokio::sync::mpsc;

use crate::metrics::slots::BusStats;

use super::client::{connection, publish};
use super::json;

/// Announcements that wait. With the largest value this bounds them to 16 MB.
pub(super) const QUEUE: usize = 64;

/// A key that has got a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// The key.
    pub key: Box<[u8]>,
    /// Its value, as clients see it.
    pub value: Bytes,
    /// How long it lives. `None`: for ever, or it is not known.
    pub ttl: Option<Duration>,
}

impl Update {
    /// Memory that it takes.
    pub fn bytes(&self) -> usize {
        size_of::<Update>() + self.key.len() + self.value.len()
    }
}

/// A sender of announcements, for each worker. It never waits.
#[derive(Clone, Debug)]
pub struct Updates {
    pub(super) queue: mpsc::Sender<Update>,
    pub(super) stats: Arc<BusStats>,
}

impl Updates {
    /// Announces a value.
    pub fn send(&self, update: Update) {
        if self.queue.try_send(update).is_err() {
            self.dropped();
        }
    }

    /// Counts a value that cannot be announced.
    pub fn dropped(&self) {
        self.stats.updates_dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a value that is too large to be announced.
    pub fn too_large(&self) {
        self.stats.updates_too_large.fetch_add(1, Ordering::Relaxed);
    }
}

/// Publishes what comes, until the senders are gone.
pub(super) async fn run(
    client: Client,
    subject: String,
    instance: String,
    mut updates: mpsc::Receiver<Update>,
    stats: Arc<BusStats>,
) {
    while let Some(update) = updates.recv().await {
        let sent = connection(&client).is_some() && {
            let message = json::update(&update.key, &update.value, update.ttl, &instance, SystemTime::now());
            publish(&client, &subject, message).await
        };
        let counter = if sent { &stats.updates_published } else { &stats.updates_dropped };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
