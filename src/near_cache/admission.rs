//! Which keys have been asked for before, recently: a one-hit wonder must not cost a fetch of its TTL and a place.
//!
//! A table of a worker's own, of fixed size: newcomers take the place of others, so "recently" is "among the last few tens of
//! thousands of keys". A wrong guess costs one fetch, never a wrong value.

use super::KeyId;

const SLOTS: usize = 1 << 15;

/// Counts how often keys were asked for.
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
    /// Counts a request and tells whether it is at least the key's `after`th.
    pub fn asked(&mut self, id: KeyId, after: u32) -> bool {
        if after <= 1 {
            return true;
        }
        let slot = &mut self.slots[id.bits() as usize % SLOTS];
        let tag = id.other_bits() as u32;
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
    use crate::near_cache::KeyId;

    #[test]
    fn counts_to_the_threshold() {
        let mut admission = Admission::default();
        let id = KeyId::new(0, b"k");
        assert!(admission.asked(id, 1));
        assert!(!admission.asked(id, 3));
        assert!(!admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        assert!(!admission.asked(KeyId::new(1, b"k"), 2));
    }
}
