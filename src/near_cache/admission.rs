//! Counts how often questions were asked recently. A key that is read only once must not cost a fetch of its TTL and a place in L1.
//!
//! Each worker has a table of fixed size, in sets of one cache line each. A question belongs to one set, and is forgotten when
//! twelve other questions of that set have been asked since. So "recently" means "among the last few tens of thousands of
//! questions". A wrong guess costs one fetch, never a wrong value.

use super::EntryId;

const SETS: usize = 1 << 12;
/// Number of questions, with their counts, that fit a cache line.
const WAYS: usize = 12;

/// Counts how often questions were asked.
#[derive(Debug)]
pub struct Admission {
    sets: Box<[Set]>,
}

/// The latest question stands first, and the last one is dropped. If the least frequent one were dropped instead, questions that
/// were hot long ago would stay, and new ones would push each other out.
#[derive(Clone, Debug, Default)]
#[repr(align(64))]
struct Set {
    tags: [u32; WAYS],
    times: [u8; WAYS],
}

const _: () = assert!(size_of::<Set>() == 64);

impl Default for Admission {
    fn default() -> Self {
        Admission { sets: vec![Set::default(); SETS].into_boxed_slice() }
    }
}

impl Admission {
    /// Counts a question, and returns whether it was asked at least `after` times.
    pub fn asked(&mut self, id: EntryId, after: u32) -> bool {
        if after <= 1 {
            return true;
        }
        // The upper bits: the lower ones chose the set.
        let times = self.sets[id.bits() as usize % SETS].count((id.bits() >> 32) as u32);
        u32::from(times) >= after.min(u32::from(u8::MAX))
    }

    /// How often a question was asked recently, at most 255 times. Counts nothing.
    pub fn times(&self, id: EntryId) -> u32 {
        u32::from(self.sets[id.bits() as usize % SETS].known((id.bits() >> 32) as u32))
    }
}

impl Set {
    /// How often the question was asked. Counts nothing.
    fn known(&self, tag: u32) -> u8 {
        self.tags.iter().position(|other| *other == tag).map_or(0, |at| self.times[at])
    }

    /// Moves the question to the front and counts it.
    fn count(&mut self, tag: u32) -> u8 {
        let known = self.tags.iter().position(|other| *other == tag);
        let before = known.map_or(0, |at| self.times[at]);
        let from = known.unwrap_or(WAYS - 1);
        self.tags.copy_within(..from, 1);
        self.times.copy_within(..from, 1);
        self.tags[0] = tag;
        self.times[0] = before.saturating_add(1);
        self.times[0]
    }
}

#[cfg(test)]
mod tests {
    use super::Admission;
    use crate::near_cache::Question;

    /// How many of these keys are admitted at their second request or later.
    fn walk(admission: &mut Admission, name: &str, numbers: std::ops::Range<u32>) -> usize {
        numbers
            .filter(|number| admission.asked(Question::get(0, 0, format!("{name}:{number:08}").as_bytes()).id(), 2))
            .count()
    }

    #[test]
    fn counts_to_the_threshold() {
        let mut admission = Admission::default();
        let id = Question::get(0, 0, b"k").id();
        assert!(admission.asked(id, 1));
        assert!(!admission.asked(id, 3));
        assert_eq!((admission.times(id), admission.times(id)), (1, 1), "a look counts nothing");
        assert!(!admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        assert!(admission.asked(id, 3));
        // Another database, and another user.
        assert!(!admission.asked(Question::get(1, 0, b"k").id(), 2));
        assert!(!admission.asked(Question::get(0, 1, b"k").id(), 2));
    }

    #[test]
    fn counts_each_key_for_itself() {
        let mut admission = Admission::default();
        for _ in 0..2 {
            for number in 0..100_u32 {
                assert!(!admission.asked(Question::get(0, 0, &number.to_le_bytes()).id(), 3));
            }
        }
        for number in 0..100_u32 {
            assert!(admission.asked(Question::get(0, 0, &number.to_le_bytes()).id(), 3));
        }
    }

    /// With one place for all keys that share a slot, keys read in order pushed each other out every time: a quarter of 10,000 keys
    /// was never admitted.
    #[test]
    fn ten_thousand_keys_in_order_are_admitted_at_the_second_walk() {
        let mut admission = Admission::default();
        assert_eq!(walk(&mut admission, "key", 0..10_000), 0);
        let admitted = walk(&mut admission, "key", 0..10_000);
        assert!(admitted >= 9_990, "{admitted}");
    }

    #[test]
    fn hot_keys_are_admitted_among_one_hit_wonders() {
        let mut admission = Admission::default();
        for round in 0..10_u32 {
            let admitted = walk(&mut admission, "hot", 0..1_000);
            assert!(round == 0 || admitted >= 970, "round {round}: {admitted}");
            assert_eq!(walk(&mut admission, "wonder", round * 20_000..(round + 1) * 20_000), 0);
        }
    }

    #[test]
    fn a_question_that_was_hot_long_ago_makes_room() {
        let mut admission = Admission::default();
        for _ in 0..100 {
            walk(&mut admission, "old", 0..30_000);
        }
        walk(&mut admission, "passing", 0..200_000);
        assert_eq!(walk(&mut admission, "old", 0..1_000), 0);
        assert_eq!(walk(&mut admission, "new", 0..10_000), 0);
        let admitted = walk(&mut admission, "new", 0..10_000);
        assert!(admitted >= 9_990, "{admitted}");
    }
}
