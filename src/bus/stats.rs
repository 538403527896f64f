//! Counters and gauges of the bus.

use std::sync::atomic::{AtomicBool, AtomicU64};

/// Counters and gauges of the bus. An event is one key, or one flush.
#[derive(Debug, Default)]
pub struct BusStats {
    /// Events handed to NATS on the fleet's subject.
    pub published: AtomicU64,
    /// Events received from peers on the fleet's subject.
    pub received: AtomicU64,
    /// Events handed to the cache, from the fleet's subject and from the JSON subject.
    pub applied: AtomicU64,
    /// Holes seen in a peer's numbers.
    pub gaps: AtomicU64,
    /// Peers known now, lost ones included (gauge).
    pub peers: AtomicU64,
    /// Instances of the fleet that Redis shows and whose messages do not arrive (gauge).
    pub unheard: AtomicU64,
    /// Peers that have another Redis than this instance (gauge).
    pub other_upstream: AtomicU64,
    /// Connected to NATS and the inbound path proven by an echo (gauge).
    pub connected: AtomicBool,
    /// JSON messages handed to NATS.
    pub json_published: AtomicU64,
    /// JSON messages received, without those of Shortstops (this one included).
    pub json_received: AtomicU64,
    /// JSON messages that could not be understood.
    pub json_bad: AtomicU64,
    /// JSON messages that could not be sent; one `clear` makes up for them.
    pub json_dropped: AtomicU64,
    /// Messages on the fleet's subject that could not be understood.
    pub unreadable: AtomicU64,
    /// Events that were never sent on the fleet's subject: queue full, not connected, or NATS too slow.
    pub dropped: AtomicU64,
}
