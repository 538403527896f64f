//! What all tasks of the bus do with the NATS client: ask whether it is connected, and publish without waiting for long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use bytes::Bytes;
use tokio::time::timeout;

/// How long one publish may wait for the client library.
const PUBLISH: Duration = Duration::from_millis(50);

/// How often the connection's state, the silence of peers and requests from outside are looked at.
pub(super) const LOOK: Duration = Duration::from_millis(50);

/// The number of this connection, `None` while there is none.
pub(super) fn connection(client: &Client) -> Option<u64> {
    // The number first: the library raises it before it says Connected, so a replaced connection is never taken
    // for its successor.
    let number = client.statistics().connects.load(Ordering::SeqCst);
    (client.connection_state() == State::Connected).then_some(number)
}

/// Hands one message to the library, which has to take it soon.
pub(super) async fn publish(client: &Client, subject: &str, bytes: Vec<u8>) -> bool {
    matches!(timeout(PUBLISH, client.publish(subject.to_owned(), Bytes::from(bytes))).await, Ok(Ok(())))
}
