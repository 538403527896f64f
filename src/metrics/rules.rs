//! What is counted for each rule of the configuration. Each worker has its own counts, which only it writes: a fixed number of places,
//! so that a hit finds its place without a search. Must not know what a rule says.
//!
//! A worker makes new counts when its rules change, in which a pattern that stays goes on. So the places of an old configuration are never
//! read as those of a new one.

use std::sync::{Arc, Mutex, PoisonError};

use super::counter::Counter;
use super::outcome::{Outcome, Skipped};

/// How many rules are counted each for itself, from the first one. The others are counted together.
pub const OWN: usize = 254;

/// Where the requests for a key are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RulePlace(u8);

impl RulePlace {
    /// The rules behind the first [`OWN`] together.
    pub const OTHERS: RulePlace = RulePlace(254);
    /// The keys that match no rule.
    pub const DEFAULTS: RulePlace = RulePlace(255);

    /// The place of a rule, by its index in the configuration.
    pub fn of(index: usize) -> RulePlace {
        u8::try_from(index).ok().filter(|index| usize::from(*index) < OWN).map_or(RulePlace::OTHERS, RulePlace)
    }

    /// A number from 0 to 255, different for each place.
    pub fn number(self) -> usize {
        usize::from(self.0)
    }
}

/// The counters of one rule in one worker. No cache line has those of two rules.
#[derive(Debug, Default)]
#[repr(align(64))]
pub struct RuleCounters {
    /// As `l1_hits`.
    pub hits: Counter,
    /// As `l1_misses`.
    pub misses: Counter,
    /// Keys of requests that L1 did not answer, reads and writes.
    pub passed: Counter,
    /// Keys of requests that may change them.
    pub writes: Counter,
    /// As `compressed_bytes_in`.
    pub bytes_in: Counter,
    /// As `compressed_bytes_out`.
    pub bytes_out: Counter,
    /// Keys of reads that L1 could have answered, if it were not only observed what it would do.
    pub observed: Counter,
    /// Bytes of the values that were compressed if that saved enough, or would be.
    pub bytes_tried: Counter,
    /// As `compressed_values`.
    pub compressed: Counter,
    /// As `compression_usec`, in nanoseconds.
    pub compress_nanos: Counter,
    /// As `compression_skipped`, by the place of the reason.
    skipped: [Counter; Skipped::ALL.len()],
}

impl RuleCounters {
    /// A value was stored as it came.
    pub fn skip(&self, why: Skipped) {
        self.skipped[why.place()].add(1);
    }

    /// Goes on with what another has counted.
    fn go_on(&self, before: &RuleCounters) {
        self.hits.add(before.hits.get());
        self.misses.add(before.misses.get());
        self.passed.add(before.passed.get());
        self.writes.add(before.writes.get());
        self.bytes_in.add(before.bytes_in.get());
        self.bytes_out.add(before.bytes_out.get());
        self.observed.add(before.observed.get());
        self.bytes_tried.add(before.bytes_tried.get());
        self.compressed.add(before.compressed.get());
        self.compress_nanos.add(before.compress_nanos.get());
        self.skipped.iter().zip(&before.skipped).for_each(|(here, before)| here.add(before.get()));
    }
}

/// The patterns of the first [`OWN`] rules, in their order.
pub type Patterns = Arc<[Box<str>]>;

/// The counters of all rules in one worker, under one configuration.
#[derive(Debug)]
pub struct RuleCounts {
    patterns: Patterns,
    counters: [RuleCounters; 256],
}

impl Default for RuleCounts {
    fn default() -> Self {
        RuleCounts::new(Arc::default())
    }
}

impl RuleCounts {
    fn new(patterns: Patterns) -> Self {
        RuleCounts { patterns, counters: std::array::from_fn(|_| RuleCounters::default()) }
    }

    /// The counters of a rule.
    #[inline]
    pub fn at(&self, place: RulePlace) -> &RuleCounters {
        &self.counters[usize::from(place.0)]
    }

    /// The counters of the rule with this pattern. It is probably the rule with this index.
    fn find(&self, index: usize, pattern: &str) -> Option<&RuleCounters> {
        let is_there = self.patterns.get(index).is_some_and(|known| **known == *pattern);
        let index = if is_there { index } else { self.patterns.iter().position(|known| **known == *pattern)? };
        Some(self.at(RulePlace::of(index)))
    }

    /// New counts, in which patterns that stay go on.
    fn with(&self, patterns: Patterns) -> RuleCounts {
        let new = RuleCounts::new(patterns);
        for (index, pattern) in new.patterns.iter().enumerate() {
            // A second rule with the same pattern matches nothing.
            if !new.patterns[..index].contains(pattern)
                && let Some(before) = self.find(index, pattern)
            {
                new.at(RulePlace::of(index)).go_on(before);
            }
        }
        for place in [RulePlace::OTHERS, RulePlace::DEFAULTS] {
            new.at(place).go_on(self.at(place));
        }
        new
    }
}

/// The counts of one worker as others read them.
#[derive(Debug, Default)]
pub struct WorkerRules(Mutex<Arc<RuleCounts>>);

impl WorkerRules {
    /// The worker has these rules from now on, and counts there. Only the worker itself may call this.
    pub fn change(&self, patterns: Patterns) -> Arc<RuleCounts> {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.patterns != patterns {
            *current = Arc::new(current.with(patterns));
        }
        Arc::clone(&current)
    }

    fn current(&self) -> Arc<RuleCounts> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What all workers have counted for a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleSums {
    /// Keys of reads answered from L1.
    pub hits: u64,
    /// Keys of reads sent to Redis that L1 could have answered.
    pub misses: u64,
    /// Keys of all requests.
    pub requests: u64,
    /// Keys of requests that may change them.
    pub writes: u64,
    /// Values that were compressed.
    pub compressed: u64,
    /// Their bytes before.
    pub bytes_in: u64,
    /// Bytes that compression saved.
    pub saved_bytes: u64,
    /// Nanoseconds that compressing took.
    pub compress_nanos: u64,
    /// Values that were stored as they came, by the place of the reason.
    pub skipped: [u64; Skipped::ALL.len()],
    /// Keys of reads that L1 could have answered, if it were not only observed.
    pub observed: u64,
    /// Bytes of the values that were compressed if that saved enough, or would be.
    pub tried_bytes: u64,
}

impl RuleSums {
    /// The sums over workers.
    fn of<'a>(counters: impl Iterator<Item = &'a RuleCounters>) -> RuleSums {
        let (mut sums, mut bytes_out) = (RuleSums::default(), 0);
        for one in counters {
            sums.hits += one.hits.get();
            sums.misses += one.misses.get();
            sums.requests += one.hits.get() + one.passed.get();
            sums.writes += one.writes.get();
            sums.compressed += one.compressed.get();
            sums.bytes_in += one.bytes_in.get();
            sums.compress_nanos += one.compress_nanos.get();
            sums.skipped.iter_mut().zip(&one.skipped).for_each(|(sum, one)| *sum += one.get());
            bytes_out += one.bytes_out.get();
            sums.observed += one.observed.get();
            sums.tried_bytes += one.bytes_tried.get();
        }
        RuleSums { saved_bytes: sums.bytes_in.saturating_sub(bytes_out), ..sums }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: RuleSums) -> RuleSums {
        RuleSums {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            requests: self.requests + other.requests,
            writes: self.writes + other.writes,
            compressed: self.compressed + other.compressed,
            bytes_in: self.bytes_in + other.bytes_in,
            saved_bytes: self.saved_bytes + other.saved_bytes,
            compress_nanos: self.compress_nanos + other.compress_nanos,
            skipped: std::array::from_fn(|at| self.skipped[at] + other.skipped[at]),
            observed: self.observed + other.observed,
            tried_bytes: self.tried_bytes + other.tried_bytes,
        }
    }

    /// What was counted since `earlier`.
    fn since(self, earlier: RuleSums) -> RuleSums {
        RuleSums {
            hits: self.hits.saturating_sub(earlier.hits),
            misses: self.misses.saturating_sub(earlier.misses),
            requests: self.requests.saturating_sub(earlier.requests),
            writes: self.writes.saturating_sub(earlier.writes),
            compressed: self.compressed.saturating_sub(earlier.compressed),
            bytes_in: self.bytes_in.saturating_sub(earlier.bytes_in),
            saved_bytes: self.saved_bytes.saturating_sub(earlier.saved_bytes),
            compress_nanos: self.compress_nanos.saturating_sub(earlier.compress_nanos),
            skipped: std::array::from_fn(|at| self.skipped[at].saturating_sub(earlier.skipped[at])),
            observed: self.observed.saturating_sub(earlier.observed),
            tried_bytes: self.tried_bytes.saturating_sub(earlier.tried_bytes),
        }
    }
}

/// What all workers have counted for all rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleTotals {
    /// The first [`OWN`] rules by their patterns, in the configuration's order.
    pub own: Vec<(Box<str>, RuleSums)>,
    /// The other rules together.
    pub others: RuleSums,
    /// The keys that match no rule.
    pub defaults: RuleSums,
}

impl RuleTotals {
    /// The sums over workers. While the configuration is read again, a worker may still have other rules than the first one.
    pub(super) fn of<'a>(workers: impl Iterator<Item = &'a WorkerRules>) -> RuleTotals {
        let workers: Vec<Arc<RuleCounts>> = workers.map(WorkerRules::current).collect();
        let patterns = workers.first().map(|first| Arc::clone(&first.patterns)).unwrap_or_default();
        let own = patterns.iter().enumerate().map(|(index, pattern)| {
            let sums = RuleSums::of(workers.iter().filter_map(|worker| worker.find(index, pattern)));
            (pattern.clone(), sums)
        });
        let together = |place| RuleSums::of(workers.iter().map(|worker| worker.at(place)));
        RuleTotals { own: own.collect(), others: together(RulePlace::OTHERS), defaults: together(RulePlace::DEFAULTS) }
    }

    /// What was counted since `earlier`. A rule that was not there has begun since.
    pub(super) fn since(mut self, earlier: &RuleTotals) -> RuleTotals {
        for (pattern, sums) in &mut self.own {
            *sums = sums.since(earlier.find(pattern));
        }
        self.others = self.others.since(earlier.others);
        self.defaults = self.defaults.since(earlier.defaults);
        self
    }

    /// The sums at each place, by its number.
    pub fn by_place(&self) -> Vec<RuleSums> {
        let mut all = vec![RuleSums::default(); 256];
        self.own.iter().enumerate().for_each(|(index, (_, sums))| all[index] = *sums);
        all[RulePlace::OTHERS.number()] = self.others;
        all[RulePlace::DEFAULTS.number()] = self.defaults;
        all
    }

    /// The sums of the rule with this index and pattern.
    pub fn at(&self, index: usize, pattern: &str) -> RuleSums {
        let at = self.own.get(index).filter(|(known, _)| **known == *pattern);
        at.map_or_else(|| self.find(pattern), |(_, sums)| *sums)
    }

    /// The sums of the first rule with this pattern.
    fn find(&self, pattern: &str) -> RuleSums {
        self.own.iter().find(|(known, _)| **known == *pattern).map_or_else(RuleSums::default, |(_, sums)| *sums)
    }

    /// Forgets the rules that are no longer there: if they come back, they begin anew.
    pub(super) fn keep_only(&mut self, patterns: &[Box<str>]) {
        self.own.retain(|(known, _)| patterns.contains(known));
    }
}

#[cfg(test)]
mod tests {
    use super::{OWN, Patterns, RulePlace, RuleTotals, WorkerRules};

    fn patterns(all: &[&str]) -> Patterns {
        all.iter().map(|pattern| Box::from(*pattern)).collect()
    }

    #[test]
    fn a_pattern_that_stays_goes_on_wherever_it_stands() {
        let worker = WorkerRules::default();
        let counts = worker.change(patterns(&["a", "b", "c"]));
        [0, 1, 2].into_iter().for_each(|index| counts.at(RulePlace::of(index)).hits.add(index as u64 + 1));
        counts.at(RulePlace::DEFAULTS).hits.add(10);
        counts.at(RulePlace::OTHERS).misses.add(5);
        let counts = worker.change(patterns(&["c", "new", "a", "c"]));
        counts.at(RulePlace::of(0)).passed.add(1);
        let totals = RuleTotals::of([&worker].into_iter());
        let hits: Vec<(&str, u64)> = totals.own.iter().map(|(pattern, sums)| (&**pattern, sums.hits)).collect();
        assert_eq!(hits, [("c", 3), ("new", 0), ("a", 1), ("c", 0)]);
        assert_eq!((totals.find("c").requests, totals.defaults.hits, totals.others.misses), (4, 10, 5));
        worker.change(patterns(&["b"]));
        assert_eq!(RuleTotals::of([&worker].into_iter()).find("b").hits, 0, "it was away");
    }

    #[test]
    fn workers_are_summed_by_pattern_while_one_has_other_rules() {
        let workers = [WorkerRules::default(), WorkerRules::default()];
        let (one, two) = (workers[0].change(patterns(&["a", "b"])), workers[1].change(patterns(&["b", "old"])));
        one.at(RulePlace::of(1)).hits.add(1);
        two.at(RulePlace::of(0)).hits.add(2);
        two.at(RulePlace::of(1)).hits.add(4);
        let totals = RuleTotals::of(workers.iter());
        assert_eq!((totals.find("a").hits, totals.find("b").hits), (0, 3));
    }

    #[test]
    fn what_was_counted_before_a_reset_is_left_out_until_the_rule_goes() {
        let worker = WorkerRules::default();
        let counts = worker.change(patterns(&["a", "b"]));
        counts.at(RulePlace::of(0)).hits.add(3);
        let totals = || RuleTotals::of([&worker].into_iter());
        let mut before = totals();
        counts.at(RulePlace::of(0)).hits.add(1);
        assert_eq!(totals().since(&before).find("a").hits, 1);
        worker.change(patterns(&["b"]));
        before.keep_only(&patterns(&["b"]));
        worker.change(patterns(&["a"])).at(RulePlace::of(0)).hits.add(2);
        assert_eq!(totals().since(&before).find("a").hits, 2);
    }

    #[test]
    fn the_first_rules_have_their_own_places() {
        let own: Vec<RulePlace> = (0..OWN).map(RulePlace::of).collect();
        assert!(own.iter().all(|place| ![RulePlace::OTHERS, RulePlace::DEFAULTS].contains(place)));
        assert_eq!([OWN, OWN + 1, 255, 256, 100_000].map(RulePlace::of), [RulePlace::OTHERS; 5]);
    }
}
