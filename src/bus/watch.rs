//! The state shared between the bus and the task that asks Redis: which instances Redis shows, and whether that is needed now.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// An instance of the fleet that Redis shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Its incarnation.
    pub incarnation: u64,
    /// The address of its connection.
    pub address: String,
}

/// The state shared by the tasks, the library's callbacks and the [`Bus`].
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// The bus has ended: the library must stop connecting.
    pub(super) ended: AtomicBool,
    /// The library has dropped received messages.
    pub(super) overflowed: AtomicBool,
    /// A hash of the run id of this Shortstop's Redis. 0: not known.
    pub(super) upstream: AtomicU64,
    /// This Shortstop is subscribed to the fleet's channel at Redis.
    pub(super) subscribed: AtomicBool,
    pub(super) lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
pub(super) struct Lists {
    pub(super) lost: Vec<u64>,
    /// Number of subscribed peers, as far as is known.
    pub(super) subscribers: u64,
    /// A peer is lost, or the messages of an instance do not arrive.
    pub(super) needs_list: bool,
    /// The messages of an instance may not arrive. One more list decides.
    pub(super) needs_list_now: bool,
    /// The last list from Redis, until the receiver takes it.
    pub(super) shown: Option<Vec<Instance>>,
    /// Redis is asked over a new connection since the receiver last checked.
    pub(super) asked_anew: bool,
}

impl Shared {
    pub(super) fn upstream(&self) -> Option<u64> {
        Some(self.upstream.load(Ordering::Relaxed)).filter(|upstream| *upstream != 0)
    }

    pub(super) fn lists(&self) -> MutexGuard<'_, Lists> {
        // No operation under this lock can leave the lists half changed.
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A handle for the task that asks Redis: it gives the bus the instances that Redis shows, and asks what the bus needs.
#[derive(Clone, Debug)]
pub struct PeerWatch(pub(super) Arc<Shared>);

impl PeerWatch {
    /// Peers that fell silent without a BYE and may still be writing, until Redis has not shown them for some time
    /// ([`PeerWatch::shown`]).
    pub fn lost(&self) -> Vec<u64> {
        self.0.lists().lost.clone()
    }

    /// Redis is asked over a new connection. `upstream` is a hash of the server's run id. `subscribed`: this Shortstop is
    /// subscribed to the fleet's channel. Heartbeats contain both.
    pub fn connected(&self, upstream: Option<u64>, subscribed: bool) {
        self.0.upstream.store(upstream.unwrap_or(0), Ordering::Relaxed);
        self.0.subscribed.store(subscribed, Ordering::Relaxed);
        self.0.lists().asked_anew = true;
    }

    /// This Shortstop is no longer subscribed.
    pub fn disconnected(&self) {
        self.0.subscribed.store(false, Ordering::Relaxed);
    }

    /// Expected number of subscribers to the fleet's channel.
    pub fn subscribers(&self) -> u64 {
        self.0.lists().subscribers + u64::from(self.0.subscribed.load(Ordering::Relaxed))
    }

    /// Whether CLIENT LIST is needed now: a peer is lost, or the messages of an instance do not arrive.
    pub fn needs_list(&self) -> bool {
        self.0.lists().needs_list
    }

    /// Whether Redis should be asked at once: the messages of an instance may not arrive.
    pub fn needs_list_now(&self) -> bool {
        self.0.lists().needs_list_now
    }

    /// All instances of the fleet that Redis shows now, by the names of their connections ([`super::connection_name`]).
    pub fn shown(&self, instances: Vec<Instance>) {
        self.0.lists().shown = Some(instances);
    }
}
