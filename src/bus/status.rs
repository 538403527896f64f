//! The two tasks of the status subject, on which each instance tells of itself. Messages may be lost, and nothing is sent while NATS is
//! away: the next one tells more.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_nats::{Client, Subscriber};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tracing::warn;

use crate::metrics::slots::BusStats;

use super::client::{connection, publish};
use super::event::Sink;
use super::log_limit::LogLimit;

/// Publishes what this instance tells of itself, until the senders are gone.
pub(super) async fn tell(client: Client, subject: String, mut messages: mpsc::Receiver<Vec<u8>>, stats: Arc<BusStats>) {
    while let Some(message) = messages.recv().await {
        if connection(&client).is_some() && publish(&client, &subject, message).await {
            stats.summaries_published.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Passes on what arrives. This includes what this instance has sent.
pub(super) async fn listen(mut subscription: Subscriber, sink: Arc<dyn Sink>, stats: Arc<BusStats>) {
    let log = LogLimit::default();
    while let Some(message) = subscription.next().await {
        if sink.status(&message.payload) {
            stats.summaries_received.fetch_add(1, Ordering::Relaxed);
        } else {
            stats.summaries_bad.fetch_add(1, Ordering::Relaxed);
            if let Some(times) = log.allow() {
                warn!(times, subject = %message.subject, "nats: a message on the status subject was ignored");
            }
        }
    }
}
