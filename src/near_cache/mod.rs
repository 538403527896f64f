//! The near cache: the replies that stay in memory, and the hot sets that make a hot one cheap to find.
//!
//! moka bounds the entries and decides which of them stay. A hot set per worker keeps moka's bookkeeping off the read path.
//! `coherence` decides whether an entry may be served, and is called for every entry that leaves.

mod admission;
mod entry;
mod hot_set;
mod id;

use std::hash::BuildHasherDefault;
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::config;

pub use admission::Admission;
pub use entry::{Asked, Entry, Question, Times, in_version, kept_as};
pub use hot_set::HotSet;
pub use id::{EntryId, IdHasher, KeyId, hash_key};

/// Entries leave at their deadline, so that expired ones take no memory.
struct Deadline {
    origin: Instant,
}

impl Deadline {
    fn left(&self, entry: &Entry, now: Instant) -> Option<Duration> {
        Some((self.origin + Duration::from_nanos(entry.times().deadline)).saturating_duration_since(now))
    }
}

impl Expiry<EntryId, Entry> for Deadline {
    fn expire_after_create(&self, _: &EntryId, entry: &Entry, now: Instant) -> Option<Duration> {
        self.left(entry, now)
    }

    fn expire_after_update(&self, _: &EntryId, entry: &Entry, now: Instant, _: Option<Duration>) -> Option<Duration> {
        self.left(entry, now)
    }
}

/// Why the near cache let an entry go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// Its policy made room for others.
    Evicted,
    /// The entry's deadline has passed.
    Expired,
    /// It was removed or replaced.
    Removed,
}

impl From<RemovalCause> for Gone {
    fn from(cause: RemovalCause) -> Self {
        match cause {
            RemovalCause::Size => Gone::Evicted,
            RemovalCause::Expired => Gone::Expired,
            RemovalCause::Explicit | RemovalCause::Replaced => Gone::Removed,
        }
    }
}

/// The entries of all workers.
#[derive(Clone, Debug)]
pub struct NearCache {
    entries: Cache<EntryId, Entry, BuildHasherDefault<IdHasher>>,
}

impl NearCache {
    /// With the bounds of the configuration. The times of entries count from `origin`. `left` is called for each entry that leaves,
    /// with the cause. Any thread that uses the cache may call `left`, and `left` must not use the cache itself.
    pub fn new(
        bounds: &config::L1,
        origin: Instant,
        left: impl Fn(&EntryId, &Entry, Gone) + Send + Sync + 'static,
    ) -> Self {
        // moka has one bound. Each entry weighs at least its share of the memory, so that the weight bounds the count too.
        let share = (bounds.max_memory / bounds.max_entries.max(1)).max(1);
        let policy = match bounds.policy {
            config::Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
            config::Policy::Lru => EvictionPolicy::lru(),
        };
        let entries = Cache::builder()
            .max_capacity(bounds.max_memory as u64)
            .weigher(move |_: &EntryId, entry: &Entry| u32::try_from(entry.weight().max(share)).unwrap_or(u32::MAX))
            .eviction_policy(policy)
            .expire_after(Deadline { origin })
            .eviction_listener(move |id, entry, cause| left(&id, &entry, cause.into()))
            .build_with_hasher(BuildHasherDefault::default());
        NearCache { entries }
    }

    /// The entry, dropped or not. Counts as a use for the policy.
    pub fn get(&self, id: EntryId) -> Option<Entry> {
        self.entries.get(&id)
    }

    /// Inserts an entry, and replaces another with the same id.
    pub fn insert(&self, id: EntryId, entry: Entry) {
        self.entries.insert(id, entry);
    }

    /// Removes an entry.
    pub fn remove(&self, id: EntryId) {
        self.entries.invalidate(&id);
    }

    /// Removes all entries, in the background.
    pub fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Whether the cache is empty, as of the last [`NearCache::tidy`].
    pub fn is_empty(&self) -> bool {
        self.entries.entry_count() == 0
    }

    /// Runs moka's pending work (evictions, expiry), which would otherwise wait for the next write.
    pub fn tidy(&self) {
        self.entries.run_pending_tasks();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::{Entry, Gone, NearCache, Question, Times};
    use crate::config;
    use crate::metrics::rules::RulePlace;

    fn entry(key: &[u8], size: usize, lives: Duration) -> Entry {
        let times = Times { generation: 0, sent: 0, deadline: lives.as_nanos() as u64 };
        Entry::new(times, &Question::get(0, 0, key), &vec![b'x'; size], None, RulePlace::DEFAULTS)
    }

    fn filled(bounds: &config::L1, count: u32, size: usize) -> (u64, usize) {
        let evicted = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&evicted);
        let cache = NearCache::new(bounds, Instant::now(), move |_, _, cause| {
            seen.fetch_add(usize::from(cause == Gone::Evicted), Ordering::Relaxed);
        });
        for number in 0..count {
            let key = number.to_le_bytes();
            cache.insert(Question::get(0, 0, &key).id(), entry(&key, size, Duration::from_secs(60)));
        }
        cache.tidy();
        (cache.entries.entry_count(), evicted.load(Ordering::Relaxed))
    }

    #[test]
    fn bounded_by_entries_and_by_bytes() {
        for policy in [config::Policy::TinyLfu, config::Policy::Lru] {
            let bounds = config::L1 { max_memory: 1 << 20, max_entries: 100, policy, ..config::L1::default() };
            let (small, evicted) = filled(&bounds, 500, 10);
            assert!(small <= 100 && small > 50, "{small}");
            assert_eq!(evicted, 500 - small as usize);
            let (large, _) = filled(&bounds, 500, 100_000);
            assert!((1..=10).contains(&large), "{large}");
        }
    }

    #[test]
    fn expired_entries_leave() {
        let bounds = config::L1::default();
        let cache = NearCache::new(&bounds, Instant::now(), |_, _, _| {});
        let id = Question::get(0, 0, b"k").id();
        cache.insert(id, entry(b"k", 1, Duration::ZERO));
        assert!(cache.get(id).is_none());
    }
}
