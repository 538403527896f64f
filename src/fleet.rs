//! Passes the instances that Redis shows to the bus, and tells the control plane what to ask Redis for. Decides nothing: the bus
//! does.
//!
//! Without a bus an instance cannot hear others. It only names other instances of its fleet in the log.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use crate::bus::{Instance, PeerWatch, incarnation_of};
use crate::metrics::outcome::EventKind;
use crate::metrics::slots::BusStats;
use crate::upstream::instances::{Fleet, Need, Shown};

/// An instance with a bus.
pub struct OnBus {
    /// The bus.
    pub peers: PeerWatch,
    /// The fleet's name.
    pub fleet: String,
}

impl Fleet for OnBus {
    fn connected(&self, run_id: Option<&str>, subscribed: bool) {
        self.peers.connected(run_id.map(|run_id| xxh3_64(run_id.as_bytes())), subscribed);
    }

    fn disconnected(&self) {
        self.peers.disconnected();
    }

    fn needs(&self, subscribers: Option<u64>) -> Need {
        if self.peers.needs_list_now() {
            Need::ListNow
        } else if self.peers.needs_list() {
            Need::List
        } else if subscribers.is_some_and(|count| count != self.peers.subscribers()) {
            Need::Count
        } else {
            Need::No
        }
    }

    fn shown(&self, connections: Vec<Shown>) {
        self.peers.shown(instances(&self.fleet, connections).collect());
    }
}

/// An instance without a bus.
pub struct Alone {
    /// The fleet's name.
    pub fleet: String,
    /// Its own incarnation.
    pub incarnation: u64,
    /// Where the number of others is stored.
    pub stats: Arc<BusStats>,
    /// Number of other instances in the last list.
    pub unheard: AtomicU64,
    /// Whether it is subscribed to the fleet's channel.
    pub subscribed: AtomicBool,
    /// The others in the last list, and those that the log has named.
    pub others: Mutex<[BTreeSet<u64>; 2]>,
}

impl Fleet for Alone {
    fn connected(&self, _: Option<&str>, subscribed: bool) {
        self.subscribed.store(subscribed, Ordering::Relaxed);
    }

    fn disconnected(&self) {
        self.subscribed.store(false, Ordering::Relaxed);
    }

    fn needs(&self, subscribers: Option<u64>) -> Need {
        let own = u64::from(self.subscribed.load(Ordering::Relaxed));
        let known = self.unheard.load(Ordering::Relaxed);
        if subscribers.is_some_and(|count| count != own + known) { Need::Count } else { Need::No }
    }

    fn shown(&self, connections: Vec<Shown>) {
        let found: Vec<Instance> =
            instances(&self.fleet, connections).filter(|instance| instance.incarnation != self.incarnation).collect();
        let now: BTreeSet<u64> = found.iter().map(|instance| instance.incarnation).collect();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        let [last, named] = &mut *others;
        // Only instances in two lists in a row count, because an instance in one list may be about to leave.
        let stays: BTreeSet<u64> = now.intersection(last).copied().collect();
        for instance in found.iter().filter(|instance| stays.contains(&instance.incarnation)) {
            if named.insert(instance.incarnation) {
                self.stats.journal.note(
                    EventKind::PeerUnheard,
                    format_args!(
                        "instance {:016x} is connected to Redis, and no NATS is configured",
                        instance.incarnation
                    ),
                );
                tracing::warn!(
                    instance = format_args!("{:016x}", instance.incarnation),
                    address = instance.address,
                    "another Shortstop of this fleet is connected to Redis, and this one has no NATS configured: \
                     neither publishes its writes to the other. Configure the same NATS in both, or give one of \
                     them another fleet name"
                );
            }
        }
        named.retain(|incarnation| now.contains(incarnation));
        self.unheard.store(stays.len() as u64, Ordering::Relaxed);
        self.stats.unheard.store(stays.len() as u64, Ordering::Relaxed);
        *last = now;
    }
}

/// The instances of the fleet among the connections, each once.
fn instances(fleet: &str, connections: Vec<Shown>) -> impl Iterator<Item = Instance> {
    let mut seen = BTreeSet::new();
    connections.into_iter().filter_map(move |Shown { name, address }| {
        let incarnation = incarnation_of(fleet, &name)?;
        seen.insert(incarnation).then_some(Instance { incarnation, address })
    })
}
