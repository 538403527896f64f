//! Sends Shortstop's own requests to Redis, for tasks that wait for the replies.

use std::time::Instant;

use tokio::sync::oneshot;

use crate::errors;
use crate::exchange::pending::{CallMark, Link, OnReply, Pending};
use crate::resp::{Chunks, build};
use crate::upstream::{Delay, Lost};
use crate::worker_state::context::Context;

/// The arguments of a request of Shortstop's own.
pub(crate) type Request = Vec<Vec<u8>>;

/// A command that does not exist. Every server refuses it, whoever the user is.
pub(crate) fn unknown_command(wire: &mut Chunks) {
    wire.push_slice(b"*1\r\n$14\r\nSHORTSTOP.FAIL\r\n");
}

/// Sends requests to Redis, and returns the replies in one piece. With `repeat`, they may be sent again if the connection breaks.
///
/// # Errors
/// Redis is away, or the connection broke.
pub(crate) async fn ask(context: &Context, link: &Link, requests: &[Request], repeat: bool) -> Result<Vec<u8>, Lost> {
    ask_with(context, link, requests, repeat, Delay::None).await
}

/// [`ask`] for requests whose replies may take longer.
///
/// # Errors
/// The same.
pub(crate) async fn ask_with(
    context: &Context,
    link: &Link,
    requests: &[Request],
    repeat: bool,
    delay: Delay,
) -> Result<Vec<u8>, Lost> {
    ask_written(context, link, (requests.len(), repeat, delay), |wire| {
        for words in requests {
            wire.push_with(|out| build::request(out, words.iter().map(Vec::as_slice)));
        }
    })
    .await
}

/// [`ask_with`] for so many requests that `write` appends.
///
/// # Errors
/// The same.
pub(crate) async fn ask_written(
    context: &Context,
    link: &Link,
    (replies, repeat, delay): (usize, bool, Delay),
    write: impl FnOnce(&mut Chunks),
) -> Result<Vec<u8>, Lost> {
    link.check()?;
    if replies == 0 {
        return Ok(Vec::new());
    }
    let (answer, answered) = oneshot::channel();
    let on_reply = OnReply::Ask { replies, repeat, answer };
    context.stats().upstream_commands.add(replies as u64);
    link.send(Pending { to: None, sent: Instant::now(), on_reply, call: CallMark::default() }, write);
    link.may_take(delay);
    answered.await.unwrap_or_else(|_| Err(Lost::from(&errors::GIVEN_UP)))
}
