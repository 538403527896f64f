//! The last requests that took long, as Redis's SLOWLOG: what was asked, by whom, and where the time went. Must not decide what is slow.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// A request that took long.
#[derive(Clone, Debug)]
pub struct SlowRequest {
    /// When its reply was handed on.
    pub date: SystemTime,
    /// From the read of the request until its reply was handed on.
    pub took: Duration,
    /// The part of it between the last byte sent to Redis and the reply.
    pub upstream: Duration,
    /// The command's name, which is no secret.
    pub command: String,
    /// The call, clipped as Redis clips it. Empty if it is no longer known.
    pub arguments: Vec<Vec<u8>>,
    /// The client's address. Empty if the client has gone.
    pub address: String,
    /// The client's name.
    pub name: Vec<u8>,
}

/// The last of them.
#[derive(Debug, Default)]
pub struct SlowLog(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    /// The oldest first, with their numbers.
    requests: VecDeque<(u64, SlowRequest)>,
    next: u64,
}

impl SlowLog {
    /// Adds a request, and removes the oldest beyond `most`.
    pub fn add(&self, request: SlowRequest, most: usize) {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.requests.push_back((number, request));
        let gone = inner.requests.len().saturating_sub(most);
        inner.requests.drain(..gone);
    }

    /// The last requests with their numbers, the newest first.
    pub fn last(&self, count: usize) -> Vec<(u64, SlowRequest)> {
        self.lock().requests.iter().rev().take(count).cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.lock().requests.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Removes all. Numbers go on.
    pub fn reset(&self) {
        self.lock().requests.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
