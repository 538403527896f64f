//! What has been asked before, recently: a one-hit wonder must not cost a fetch of its TTL and a place.
//!
//! A table of a worker's own, of fixed size: newcomers take the place of others, so "recently" is "among the last few tens of
//! thousands of questions". A wrong guess costs one fetch, never a wrong value.

use super::EntryId;

const SLOTS: usize = 1 << 15;

/// Counts how often questions were asked.
#[derive(Debug)]
pub struct Admission {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    tag: u32,
    times: u8,
}

impl Default for Admission {
    fn default() -> Self {
        Admission { slots: vec![Slot::default(); SLOTS].into_boxed_slice() }
    }
}

impl Admission {
    /// Counts a request and tells whether it is at least the `after`th of its kind.
    pub fn asked(&mut self, id: EntryId, after: u32) -> bool {
        if after <= 1 {
            return true;
        }
        let slot = &mut self.slots[id.bits() as usize % SLOTS];
        // None of the bits that chose the slot.
        let tag = (id.bits() >> 32) as u32;
        if slot.tag != tag {
            *slot = Slot { tag, times: 0 };
        }
        slot.times = slot.times.saturating_add(1);
        u32::from(slot.times) >= after.min(u32::from(u8::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;
    use crate::near_cache::Question;

    #[test]
    fn counts_to_the_threshold() {
        let mut admission = Admission::default();
        let id = Question::get(0, 0, b"k").id();
        assert!(admission.asked(id, 1));
        assert!(!admission.asked(id, 3));
        assert!(!admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        // Another database, another user.
        assert!(!admission.asked(Question::get(1, 0, b"k").id(), 2));
        assert!(!admission.asked(Question::get(0, 1, b"k").id(), 2));
    }
}
