//! Notices changes of users' rights. A change through this Shortstop is known at once. A change made elsewhere (in Redis, through
//! another Shortstop) is found by polling.
//!
//! This matters because connections are shared: a connection stays authenticated when a password is set later, and L1 holds entries
//! that were read under the old rights. Both last at most until the next poll.
//!
//! Redis is asked on the control connection. A command that its user may not use is tried once per connection, because Redis logs
//! each refusal. Only a digest of the replies is kept.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis_protocol::resp2::types::BytesFrame;
use tokio::time::timeout;

use crate::net::Address;

use super::acl::{self, UserRights};
use super::control::{Control, bytes, items};
use super::dial::Dialer;
use super::login::{Login, is_about_login};

/// The pause between two polls of all users is at least this many times the duration of a poll, because there may be thousands of
/// users.
const PAUSE: u32 = 100;

/// But no longer than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The result of a poll.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Whether the server accepts commands from a connection that has not authenticated. `None`: not known.
    pub(super) accepts_anonymous: Option<bool>,
    /// The rights of unauthenticated clients differ from those at this time.
    pub(super) first_changed_since: Option<Instant>,
    /// The rights of some user have changed.
    pub(super) changed: bool,
    /// What each user may use, if that was asked for or has changed.
    pub(super) users: Option<HashMap<Box<[u8]>, UserRights>>,
    /// Shortstop's own user has no right to read users' rights.
    pub(super) blind: bool,
}

/// The last results. They outlive the control connection.
pub(super) struct Rights {
    /// The server's address.
    address: Option<Address>,
    dialer: Arc<Dialer>,
    /// The login that unauthenticated clients use.
    first: Option<Login>,
    first_user: String,
    begun: Instant,
    /// Keyed, so that a digest reveals nothing.
    hasher: RandomState,
    /// When the rights of unauthenticated clients were read, and their digest.
    last_first: Option<(Instant, u64)>,
    /// The digest of each user's rights.
    last_all: Option<HashMap<Box<[u8]>, u64>>,
    all_again: Instant,
    may_ask: bool,
    may_ask_all: bool,
}

impl Rights {
    pub(super) fn new(dialer: Arc<Dialer>, first: Option<Login>) -> Self {
        let first_user = first.as_ref().map_or(&b"default"[..], Login::user);
        Rights {
            address: None,
            dialer,
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

    /// There is a new control connection. Its user may have other rights.
    pub(super) fn connected(&mut self, address: Address) {
        self.address = Some(address);
        (self.may_ask, self.may_ask_all) = (true, true);
    }

    /// Polls, and compares with the last results.
    ///
    /// # Errors
    /// The control connection broke, so nothing was read.
    ///
    /// # Cancel safety
    /// If dropped, nothing was read: the next poll reports what has changed.
    pub(super) async fn look(&mut self, control: &mut Control, wants_users: bool) -> io::Result<Seen> {
        let started = Instant::now();
        let mut seen = Seen::default();
        let user = match self.may_ask {
            true => control.ask_if_allowed(&["ACL", "GETUSER", &self.first_user]).await?,
            false => None,
        };
        let first = match user {
            Some(user) => {
                seen.accepts_anonymous = Some(self.first.is_some() || needs_no_password(&user));
                Some(self.digest(&user))
            }
            None => {
                self.may_ask = false;
                self.try_as_anonymous(&mut seen).await
            }
        };
        let mut all = None;
        if self.may_ask_all && started >= self.all_again {
            let asked = Instant::now();
            let list = control.ask_if_allowed(&["ACL", "LIST"]).await?;
            all = list.as_ref().map(|list| self.digests(list));
            self.may_ask_all = all.is_some();
            if all.is_some() && (all != self.last_all || wants_users) {
                seen.users = list.map(|list| users(&list));
            }
            self.all_again = Instant::now() + (asked.elapsed() * PAUSE).min(LONGEST_PAUSE);
        }
        seen.blind = !self.may_ask_all;
        // No await from here on, so that every stored result is also reported.
        self.compare_first(started, first, &mut seen);
        // Nothing is kept for a user that did not exist before, so a new user is no change.
        if let Some(all) = all {
            let before = self.last_all.get_or_insert_default();
            seen.changed = before.iter().any(|(name, digest)| all.get(name) != Some(digest));
            *before = all;
        }
        seen.changed |= seen.first_changed_since.is_some();
        Ok(seen)
    }

    /// Polls without the control connection, because Redis refuses its login.
    ///
    /// # Cancel safety
    /// As [`Rights::look`].
    pub(super) async fn look_as_anonymous(&mut self, address: &Address) -> Seen {
        self.address = Some(address.clone());
        let started = Instant::now();
        let mut seen = Seen::default();
        let first = self.try_as_anonymous(&mut seen).await;
        self.compare_first(started, first, &mut seen);
        seen.changed = seen.first_changed_since.is_some();
        seen
    }

    /// Finds out by a connection of its own whether the server accepts unauthenticated clients. Returns the digest of their rights.
    async fn try_as_anonymous(&self, seen: &mut Seen) -> Option<u64> {
        let answer = timeout(self.dialer.limit(), self.first_reply()).await;
        let accepts_anonymous = answer.ok().and_then(Result::ok).flatten();
        seen.accepts_anonymous = accepts_anonymous.map(|accepts_anonymous| accepts_anonymous || self.first.is_some());
        accepts_anonymous.map(u64::from)
    }

    /// Compares the rights of unauthenticated clients with the last result. `first` is their digest.
    fn compare_first(&mut self, started: Instant, first: Option<u64>, seen: &mut Seen) {
        let Some(first) = first else { return };
        seen.first_changed_since = match self.last_first.replace((started, first)) {
            Some((since, before)) => (before != first).then_some(since),
            // Clients that connected before the first poll may have been accepted without a login.
            None => (seen.accepts_anonymous == Some(false)).then_some(self.begun),
        };
    }

    /// The digests from the reply to `ACL LIST`.
    fn digests(&self, list: &BytesFrame) -> HashMap<Box<[u8]>, u64> {
        items(list)
            .iter()
            .filter_map(bytes)
            .filter_map(acl::user)
            .map(|(name, rules)| (name.into(), self.hasher.hash_one(rules)))
            .collect()
    }

    fn digest(&self, frame: &BytesFrame) -> u64 {
        self.hasher.hash_one(format!("{frame:?}"))
    }

    /// Connects like a client that has not authenticated, and returns whether the server accepts its commands. `None` if the server
    /// did not reply.
    async fn first_reply(&self) -> io::Result<Option<bool>> {
        let Some(address) = &self.address else { return Ok(None) };
        let mut connection = self.dialer.dial(address).await?.greet().await?;
        let request = match &self.first {
            Some(login) => login.auth().collect(),
            // HELLO needs no right, so a refusal is about authentication alone, and Redis does not log it.
            None => vec![&b"HELLO"[..]],
        };
        let reply = connection.ask(request).await?;
        Ok(match reply.strip_prefix(b"-") {
            None => Some(true),
            // The server is older than HELLO.
            Some(text) if text.starts_with(b"ERR unknown command") => Some(true),
            Some(text) => is_about_login(&String::from_utf8_lossy(text)).then_some(false),
        })
    }
}

/// What each user may use, from the reply to `ACL LIST`: lines of `user`, a name, and rules.
fn users(list: &BytesFrame) -> HashMap<Box<[u8]>, UserRights> {
    let users = items(list).iter().filter_map(bytes).filter_map(acl::user);
    users.map(|(name, rules)| (name.into(), UserRights::of(rules))).collect()
}

/// From the reply to `ACL GETUSER default`: `flags`, the flags, and more pairs.
fn needs_no_password(user: &BytesFrame) -> bool {
    let flags = items(user).get(1).map(items).unwrap_or_default();
    let has = |name: &[u8]| flags.iter().any(|flag| bytes(flag) == Some(name));
    has(b"on") && has(b"nopass")
}
