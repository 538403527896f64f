//! Opens a connection for a link: asks the endpoint for the server, dials it, and does the handshake. Does not decide when to
//! retry.

use std::io;
use std::time::{Duration, Instant};

use tokio::time::timeout;

use crate::net::Stream;
use crate::upstream::dial::{Connection, silent};
use crate::upstream::endpoint::{Server, Suspicion};
use crate::upstream::handshake::{Handshake, NotTaken, Purpose};
use crate::upstream::login::NOAUTH;

use super::expected::Expected;
use super::handle::Inner;

/// Timeout of the handshake if `timeouts.reply` is 0: a proxy may accept connections for a server that is gone.
const GREETING: Duration = Duration::from_secs(60);

impl<E: Expected> Inner<E> {
    /// A connection to the server of the current epoch, and that epoch.
    pub(super) async fn connect(&self) -> Result<(Stream, u64), NotTaken> {
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
            // The address now leads to another server. The control plane moves all connections there, or finds a better one.
            endpoint.report(Suspicion::Connection);
            let limit = self.settings.timeouts.get().connect;
            if timeout(limit, endpoint.passed(epoch)).await.is_err() {
                let text = "another server now answers there";
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, text).into());
            }
        }
    }

    /// A connection to this server. `None` if another server answers.
    async fn dial(&self, server: &Server) -> Result<Option<Stream>, NotTaken> {
        let dialed = self.settings.dialer.dial(&server.address).await?;
        let greeting = async {
            let mut connection = dialed.greet().await?;
            let is_server = self.handshake(&mut connection, server).await?;
            Ok(is_server.then(|| connection.into_stream()))
        };
        let limit = Some(self.settings.timeouts.get().reply).filter(|reply| !reply.is_zero()).unwrap_or(GREETING);
        tokio::select! {
            greeted = greeting => greeted,
            () = self.settings.endpoint.silence().lasts(limit) => Err(silent(limit).into()),
        }
    }

    /// Whether this server answers. True also if the server does not tell.
    async fn handshake(&self, connection: &mut Connection, server: &Server) -> Result<bool, NotTaken> {
        let is_shared = self.state.borrow().is_shared();
        let purpose = match (self.for_logins.get(), is_shared) {
            (true, true) => Purpose::Logins,
            (false, true) => Purpose::Lane,
            (_, false) => Purpose::Private,
        };
        let handshake = Handshake {
            dialer: &self.settings.dialer,
            name: &self.settings.name,
            rights: &self.settings.own_rights,
            login: self.login.as_deref(),
            db: self.db.get(),
            version: self.version.get(),
            purpose,
            server,
        };
        self.state.borrow_mut().set_locked(None);
        let greeted = handshake.shake_hands(connection).await?;
        if greeted.is_another_server {
            return Ok(false);
        }
        if greeted.locked && !is_shared && !(self.for_logins.get() && self.db.get() == 0) {
            // A private connection that lacks a login is of no use, except to try a login on it in database 0.
            return Err(NotTaken::Said { text: NOAUTH.to_owned(), login: false });
        }
        self.id.set(greeted.id);
        self.state.borrow_mut().set_locked(greeted.locked.then(Instant::now));
        Ok(true)
    }
}
