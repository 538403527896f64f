//! A small copy of L1: it sees only the sampled keys, and its bounds are smaller in proportion. So it hits as often as an L1 of the whole
//! size would (Waldspurger et al., "Cache Modeling and Optimization using Miniature Simulations", ATC 2017).
//!
//! It is the same library with the same policy as L1, so admission, sizes, lives and writes have the effect that they have there. A curve
//! computed from reuse distances would be that of an LRU, which loses to scans what TinyLFU does not.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::config::{self, Policy};
use crate::metrics::rules::RulePlace;
use crate::near_cache::{EntryId, IdHasher, KeyId};

use super::accesses::{Access, Kept, bound};

/// Misses are counted in groups of keys. How they differ shows how far the whole sample may be off.
pub(super) const GROUPS: usize = 16;

/// An entry.
#[derive(Clone, Copy, Debug)]
struct Held {
    bytes: u32,
    life_ms: u32,
    deadline_ms: u64,
    generation: u64,
    /// The number of the access that added it.
    since: u64,
    place: RulePlace,
}

impl Held {
    fn lapsed(&self) -> Lapsed {
        Lapsed {
            life_ms: self.life_ms,
            from_ms: self.deadline_ms - u64::from(self.life_ms),
            generation: self.generation,
        }
    }
}

/// An entry whose life has ended.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lapsed {
    /// How long it was.
    pub(super) life_ms: u32,
    /// When it began.
    pub(super) from_ms: u64,
    pub(super) generation: u64,
}

/// What a read finds.
#[derive(Clone, Copy, Debug)]
pub(super) enum Found {
    /// An entry that L1 would serve.
    Good,
    /// One that it would serve if its life had not ended.
    Lapsed(Lapsed),
    /// None.
    Nothing,
}

/// When keys were written last, as numbers of accesses.
pub(super) type Writes = HashMap<KeyId, u64>;

/// A small copy of an L1 of some size.
#[derive(Debug)]
pub(super) struct Miniature {
    /// The bounds of the whole L1.
    pub(super) bounds: config::L1,
    cache: Cache<EntryId, Held, BuildHasherDefault<IdHasher>>,
    /// Misses of the whole L1, as estimated by each group.
    pub(super) misses: [f64; GROUPS],
    /// Of the entries of each rule, as of the last [`Miniature::tidy`].
    sizes: Vec<Size>,
}

/// Entries, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Size {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

fn cache(bounds: &config::L1, shift: u32) -> Cache<EntryId, Held, BuildHasherDefault<IdHasher>> {
    // As in `NearCache::new`.
    let share = (bounds.max_memory / bounds.max_entries.max(1)).max(1);
    let share = u32::try_from(share).unwrap_or(u32::MAX);
    let policy = match bounds.policy {
        Policy::TinyLfu => EvictionPolicy::tiny_lfu(),
        Policy::Lru => EvictionPolicy::lru(),
    };
    Cache::builder()
        .max_capacity((bounds.max_memory as u64) >> shift)
        .weigher(move |_: &EntryId, held: &Held| held.bytes.max(share))
        .eviction_policy(policy)
        .build_with_hasher(BuildHasherDefault::default())
}

impl Miniature {
    /// An empty one, for a sample of one in 2^`shift` keys.
    pub(super) fn new(bounds: config::L1, shift: u32) -> Self {
        Miniature { cache: cache(&bounds, shift), bounds, misses: [0.0; GROUPS], sizes: vec![Size::default(); 256] }
    }

    /// A read.
    pub(super) fn read(&self, access: &Access, writes: &Writes) -> Found {
        match self.cache.get(&access.id) {
            Some(held) if !is_current(&held, access.id, access, writes) => Found::Nothing,
            Some(held) if access.at_ms < held.deadline_ms => Found::Good,
            Some(held) => Found::Lapsed(held.lapsed()),
            None => Found::Nothing,
        }
    }

    /// Adds an entry, or replaces it.
    pub(super) fn fill(&self, access: &Access, kept: Kept, since: u64) {
        let deadline_ms = access.at_ms + u64::from(kept.life_ms);
        let held = Held {
            bytes: kept.bytes,
            life_ms: kept.life_ms,
            deadline_ms,
            generation: access.generation,
            since,
            place: access.place,
        };
        self.cache.insert(access.id, held);
        // Else moka would let a few dozen entries more in than there is room for, which is much for a small cache.
        self.cache.run_pending_tasks();
    }

    /// Counts a miss that stands for so many.
    pub(super) fn miss(&mut self, id: EntryId, weight: f64) {
        // Not the bits that chose the key.
        self.misses[id.key().bits() as usize % GROUPS] += weight;
    }

    /// Removes the entries that L1 would have dropped by the time of this access. Passes on those whose life has ended.
    pub(super) fn tidy(&mut self, now: &Access, writes: &Writes, mut lapsed: impl FnMut(EntryId, Lapsed)) {
        self.sizes.fill(Size::default());
        for (id, held) in &self.cache {
            let is_current = is_current(&held, *id, now, writes);
            if is_current && now.at_ms < held.deadline_ms {
                let size = &mut self.sizes[held.place.number()];
                size.entries += 1;
                size.bytes += u64::from(held.bytes);
            } else {
                self.cache.invalidate(&*id);
                if is_current {
                    lapsed(*id, held.lapsed());
                }
            }
        }
        self.cache.run_pending_tasks();
    }

    /// Goes on with a sample of another size.
    pub(super) fn resample(&mut self, shift: u32) {
        let before = std::mem::replace(&mut self.cache, cache(&self.bounds, shift));
        for (id, held) in before.iter().filter(|(id, _)| id.key().bits() <= bound(shift)) {
            self.cache.insert(*id, held);
        }
        self.cache.run_pending_tasks();
    }

    /// All its entries.
    pub(super) fn size(&self) -> Size {
        Size { entries: self.cache.entry_count(), bytes: self.sizes.iter().map(|size| size.bytes).sum() }
    }

    /// The entries of one rule.
    pub(super) fn size_of(&self, place: RulePlace) -> Size {
        self.sizes[place.number()]
    }
}

/// Whether an entry is not dropped, whatever its deadline.
fn is_current(held: &Held, id: EntryId, now: &Access, writes: &Writes) -> bool {
    held.generation == now.generation && writes.get(&id.key()).is_none_or(|written| held.since > *written)
}
