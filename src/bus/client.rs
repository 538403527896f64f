//! What all tasks of the bus do with the NATS client: check whether it is connected, and publish with a short timeout.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use tokio::time::timeout;

/// How long one publish may wait for the client library.
const PUBLISH: Duration = Duration::from_millis(50);

/// Interval of checks of the connection, of silent peers, and of requests from other tasks.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The number of the current connection. `None` while there is none.
pub(super) fn connection(client: &Client) -> Option<u64> {
    // Read the number first: the library raises it before it reports Connected, so a replaced connection never counts as its
    // successor.
    let number = client.statistics().connects.load(Ordering::SeqCst);
    (client.connection_state() == State::Connected).then_some(number)
}

/// Passes one message to the library, which must accept it within [`PUBLISH`].
pub(super) async fn publish(client: &Client, subject: &str, bytes: Vec<u8>) -> bool {
    matches!(timeout(PUBLISH, client.publish(subject.to_owned(), Bytes::from(bytes))).await, Ok(Ok(())))
}
