//! Redis's own eviction policy, which sees no read that L1 answers.

use std::time::Duration;

use crate::config::{Config, units::show_time};
use crate::traffic::Estimate;
use crate::upstream::status::Eviction;

use super::piece::{Advice, FEWEST_READS, percent};

/// A read once in this time keeps a key from looking idle.
const OFTEN: Duration = Duration::from_secs(10);

/// The policies that go by how recently or how often a key was read.
const BY_USE: [&str; 4] = ["allkeys-lru", "allkeys-lfu", "volatile-lru", "volatile-lfu"];

/// What to do if Redis may evict the keys that L1 answers.
pub(super) fn eviction(eviction: Option<&Eviction>, estimate: &Estimate, config: &Config) -> Option<Advice> {
    let Eviction { policy, max_memory, used_memory } = eviction?;
    let hits = estimate.measured.filter(|rate| *rate >= 0.5)?;
    if *max_memory == 0 || !BY_USE.contains(&policy.as_str()) || config.max_staleness <= OFTEN {
        return None;
    }
    if estimate.reads < FEWEST_READS as f64 {
        return None;
    }
    let staleness = show_time(config.max_staleness);
    Some(Advice {
        about: "eviction",
        what: format!(
            "Let L1 ask Redis again more often, or choose another maxmemory-policy: with {policy} Redis evicts what looks idle to it."
        ),
        why: format!(
            "L1 answers {} of the reads, so Redis sees a hot key read only once in up to {staleness} (max_staleness). Redis uses {} \
             of {} bytes (maxmemory).",
            percent(hits),
            used_memory,
            max_memory
        ),
        lines: format!("max_staleness: {}\n", show_time(OFTEN)),
    })
}
