//! Requests of the control plane, over a connection of its own. Never on the path of a client's request.

use std::io;
use std::time::Duration;

use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use tokio::time::timeout;

use crate::net::Address;

use super::dial::{Connection, Dialer, silent};
use super::login::is_about_disk;

/// A connection for the control plane's requests, as Shortstop's own user, in RESP2.
pub(super) struct Control {
    connection: Connection,
    limit: Duration,
    /// A request was not answered in time. Its reply may still come, and would be taken for the reply to the next request.
    unanswered: bool,
}

impl Control {
    /// Connects and logs in. `limit` is the timeout for each reply.
    ///
    /// # Errors
    /// The server cannot be reached, does not reply in time, or refuses the login.
    pub(super) async fn open(dialer: &Dialer, address: &Address, limit: Duration) -> io::Result<Control> {
        let dialed = dialer.dial(address).await?;
        let connection = timeout(limit, dialed.greet()).await.unwrap_or_else(|_| Err(silent(limit)))?;
        let mut control = Control { connection, limit, unanswered: false };
        if let Some(login) = dialer.login() {
            control.answer(login.auth().collect()).await?;
        }
        Ok(control)
    }

    /// Sends one command and returns its reply. An error reply is an error.
    pub(super) async fn ask(&mut self, words: &[&str]) -> io::Result<BytesFrame> {
        self.answer(words.iter().map(|word| word.as_bytes()).collect()).await
    }

    /// [`Control::ask`]. `None` if the connection's user has no right to the command, or the server does not know it.
    pub(super) async fn ask_if_allowed(&mut self, words: &[&str]) -> io::Result<Option<BytesFrame>> {
        match self.ask(words).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.get_ref().is_some_and(|cause| cause.is::<Refused>()) => {
                let text = error.to_string();
                let is_refused = ["NOPERM ", "NOAUTH ", "ERR "].iter().any(|code| text.starts_with(code));
                if is_refused { Ok(None) } else { Err(error) }
            }
            Err(error) => Err(error),
        }
    }

    /// [`Control::ask`]. `None` if the connection's user has no right to the command. A missing login remains an error.
    pub(super) async fn ask_unless_refused(&mut self, words: &[&str]) -> io::Result<Option<BytesFrame>> {
        match self.ask(words).await {
            Ok(reply) => Ok(Some(reply)),
            Err(error) if error.to_string().starts_with("NOPERM ") => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Sends a PING, which Redis refuses while it loads its data, and as a replica that may not serve old data. Returns `false` if
    /// the connection's user may not PING.
    ///
    /// # Errors
    /// Redis serves no client; the text is its reason.
    pub(super) async fn may_ping(&mut self) -> io::Result<bool> {
        match self.ask(&["PING"]).await {
            Err(error) if is_about_disk(error.to_string().as_bytes()) => Ok(true),
            Err(error) if ["NOPERM ", "ERR "].iter().any(|code| error.to_string().starts_with(code)) => Ok(false),
            other => other.map(|_| true),
        }
    }

    /// See [`Connection::ended`].
    pub(super) async fn ended(&mut self) -> io::Error {
        self.connection.ended().await
    }

    /// # Cancel safety
    /// Dropped, nothing more can be asked.
    async fn answer(&mut self, request: Vec<&[u8]>) -> io::Result<BytesFrame> {
        if std::mem::replace(&mut self.unanswered, true) {
            return Err(silent(self.limit));
        }
        let asked = timeout(self.limit, self.connection.ask(request)).await;
        let reply = asked.unwrap_or_else(|_| Err(silent(self.limit)))?;
        self.unanswered = false;
        match decode_bytes(&reply) {
            Ok(Some((BytesFrame::Error(text), _))) => Err(io::Error::other(Refused(text.to_string()))),
            Ok(Some((frame, _))) => Ok(frame),
            Ok(None) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }
}

/// Redis's error text.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

/// The bytes of a string.
pub(super) fn bytes(frame: &BytesFrame) -> Option<&[u8]> {
    match frame {
        BytesFrame::BulkString(bytes) | BytesFrame::SimpleString(bytes) => Some(bytes),
        _ => None,
    }
}

/// The text of a string.
pub(super) fn text(frame: &BytesFrame) -> Option<&str> {
    std::str::from_utf8(bytes(frame)?).ok()
}

/// The elements of an array. Empty for any other frame.
pub(super) fn items(frame: &BytesFrame) -> &[BytesFrame] {
    match frame {
        BytesFrame::Array(items) => items,
        _ => &[],
    }
}
