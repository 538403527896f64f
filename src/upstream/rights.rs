//! Notices that the rights of users have changed. A change through this proxy is known at once; a change made elsewhere (at Redis,
//! through another proxy) is found by looking.
//!
//! This matters because connections are shared: a connection stays authenticated when a password is set later, and L1 holds what was
//! read under the old rights. Both last no longer than the time between two looks.
//!
//! Redis is asked on the control connection. What its user may not ask is tried once per connection, because Redis logs each
//! refusal. Only a digest of the answers is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use fred::clients::Client;
use fred::error::Error;
use fred::types::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config::{Live, Timeouts};

use super::acl;
use super::control::ask_if_allowed;
use super::login::{Login, is_about_login};
use super::own;

/// The pause between two looks at all users is at least this many times as long as a look takes: there may be thousands of users.
const PAUSE: u32 = 100;

/// But after this at the latest.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Whether the server takes commands from a connection that has not authenticated; none: not known.
    pub(super) lets_in: Option<bool>,
    /// The rights of a client that has not authenticated differ from those at this time.
    pub(super) first_changed_since: Option<Instant>,
    /// The rights of some user have changed.
    pub(super) changed: bool,
    /// Whether each user may PTTL beside what it reads, if that was asked for or has changed.
    pub(super) users: Option<HashMap<Box<[u8]>, bool>>,
    /// Shortstop's own user may not ask for the rights of users.
    pub(super) blind: bool,
}

/// What was seen last. Outlives the control connection.
pub(super) struct Rights {
    /// Where the server is.
    address: Option<SocketAddr>,
    timeouts: Live<Timeouts>,
    /// The login of clients that have not authenticated.
    first: Option<Login>,
    first_user: String,
    begun: Instant,
    /// Keyed, so that a digest reveals nothing.
    hasher: RandomState,
    /// When, and what.
    last_first: Option<(Instant, u64)>,
    /// Of each user.
    last_all: Option<HashMap<Box<[u8]>, u64>>,
    all_again: Instant,
    may_ask: bool,
    may_ask_all: bool,
}

impl Rights {
    pub(super) fn new(timeouts: Live<Timeouts>, first: Option<Login>) -> Self {
        let first_user = first.as_ref().map_or(&b"default"[..], Login::user);
        Rights {
            address: None,
            timeouts,
            first_user: String::from_utf8_lossy(first_user).into_owned(),
            first,
            begun: Instant::now(),
            hasher: RandomState::new(),
            last_first: None,
            last_all: None,
            all_again: Instant::now(),
            may_ask: true,
            may_ask_all: true,
        }
    }

    /// There is another control connection: its user may have other rights.
    pub(super) fn connected(&mut self, address: SocketAddr) {
        self.address = Some(address);
        (self.may_ask, self.may_ask_all) = (true, true);
    }

    /// Looks, and compares with what was there before.
    ///
    /// # Errors
    /// The control connection broke: nothing was seen.
    ///
    /// # Cancel safety
    /// Dropped, it has seen nothing: the next look reports what has changed.
    pub(super) async fn look(&mut self, client: &Client, wants_users: bool) -> Result<Seen, Error> {
        let started = Instant::now();
        let mut seen = Seen::default();
        let user = match self.may_ask {
            true => ask_if_allowed(client, "ACL", &["GETUSER", &self.first_user]).await?,
            false => None,
        };
        let first = match user {
            Some(user) => {
                seen.lets_in = Some(self.first.is_some() || needs_no_password(&user));
                Some(self.digest(&user))
            }
            None => {
                self.may_ask = false;
                let limit = self.timeouts.get().connect;
                let answer = tokio::time::timeout(limit, first_reply(self.address, self.first.as_ref())).await;
                let lets_in = answer.ok().and_then(Result::ok).flatten();
                seen.lets_in = lets_in.map(|lets_in| lets_in || self.first.is_some());
                lets_in.map(u64::from)
            }
        };
        let mut all = None;
        if self.may_ask_all && started >= self.all_again {
            let asked = Instant::now();
            let list = ask_if_allowed(client, "ACL", &["LIST"]).await?;
            all = list.as_ref().map(|list| self.digests(list));
            self.may_ask_all = all.is_some();
            if all.is_some() && (all != self.last_all || wants_users) {
                seen.users = list.map(|list| users(&list));
            }
            self.all_again = Instant::now() + (asked.elapsed() * PAUSE).min(LONGEST_PAUSE);
        }
        seen.blind = !self.may_ask_all;
        // No wait from here on, so that what is remembered is also reported.
        if let Some(first) = first {
            seen.first_changed_since = match self.last_first.replace((started, first)) {
                Some((since, before)) => (before != first).then_some(since),
                // Clients that connected before the first look may have been admitted.
                None => (seen.lets_in == Some(false)).then_some(self.begun),
            };
        }
        // Nothing is kept for a user that was not there before, so a new user is no change.
        if let Some(all) = all {
            let before = self.last_all.get_or_insert_default();
            seen.changed = before.iter().any(|(name, digest)| all.get(name) != Some(digest));
            *before = all;
        }
        seen.changed |= seen.first_changed_since.is_some();
        Ok(seen)
    }

    /// By the reply to `ACL LIST`.
    fn digests(&self, list: &Value) -> HashMap<Box<[u8]>, u64> {
        let Value::Array(lines) = list else { return HashMap::new() };
        let lines = lines.iter().filter_map(|line| line.as_bytes());
        lines.filter_map(acl::user).map(|(name, rules)| (name.into(), self.hasher.hash_one(rules))).collect()
    }

    fn digest(&self, value: &Value) -> u64 {
        self.hasher.hash_one(format!("{value:?}"))
    }
}

/// Whether each user may PTTL, by the reply to `ACL LIST`: lines of `user`, a name, and rules.
fn users(list: &Value) -> HashMap<Box<[u8]>, bool> {
    let Value::Array(lines) = list else { return HashMap::new() };
    let lines = lines.iter().filter_map(|line| line.as_bytes());
    lines.filter_map(acl::user).map(|(name, rules)| (name.into(), acl::may_ttl(rules))).collect()
}

/// By the reply to `ACL GETUSER default`: `flags`, the flags, and more pairs.
fn needs_no_password(user: &Value) -> bool {
    let Value::Array(pairs) = user else { return false };
    let Some(Value::Array(flags)) = pairs.get(1) else { return false };
    let has = |name: &str| flags.iter().any(|flag| flag.as_str().is_some_and(|flag| flag == name));
    has("on") && has("nopass")
}

/// Connects as a client that has not authenticated. Returns whether the server takes its commands; none: not known.
async fn first_reply(address: Option<SocketAddr>, first: Option<&Login>) -> std::io::Result<Option<bool>> {
    let Some(address) = address else { return Ok(None) };
    let mut stream = TcpStream::connect(address).await?;
    let mut request = Vec::new();
    match first {
        Some(login) => own::request(&mut request, login.auth()),
        // No right is needed for it, so that a refusal is about authentication alone, and is not logged.
        None => own::request(&mut request, [&b"HELLO"[..]].into_iter()),
    }
    stream.write_all(&request).await?;
    let mut reply = Vec::new();
    while !reply.contains(&b'\n') && reply.len() < 4096 {
        if stream.read_buf(&mut reply).await? == 0 {
            return Ok(None);
        }
    }
    Ok(match reply.strip_prefix(b"-") {
        None => Some(true),
        // The server is older than HELLO.
        Some(text) if text.starts_with(b"ERR unknown command") => Some(true),
        Some(text) => is_about_login(&String::from_utf8_lossy(text)).then_some(false),
    })
}
