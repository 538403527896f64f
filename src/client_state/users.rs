//! Numbers for users, which separate their entries in L1, and what is known about their rights without asking Redis each time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::upstream::UserRights;

/// What Shortstop may send as each user. A read whose reply is to be kept is sent with a PTTL, and Redis logs each PTTL that it
/// refuses.
#[derive(Debug, Default)]
struct Ttl {
    known: Knowledge,
    /// A part of `known` was forgotten and must be requested again.
    incomplete: bool,
    /// Numbers of the users whose PTTL was refused.
    refused: HashSet<u32>,
    /// Users for which the log has already said that they may not use PTTL.
    named: HashSet<Box<[u8]>>,
}

#[derive(Debug, Default)]
enum Knowledge {
    /// Redis has not been asked.
    #[default]
    NotYet,
    /// Shortstop's own user may not ask.
    None,
    /// Each user's rights.
    Of(HashMap<Box<[u8]>, UserRights>),
}

/// Numbers of users, which separate their entries in L1. A name keeps its number until the user is deleted: rights belong to the
/// user, whatever its password. There are never more numbers than users that Redis has accepted.
#[derive(Debug, Default)]
pub struct Users {
    known: Mutex<HashMap<Box<[u8]>, u32>>,
    last: AtomicU32,
    anonymous: AtomicU32,
    /// The last finding: whether Redis accepts commands from clients that have not authenticated.
    seen: watch::Sender<Option<bool>>,
    /// When Redis was last seen to accept no commands from clients with the number `anonymous`. `None` if it accepts them, as far
    /// as is known.
    locked_at: Mutex<Option<Instant>>,
    /// To Redis, clients without a login are the same user as Shortstop itself.
    anonymous_is_own_user: bool,
    ttl: Mutex<Ttl>,
    /// Counts the changes of `ttl`.
    state: AtomicU32,
}

impl Users {
    /// With no users. `anonymous_is_own_user`: the upstream URL has no login.
    pub fn new(anonymous_is_own_user: bool) -> Self {
        Users { anonymous_is_own_user, ..Users::default() }
    }

    /// The number of a user that Redis has accepted.
    pub(crate) fn number(&self, name: &[u8]) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(name.into()).or_insert_with(|| self.fresh())
    }

    /// These users were deleted. A later user of the same name is a different one. Returns their numbers.
    pub(crate) fn end(&self, names: &[Vec<u8>]) -> Vec<u32> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        names.iter().filter_map(|name| known.remove(&name[..])).collect()
    }

    /// The user with this number was deleted.
    pub(crate) fn end_number(&self, number: u32) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, known| *known != number);
    }

    /// The number of clients that have not authenticated.
    pub(crate) fn anonymous(&self) -> u32 {
        self.anonymous.load(Ordering::Acquire)
    }

    /// The rights of unauthenticated clients have changed. Redis keeps existing connections but may refuse new ones, so new clients
    /// get another number. Returns the number of the existing clients.
    pub fn anonymous_rights_changed(&self) -> u32 {
        self.anonymous.swap(self.fresh(), Ordering::AcqRel)
    }

    /// As [`Users::anonymous_rights_changed`], if unauthenticated clients still have this number.
    pub(crate) fn replace_anonymous(&self, number: u32) {
        let _ = self.anonymous.compare_exchange(number, self.fresh(), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Sets whether Redis accepts commands from new clients that have not authenticated. Returns when Redis was last seen to refuse
    /// them, if it has not been seen to accept them since.
    pub fn set_accepts_anonymous(&self, accepts_anonymous: bool) -> Option<Instant> {
        self.seen.send_replace(Some(accepts_anonymous));
        let mut locked_at = self.locked_at.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut locked_at, (!accepts_anonymous).then(Instant::now))
    }

    /// Whether Redis accepts commands from clients that have not authenticated. Waits until this is known.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(crate) async fn first_answer(&self) -> bool {
        let mut seen = self.seen.subscribe();
        // The sender is borrowed, so it cannot be dropped meanwhile.
        let answer = seen.wait_for(Option::is_some).await.map(|seen| *seen);
        answer.ok().flatten().unwrap_or(true)
    }

    /// Whether Redis was seen within `limit` to accept no commands without a login.
    pub(crate) fn locked_within(&self, limit: Duration) -> bool {
        self.locked_at().is_some_and(|seen| seen.elapsed() <= limit)
    }

    /// Whether Redis accepts any command of this user, as far as is known without asking. True until the first finding.
    pub(crate) fn accepts(&self, user: u32) -> bool {
        user != self.anonymous() || self.locked_at().is_none()
    }

    fn locked_at(&self) -> Option<Instant> {
        *self.locked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever the result of [`Users::may_ttl`] may have changed.
    #[inline]
    pub(crate) fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire).wrapping_add(1)
    }

    /// Whether a user may send PTTL beside its reads. False until Redis has been asked. `name` is `None` without a login.
    pub(crate) fn may_ttl(&self, number: u32, name: Option<&[u8]>) -> bool {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        let may = match &ttl.known {
            // Shortstop's own user: if it has few rights, it cannot ask for rights either, so there is nothing to wait for.
            Knowledge::NotYet if name.is_none() && self.anonymous_is_own_user => true,
            Knowledge::NotYet => return false,
            Knowledge::None => !ttl.refused.contains(&number),
            Knowledge::Of(users) => match users.get(name.unwrap_or(b"default")) {
                Some(may) => may.ttl && !ttl.refused.contains(&number),
                None => return false,
            },
        };
        let name = name.unwrap_or(b"default");
        if !may && ttl.named.insert(name.into()) {
            tracing::warn!(
                user = %String::from_utf8_lossy(name),
                "this user's reads are not kept in L1, because the user has no right to PTTL; grant +pttl"
            );
        }
        may
    }

    /// What is known of a user's rights. None of them until Redis has been asked.
    pub(crate) fn rights(&self, name: Option<&[u8]>) -> UserRights {
        match &self.ttl.lock().unwrap_or_else(PoisonError::into_inner).known {
            Knowledge::Of(users) => users.get(name.unwrap_or(b"default")).copied().unwrap_or_default(),
            Knowledge::NotYet | Knowledge::None => UserRights::default(),
        }
    }

    /// Redis has refused a PTTL of this user.
    pub(crate) fn refuse_ttl(&self, number: u32) {
        self.ttl.lock().unwrap_or_else(PoisonError::into_inner).refused.insert(number);
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// The rights of users may have changed and must be requested again. `name` limits this to one user.
    pub(crate) fn forget_ttl(&self, name: Option<&[u8]>) {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        match (&mut ttl.known, name) {
            (Knowledge::Of(users), Some(name)) => drop(users.remove(name)),
            (known @ Knowledge::Of(_), None) => *known = Knowledge::NotYet,
            _ => return,
        }
        ttl.incomplete = true;
        drop(ttl);
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// Whether the rights of users must be requested.
    pub fn wants_rights(&self) -> bool {
        let ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        ttl.incomplete || !matches!(ttl.known, Knowledge::Of(_))
    }

    /// Sets what Shortstop may send as each user. `None` if that cannot be found out.
    pub fn set_rights(&self, users: Option<HashMap<Box<[u8]>, UserRights>>) {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        ttl.incomplete = false;
        match users {
            Some(users) => {
                ttl.named.retain(|name| users.get(name).is_some_and(|rights| !rights.ttl));
                ttl.refused.clear();
                ttl.known = Knowledge::Of(users);
            }
            None if matches!(ttl.known, Knowledge::None) => return,
            None => ttl.known = Knowledge::None,
        }
        drop(ttl);
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// The rights of users could not be requested. What is known stays. An unknown user counts as one that may use PTTL, until
    /// Redis refuses it.
    pub fn rights_unavailable(&self) {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(ttl.known, Knowledge::NotYet) {
            ttl.known = Knowledge::None;
            drop(ttl);
            self.state.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn fresh(&self) -> u32 {
        self.last.fetch_add(1, Ordering::Relaxed) + 1
    }
}
