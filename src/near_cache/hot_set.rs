//! A worker's own table of handles to hot entries. It is set-associative: a lookup reads two cache lines, and writes none that
//! another core reads.
//!
//! It may hold an entry longer than moka does. That is bounded: small values by the number of slots, large ones by half as much
//! memory again. It serves no stale entries, because a dropped entry is marked in the entry itself.

use super::{Entry, EntryId};

const WAYS: usize = 8;

/// One in this many hits is also a lookup in the near cache, so that its policy learns which entries are hot.
const TOUCH_EVERY: u32 = 64;

#[derive(Debug)]
#[repr(align(64))]
struct Set {
    /// Some bits of the id. The entry itself decides.
    tags: [u32; WAYS],
    /// One bit per way: used since the clock hand last passed.
    recent: u8,
    hand: u8,
    entries: [Option<Entry>; WAYS],
}

/// The bits of an id that are compared first. Other bits choose the set. There are at most 2²¹ sets.
fn tag(id: EntryId) -> u32 {
    (id.bits() >> 32) as u32
}

/// The table.
#[derive(Debug)]
pub struct HotSet {
    sets: Box<[Set]>,
    mask: u64,
    largest: usize,
    /// Bytes still available for entries larger than `largest`.
    large_left: usize,
    until_touch: u32,
}

/// A hit of the hot set.
#[derive(Debug)]
pub struct Hot<'a> {
    /// The entry, dropped or not.
    pub entry: &'a Entry,
    /// This hit should also be a lookup in the near cache.
    pub touch: bool,
}

impl HotSet {
    /// With at least `slots` slots, each for a reply of up to `largest` bytes. Larger replies share half as much memory.
    pub fn new(slots: usize, largest: usize) -> Self {
        let count = slots.div_ceil(WAYS).next_power_of_two();
        let set = || Set { tags: [0; WAYS], entries: Default::default(), recent: 0, hand: 0 };
        HotSet {
            sets: (0..count).map(|_| set()).collect(),
            mask: count as u64 - 1,
            largest,
            large_left: count * WAYS * largest / 2,
            until_touch: TOUCH_EVERY,
        }
    }

    /// The entry with this id.
    #[inline]
    pub fn get(&mut self, id: EntryId) -> Option<Hot<'_>> {
        let set = &mut self.sets[(id.bits() & self.mask) as usize];
        let way = set.tags.iter().position(|&known| known == tag(id))?;
        let entry = set.entries[way].as_ref()?;
        set.recent |= 1 << way;
        self.until_touch -= 1;
        let touch = self.until_touch == 0;
        if touch {
            self.until_touch = TOUCH_EVERY;
        }
        Some(Hot { entry, touch })
    }

    /// Adds an entry, if it is small or there is room for large ones.
    pub fn put(&mut self, id: EntryId, entry: &Entry) {
        self.remove(id);
        let size = entry.reply().len();
        if size > self.largest {
            match self.large_left.checked_sub(size) {
                Some(left) => self.large_left = left,
                None => return,
            }
        }
        let set = &mut self.sets[(id.bits() & self.mask) as usize];
        let dead = || set.entries.iter().position(|slot| slot.as_ref().is_none_or(|entry| !entry.is_valid()));
        let way = dead().unwrap_or_else(|| {
            // CLOCK: the first entry that was not used since the hand last passed.
            loop {
                let way = usize::from(set.hand);
                set.hand = (set.hand + 1) % WAYS as u8;
                if set.recent & 1 << way == 0 {
                    break way;
                }
                set.recent &= !(1 << way);
            }
        });
        set.tags[way] = tag(id);
        let left = set.entries[way].replace(Entry::clone(entry));
        self.took_out(left);
    }

    fn took_out(&mut self, entry: Option<Entry>) {
        let size = entry.map_or(0, |entry| entry.reply().len());
        if size > self.largest {
            self.large_left += size;
        }
    }

    /// Removes an entry that was found dead, so that its memory is released.
    pub fn remove(&mut self, id: EntryId) {
        let set = &mut self.sets[(id.bits() & self.mask) as usize];
        if let Some(way) = set.tags.iter().position(|&known| known == tag(id)) {
            set.tags[way] = 0;
            let left = set.entries[way].take();
            self.took_out(left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HotSet, TOUCH_EVERY, WAYS};
    use crate::metrics::rules::RulePlace;
    use crate::near_cache::{Entry, EntryId, Question, Times};

    fn entry(key: &[u8]) -> (EntryId, Entry) {
        let times = Times { generation: 0, sent: 0, deadline: 0 };
        let question = Question::get(0, 0, key);
        (question.id(), Entry::new(times, &question, b"$1\r\nx\r\n", None, RulePlace::DEFAULTS))
    }

    #[test]
    fn entries_that_are_used_stay() {
        let mut set = HotSet::new(WAYS, 100);
        let (hot, kept) = entry(b"hot");
        set.put(hot, &kept);
        for number in 0..100u32 {
            assert!(set.get(hot).is_some(), "after {number}");
            let (id, cold) = entry(&number.to_le_bytes());
            set.put(id, &cold);
        }
        assert!(set.get(hot).is_some());
    }

    #[test]
    fn large_values_are_bounded_together() {
        // Eight slots of three bytes, so twelve bytes for larger entries: one of seven fits, two do not.
        let mut set = HotSet::new(WAYS, 3);
        let ((first, one), (second, two)) = (entry(b"1"), entry(b"2"));
        set.put(first, &one);
        set.put(second, &two);
        assert!(set.get(first).is_some() && set.get(second).is_none());
        set.put(first, &one);
        set.remove(first);
        set.put(second, &two);
        assert!(set.get(second).is_some());
    }

    #[test]
    fn dead_entries_are_replaced_first() {
        let mut set = HotSet::new(WAYS, 100);
        let entries: Vec<_> = (0..WAYS as u32).map(|number| entry(&number.to_le_bytes())).collect();
        for (id, entry) in &entries {
            set.put(*id, entry);
        }
        entries[5].1.invalidate();
        let (id, new) = entry(b"new");
        set.put(id, &new);
        assert!(set.get(entries[5].0).is_none());
        assert!(entries.iter().enumerate().all(|(at, (id, _))| at == 5 || set.get(*id).is_some()));
    }

    #[test]
    fn some_hits_count_for_the_near_cache() {
        let mut set = HotSet::new(WAYS, 100);
        let (id, kept) = entry(b"k");
        set.put(id, &kept);
        let touches = (0..10 * TOUCH_EVERY).filter(|_| set.get(id).is_some_and(|hot| hot.touch)).count();
        assert_eq!(touches, 10);
    }
}
