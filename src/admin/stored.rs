//! Looks at a sample of the keys in Redis, to estimate what is stored compressed there now.

use std::sync::PoisonError;
use std::time::Instant;

use crate::config::Compression;
use crate::metrics::stored::{Stored, StoredSums};
use crate::upstream::plain::Plain;

use super::Admin;
use super::key_state::Ruling;

/// Keys in the sample.
const SAMPLE: u64 = 500;

impl Admin {
    /// Whether anything is known to be compressed in Redis.
    pub fn has_seen_compressed(&self) -> bool {
        let seen = self.stats.sum(|worker| &worker.compressed_values) + self.stats.sum(|worker| &worker.opened_values);
        seen > 0 && self.config.get().compression != Compression::Off
    }

    /// Looks at a sample. Nothing is known where the look would change what Redis evicts.
    ///
    /// # Errors
    /// Redis refuses a command, or is away.
    pub async fn sample_stored(&self) -> std::io::Result<()> {
        let Some(server) = self.endpoint.server() else { return Ok(()) };
        let ruling = Ruling::of(self);
        let eviction = self.status.seen(Instant::now()).eviction;
        let is_harmless = eviction.is_some_and(|eviction| {
            eviction.max_memory == 0 || !["lru", "lfu"].iter().any(|by_use| eviction.policy.ends_with(by_use))
        });
        let mut redis = Plain::open(&self.dialer, &server.address, 0).await?;
        let stored = redis.sample(SAMPLE, is_harmless).await?.map(|sample| {
            let mut stored = Stored::new(sample.keys, sample.sampled, ruling.rules.patterns().clone());
            for value in sample.compressed {
                let times = |bytes: u64| bytes as f64 * value.stands_for;
                let (bytes, plain_bytes) = (times(value.stored), times(value.plain));
                let sums = StoredSums { values: value.stands_for, bytes, plain_bytes };
                stored.add(ruling.rules.of(&value.key).place, sums);
            }
            stored
        });
        *self.stats.shared.stored.lock().unwrap_or_else(PoisonError::into_inner) = stored;
        Ok(())
    }
}
