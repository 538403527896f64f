//! Values that would be compressed if their rule did not only observe: a few of them are compressed elsewhere, to see what that saves.

use crate::codec::{self, CompressOptions};
use crate::metrics::rules::RulePlace;
use crate::rules::CompressRule;

/// How many values a worker sets aside until it is asked for them, and how many bytes.
const MOST: usize = 8;
const MOST_BYTES: usize = 1 << 20;

/// A value that was set aside.
#[derive(Debug)]
pub struct Trial {
    place: RulePlace,
    how: CompressRule,
    value: Box<[u8]>,
}

/// The values that a worker has set aside.
#[derive(Debug, Default)]
pub struct Trials {
    waiting: Vec<Trial>,
    bytes: usize,
}

impl Trials {
    /// A value passes. It is copied if there is room.
    pub fn offer(&mut self, place: RulePlace, how: CompressRule, value: &[u8]) {
        if self.waiting.len() < MOST && self.bytes + value.len() <= MOST_BYTES {
            self.bytes += value.len();
            self.waiting.push(Trial { place, how, value: value.into() });
        }
    }

    /// The values, which are no longer set aside.
    pub fn take(&mut self) -> Vec<Trial> {
        self.bytes = 0;
        std::mem::take(&mut self.waiting)
    }
}

/// What compression did to the values of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Number of values.
    pub values: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The part of these that compression saves.
    pub saved: u64,
}

/// What compression would do, by the numbers of the rules' places.
#[derive(Debug)]
pub struct Savings(Vec<Tried>);

impl Default for Savings {
    fn default() -> Self {
        Savings(vec![Tried::default(); 256])
    }
}

impl Savings {
    /// Compresses these values.
    pub fn add(&mut self, trials: Vec<Trial>) {
        for Trial { place, how: CompressRule { codec, level, min_size, min_saving }, value } in trials {
            let envelope = codec::compress(&value, Some(&CompressOptions { codec, level, min_size, min_saving }));
            let saved = envelope.map_or(0, |envelope| value.len().saturating_sub(envelope.len()));
            let tried = &mut self.0[place.number()];
            tried.values += 1;
            tried.bytes += value.len() as u64;
            tried.saved += saved as u64;
        }
    }

    /// What is known of a rule.
    pub fn of(&self, place: RulePlace) -> Tried {
        self.0[place.number()]
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST, Savings, Trials, Tried};
    use crate::codec::Codec;
    use crate::metrics::rules::RulePlace;
    use crate::rules::CompressRule;

    #[test]
    fn a_few_values_are_really_compressed() {
        let how = CompressRule { codec: Codec::Gzip, level: 3, min_size: 100, min_saving: 10 };
        let (text, noise) = (b"{\"price\": 1.5, \"side\": \"buy\"}".repeat(40), RulePlace::of(1));
        let mut trials = Trials::default();
        for _ in 0..100 {
            trials.offer(RulePlace::of(0), how, &text);
        }
        let mut savings = Savings::default();
        savings.add(trials.take());
        trials.offer(noise, how, &vec![0; 2 << 20]);
        assert!(trials.take().is_empty(), "it is too large to be copied");
        let tried = savings.of(RulePlace::of(0));
        assert_eq!((tried.values, tried.bytes), (MOST as u64, (MOST * text.len()) as u64));
        assert!(tried.saved > tried.bytes / 2 && tried.saved < tried.bytes, "{tried:?}");
        assert_eq!(savings.of(noise), Tried::default());
    }
}
