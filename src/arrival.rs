//! A client before its first request: the TLS handshake, and protected mode. Must not read a request.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::errors::{self, OwnError};
use crate::net::{Socket, Stream, tls};
use crate::worker_state::context::Context;

/// Timeout of a client's TLS handshake, and for sending the reason why it is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that has connected.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: Socket,
    /// The certificate to present. `None`: the client connects without TLS.
    pub tls: Option<tls::Server>,
    /// Its client id.
    pub number: u64,
}

impl Arrival {
    /// The client's connection, ready for requests. `None` if the client has disconnected or was refused.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    pub async fn admit(self, context: &Context) -> Option<Stream> {
        let stream = match self.socket.open() {
            Ok(stream) => stream,
            Err(error) => {
                crate::seldom!(debug, "a client disconnected before it was served", %error);
                return None;
            }
        };
        let mut stream = match (stream, self.tls) {
            (Stream::Tcp(socket), Some(tls)) => {
                let peer = socket.peer_addr().ok();
                let greeted = timeout(PATIENCE, tls.accept(socket)).await;
                match greeted.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                    Ok(stream) => stream,
                    Err(error) => {
                        refused(context, "tls", "a TLS handshake failed");
                        crate::seldom!(info, "a TLS handshake with a client failed", ?peer, %error);
                        return None;
                    }
                }
            }
            (stream, _) => stream,
        };
        let Some(why) = protect(&stream, context).await else { return Some(stream) };
        refused(context, "protected_mode", "protected mode");
        crate::seldom!(warn, "a client from another machine was refused: protected mode", peer = ?stream.peer_address().ok());
        let say = async {
            stream.write_all(&why.frame()).await?;
            stream.shutdown().await
        };
        // The reason may not arrive.
        let _ = timeout(PATIENCE, say).await;
        None
    }
}

fn refused(context: &Context, reason: &'static str, why: &str) {
    context.shared.stats.shared.client_refused(reason, why);
}

/// The error with which protected mode refuses this client. `None` if it does not.
async fn protect(stream: &Stream, context: &Context) -> Option<&'static OwnError> {
    let is_trusted = !context.view().policy.protected_mode
        || stream.has_peer_certificate()
        || stream.peer_address().is_ok_and(|address| address.is_local());
    if is_trusted {
        return None;
    }
    match context.is_open_to_all().await {
        Some(false) => None,
        Some(true) => Some(&errors::PROTECTED),
        None => Some(&errors::PROTECTED_UNTIL_ASKED),
    }
}
