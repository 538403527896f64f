//! Turns values that are stored compressed back to plain, as Shortstop's own user, over a connection of its own.
//!
//! A value is replaced only if nothing has changed it since it was read (WATCH), and keeps its time to live (KEEPTTL).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use crate::codec::{self, DecodeError};
use crate::net::Address;
use crate::resp::{Bulk, bulk_of, elements};

use super::OWN_NAMES;
use super::dial::{self, Dialer, Request, silent};
use super::finder::Finder;

/// How often a value is tried that changes meanwhile.
const ATTEMPTS: u32 = 8;

/// How long Redis may take for a reply: it may be busy, and values may be large.
const REPLY: Duration = Duration::from_secs(60);

/// What became of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was compressed, and is plain now.
    Done {
        /// Bytes that were stored.
        from: usize,
        /// Bytes that are stored.
        to: usize,
    },
    /// There is no compressed value at the key, or no longer.
    Nothing,
    /// It stays: the plain value begins like a compressed one, and would be taken for that.
    LooksCompressed,
    /// It stays: it cannot be decompressed.
    Damaged(DecodeError),
    /// It stays: it changed at each attempt.
    Changes,
    /// It stays: the user has no right to the key.
    Refused,
}

/// The address of the server that this dialer's URL leads to.
///
/// # Errors
/// There is none.
pub async fn find(dialer: &Arc<Dialer>) -> io::Result<Address> {
    Finder::new(Arc::clone(dialer)).find(None).await.map(|choice| choice.server.address)
}

/// A connection that turns values to plain.
pub struct Plain {
    connection: dial::Connection,
    /// Size of the largest value.
    most: usize,
}

impl Plain {
    /// Connects, and logs in. `most`: a larger value is not decompressed.
    ///
    /// # Errors
    /// The server cannot be reached, or refuses the login.
    pub async fn open(dialer: &Dialer, address: &Address, most: usize) -> io::Result<Plain> {
        let limit = dialer.limit();
        let dialed = dialer.dial(address).await?;
        let connection = timeout(limit, dialed.greet()).await.unwrap_or_else(|_| Err(silent(limit)))?;
        let mut plain = Plain { connection, most };
        if let Some(login) = dialer.login() {
            plain.demand(login.auth().collect()).await?;
        }
        // It may be refused. The name only tells others what this connection is.
        plain.ask(vec![b"CLIENT", b"SETNAME", format!("{OWN_NAMES}stored-values").as_bytes()]).await?;
        Ok(plain)
    }

    /// Makes sure that this is no Shortstop, through which no value looks compressed.
    ///
    /// # Errors
    /// It is one, or the connection has failed.
    pub async fn refuse_shortstop(&mut self) -> io::Result<()> {
        // Redis does not know this command.
        match self.ask(vec![b"PROXY", b"HEALTH", b"live"]).await?.first() {
            Some(b'-') => Ok(()),
            _ => Err(io::Error::other("this is a Shortstop; name Redis itself")),
        }
    }

    /// The databases that have keys, and how many.
    ///
    /// # Errors
    /// Redis does not tell, or the connection has failed.
    pub async fn databases(&mut self) -> io::Result<Vec<(u32, u64)>> {
        let reply = self.demand(vec![b"INFO", b"keyspace"]).await?;
        let Bulk::Value(text) = bulk_of(&reply) else { return Err(not_understood()) };
        let text = String::from_utf8_lossy(text);
        let database = |line: &str| {
            let (db, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
            Some((db.parse().ok()?, rest.split(',').next()?.parse().ok()?))
        };
        Ok(text.lines().filter_map(database).collect())
    }

    /// Uses this database from now on.
    ///
    /// # Errors
    /// Redis refuses it, or the connection has failed.
    pub async fn select(&mut self, db: u32) -> io::Result<()> {
        self.demand(vec![b"SELECT", db.to_string().as_bytes()]).await.map(drop)
    }

    /// One SCAN: the next cursor, and keys of strings that match.
    ///
    /// # Errors
    /// Redis refuses it, or the connection has failed.
    pub async fn scan(&mut self, cursor: &[u8], pattern: &[u8]) -> io::Result<(Bytes, Vec<Bytes>)> {
        let reply = self.demand(vec![b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"500", b"TYPE", b"string"]).await?;
        let parts: Vec<&[u8]> = elements(&reply).into_iter().flatten().collect();
        let [cursor, keys] = parts[..] else { return Err(not_understood()) };
        let own = |bulk: &[u8]| match bulk_of(bulk) {
            Bulk::Value(value) => Some(Bytes::copy_from_slice(value)),
            _ => None,
        };
        let keys = elements(keys).into_iter().flatten().filter_map(own).collect();
        Ok((own(cursor).ok_or_else(not_understood)?, keys))
    }

    /// Those keys whose values look compressed, and the number of those to which the user has no right. Reads only the beginnings.
    ///
    /// # Errors
    /// The connection has failed, or Redis refuses the command for now.
    pub async fn compressed(&mut self, keys: Vec<Bytes>) -> io::Result<(Vec<Bytes>, u64)> {
        let end = (codec::LONGEST_MARK - 1).to_string();
        let requests: Vec<Request<'_>> =
            keys.iter().map(|key| vec![&b"GETRANGE"[..], key, b"0", end.as_bytes()]).collect();
        let replies = self.ask_all(&requests).await?;
        let mut refused = 0;
        let mut found = Vec::new();
        for (key, reply) in keys.iter().zip(&replies) {
            match bulk_of(reply) {
                Bulk::Value(beginning) if codec::is_compressed(beginning) => found.push(key.clone()),
                Bulk::Value(_) => {}
                _ if reply.starts_with(b"-NOPERM") => refused += 1,
                // Another type has taken its place.
                _ if reply.starts_with(b"-WRONGTYPE") => {}
                _ => return Err(said(reply)),
            }
        }
        Ok((found, refused))
    }

    /// Turns the value at a key to plain, in one atomic step.
    ///
    /// # Errors
    /// The connection has failed, or Redis takes no write: it is a replica, or has no memory.
    ///
    /// # Cancel safety
    /// Dropped, the connection must not be used. The value is either as it was or plain.
    pub async fn to_plain(&mut self, key: &[u8]) -> io::Result<Outcome> {
        for _ in 0..ATTEMPTS {
            let replies = self.ask_all(&[vec![b"WATCH", key], vec![b"GET", key]]).await?;
            let outcome = match bulk_of(&replies[1]) {
                // Without a watch another client's write could be lost.
                Bulk::Value(_) if replies[0].starts_with(b"-") => return Err(said(&replies[0])),
                Bulk::Value(stored) if codec::is_compressed(stored) => match self.opened(&replies[1], stored).await {
                    Ok(value) if codec::is_compressed(&value) => Outcome::LooksCompressed,
                    Ok(value) => {
                        if let Some(done) = self.replace(key, stored.len(), &value).await? {
                            return Ok(done);
                        }
                        // It has changed.
                        continue;
                    }
                    Err(error) => Outcome::Damaged(error),
                },
                Bulk::Value(_) | Bulk::Null => Outcome::Nothing,
                _ if replies[1].starts_with(b"-WRONGTYPE") => Outcome::Nothing,
                _ if replies.iter().any(|reply| reply.starts_with(b"-NOPERM")) => Outcome::Refused,
                _ => return Err(said(&replies[1])),
            };
            self.demand(vec![b"UNWATCH"]).await?;
            return Ok(outcome);
        }
        Ok(Outcome::Changes)
    }

    /// Decompresses a value, a large one on another thread.
    async fn opened(&self, reply: &Bytes, stored: &[u8]) -> Result<Vec<u8>, DecodeError> {
        const ON_ANOTHER_THREAD: usize = 64 << 10;
        let most = self.most;
        if codec::declared_len(stored).unwrap_or(0).max(stored.len()) < ON_ANOTHER_THREAD {
            return codec::decode(stored, most);
        }
        let stored = reply.slice_ref(stored);
        let opened = tokio::task::spawn_blocking(move || codec::decode(&stored, most)).await;
        opened.unwrap_or(Err(DecodeError::Damaged("decompressing it panicked")))
    }

    /// Replaces the value at a watched key. `None`: it has changed. SET is sent only when the transaction is open: without one it would not
    /// depend on the watch.
    async fn replace(&mut self, key: &[u8], from: usize, value: &[u8]) -> io::Result<Option<Outcome>> {
        self.demand(vec![b"MULTI"]).await?;
        let replies = self.ask_all(&[vec![b"SET", key, value, b"KEEPTTL"], vec![b"EXEC"]]).await?;
        if replies[1].starts_with(b"*-1") {
            return Ok(None);
        }
        // An error of SET, when it is queued or executed.
        let failed = [&replies[0][..]].into_iter().chain(elements(&replies[1]).into_iter().flatten());
        match failed.into_iter().find(|reply| reply.starts_with(b"-")) {
            Some(error) if error.starts_with(b"-NOPERM") => Ok(Some(Outcome::Refused)),
            Some(error) => Err(said(error)),
            None if replies[1].starts_with(b"*1\r\n") => Ok(Some(Outcome::Done { from, to: value.len() })),
            None => Err(said(&replies[1])),
        }
    }

    /// Sends one command. An error reply is an error.
    async fn demand(&mut self, request: Request<'_>) -> io::Result<Bytes> {
        let reply = self.ask(request).await?;
        if reply.starts_with(b"-") { Err(said(&reply)) } else { Ok(reply) }
    }

    pub(super) async fn ask(&mut self, request: Request<'_>) -> io::Result<Bytes> {
        self.ask_all(&[request]).await?.pop().ok_or_else(not_understood)
    }

    pub(super) async fn ask_all(&mut self, requests: &[Request<'_>]) -> io::Result<Vec<Bytes>> {
        let asked = timeout(REPLY, self.connection.ask_all(requests)).await;
        asked.map_err(|_| silent(REPLY))?.map_err(|unanswered| unanswered.error)
    }
}

/// Redis's error.
pub(super) fn said(reply: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(reply.strip_prefix(b"-").unwrap_or(reply)).trim_end().to_owned();
    io::Error::other(text)
}

fn not_understood() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "Redis's reply is not understood")
}
