//! Which size of L1 gives which hit rate: estimated from a sample of the keys by small copies of L1 at several sizes.
//!
//! The sample is chosen by the hash of the key and has a bounded number of keys: when there are more, the sample is halved (Waldspurger et
//! al., "Efficient MRC Construction with SHARDS", FAST 2015). The rate is one minus the misses of the sample over all reads, which are
//! counted and not sampled. So it does not matter whether the few hottest keys are in the sample ("SHARDS-adj" in that paper).

use std::collections::HashMap;

use crate::config;
use crate::metrics::rules::RulePlace;
use crate::near_cache::EntryId;

use super::accesses::{Access, Noted, What, bound};
use super::miniature::{Found, GROUPS, Lapsed, Miniature, Size, Writes};

/// The sizes that are tried: parts of the configured one, as powers of two.
const SIZES: std::ops::RangeInclusive<i32> = -5..=2;

/// The place of the configured size among them.
const CONFIGURED: usize = 5;

/// Number of entries that the largest copy of L1 may have.
const MOST_ENTRIES: u64 = 1 << 13;

/// Number of accesses in a second that the copies follow. More take too much of a processor, so then the sample is made smaller.
const MOST_ACCESSES: usize = 1 << 12;

/// The smallest sample has one in 2^`LEAST` keys.
const LEAST: u32 = 40;

/// A copy with fewer entries than this behaves differently from a large L1, unless all keys find room in it.
const FEWEST_ENTRIES: u64 = 256;

/// How far the copies themselves may be off, beside what the choice of the keys does. Measured by the tests below.
const COPY_ERROR: f64 = 0.01;

/// Interval of tidying the copies, in calls that bring something.
const TIDY_EVERY: u64 = 3;

/// After so many calls, what was counted counts half.
const HALF_AFTER: f64 = 3600.0;

/// The sample is doubled when it has been much too small for so many calls, and then counts nothing for as long: the keys that are new in
/// it would all count as missing.
const PATIENCE: u32 = 60;

/// What has happened.
#[derive(Debug, Default)]
pub struct Batch {
    /// The samples of all workers since the last call.
    pub noted: Vec<Noted>,
    /// Reads of any key whose reply may be kept, since the start.
    pub reads: u64,
    /// Those of them that L1 has answered.
    pub hits: u64,
    /// Reads by the numbers of their rules' places, since the start. With those that are only observed.
    pub of_rules: Vec<u64>,
}

/// What was counted for one rule, faded.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    reads: f64,
    /// At the configured size.
    misses: f64,
    /// Of these, those that the rule's `ttl` has caused, by the age of the entry: of less than 2^n ms.
    lapsed: [f64; AGES],
}

/// The oldest entry that is told apart has 2^`AGES` ms: some hours.
const AGES: usize = 24;

/// Number of entries whose life has ended that are remembered.
const MOST_LAPSED: usize = 1 << 13;

/// The estimate for an L1 of some size.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// `l1.max_memory`.
    pub max_memory: usize,
    /// `l1.max_entries`.
    pub max_entries: usize,
    /// Entries that it would have now.
    pub entries: u64,
    /// Bytes that these would take.
    pub bytes: u64,
    /// Part of the reads that it would answer.
    pub hit_rate: f64,
    /// By how much that may be off, in 95 of 100 cases.
    pub error: f64,
}

/// All that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Estimate {
    /// Reads that were counted, faded. With those that are only observed.
    pub reads: f64,
    /// Part of the reads that are not only observed that L1 has answered.
    pub measured: Option<f64>,
    /// One in so many keys is in the sample.
    pub one_in: u64,
    /// Accesses that the sample has seen since the start.
    pub samples: u64,
    /// From the smallest size to the largest.
    pub points: Vec<Point>,
}

/// What is known of the keys of one rule, for an L1 of the configured size.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OfRule {
    /// Reads, faded.
    pub reads: f64,
    /// Part of them that L1 answers, or would answer if they were not only observed.
    pub hit_rate: f64,
    /// Part of them that L1 would answer if the rule's `ttl` had not ended the life of the entry.
    pub lapsed: f64,
    /// In milliseconds after the beginning of such a life, four of five of these reads have come. 0: there are none.
    pub lapsed_within: u64,
    /// Entries that L1 would have now, of all its keys.
    pub entries: u64,
    /// Bytes that these would take.
    pub bytes: u64,
}

/// The estimator.
#[derive(Debug)]
pub struct Curve {
    bounds: config::L1,
    most_entries: u64,
    /// The sample has one in 2^`shift` keys.
    shift: u32,
    sizes: Vec<Miniature>,
    /// The sizes that miss an entry which is being read, by their place.
    missing: HashMap<EntryId, u32>,
    writes: Writes,
    /// The last access.
    last: Option<Access>,
    reads: f64,
    hits: f64,
    /// By the numbers of the rules' places.
    of_rules: Vec<Counted>,
    /// The lives in milliseconds that the rules' `ttl` gives entries, in the same way. 0: something else ends them.
    ttls: Vec<u32>,
    /// Entries at the configured size that are gone because their life has ended.
    lapsed: HashMap<EntryId, Lapsed>,
    /// Reads and hits until the last call, and reads by rule.
    until: (u64, u64, Vec<u64>),
    samples: u64,
    calls: u64,
    too_small: u32,
    uncounted: u32,
}

impl Curve {
    /// Nothing is known. `bounds` are those of L1.
    pub fn new(bounds: &config::L1) -> Self {
        Self::with_entries(bounds, MOST_ENTRIES)
    }

    fn with_entries(bounds: &config::L1, most_entries: u64) -> Self {
        let sizes = SIZES.map(|power| {
            let scaled = |size: usize| ((size as f64 * f64::from(power).exp2()) as usize).max(1);
            let (max_memory, max_entries) = (scaled(bounds.max_memory), scaled(bounds.max_entries));
            Miniature::new(config::L1 { max_memory, max_entries, ..bounds.clone() }, 0)
        });
        Curve {
            bounds: bounds.clone(),
            most_entries,
            shift: 0,
            sizes: sizes.collect(),
            missing: HashMap::new(),
            writes: Writes::new(),
            last: None,
            reads: 0.0,
            hits: 0.0,
            of_rules: vec![Counted::default(); 256],
            ttls: vec![0; 256],
            lapsed: HashMap::new(),
            until: (0, 0, vec![0; 256]),
            samples: 0,
            calls: 0,
            too_small: 0,
            uncounted: 0,
        }
    }

    /// Begins anew if the bounds of L1 have changed.
    pub fn configure(&mut self, bounds: &config::L1) {
        let of = |l1: &config::L1| (l1.max_memory, l1.max_entries, l1.policy);
        if of(bounds) != of(&self.bounds) {
            *self = Curve { until: std::mem::take(&mut self.until), ..Self::with_entries(bounds, self.most_entries) };
        }
    }

    /// Counts begin anew. The copies stay as they are.
    pub fn reset(&mut self) {
        self.of_rules.fill(Counted::default());
        (self.reads, self.hits) = (0.0, 0.0);
        self.sizes.iter_mut().for_each(|size| size.misses = [0.0; GROUPS]);
    }

    /// The rules are others: what was counted for each begins anew. `ttls`: the lives that their `ttl` gives entries, by the numbers of
    /// their places; 0: something else ends them.
    pub fn rules_change(&mut self, ttls: Vec<u32>) {
        self.of_rules.fill(Counted::default());
        self.ttls = ttls;
    }

    /// What is known of the keys of a rule.
    pub fn of_rule(&self, place: RulePlace) -> OfRule {
        let Counted { reads, misses, lapsed } = self.of_rules[place.number()];
        let size = self.sizes[CONFIGURED].size_of(place);
        let all: f64 = lapsed.iter().sum();
        let mut so_far = 0.0;
        let most = lapsed.iter().position(|part| {
            so_far += part;
            so_far >= all * 0.8
        });
        OfRule {
            reads,
            hit_rate: (1.0 - misses / reads.max(1.0)).clamp(0.0, 1.0),
            lapsed: (all / reads.max(1.0)).min(1.0),
            lapsed_within: most.filter(|_| all > 0.0).map_or(0, |age| 1 << age),
            entries: size.entries << self.shift,
            bytes: size.bytes << self.shift,
        }
    }

    /// The sample has one in 2^`shift` keys.
    pub fn shift(&self) -> u32 {
        self.shift
    }

    /// Takes what has happened in the last second. Call this once a second.
    pub fn take(&mut self, batch: Batch) {
        let Batch { noted, reads, hits, of_rules } = batch;
        let lost: usize = noted.iter().map(|noted| noted.lost).sum();
        let mut accesses: Vec<Access> = noted.into_iter().flat_map(|noted| noted.accesses).collect();
        accesses.retain(|access| access.id.key().bits() <= bound(self.shift));
        // Stable: what happened on one worker within a millisecond keeps its order.
        accesses.sort_by_key(|access| access.at_ms);
        self.uncounted = self.uncounted.saturating_sub(1);
        // What was lost may have been misses.
        let counts = lost == 0 && self.uncounted == 0;
        for access in &accesses {
            self.follow(access, counts);
        }
        let before = std::mem::replace(&mut self.until, (reads, hits, of_rules));
        if counts {
            self.reads += reads.saturating_sub(before.0) as f64;
            self.hits += hits.saturating_sub(before.1) as f64;
            for ((all, before), counted) in self.until.2.iter().zip(before.2).zip(&mut self.of_rules) {
                counted.reads += all.saturating_sub(before) as f64;
            }
        }
        self.fade();
        if !accesses.is_empty() {
            self.calls += 1;
            if self.calls.is_multiple_of(TIDY_EVERY) {
                self.tidy();
            }
        }
        self.adapt(accesses.len(), lost);
    }

    fn follow(&mut self, access: &Access, counts: bool) {
        self.samples += 1;
        self.last = Some(*access);
        let number = self.samples;
        let weight = if counts { (1_u64 << self.shift) as f64 } else { 0.0 };
        match access.what {
            What::Hit(_) | What::Miss | What::Observed(_) => {
                let mut missing = 0;
                for (place, size) in self.sizes.iter_mut().enumerate() {
                    let found = size.read(access, &self.writes);
                    if matches!(found, Found::Good) {
                        continue;
                    }
                    size.miss(access.id, weight);
                    if place == CONFIGURED {
                        let before = self.lapsed.remove(&access.id).filter(|gone| gone.generation == access.generation);
                        let lapsed = if let Found::Lapsed(lapsed) = found { Some(lapsed) } else { before };
                        let number = access.place.number();
                        let counted = &mut self.of_rules[number];
                        counted.misses += weight;
                        if let Some(Lapsed { life_ms, from_ms, .. }) = lapsed
                            && life_ms == self.ttls[number]
                        {
                            let age =
                                access.at_ms.saturating_sub(from_ms).checked_ilog2().map_or(0, |log| log as usize + 1);
                            counted.lapsed[age.min(AGES - 1)] += weight;
                        }
                    }
                    match access.what {
                        What::Hit(kept) | What::Observed(Some(kept)) => size.fill(access, kept, number),
                        What::Miss => missing |= 1 << place,
                        _ => {}
                    }
                }
                if missing != 0 {
                    self.missing.insert(access.id, missing);
                }
            }
            What::Filled(kept) => {
                let missing = self.missing.remove(&access.id).unwrap_or(0);
                let sizes = self.sizes.iter().enumerate();
                sizes.filter(|(place, _)| missing & 1 << place != 0).for_each(|(_, size)| {
                    size.fill(access, kept, number);
                });
            }
            What::Absent => {
                self.sizes.iter_mut().for_each(|size| size.miss(access.id, weight));
                self.of_rules[access.place.number()].misses += weight;
                self.writes.insert(access.id.key(), number);
            }
            What::Written => {
                self.writes.insert(access.id.key(), number);
                self.missing.remove(&access.id);
                self.lapsed.remove(&access.id);
            }
        }
    }

    fn fade(&mut self) {
        let left = (-1.0 / HALF_AFTER).exp2();
        self.reads *= left;
        self.hits *= left;
        self.sizes.iter_mut().flat_map(|size| &mut size.misses).for_each(|misses| *misses *= left);
        for counted in &mut self.of_rules {
            let Counted { reads, misses, lapsed } = counted;
            [reads, misses].into_iter().chain(lapsed).for_each(|number| *number *= left);
        }
    }

    fn tidy(&mut self) {
        if let Some(last) = &self.last {
            if self.lapsed.len() > MOST_LAPSED {
                self.lapsed.clear();
            }
            for (place, size) in self.sizes.iter_mut().enumerate() {
                size.tidy(last, &self.writes, |id, lapsed| {
                    if place == CONFIGURED {
                        self.lapsed.insert(id, lapsed);
                    }
                });
            }
            // What was read before a write is gone.
            self.writes.clear();
            self.missing.clear();
        }
    }

    /// Chooses the size of the sample.
    fn adapt(&mut self, accesses: usize, lost: usize) {
        let entries = self.sizes.last().map_or(0, |largest| largest.size().entries);
        if lost > 0 || accesses > MOST_ACCESSES || entries > self.most_entries {
            let too_many = (accesses + lost).div_ceil(MOST_ACCESSES).next_power_of_two().ilog2();
            self.resample((self.shift + too_many.max(1)).min(LEAST));
        } else if self.shift > 0 && accesses < MOST_ACCESSES / 16 && entries < self.most_entries / 8 {
            self.too_small += 1;
            if self.too_small == PATIENCE {
                self.resample(self.shift - 1);
                self.uncounted = PATIENCE;
            }
        } else {
            self.too_small = 0;
        }
    }

    fn resample(&mut self, shift: u32) {
        self.shift = shift;
        self.too_small = 0;
        self.tidy();
        self.sizes.iter_mut().for_each(|size| size.resample(shift));
        // Counts the entries that are left.
        self.tidy();
    }

    /// What is known now.
    pub fn estimate(&self) -> Estimate {
        let all: f64 = self.of_rules.iter().map(|counted| counted.reads).sum();
        let all = all.max(self.reads);
        let reads = all.max(1.0);
        let points = self.sizes.iter().filter_map(|size| {
            let Size { entries, bytes } = size.size();
            let fits = size.bounds.max_entries as u64 >> self.shift;
            if fits < FEWEST_ENTRIES && self.shift > 0 && entries * 10 > fits * 9 {
                return None;
            }
            let misses: f64 = size.misses.iter().sum();
            let mean = misses / GROUPS as f64;
            let differ: f64 = size.misses.iter().map(|group| (group - mean).powi(2)).sum();
            let sampled = 1.0 / (1_u64 << self.shift) as f64;
            let deviation = (differ * GROUPS as f64 / (GROUPS - 1) as f64 * (1.0 - sampled)).sqrt();
            let copies = if self.shift > 0 { COPY_ERROR } else { 0.0 };
            Some(Point {
                max_memory: size.bounds.max_memory,
                max_entries: size.bounds.max_entries,
                entries: entries << self.shift,
                bytes: bytes << self.shift,
                hit_rate: (1.0 - misses / reads).clamp(0.0, 1.0),
                error: (2.0 * deviation / reads + copies).min(1.0),
            })
        });
        Estimate {
            reads: all,
            measured: (self.reads >= 1.0).then(|| self.hits / self.reads),
            one_in: 1 << self.shift,
            samples: self.samples,
            points: points.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Batch, Curve, Estimate, bound};
    use crate::config::{L1, Policy};
    use crate::metrics::rules::RulePlace;
    use crate::near_cache::{Entry, EntryId, NearCache, Question, Times};
    use crate::traffic::accesses::{Access, Kept, Noted, What};

    /// A random number from 0 to 1, always the same row of them.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> f64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 >> 11) as f64 / (1_u64 << 53) as f64
        }
    }

    /// Numbers of keys with the weights 1, 1/2^s, 1/3^s, ….
    fn zipf(keys: usize, s: f64) -> impl FnMut(&mut Random) -> u64 {
        let mut sum = 0.0;
        let up_to: Vec<f64> = (1..=keys)
            .map(|rank| {
                sum += (rank as f64).powf(-s);
                sum
            })
            .collect();
        move |random| {
            let at = random.next() * sum;
            up_to.partition_point(|sum| *sum < at) as u64
        }
    }

    fn id(key: u64) -> EntryId {
        Question::get(0, 0, &key.to_le_bytes()).id()
    }

    const BYTES: u32 = 300;

    fn l1(entries: usize, policy: Policy) -> L1 {
        L1 { max_memory: entries * BYTES as usize, max_entries: entries, policy, ..L1::default() }
    }

    /// The hit rate of L1 itself.
    fn replayed(bounds: &L1, keys: &[u64]) -> f64 {
        let cache = NearCache::new(bounds, Instant::now(), |_, _, _| {});
        let times = Times { generation: 0, sent: 0, deadline: Duration::from_secs(3600).as_nanos() as u64 };
        let mut hits = 0;
        for key in keys {
            let key = key.to_le_bytes();
            let question = Question::get(0, 0, &key);
            if cache.get(question.id()).is_some() {
                hits += 1;
            } else {
                cache.insert(question.id(), Entry::new(times, &question, &[b'x'; 30], None, RulePlace::DEFAULTS));
            }
        }
        f64::from(hits) / keys.len() as f64
    }

    fn access(key: u64, at_ms: u64, what: What) -> Access {
        Access { id: id(key), at_ms, generation: 0, place: RulePlace::DEFAULTS, what }
    }

    const LONG: Kept = Kept { bytes: BYTES, life_ms: u32::MAX };

    /// What the curve says of these reads, one a millisecond, all of them misses of L1.
    fn estimated(curve: &mut Curve, keys: &[u64]) -> Estimate {
        let mut read = 0;
        for (second, keys) in keys.chunks(1000).enumerate() {
            let sampled = keys.iter().enumerate().filter(|(_, key)| id(**key).key().bits() <= bound(curve.shift()));
            let accesses = sampled.flat_map(|(at, key)| {
                let at_ms = (second * 1000 + at) as u64;
                [access(*key, at_ms, What::Miss), access(*key, at_ms, What::Filled(LONG))]
            });
            let noted = Noted { accesses: accesses.collect(), lost: 0 };
            read += keys.len() as u64;
            curve.take(Batch { noted: vec![noted], reads: read, ..Batch::default() });
        }
        curve.estimate()
    }

    /// Reads of Zipf-distributed keys, every other one followed by one of a scan if `scans`.
    fn reads(s: f64, scans: bool) -> Vec<u64> {
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut choose = zipf(60_000, s);
        let mut scanned = 1_000_000;
        (0..240_000)
            .map(|number| {
                if scans && number % 3 == 0 {
                    scanned += 1;
                    scanned
                } else {
                    choose(&mut random)
                }
            })
            .collect()
    }

    #[test]
    fn the_estimate_is_within_two_points_of_the_hit_rate_at_that_size() {
        for (s, scans, policy) in [
            (0.8, false, Policy::TinyLfu),
            (1.0, false, Policy::TinyLfu),
            (1.0, true, Policy::TinyLfu),
            (1.0, true, Policy::Lru),
        ] {
            let keys = reads(s, scans);
            let mut curve = Curve::new(&l1(8_000, policy));
            let found = estimated(&mut curve, &keys);
            assert!(found.one_in >= 4, "it is a sample: one in {}", found.one_in);
            let checked = found.points.iter().filter(|point| (2000..=16_000).contains(&point.max_entries));
            assert_eq!(checked.clone().count(), 4, "{found:?}");
            for point in checked {
                let real = replayed(&l1(point.max_entries, policy), &keys);
                let off = (point.hit_rate - real).abs();
                let context = format!("Zipf {s}, scan {scans}, {policy}, {}: {point:?}", point.max_entries);
                assert!(off <= 0.02, "{context}: {real}");
                assert!(off <= point.error + 0.005 && point.error < 0.05, "{context}: {real}");
            }
        }
    }

    /// Each second these accesses to one key; the point of the configured size.
    fn repeated(seconds: u64, accesses: &[What], reads: u64) -> super::Point {
        let mut curve = Curve::new(&l1(1000, Policy::TinyLfu));
        for second in 1..=seconds {
            let all = accesses.iter().enumerate().map(|(at, what)| access(7, second * 1000 + at as u64, *what));
            let noted = Noted { accesses: all.collect(), lost: 0 };
            curve.take(Batch { noted: vec![noted], reads: reads * second, ..Batch::default() });
        }
        let found = curve.estimate();
        *found.points.iter().find(|point| point.max_entries == 1000).expect("the configured size")
    }

    #[test]
    fn a_read_after_the_life_of_an_entry_or_after_a_write_misses_whatever_the_size() {
        let kept = |life_ms| Kept { bytes: BYTES, life_ms };
        // Two reads a second.
        for (what, life, written, hit_rate) in
            [("long", 10_000, false, 0.95), ("short", 500, false, 0.5), ("written", 10_000, true, 0.5)]
        {
            let mut accesses = vec![What::Miss, What::Filled(kept(life)), What::Miss, What::Filled(kept(life))];
            accesses.extend(written.then_some(What::Written));
            let found = repeated(40, &accesses, 2);
            assert!((found.hit_rate - hit_rate).abs() < 0.03, "{what}: {found:?}");
        }
    }

    #[test]
    fn a_flush_drops_everything() {
        let mut curve = Curve::new(&l1(1000, Policy::TinyLfu));
        for second in 0..40 {
            let mut accesses = vec![access(7, second * 1000, What::Miss), access(7, second * 1000, What::Filled(LONG))];
            accesses.iter_mut().for_each(|access| access.generation = second);
            curve.take(Batch { noted: vec![Noted { accesses, lost: 0 }], reads: second + 1, ..Batch::default() });
        }
        assert!(curve.estimate().points.iter().all(|point| point.hit_rate < 0.01), "{:?}", curve.estimate());
    }

    #[test]
    fn what_was_lost_makes_the_sample_smaller_and_is_not_counted() {
        let mut curve = Curve::new(&l1(1000, Policy::TinyLfu));
        let accesses: Vec<Access> = (0..4096).map(|key| access(key, 1, What::Miss)).collect();
        curve.take(Batch { noted: vec![Noted { accesses, lost: 20_000 }], reads: 24_096, ..Batch::default() });
        assert_eq!((curve.shift(), curve.estimate().reads), (3, 0.0));
        for second in 0..200 {
            let noted = vec![Noted { accesses: vec![access(0, 1000 * second, What::Miss)], lost: 0 }];
            curve.take(Batch { noted, reads: 24_100 + second, ..Batch::default() });
        }
        assert_eq!(curve.shift(), 0, "it grows when there is little");
    }
}
