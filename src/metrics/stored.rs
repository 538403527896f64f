//! An estimate of what Redis has compressed now, by rule, from a sample of its keys.

use super::rules::{OWN, Patterns, RulePlace};

/// Values that are stored compressed, as an estimate.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StoredSums {
    /// Number of values.
    pub values: f64,
    /// Bytes that they take.
    pub bytes: f64,
    /// Bytes of the values as clients know them.
    pub plain_bytes: f64,
}

impl StoredSums {
    /// Bytes that compression saves.
    pub fn saved_bytes(&self) -> u64 {
        (self.plain_bytes - self.bytes).max(0.0) as u64
    }

    fn add(&mut self, other: StoredSums) {
        self.values += other.values;
        self.bytes += other.bytes;
        self.plain_bytes += other.plain_bytes;
    }
}

/// The estimate.
#[derive(Debug)]
pub struct Stored {
    /// Number of keys in Redis.
    pub keys: u64,
    /// Number of keys in the sample.
    pub sampled: u64,
    patterns: Patterns,
    by_place: Vec<StoredSums>,
}

impl Stored {
    /// Nothing is compressed so far, with the rules of these patterns.
    pub fn new(keys: u64, sampled: u64, patterns: Patterns) -> Self {
        Stored { keys, sampled, patterns, by_place: vec![StoredSums::default(); 256] }
    }

    /// Adds values of a rule.
    pub fn add(&mut self, place: RulePlace, sums: StoredSums) {
        self.by_place[place.number()].add(sums);
    }

    /// All rules together.
    pub fn all(&self) -> StoredSums {
        let mut all = StoredSums::default();
        self.by_place.iter().for_each(|sums| all.add(*sums));
        all
    }

    /// The values of the rule with this index and pattern. `None`: the rule was not there, or had another place.
    pub fn at(&self, index: usize, pattern: &str) -> Option<StoredSums> {
        let is_there = index < OWN && self.patterns.get(index).is_some_and(|known| **known == *pattern);
        is_there.then(|| self.of(RulePlace::of(index)))
    }

    /// The values at a place.
    pub fn of(&self, place: RulePlace) -> StoredSums {
        self.by_place[place.number()]
    }
}

#[cfg(test)]
mod tests {
    use super::{RulePlace, Stored, StoredSums};

    #[test]
    fn values_are_summed_by_rule_and_in_all() {
        let mut stored = Stored::new(100, 10, [Box::from("a"), Box::from("b")].into());
        let sums = StoredSums { values: 10.0, bytes: 100.0, plain_bytes: 400.0 };
        stored.add(RulePlace::of(1), sums);
        stored.add(RulePlace::of(1), sums);
        stored.add(RulePlace::DEFAULTS, StoredSums { values: 1.0, bytes: 50.0, plain_bytes: 40.0 });
        assert_eq!(stored.at(1, "b").map(|sums| (sums.values, sums.saved_bytes())), Some((20.0, 600)));
        assert_eq!((stored.at(0, "a"), stored.at(0, "b")), (Some(StoredSums::default()), None));
        assert_eq!(
            stored.of(RulePlace::DEFAULTS).saved_bytes(),
            0,
            "an envelope of a value that looks like one is longer"
        );
        assert_eq!((stored.all().values, stored.all().saved_bytes()), (21.0, 590));
    }
}
