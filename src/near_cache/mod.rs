//! The near cache: which values stay in memory, and the table that makes a hot one cheap to find.
//!
//! moka bounds the entries and decides who stays; a hot set per worker keeps its bookkeeping off the read path. Whether
//! an entry may be served is not decided here: `coherence` does, and it is told of every entry that leaves.

mod admission;
mod hot_set;

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::notification::RemovalCause;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use triomphe::ThinArc;
use xxhash_rust::xxh3::xxh3_128;

use crate::config;

pub use admission::Admission;
pub use hot_set::HotSet;

/// The hash of a key's bytes, as it travels on the bus: XXH3-128, seed 0.
pub fn hash_key(key: &[u8]) -> u128 {
    xxh3_128(key)
}

/// Keeps databases apart; odd, so that no two give the same id to one key.
const DATABASE: u128 = 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835;

/// What a key in a database is found by. Two keys may share one: the entry holds the key to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(u128);

impl KeyId {
    /// From [`hash_key`].
    #[inline]
    pub fn from_hash(db: u32, hash: u128) -> Self {
        KeyId(hash.wrapping_add(u128::from(db).wrapping_mul(DATABASE)))
    }

    /// Back to what [`hash_key`] gave, for a key of this database.
    pub fn hash(self, db: u32) -> u128 {
        self.0.wrapping_sub(u128::from(db).wrapping_mul(DATABASE))
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

/// A value in L1, as the reply that is ready to send: a handle, cheap to clone.
///
/// One allocation holds everything, so that a hit fetches one place in memory.
#[derive(Clone, Debug)]
pub struct Entry(ThinArc<Head, u8>);

/// What stands in front of the key and the reply.
#[derive(Debug)]
struct Head {
    valid: AtomicBool,
    db: u32,
    key_length: usize,
    times: Times,
}

/// When an entry is good. In nanoseconds after the cache's origin: half of the size of two `Instant`s.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The generation that it was made in (COHERENCE §2); an entry of an older one is dead.
    pub generation: u64,
    /// When the GET was sent; ages count from here.
    pub sent: u64,
    /// Never served from then on (COHERENCE §1).
    pub deadline: u64,
}

impl Entry {
    /// A valid entry.
    pub fn new(times: Times, db: u32, key: &[u8], reply: &[u8]) -> Self {
        let head = Head { valid: AtomicBool::new(true), db, key_length: key.len(), times };
        Entry(ThinArc::from_header_and_slice(head, &[key, reply].concat()))
    }

    /// When it is good.
    #[inline]
    pub fn times(&self) -> Times {
        self.0.header.header.times
    }

    /// The key.
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.0.slice[..self.0.header.header.key_length]
    }

    /// `$len\r\n…\r\n`.
    #[inline]
    pub fn reply(&self) -> &[u8] {
        &self.0.slice[self.0.header.header.key_length..]
    }

    /// Whether it has not been dropped.
    #[inline]
    pub fn is_valid(&self) -> bool {
        self.0.header.header.valid.load(Ordering::Acquire)
    }

    /// Drops it, for every hot set at once. What was dropped stays so.
    pub fn invalidate(&self) {
        self.0.header.header.valid.store(false, Ordering::Release);
    }

    /// Whether it is this key's.
    #[inline]
    pub fn is_for(&self, db: u32, key: &[u8]) -> bool {
        self.0.header.header.db == db && self.key() == key
    }

    /// Whether both are handles to one entry.
    pub fn is(&self, other: &Entry) -> bool {
        std::ptr::eq(&self.0.header, &other.0.header)
    }

    /// Bytes of memory, the bookkeeping around it included by a rough but sufficient constant.
    pub fn weight(&self) -> usize {
        self.0.slice.len() + ENTRY_OVERHEAD
    }
}

/// moka's node, the handle's count, the registry's slot.
const ENTRY_OVERHEAD: usize = 256;

/// Entries leave at their deadline, so that dead ones do not take the place of others.
struct Deadline {
    origin: Instant,
}

impl Deadline {
    fn left(&self, entry: &Entry, now: Instant) -> Option<Duration> {
        Some((self.origin + Duration::from_nanos(entry.times().deadline)).saturating_duration_since(now))
    }
}

impl Expiry<KeyId, Entry> for Deadline {
    fn expire_after_create(&self, _: &KeyId, entry: &Entry, now: Instant) -> Option<Duration> {
        self.left(entry, now)
    }

    fn expire_after_update(&self, _: &KeyId, entry: &Entry, now: Instant, _: Option<Duration>) -> Option<Duration> {
        self.left(entry, now)
    }
}

/// The entries of all workers.
#[derive(Clone, Debug)]
pub struct NearCache {
    entries: Cache<KeyId, Entry, BuildHasherDefault<IdHasher>>,
}

impl NearCache {
    /// With the bounds of the configuration; the times of entries count from `origin`. `left` is told of each entry that leaves and whether the policy chose it; it
    /// may be called by any thread that uses the cache, and must not use the cache itself.
    pub fn new(
        bounds: &config::L1,
        origin: Instant,
        left: impl Fn(&KeyId, &Entry, bool) + Send + Sync + 'static,
    ) -> Self {
        // moka knows one bound. Each entry weighs at least its share of the memory, so that the weight bounds the count too.
        let share = (bounds.max_memory / bounds.max_entries.max(1)).max(1);
        let policy = match bounds.policy {
            config::Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
            config::Policy::Lru => EvictionPolicy::lru(),
        };
        let entries = Cache::builder()
            .max_capacity(bounds.max_memory as u64)
            .weigher(move |_: &KeyId, entry: &Entry| u32::try_from(entry.weight().max(share)).unwrap_or(u32::MAX))
            .eviction_policy(policy)
            .expire_after(Deadline { origin })
            .eviction_listener(move |id, entry, cause| left(&id, &entry, cause == RemovalCause::Size))
            .build_with_hasher(BuildHasherDefault::default());
        NearCache { entries }
    }

    /// The entry, whatever its state; the policy sees that it was asked for.
    pub fn get(&self, id: KeyId) -> Option<Entry> {
        self.entries.get(&id)
    }

    /// Puts an entry in, in the place of another with its id.
    pub fn insert(&self, id: KeyId, entry: Entry) {
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

    use super::{Entry, KeyId, NearCache, Times, hash_key};
    use crate::config;

    fn entry(key: &[u8], size: usize, lives: Duration) -> Entry {
        let times = Times { generation: 0, sent: 0, deadline: lives.as_nanos() as u64 };
        Entry::new(times, 0, key, &vec![b'x'; size])
    }

    fn filled(bounds: &config::L1, count: u32, size: usize) -> (u64, usize) {
        let evicted = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&evicted);
        let cache = NearCache::new(bounds, Instant::now(), move |_, _, by_policy| {
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
        let cache = NearCache::new(&bounds, Instant::now(), |_, _, _| {});
        let id = KeyId::new(0, b"k");
        cache.insert(id, entry(b"k", 1, Duration::ZERO));
        assert!(cache.get(id).is_none());
    }

    #[test]
    fn databases_are_apart() {
        assert_ne!(KeyId::new(0, b"k"), KeyId::new(1, b"k"));
        assert_ne!(KeyId::new(1, b"k"), KeyId::new(2, b"k"));
        assert_eq!(KeyId::new(7, b"k").hash(7), hash_key(b"k"));
    }
}
