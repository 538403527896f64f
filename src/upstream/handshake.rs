//! The handshake of a connection to Redis: sets its database and its name, and logs in.
//!
//! Commands that need a right are sent before the login of the connection's user: as Shortstop's own user (the user in the upstream
//! URL), or without a login if the URL has none. As a client's user, only AUTH and HELLO are sent. They need no right, so Redis's
//! log of refusals (ACL LOG) shows nothing that the user did not do itself. The exception is SELECT, if only that user has the
//! right to it.
//!
//! A login that may fail is never sent behind another request, because Redis from 7.2 on may not answer it there.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::resp::{Version, parse_int};

use super::dial::{Connection, Dialer, Request};
use super::endpoint::{Server, differ};
use super::finder::run_id;
use super::login::{Login, NOAUTH, is_about_disk, is_about_login, is_busy, is_too_many};

/// After this time a right that Shortstop's own user lacked is tried again, because it may have been granted.
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// The rights that Shortstop's own user lacks, so that they are not tried on each connection. Each worker has its own record.
#[derive(Debug, Default)]
pub struct OwnRights {
    select: Right,
    info: Right,
    ping: Right,
    warned: Cell<bool>,
    /// When the last log line said that Redis refuses the login of Shortstop's own user.
    login_warned: Cell<Option<Instant>>,
}

#[derive(Debug, Default)]
struct Right {
    refused: Cell<Option<Instant>>,
}

impl Right {
    fn is_worth_asking(&self) -> bool {
        self.refused.get().is_none_or(|when| when.elapsed() > ASK_AGAIN)
    }

    fn refuse(&self) {
        self.refused.set(Some(Instant::now()));
    }
}

/// The use of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Many clients share it.
    Lane,
    /// It belongs to one client.
    Private,
    /// Only logins are tried on it. It has no user and no database.
    Logins,
}

/// A handshake to carry out.
pub(super) struct Handshake<'a> {
    /// How to reach Redis, with Shortstop's own login.
    pub(super) dialer: &'a Dialer,
    /// The name of the connection (CLIENT SETNAME).
    pub(super) name: &'a str,
    /// The rights that Shortstop's own user lacks.
    pub(super) rights: &'a OwnRights,
    /// The connection's user. `None`: it stays without a login.
    pub(super) login: Option<&'a Login>,
    pub(super) db: u32,
    pub(super) version: Version,
    pub(super) purpose: Purpose,
    /// The server that should answer. A server without a known run id counts as the right one.
    pub(super) server: &'a Server,
}

/// The result of a handshake.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Greeted {
    /// The connection's id in Redis. 0: not known.
    pub(super) id: u64,
    /// Redis requires a login, and the connection has none.
    pub(super) locked: bool,
    /// A server other than the expected one answered.
    pub(super) is_another_server: bool,
}

/// Why there is no connection.
pub(super) enum NotTaken {
    Io(io::Error),
    /// No server is known.
    Away(Arc<str>),
    /// Redis's own error. `login`: it refused the login.
    Said {
        text: String,
        login: bool,
    },
}

impl NotTaken {
    /// Whether another attempt may soon succeed: there are too many connections, in Redis (`maxclients`) or here.
    pub(super) fn may_pass(&self) -> bool {
        use io::ErrorKind::{AddrNotAvailable, BrokenPipe, ConnectionReset, UnexpectedEof};
        match self {
            NotTaken::Said { text, .. } => is_too_many(text),
            // Redis's error may be lost if Redis closes a connection before it has read everything.
            NotTaken::Io(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => true,
            NotTaken::Io(error) => error.kind() == AddrNotAvailable || OUT_OF_FILES.contains(&error.raw_os_error()),
            NotTaken::Away(_) => false,
        }
    }
}

/// EMFILE and ENFILE.
const OUT_OF_FILES: [Option<i32>; 2] = [Some(24), Some(23)];

impl From<io::Error> for NotTaken {
    fn from(error: io::Error) -> Self {
        NotTaken::Io(error)
    }
}

fn said(error: &[u8]) -> NotTaken {
    NotTaken::Said { text: String::from_utf8_lossy(error).trim_end().to_owned(), login: false }
}

/// Whether an error says that the connection's user lacks a right.
fn is_missing_right(error: &[u8]) -> bool {
    error.starts_with(b"NOPERM") || error.starts_with(b"NOAUTH")
}

/// The text of an error reply, without its first byte. `None` for any other reply.
fn error_of(reply: &Bytes) -> Option<&[u8]> {
    reply.strip_prefix(b"-")
}

/// Sends requests in one piece, and returns as many replies.
async fn ask(connection: &mut Connection, requests: &[Request<'_>]) -> Result<Vec<Bytes>, NotTaken> {
    connection.ask_all(requests).await.map_err(|unanswered| {
        // Redis may have sent the reason before it closed the connection: too many clients, protected mode.
        unanswered.replies.iter().find_map(error_of).map_or(unanswered.error.into(), said)
    })
}

/// Whether the connection is in its database yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InDatabase {
    Yes,
    /// No: the user at that time has no right to SELECT.
    NotYet,
    /// Irrelevant, because a server other than the expected one answered.
    AnotherServer,
}

impl Handshake<'_> {
    /// Sets the connection's name, protocol, user and database.
    ///
    /// # Errors
    /// Redis refused the handshake or closed the connection. The connection must not be used then.
    ///
    /// # Cancel safety
    /// If dropped, the connection must not be used.
    pub(super) async fn shake_hands(&self, wire: &mut Connection) -> Result<Greeted, NotTaken> {
        let own = self.dialer.login();
        match (self.login, own.as_ref()) {
            // It has no user until a login is tried on it, and it sends nothing that needs a right.
            (None, Some(_)) if self.purpose == Purpose::Logins => self.hello(wire).await,
            (None, None) => {
                let greeted = self.hello(wire).await?;
                if greeted.locked {
                    return Ok(greeted);
                }
                let place = self.prepare(wire, None).await?;
                self.end(wire, greeted, place).await
            }
            (None, Some(own)) => self.as_default_user_by(wire, own).await,
            (Some(login), Some(own)) if login == own => {
                let greeted = self.become_user(wire, login).await?;
                let place = self.prepare(wire, None).await?;
                self.end(wire, greeted, place).await
            }
            (Some(login), own) => {
                let place = self.prepare(wire, own).await?;
                if place == InDatabase::AnotherServer {
                    return Ok(Greeted { is_another_server: true, ..Greeted::default() });
                }
                let greeted = self.become_user(wire, login).await?;
                self.end(wire, greeted, place).await
            }
        }
    }

    /// Selects the database as the connection's own user, if Shortstop's own user could not.
    async fn end(&self, wire: &mut Connection, greeted: Greeted, place: InDatabase) -> Result<Greeted, NotTaken> {
        match place {
            InDatabase::Yes => {}
            InDatabase::NotYet => {
                let db = self.db.to_string();
                let replies = ask(wire, &[vec![b"SELECT", db.as_bytes()]]).await?;
                error_of(&replies[0]).map_or(Ok(()), |error| Err(said(error)))?;
            }
            InDatabase::AnotherServer => return Ok(Greeted { is_another_server: true, ..greeted }),
        }
        Ok(greeted)
    }

    /// A connection without a login, for which Shortstop's own user selects the database. Afterwards it becomes the default user
    /// again, by a login that Redis accepts with any password as long as that user needs none.
    async fn as_default_user_by(&self, wire: &mut Connection, own: &Login) -> Result<Greeted, NotTaken> {
        let greeted = self.hello(wire).await?;
        if greeted.locked {
            return Ok(greeted);
        }
        let place = self.prepare(wire, Some(own)).await?;
        let back = ask(wire, &[vec![b"AUTH", b"default", b"x"]]).await?;
        if error_of(&back[0]).is_some() {
            // A password has just been set.
            return Err(NotTaken::Said { text: NOAUTH.to_owned(), login: false });
        }
        self.end(wire, greeted, place).await
    }

    /// HELLO without a login: sets the connection's name and protocol. Returns its id, and whether Redis requires a login.
    async fn hello(&self, wire: &mut Connection) -> Result<Greeted, NotTaken> {
        let replies = ask(wire, &[self.hello_words()]).await?;
        self.greeted(wire, &replies[0]).await
    }

    fn hello_words(&self) -> Request<'_> {
        let version: &[u8] = if self.version == Version::Resp3 { b"3" } else { b"2" };
        vec![b"HELLO", version, b"SETNAME", self.name.as_bytes()]
    }

    async fn greeted(&self, wire: &mut Connection, reply: &Bytes) -> Result<Greeted, NotTaken> {
        match error_of(reply) {
            None => Ok(Greeted { id: number_in(reply), locked: false, ..Greeted::default() }),
            Some(error) if self.login.is_none() && error.starts_with(b"NOAUTH") => {
                Ok(Greeted { id: 0, locked: true, ..Greeted::default() })
            }
            Some(error) if self.version == Version::Resp3 => Err(said(error)),
            Some(error) if error.starts_with(b"ERR unknown command") => {
                // The administrator has disabled HELLO. The connection works without it.
                let name = vec![&b"CLIENT"[..], b"SETNAME", self.name.as_bytes()];
                let replies = ask(wire, &[name, vec![b"CLIENT", b"ID"]]).await?;
                let id = replies[1].strip_prefix(b":").and_then(|id| id.strip_suffix(b"\r\n")).and_then(parse_int);
                let locked = error_of(&replies[0]).is_some_and(|error| error.starts_with(b"NOAUTH"));
                Ok(Greeted { id: id.and_then(|id| u64::try_from(id).ok()).unwrap_or(0), locked, ..Greeted::default() })
            }
            Some(error) if is_missing_right(error) || is_busy(error) => Ok(Greeted::default()),
            Some(error) => Err(said(error)),
        }
    }

    /// Whether the connection logs in as a user other than Shortstop's own.
    fn is_another_user(&self) -> bool {
        self.login.is_some_and(|login| self.dialer.login().as_ref() != Some(login))
    }

    /// Sends what needs a right, as `own` or, if that is `None`, as the connection's current user.
    async fn prepare(&self, wire: &mut Connection, own: Option<&Login>) -> Result<InDatabase, NotTaken> {
        let rights = self.rights;
        let db = self.db.to_string();
        let selects = self.db != 0 && rights.select.is_worth_asking();
        // PING shows whether the server is still loading, before a client's request would. It is sent only where the connection
        // keeps its current user, so that no user needs the right to PING for it.
        let is_itself = own.is_none() && !self.is_another_user();
        let pings = is_itself && self.purpose == Purpose::Lane && rights.ping.is_worth_asking();
        let mut requests: Vec<Request<'_>> = Vec::new();
        let infos = rights.info.is_worth_asking();
        if infos {
            requests.push(vec![b"INFO", b"server"]);
        }
        if selects {
            requests.push(vec![b"SELECT", db.as_bytes()]);
        }
        if pings {
            requests.push(vec![b"PING"]);
        }
        let mut in_database = if self.db == 0 { InDatabase::Yes } else { InDatabase::NotYet };
        if requests.is_empty() {
            return Ok(in_database);
        }
        let begins = usize::from(own.is_some());
        if let Some(own) = own {
            requests.insert(0, own.auth().collect());
        }
        let replies = ask(wire, &requests).await?;
        if begins == 1
            && let Some(error) = error_of(&replies[0])
        {
            self.warn_of_login(&String::from_utf8_lossy(error));
        }
        let mut replies = replies[begins..].iter();
        if infos && let Some(reply) = replies.next() {
            match error_of(reply) {
                None if differ(run_id(reply).as_deref(), self.server.run_id.as_deref()) => {
                    return Ok(InDatabase::AnotherServer);
                }
                None => {}
                Some(error) if is_missing_right(error) => self.refused(&rights.info, error, "INFO"),
                Some(error) if is_busy(error) => {}
                Some(error) => return Err(said(error)),
            }
        }
        if selects && let Some(reply) = replies.next() {
            match error_of(reply) {
                None => in_database = InDatabase::Yes,
                Some(error) if is_missing_right(error) => self.refused(&rights.select, error, "SELECT"),
                Some(error) => return Err(said(error)),
            }
        }
        if pings && let Some(reply) = replies.next() {
            match error_of(reply) {
                None => {}
                Some(error) if is_missing_right(error) => self.refused(&rights.ping, error, "PING"),
                Some(error) if is_busy(error) || is_about_disk(error) => {}
                Some(error) => return Err(said(error)),
            }
        }
        Ok(in_database)
    }

    /// AUTH and HELLO.
    async fn become_user(&self, wire: &mut Connection, login: &Login) -> Result<Greeted, NotTaken> {
        let replies = ask(wire, &[login.auth().collect(), self.hello_words()]).await?;
        if let Some(error) = error_of(&replies[0]) {
            let text = String::from_utf8_lossy(error).trim_end().to_owned();
            let login = is_about_login(&text);
            return Err(NotTaken::Said { text, login });
        }
        self.greeted(wire, &replies[1]).await
    }

    /// A right is missing. NOPERM is remembered, with one warning. NOAUTH only says that there is no login, and Redis does not log
    /// it.
    fn refused(&self, right: &Right, error: &[u8], command: &str) {
        if error.starts_with(b"NOPERM") {
            right.refuse();
            let text = format!(
                "Shortstop's own user in Redis (the one in the upstream URL, else default) has no right to \
                 {command}; grant that right"
            );
            self.warn(&text);
        }
    }

    /// After a change of the password the open connections stay usable, so this line may be the only sign of it.
    fn warn_of_login(&self, error: &str) {
        let warned = &self.rights.login_warned;
        if warned.get().is_none_or(|when| when.elapsed() > ASK_AGAIN) {
            warned.set(Some(Instant::now()));
            tracing::warn!(
                why = error.trim_end(),
                "Redis refuses the login of the user in the upstream URL: correct the user or the password in the URL and restart. Until \
                 then users may need the right to SELECT, and another server at the same address is noticed later"
            );
        }
    }

    fn warn(&self, text: &str) {
        if !self.rights.warned.replace(true) {
            tracing::warn!(
                "{text}. Until then users may need the right to SELECT, and another server at the same address is noticed later"
            );
        }
    }
}

/// The connection's id in the reply to HELLO. 0: the reply has none.
fn number_in(reply: &[u8]) -> u64 {
    const FIELD: &[u8] = b"$2\r\nid\r\n:";
    let digits = memchr::memmem::find(reply, FIELD).map(|at| &reply[at + FIELD.len()..]);
    let digits = digits.and_then(|rest| Some(&rest[..memchr::memchr(b'\r', rest)?]));
    digits.and_then(parse_int).and_then(|id| u64::try_from(id).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::number_in;

    #[test]
    fn the_connection_id_is_found_in_both_protocols() {
        assert_eq!(number_in(b"*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:4711\r\n"), 4711);
        assert_eq!(number_in(b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n"), 7);
        assert_eq!(number_in(b"+OK\r\n"), 0);
    }
}
