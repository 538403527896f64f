//! A client before its first request: TLS, and protected mode. Must not read a request.

use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::net::{Socket, Stream, tls};
use crate::proxy::Context;

/// How long a client may take for its TLS handshake, and to take the reason why it is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client that has connected.
#[derive(Debug)]
pub struct Arrival {
    /// Its socket.
    pub socket: Socket,
    /// What it is shown; none: it comes without TLS.
    pub tls: Option<tls::Server>,
    /// Its number.
    pub number: u64,
}

impl Arrival {
    /// The client's connection, ready for requests; none: it has gone, or was refused.
    ///
    /// # Cancel safety
    /// Dropped, the connection is closed.
    pub async fn admit(self, context: &Context) -> Option<Stream> {
        let stream = match self.socket.open() {
            Ok(stream) => stream,
            Err(error) => {
                crate::seldom!(debug, "a client was gone before it was served", %error);
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
                        refused(context);
                        crate::seldom!(info, "a TLS handshake with a client failed", ?peer, %error);
                        return None;
                    }
                }
            }
            (stream, _) => stream,
        };
        let Some(why) = protect(&stream, context).await else { return Some(stream) };
        refused(context);
        crate::seldom!(warn, "a client from another machine was refused: protected mode", peer = ?stream.peer_address().ok());
        let say = async {
            stream.write_all(why.as_bytes()).await?;
            stream.shutdown().await
        };
        // Whether it arrives is the client's luck.
        let _ = timeout(PATIENCE, say).await;
        None
    }
}

fn refused(context: &Context) {
    context.shared.stats.shared.clients_refused.fetch_add(1, Ordering::Relaxed);
}

/// Why this client is refused by protected mode, as it is to be told; none: it is not.
async fn protect(stream: &Stream, context: &Context) -> Option<&'static str> {
    let is_trusted = !context.view().policy.protected_mode
        || stream.has_peer_certificate()
        || stream.peer_address().is_ok_and(|address| address.is_local());
    if is_trusted {
        return None;
    }
    match context.lets_anybody_in().await {
        Some(false) => None,
        Some(true) => Some(DENIED),
        None => Some(NOT_KNOWN),
    }
}

/// Redis's words, with Shortstop's settings.
const DENIED: &str = "-DENIED Shortstop is running in protected mode because protected mode is enabled and no password is needed: \
Redis lets its default user in without one, or clients act as the user of the upstream URL (clients_without_auth: upstream). \
In this mode connections are only accepted from the loopback interface and from Unix sockets. \
If you want to connect from external computers to Shortstop you may adopt one of the following solutions: \
1) Set a password for the default user of Redis, and leave clients_without_auth at nobody: clients then have to send AUTH. \
2) Ask clients for a certificate: set tls.listen and tls.client_ca in config.yaml. \
3) Disable protected mode by setting protected_mode to false in config.yaml, or SHORTSTOP_PROTECTED_MODE=false in the environment, \
however MAKE SURE Shortstop is not publicly accessible from internet if you do so. \
NOTE: You only need to do one of the above things in order for Shortstop to start accepting connections from the outside.\r\n";

const NOT_KNOWN: &str = "-ERR shortstop: protected mode: Redis has not been reached so far, so that it is not known whether clients need a \
password; try again later\r\n";
