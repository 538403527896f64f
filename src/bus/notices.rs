//! Publishes notices to people and other services, such as alerts, on subjects of their own. They are not in order with the fleet's subject.
//! A notice waits for NATS, and the queue is bounded.

use std::time::Duration;

use async_nats::Client;
use tokio::sync::mpsc;

use super::client::{connection, publish};

/// Notices that wait for NATS. The queue takes no more.
pub(super) const QUEUE: usize = 64;

/// Interval of attempts while NATS is away.
const AGAIN: Duration = Duration::from_millis(500);

/// A message to a subject.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The subject.
    pub subject: String,
    /// The message.
    pub payload: Vec<u8>,
}

/// Publishes what comes, one after the other, until the senders are gone.
pub(super) async fn run(client: Client, mut notices: mpsc::Receiver<Notice>) {
    while let Some(Notice { subject, payload }) = notices.recv().await {
        while connection(&client).is_none() || !publish(&client, &subject, payload.clone()).await {
            tokio::time::sleep(AGAIN).await;
        }
    }
}
