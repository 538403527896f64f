//! The users' numbers, by which L1 keeps them apart, and what is known of their rights without asking Redis each time.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Who may PTTL. A read that is to be kept is sent with one, and Redis logs each that it refuses.
#[derive(Debug, Default)]
struct Ttl {
    known: Knowledge,
    /// Some of `known` was forgotten and has to be asked again.
    incomplete: bool,
    /// The numbers of users to whom it was refused.
    refused: HashSet<u32>,
    /// Users that the log has named because they may not PTTL.
    named: HashSet<Box<[u8]>>,
}

#[derive(Debug, Default)]
enum Knowledge {
    /// Redis has not been asked.
    #[default]
    NotYet,
    /// Shortstop's own user may not ask.
    None,
    /// Each user, and whether it may.
    Of(HashMap<Box<[u8]>, bool>),
}

/// The numbers of users, by which what is cached for one is kept from another. A name keeps its number until the user is
/// deleted: rights belong to the user, whatever its password. There are never more than Redis has let in by name.
#[derive(Debug, Default)]
pub struct Users {
    known: Mutex<HashMap<Box<[u8]>, u32>>,
    last: AtomicU32,
    anonymous: AtomicU32,
    /// When Redis was last seen to let clients with the number `anonymous` do nothing; none: it lets them in, as far as is known.
    locked_at: Mutex<Option<Instant>>,
    /// Clients without a login are the same user to Redis as Shortstop itself.
    anonymous_is_own_user: bool,
    ttl: Mutex<Ttl>,
    /// Counts the changes of `ttl`.
    state: AtomicU32,
}

impl Users {
    /// No user is known. `nobody_is_own`: the upstream URL has no login.
    pub fn new(anonymous_is_own_user: bool) -> Self {
        Users { anonymous_is_own_user, ..Users::default() }
    }

    /// The number of a user that Redis has let in.
    pub(crate) fn number(&self, name: &[u8]) -> u32 {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry(name.into()).or_insert_with(|| self.fresh())
    }

    /// These users were deleted: a user of the same name from now on is another one. Returns their numbers.
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

    /// What a client may do without authentication has changed. Redis lets connections go on that stand, and may not let new ones in,
    /// so clients that come from now on get another number. Returns the number of the clients that are here.
    pub fn first_rights_changed(&self) -> u32 {
        self.anonymous.swap(self.fresh(), Ordering::AcqRel)
    }

    /// Sets whether Redis lets a client do anything that comes now and has not authenticated.
    pub fn let_in(&self, lets_in: bool) {
        *self.locked_at.lock().unwrap_or_else(PoisonError::into_inner) = (!lets_in).then(Instant::now);
    }

    /// Whether Redis was seen to let nobody in without a login, no longer ago than `limit`.
    pub(crate) fn locked_within(&self, limit: Duration) -> bool {
        self.locked_at().is_some_and(|seen| seen.elapsed() <= limit)
    }

    /// Whether Redis lets this user do anything, as far as it is known without asking. Until it has been seen: yes.
    pub(crate) fn lets_in(&self, user: u32) -> bool {
        user != self.anonymous() || self.locked_at().is_none()
    }

    fn locked_at(&self) -> Option<Instant> {
        *self.locked_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes whenever an answer of [`Users::may_ttl`] may have changed.
    #[inline]
    pub(crate) fn state(&self) -> u32 {
        self.state.load(Ordering::Acquire).wrapping_add(1)
    }

    /// Whether a user may PTTL beside what it reads. No, while Redis has not been asked. `name`: none without a login.
    pub(crate) fn may_ttl(&self, number: u32, name: Option<&[u8]>) -> bool {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        let may = match &ttl.known {
            // Shortstop's own user: if it may do little, it may not ask for rights either, so there is nothing to wait for.
            Knowledge::NotYet if name.is_none() && self.anonymous_is_own_user => true,
            Knowledge::NotYet => return false,
            Knowledge::None => !ttl.refused.contains(&number),
            Knowledge::Of(users) => match users.get(name.unwrap_or(b"default")) {
                Some(may) => *may && !ttl.refused.contains(&number),
                None => return false,
            },
        };
        let name = name.unwrap_or(b"default");
        if !may && ttl.named.insert(name.into()) {
            tracing::warn!(
                user = %String::from_utf8_lossy(name),
                "what this user reads is not kept in L1, because it may not PTTL; give it +pttl"
            );
        }
        may
    }

    /// Redis has refused this user a PTTL.
    pub(crate) fn refuse_ttl(&self, number: u32) {
        self.ttl.lock().unwrap_or_else(PoisonError::into_inner).refused.insert(number);
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// The rights of users may have changed and have to be asked for again. `name`: only those of this user.
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

    /// Whether rights of users have to be asked for.
    pub fn wants_rights(&self) -> bool {
        let ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        ttl.incomplete || !matches!(ttl.known, Knowledge::Of(_))
    }

    /// Which users may PTTL beside what they read; none: that cannot be known.
    pub fn set_rights(&self, users: Option<HashMap<Box<[u8]>, bool>>) {
        let mut ttl = self.ttl.lock().unwrap_or_else(PoisonError::into_inner);
        ttl.incomplete = false;
        match users {
            Some(users) => {
                ttl.named.retain(|name| users.get(name) == Some(&false));
                ttl.refused.clear();
                ttl.known = Knowledge::Of(users);
            }
            None if matches!(ttl.known, Knowledge::None) => return,
            None => ttl.known = Knowledge::None,
        }
        drop(ttl);
        self.state.fetch_add(1, Ordering::AcqRel);
    }

    /// Redis could not be asked for the rights of users. What is known stays; a user that is not known counts as one that may PTTL,
    /// until Redis refuses it.
    pub fn cannot_look(&self) {
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
