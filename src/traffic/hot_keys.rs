//! Which keys are requested most: a sketch of fixed size (Space-Saving, in sets) over a sample of the requests.
//!
//! One in `gap` requests is counted, with the weight `gap`. The gap follows the load, so that a worker counts a few thousand requests a
//! second, and all of them if there are fewer. What was counted fades by a fifth each second. A share that this gives is never too large
//! because of the sketch; what a key may have taken over from others of its set is left out.
//!
//! The keys of a counted request are remembered until its reply comes, which tells how many bytes it had and how long Redis took.

use std::time::{Duration, Instant};

use crate::near_cache::KeyId;

const SETS: usize = 1 << 7;
/// Number of keys in a set.
const WAYS: usize = 8;

/// A longer key is known by its beginning alone.
pub const LONGEST: usize = 120;

/// How many requests are counted in a second, at most.
const COUNTED: u32 = 4096;

/// Of so many requests at least one is counted.
const WIDEST: u32 = 1024;

/// What is left of a count after a second.
const FADES_TO: f64 = 0.8;

/// How many counted requests are remembered. While Redis hangs, the oldest are forgotten, and count no bytes and no time.
const REMEMBERED: usize = 512;

/// Of a request for more keys, so many stand for all.
const STANDING: usize = 4;

const SECOND: Duration = Duration::from_secs(1);

/// The key of a request.
#[derive(Clone, Copy, Debug)]
pub struct Requested<'a> {
    /// The key's id.
    pub id: KeyId,
    /// The database.
    pub db: u32,
    /// The key.
    pub key: &'a [u8],
    /// Whether L1 answered.
    pub hit: bool,
}

#[derive(Clone, Debug)]
struct Slot {
    id: KeyId,
    db: u32,
    length: usize,
    /// The beginning of the key. In the slot, so that counting allocates nothing.
    key: [u8; LONGEST],
    count: f64,
    /// How much of the count may be another key's, which had the slot before.
    taken_over: f64,
    hits: f64,
    cost: Cost,
}

/// What requests cost: bytes to and from clients, and seconds at Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Bytes of replies and of values that were written.
    pub bytes: f64,
    /// Seconds from a request to Redis's reply.
    pub upstream: f64,
}

impl Cost {
    fn add(&mut self, part: f64, bytes: usize, upstream: Duration) {
        self.bytes += part * bytes as f64;
        self.upstream += part * upstream.as_secs_f64();
    }

    fn fade(&mut self, left: f64) {
        self.bytes *= left;
        self.upstream *= left;
    }

    /// As a cost per second.
    fn per_second(self, seconds: f64) -> Cost {
        Cost { bytes: self.bytes / seconds, upstream: self.upstream / seconds }
    }
}

/// A request that was counted.
#[derive(Clone, Copy, Debug)]
struct Sample {
    number: u16,
    weight: f64,
    /// Some of its keys.
    keys: [Option<KeyId>; STANDING],
}

impl Sample {
    /// The keys, each with its part of the request's weight.
    fn parts(&self) -> impl Iterator<Item = (KeyId, f64)> + use<> {
        let keys = self.keys.into_iter().flatten();
        let part = self.weight / keys.clone().count().max(1) as f64;
        keys.map(move |key| (key, part))
    }
}

/// The sketch of one worker.
#[derive(Debug)]
pub struct HotKeys {
    slots: Box<[Slot]>,
    /// Requests for keys, faded like the counts.
    total: f64,
    cost: Cost,
    samples: Box<[Sample]>,
    /// The number of the last sample. 0 is none.
    sampled: u16,
    /// The time in which they came, faded in the same way.
    seconds: f64,
    second_began: Instant,
    /// What was counted since `second_began`: requests, and their weight.
    counted: u32,
    weight: f64,
    gap: u32,
    random: u64,
}

/// A key and how often it was requested.
#[derive(Clone, Debug)]
pub struct HotKey {
    /// The key's id.
    pub id: KeyId,
    /// The database.
    pub db: u32,
    /// The key, or its first bytes, if it is long.
    pub key: Vec<u8>,
    /// Whether these are all bytes of the key.
    pub is_whole: bool,
    /// Requests per second.
    pub requests: f64,
    /// Of these, answered from L1.
    pub hits: f64,
    /// What they cost, per second.
    pub cost: Cost,
}

/// What the sketch knows.
#[derive(Clone, Debug)]
pub struct Hottest {
    /// Requests per second for any key. One for several keys counts for each.
    pub requests: f64,
    /// What they cost, per second.
    pub cost: Cost,
    /// The keys, in no order.
    pub keys: Vec<HotKey>,
}

impl HotKeys {
    /// Nothing counted so far. `seed` differs between workers.
    pub fn new(now: Instant, seed: u64) -> Self {
        let slot = Slot {
            id: KeyId::from_hash(0, 0),
            db: 0,
            length: 0,
            key: [0; LONGEST],
            count: 0.0,
            taken_over: 0.0,
            hits: 0.0,
            cost: Cost::default(),
        };
        HotKeys {
            slots: vec![slot; SETS * WAYS].into_boxed_slice(),
            total: 0.0,
            cost: Cost::default(),
            samples: vec![Sample { number: 0, weight: 0.0, keys: [None; STANDING] }; REMEMBERED].into_boxed_slice(),
            sampled: 0,
            seconds: 0.0,
            second_began: now,
            counted: 0,
            weight: 0.0,
            gap: 1,
            random: seed | 1,
        }
    }

    /// The number of the request that is counted next, for [`HotKeys::answered`]. Not 0.
    pub fn next_sample(&self) -> u16 {
        self.sampled.checked_add(1).unwrap_or(1)
    }

    /// Counts the keys of a request, and the bytes that are known so far. Returns how many requests to leave out before the next one.
    pub fn count<'a>(&mut self, now: Instant, keys: impl ExactSizeIterator<Item = Requested<'a>>, bytes: usize) -> u32 {
        self.fade(now);
        let weight = f64::from(self.gap);
        let mut sample = Sample { number: self.next_sample(), weight, keys: [None; STANDING] };
        // Of many keys every so many-th, from a random one on, so that each is as likely to stand for the others.
        let many = keys.len().max(1);
        let (step, first) = ((many / STANDING).max(1), (self.random >> 32) as usize % many);
        for (at, requested) in keys.enumerate() {
            self.total += weight;
            let place = (at + many - first) % many;
            if place.is_multiple_of(step) && place / step < STANDING {
                sample.keys[place / step] = Some(requested.id);
            }
            self.add(weight, requested);
        }
        self.sampled = sample.number;
        self.samples[usize::from(sample.number) % REMEMBERED] = sample;
        self.answered(sample.number, bytes, Duration::ZERO);
        self.weight += weight;
        self.counted += 1;
        if self.counted.is_multiple_of(COUNTED) {
            // The load has grown since the last second.
            self.gap = (self.gap * 2).min(WIDEST);
        }
        // At random, because a client may repeat its requests with any period.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        // From 0 to twice the number that is left out on average.
        ((self.random >> 32) % u64::from(2 * self.gap - 1)) as u32
    }

    /// A counted request had a reply, or a part of it.
    pub fn answered(&mut self, number: u16, bytes: usize, upstream: Duration) {
        let sample = self.samples[usize::from(number) % REMEMBERED];
        if sample.number != number {
            return;
        }
        for (id, part) in sample.parts() {
            self.cost.add(part, bytes, upstream);
            let set = id.bits() as usize % SETS * WAYS;
            if let Some(slot) = self.slots[set..set + WAYS].iter_mut().find(|slot| slot.id == id && slot.count > 0.0) {
                slot.cost.add(part, bytes, upstream);
            }
        }
    }

    fn add(&mut self, weight: f64, Requested { id, db, key, hit }: Requested<'_>) {
        let set = id.bits() as usize % SETS * WAYS;
        let set = &mut self.slots[set..set + WAYS];
        let known = set.iter().position(|slot| slot.id == id && slot.count > 0.0);
        let at = known.unwrap_or_else(|| {
            let counts = set.iter().map(|slot| slot.count).enumerate();
            let at = counts.min_by(|(_, one), (_, other)| one.total_cmp(other)).map_or(0, |(at, _)| at);
            let slot = &mut set[at];
            let kept = key.len().min(LONGEST);
            slot.key[..kept].copy_from_slice(&key[..kept]);
            (slot.id, slot.db, slot.length) = (id, db, key.len());
            (slot.taken_over, slot.hits, slot.cost) = (slot.count, 0.0, Cost::default());
            at
        });
        let slot = &mut set[at];
        slot.count += weight;
        slot.hits += if hit { weight } else { 0.0 };
    }

    /// Ends a second.
    fn fade(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.second_began);
        if passed < SECOND {
            return;
        }
        let seconds = passed.as_secs_f64();
        let left = FADES_TO.powf(seconds);
        for slot in &mut self.slots {
            slot.count *= left;
            slot.taken_over *= left;
            slot.hits *= left;
            slot.cost.fade(left);
        }
        self.total *= left;
        self.cost.fade(left);
        // As if each second had been added when it ended: the last one may be long, without a request.
        self.seconds = self.seconds * left + (1.0 - left) * FADES_TO / (1.0 - FADES_TO);
        // At most WIDEST, so it fits.
        self.gap = (self.weight / seconds / f64::from(COUNTED)).ceil().clamp(1.0, f64::from(WIDEST)) as u32;
        (self.counted, self.weight, self.second_began) = (0, 0.0, now);
    }

    /// What is known now.
    pub fn hottest(&mut self, now: Instant) -> Hottest {
        self.fade(now);
        let seconds = self.seconds + now.saturating_duration_since(self.second_began).as_secs_f64();
        let seconds = seconds.max(1e-3);
        let per_second = |count: f64| count / seconds;
        let keys = self.slots.iter().filter(|slot| slot.count > slot.taken_over).map(|slot| HotKey {
            id: slot.id,
            db: slot.db,
            key: slot.key[..slot.length.min(LONGEST)].to_vec(),
            is_whole: slot.length <= LONGEST,
            requests: per_second(slot.count - slot.taken_over),
            hits: per_second(slot.hits),
            cost: slot.cost.per_second(seconds),
        });
        Hottest { requests: per_second(self.total), cost: self.cost.per_second(seconds), keys: keys.collect() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{HotKeys, Hottest, LONGEST, Requested};
    use crate::near_cache::KeyId;

    /// A load on one worker: each request's key is chosen by its number.
    struct Load {
        keys: HotKeys,
        now: Instant,
        left_out: u32,
        counted: usize,
    }

    impl Load {
        fn new() -> Self {
            let now = Instant::now();
            Load { keys: HotKeys::new(now, 7), now, left_out: 0, counted: 0 }
        }

        fn run(&mut self, seconds: u32, per_second: u32, mut choose: impl FnMut() -> usize) {
            for _ in 0..seconds * per_second {
                self.now += Duration::from_secs(1) / per_second;
                let key = choose();
                if self.left_out > 0 {
                    self.left_out -= 1;
                    continue;
                }
                self.counted += 1;
                let key = format!("key:{key}");
                let requested = Requested { id: KeyId::new(0, key.as_bytes()), db: 0, key: key.as_bytes(), hit: true };
                self.left_out = self.keys.count(self.now, std::iter::once(requested), 0);
            }
        }

        fn shares(&mut self) -> impl Fn(usize) -> f64 + use<> {
            let Hottest { requests, keys, .. } = self.keys.hottest(self.now);
            move |number| {
                let name = format!("key:{number}").into_bytes();
                keys.iter().find(|hot| hot.key == name).map_or(0.0, |hot| hot.requests / requests)
            }
        }
    }

    /// Numbers from 0 with the weights 1, 1/2, 1/3, …, always the same.
    fn zipf(count: usize) -> (Vec<f64>, impl FnMut() -> usize) {
        let sum: f64 = (1..=count).map(|rank| 1.0 / rank as f64).sum();
        let shares: Vec<f64> = (1..=count).map(|rank| 1.0 / rank as f64 / sum).collect();
        let up_to: Vec<f64> = shares
            .iter()
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        let choose = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = (state >> 11) as f64 / (1_u64 << 53) as f64;
            up_to.partition_point(|sum| *sum < at).min(count - 1)
        };
        (shares, choose)
    }

    #[test]
    fn each_key_above_one_percent_is_found_with_its_share() {
        for per_second in [500, 20_000, 100_000] {
            let mut load = Load::new();
            let (shares, choose) = zipf(10_000);
            load.run(10, per_second, choose);
            let found = load.shares();
            for (number, share) in shares.iter().enumerate().filter(|(_, share)| **share >= 0.01) {
                // A fifth, and three times the deviation of a sample where all requests together are few.
                let few = 3.0 * (share / f64::from(per_second * 4)).sqrt();
                let off = (found(number) - share).abs();
                assert!(off <= (share / 5.0).max(few), "{per_second}/s, key {number}: {} not {share}", found(number));
            }
            assert!(load.counted < 10 * 4096 * 2, "a bounded number is counted: {}", load.counted);
        }
    }

    #[test]
    fn a_key_that_becomes_hot_is_found_within_ten_seconds_and_one_that_was_hot_fades() {
        let mut load = Load::new();
        let (_, mut choose) = zipf(10_000);
        load.run(30, 20_000, &mut choose);
        let mut number = 0;
        load.run(10, 20_000, || {
            number += 1;
            // One in fifty is the new key.
            if number % 50 == 0 { 77_777 } else { 100 + choose() }
        });
        let found = load.shares();
        assert!((found(77_777) - 0.02).abs() <= 0.004, "{}", found(77_777));
        assert!(found(0) < 0.02, "{}", found(0));
    }

    /// With every 16th request in turn, the same one of 16 keys was counted each time.
    #[test]
    fn requests_that_repeat_in_turn_are_all_found() {
        let mut load = Load::new();
        let mut number = 0;
        load.run(10, 65_536, || {
            number += 1;
            number % 16
        });
        let found = load.shares();
        for key in 0..16 {
            assert!((found(key) - 1.0 / 16.0).abs() < 1.0 / 16.0 / 5.0, "{key}: {}", found(key));
        }
    }

    #[test]
    fn a_rate_is_per_second_and_ends_with_the_requests() {
        let mut load = Load::new();
        load.run(10, 1000, || 1);
        let hot = load.keys.hottest(load.now);
        assert!((hot.keys[0].requests - 1000.0).abs() < 50.0 && (hot.keys[0].hits - 1000.0).abs() < 50.0, "{hot:?}");
        let hot = load.keys.hottest(load.now + Duration::from_secs(60));
        assert!(hot.requests < 1.0, "{}", hot.requests);
    }

    #[test]
    fn a_long_key_is_known_by_its_beginning() {
        let now = Instant::now();
        let mut keys = HotKeys::new(now, 1);
        let key = vec![b'x'; LONGEST + 1];
        keys.count(now, std::iter::once(Requested { id: KeyId::new(3, &key), db: 3, key: &key, hit: false }), 0);
        let hot = keys.hottest(now + Duration::from_secs(1));
        assert_eq!(
            (hot.keys.len(), hot.keys[0].key.len(), hot.keys[0].is_whole, hot.keys[0].db),
            (1, LONGEST, false, 3)
        );
    }

    #[test]
    fn bytes_and_time_belong_to_the_keys_of_the_request() {
        let mut now = Instant::now();
        let mut keys = HotKeys::new(now, 1);
        let names: Vec<String> = (0..12).map(|number| format!("key:{number}")).collect();
        fn requested(name: &str) -> Requested<'_> {
            Requested { id: KeyId::new(0, name.as_bytes()), db: 0, key: name.as_bytes(), hit: false }
        }
        for _ in 0..1000 {
            now += Duration::from_millis(5);
            // Three parts of the bytes and one of the time are of the first key.
            for (named, bytes, millis) in [(&names[..1], 300, 1), (&names[1..], 100, 3)] {
                let sample = keys.next_sample();
                keys.count(now, named.iter().map(|name| requested(name)), bytes / 2);
                keys.answered(sample, bytes / 2, Duration::from_millis(millis));
            }
        }
        // Too late to be known.
        keys.answered(keys.next_sample().wrapping_sub(600), 1_000_000, Duration::from_secs(9));
        let hot = keys.hottest(now);
        let near = |is: f64, expected: f64| assert!((is - expected).abs() <= expected / 5.0, "{is}, not {expected}");
        near(hot.cost.bytes, 200.0 * 400.0);
        near(hot.cost.upstream, 200.0 * 0.004);
        for key in &hot.keys {
            let (bytes, time) = if key.key == b"key:0" { (0.75, 0.25) } else { (0.25 / 11.0, 0.75 / 11.0) };
            near(key.cost.bytes / hot.cost.bytes, bytes);
            near(key.cost.upstream / hot.cost.upstream, time);
        }
        assert_eq!(hot.keys.len(), 12);
    }
}
