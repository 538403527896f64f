//! Makes a connection for a link: asks the endpoint which server, dials it, shakes hands. Does not decide when to try again.

use std::io;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

use crate::upstream::endpoint::{Server, Suspicion};
use crate::upstream::handshake::{Handshake, NotTaken, Purpose};
use crate::upstream::login::NOAUTH;

use super::expected::Expected;
use super::handle::Inner;

/// How long sent bytes may stay unacknowledged before the connection counts as lost.
#[cfg(target_os = "linux")]
const UNACKNOWLEDGED: Duration = Duration::from_secs(10);

/// How long a server that has taken a connection may be silent at first, where `timeouts.reply` says nothing: one behind something
/// that takes connections in its name may be gone for good.
const GREETING: Duration = Duration::from_secs(60);

fn silent(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {limit:?}"))
}

impl<E: Expected> Inner<E> {
    /// A connection to the server of the current epoch, and that epoch.
    pub(super) async fn connect(&self) -> Result<(TcpStream, u64), NotTaken> {
        let endpoint = &self.settings.endpoint;
        loop {
            let (epoch, server) = endpoint.target().await.map_err(NotTaken::Away)?;
            let dialed = tokio::select! {
                dialed = self.dial(&server) => dialed?,
                () = endpoint.passed(epoch) => continue,
            };
            if let Some(stream) = dialed {
                return Ok((stream, epoch));
            }
            // The address leads to another server now. The control plane moves all connections there, or finds a better one.
            endpoint.report(Suspicion::Connection);
            let limit = self.settings.timeouts.get().connect;
            if tokio::time::timeout(limit, endpoint.passed(epoch)).await.is_err() {
                let text = "another server than before answers there";
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text).into());
            }
        }
    }

    /// A connection to this server; none: it is another that answers.
    async fn dial(&self, server: &Server) -> Result<Option<TcpStream>, NotTaken> {
        let limit = self.settings.timeouts.get().connect;
        let connecting = TcpStream::connect(server.address);
        let mut stream = tokio::time::timeout(limit, connecting).await.unwrap_or_else(|_| Err(silent(limit)))?;
        stream.set_nodelay(true)?;
        // A peer that is gone without a word is noticed within two minutes.
        let keepalive = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
        let socket = SockRef::from(&stream);
        socket.set_tcp_keepalive(&keepalive)?;
        // Keep-alive does not run while bytes wait to be acknowledged.
        #[cfg(target_os = "linux")]
        socket.set_tcp_user_timeout(Some(UNACKNOWLEDGED))?;
        let limit = Some(self.settings.timeouts.get().reply).filter(|reply| !reply.is_zero()).unwrap_or(GREETING);
        let is_server = tokio::select! {
            greeted = self.handshake(&mut stream, server) => greeted?,
            () = self.settings.endpoint.silence().lasts(limit) => return Err(silent(limit).into()),
        };
        Ok(is_server.then_some(stream))
    }

    /// Whether this server answers. True also when the server does not tell.
    async fn handshake(&self, stream: &mut TcpStream, server: &Server) -> Result<bool, NotTaken> {
        let is_shared = self.state.borrow().is_shared();
        let purpose = match (self.for_logins.get(), is_shared) {
            (true, true) => Purpose::Logins,
            (false, true) => Purpose::Lane,
            (_, false) => Purpose::Private,
        };
        let handshake = Handshake {
            upstream: &self.settings.upstream,
            name: &self.settings.name,
            rights: &self.settings.own_rights,
            login: self.login.as_deref(),
            db: self.db.get(),
            version: self.version.get(),
            purpose,
            server,
        };
        self.state.borrow_mut().set_locked(None);
        let greeted = handshake.shake_hands(stream).await?;
        if greeted.is_another_server {
            return Ok(false);
        }
        if greeted.locked && !is_shared && !(self.for_logins.get() && self.db.get() == 0) {
            // A private connection without the needed login is of no use, except to try a login on it in database 0.
            return Err(NotTaken::Said { text: NOAUTH.to_owned(), login: false });
        }
        self.id.set(greeted.id);
        self.state.borrow_mut().set_locked(greeted.locked.then(Instant::now));
        Ok(true)
    }
}
