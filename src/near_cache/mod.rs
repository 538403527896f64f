//! The near cache: which values stay in memory, and the table that makes a hot one cheap to find.
//!
//! moka bounds the entries and decides who stays; a hot set per worker keeps its bookkeeping off the read path. Whether
//! an entry may be served is not decided here: `coherence` does, and it is told of every entry that leaves.

mod admission;
mod hot_set;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use xxhash_rust::xxh3::xxh3_128;

use crate::config;

pub use admission::Admission;
pub use hot_set::HotSet;

/// The hash of a key's bytes, as it travels on the bus: XXH3-128, seed 0.
pub fn hash_key(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// What a key in a database is found by. Two keys may share one: the entry holds the key to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u128);

impl KeyId {
    /// From [`hash_key`].
    #[inline]
    pub fn from_hash(db: u32, hash: u128) -> Self {
        // An odd constant: databases never share an id for the same key.
        KeyId(hash.wrapping_add(u128::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)))
    }

    /// Of a key.
    #[inline]
    pub fn new(db: u32, key: &[u8]) -> Self {
        KeyId::from_hash(db, hash_key(key))
    }

    /// 64 well-mixed bits.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0 as u64
    }

    /// 64 others.
    #[inline]
    pub fn other_bits(self) -> u64 {
        (self.0 >> 64) as u64
    }
}

/// Takes the id's own bits for its hash.
#[derive(Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        // KeyId hashes by `write_u128` alone; anything else would still be right, only slower.
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }
    fn write_u128(&mut self, id: u128) {
        self.0 = (id >> 64) as u64;
    }
}

/// A value in L1, as the reply that is ready to send.
#[derive(Debug)]
pub struct Entry {
    valid: AtomicBool,
    /// Its time (COHERENCE §2): an entry of an older generation is dead.
    pub generation: u64,
    /// When the GET was sent; ages count from here.
    pub sent: Instant,
    /// Never served from then on (COHERENCE §1).
    pub deadline: Instant,
    /// The database.
    pub db: u32,
    /// The key.
    pub key: Box<[u8]>,
    /// `$len\r\n…\r\n`.
    pub reply: Box<[u8]>,
}

impl Entry {
    /// A valid entry.
    pub fn new(generation: u64, sent: Instant, deadline: Instant, db: u32, key: &[u8], reply: &[u8]) -> Self {
        Entry { valid: AtomicBool::new(true), generation, sent, deadline, db, key: key.into(), reply: reply.into() }
    }

    /// Whether it has not been dropped.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.valid.load(Ordering::Acquire)
    }

    /// Drops it, for every hot set at once. What was dropped stays so.
    pub fn invalidate(&self) {
        self.valid.store(false, Ordering::Release);
    }

    /// Whether it is this key's.
    #[inline]
    pub fn is_for(&self, db: u32, key: &[u8]) -> bool {
        self.db == db && *self.key == *key
    }

    /// Bytes of memory, the bookkeeping around it included by a rough but sufficient constant.
    pub fn weight(&self) -> usize {
        self.key.len() + self.reply.len() + ENTRY_OVERHEAD
    }
}

/// moka's node, the `Arc`, the registry's slot.
const ENTRY_OVERHEAD: usize = 256;

/// Entries leave at their deadline, so that dead ones do not take the place of others.
struct Deadline;

impl Expiry<KeyId, Arc<Entry>> for Deadline {
    fn expire_after_create(&self, _: &KeyId, entry: &Arc<Entry>, now: Instant) -> Option<Duration> {
        Some(entry.deadline.saturating_duration_since(now))
    }

    fn expire_after_update(
        &self,
        _: &KeyId,
        entry: &Arc<Entry>,
        now: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        Some(entry.deadline.saturating_duration_since(now))
    }
}

/// The entries of all workers.
#[derive(Clone, Debug)]
pub struct NearCache {
    entries: Cache<KeyId, Arc<Entry>, BuildHasherDefault<IdHasher>>,
}

impl NearCache {
    /// With the bounds of the configuration. `left` is told of each entry that leaves and whether the policy chose it; it
    /// may be called by any thread that uses the cache, and must not use the cache itself.
    pub fn new(bounds: &config::L1, left: impl Fn(&KeyId, &Arc<Entry>, bool) + Send + Sync + 'static) -> Self {
        // moka knows one bound. Each entry weighs at least its share of the memory, so that the weight bounds the count too.
        let share = (bounds.max_memory / bounds.max_entries.max(1)).max(1);
        let policy = match bounds.policy {
            config::Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
            config::Policy::Lru => EvictionPolicy::lru(),
        };
        let entries = Cache::builder()
            .max_capacity(bounds.max_memory as u64)
            .weigher(move |_: &KeyId, entry: &Arc<Entry>| u32::try_from(entry.weight().max(share)).unwrap_or(u32::MAX))
            .eviction_policy(policy)
            .expire_after(Deadline)
            .eviction_listener(move |id, entry, cause| left(&id, &entry, cause == RemovalCause::Size))
            .build_with_hasher(BuildHasherDefault::default());
        NearCache { entries }
    }

    /// The entry, whatever its state; the policy sees that it was asked for.
    pub fn get(&self, id: KeyId) -> Option<Arc<Entry>> {
        self.entries.get(&id)
    }

    /// Puts an entry in, in the place of another with its id.
    pub fn insert(&self, id: KeyId, entry: Arc<Entry>) {
        self.entries.insert(id, entry);
    }

    /// Takes an entry out.
    pub fn remove(&self, id: KeyId) {
        self.entries.invalidate(&id);
    }

    /// Takes all out, in the background.
    pub fn clear(&self) {
        self.entries.invalidate_all();
    }

    /// Does what moka puts off (evictions, expiry), so that it does not wait for the next write.
    pub fn tidy(&self) {
        self.entries.run_pending_tasks();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::{Entry, KeyId, NearCache};
    use crate::config;

    fn entry(key: &[u8], size: usize, lives: Duration) -> Arc<Entry> {
        let now = Instant::now();
        Arc::new(Entry::new(0, now, now + lives, 0, key, &vec![b'x'; size]))
    }

    fn filled(bounds: &config::L1, count: u32, size: usize) -> (u64, usize) {
        let evicted = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&evicted);
        let cache = NearCache::new(bounds, move |_, _, by_policy| {
            seen.fetch_add(usize::from(by_policy), Ordering::Relaxed);
        });
        for number in 0..count {
            let key = number.to_le_bytes();
            cache.insert(KeyId::new(0, &key), entry(&key, size, Duration::from_secs(60)));
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
        let cache = NearCache::new(&bounds, |_, _, _| {});
        let id = KeyId::new(0, b"k");
        cache.insert(id, entry(b"k", 1, Duration::ZERO));
        assert!(cache.get(id).is_none());
    }

    #[test]
    fn databases_are_apart() {
        assert_ne!(KeyId::new(0, b"k"), KeyId::new(1, b"k"));
        assert_ne!(KeyId::new(1, b"k"), KeyId::new(2, b"k"));
    }
}
