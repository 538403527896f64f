//! The samples in memory: two rings, each bounded by the time that it spans.

use std::collections::VecDeque;

use super::sample::Sample;

/// How often there is a sample, and for how long it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resolution {
    /// Every ten seconds, for a day.
    TenSeconds,
    /// Every minute, for a week.
    Minute,
}

impl Resolution {
    /// Both, in the order in which the file has them.
    pub const ALL: [Resolution; 2] = [Resolution::TenSeconds, Resolution::Minute];

    /// Seconds from one sample to the next.
    pub fn seconds(self) -> u64 {
        match self {
            Resolution::TenSeconds => 10,
            Resolution::Minute => 60,
        }
    }

    /// Seconds for which a sample is kept.
    pub fn kept(self) -> u64 {
        match self {
            Resolution::TenSeconds => 24 * 3600,
            Resolution::Minute => 7 * 24 * 3600,
        }
    }

    /// Number of samples that are kept.
    pub fn slots(self) -> u64 {
        self.kept() / self.seconds()
    }
}

/// The samples, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Rings {
    tens: VecDeque<Sample>,
    minutes: VecDeque<Sample>,
    /// The sample of the last second.
    pub(super) latest: Option<Sample>,
}

impl Rings {
    fn ring(&mut self, resolution: Resolution) -> &mut VecDeque<Sample> {
        match resolution {
            Resolution::TenSeconds => &mut self.tens,
            Resolution::Minute => &mut self.minutes,
        }
    }

    /// Adds a sample. Those that are too old go, and so do those that a clock which was set back has made later than this one.
    pub(super) fn push(&mut self, resolution: Resolution, sample: Sample) {
        let ring = self.ring(resolution);
        while ring.back().is_some_and(|last| last.at >= sample.at) {
            ring.pop_back();
        }
        ring.push_back(sample);
        while ring.front().is_some_and(|first| first.at + resolution.kept() <= sample.at) {
            ring.pop_front();
        }
        // Samples are no closer than the resolution, except after the clock was changed.
        while ring.len() as u64 > resolution.slots() {
            ring.pop_front();
        }
    }

    /// Adds those samples of a file that are from the past and not too old, in any order.
    pub(super) fn load(&mut self, mut samples: Vec<(Resolution, Sample)>, now: u64) {
        samples.retain(|(resolution, sample)| sample.at <= now && sample.at + resolution.kept() > now);
        samples.sort_unstable_by_key(|(_, sample)| sample.at);
        samples.into_iter().for_each(|(resolution, sample)| self.push(resolution, sample));
    }

    /// See [`super::History::range`].
    pub(super) fn range(&self, from: u64, to: u64) -> (Resolution, Vec<Sample>) {
        let oldest = |ring: &VecDeque<Sample>| ring.front().map_or(u64::MAX, |sample| sample.at);
        let newest = self.tens.back().map_or(0, |sample| sample.at);
        let reaches = from + Resolution::TenSeconds.kept() >= newest || oldest(&self.tens) <= oldest(&self.minutes);
        let (resolution, ring) = match reaches {
            true => (Resolution::TenSeconds, &self.tens),
            false => (Resolution::Minute, &self.minutes),
        };
        let begins = ring.partition_point(|sample| sample.at <= from);
        let ends = ring.partition_point(|sample| sample.at <= to);
        (resolution, ring.range(begins..ends.max(begins)).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::{Resolution, Rings, Sample};

    const START: u64 = 1_700_000_000;

    fn at(at: u64) -> Sample {
        Sample { at, ..Sample::default() }
    }

    /// Two weeks of samples.
    fn full() -> (Rings, u64) {
        let mut rings = Rings::default();
        let end = START + 14 * 24 * 3600;
        for resolution in Resolution::ALL {
            let mut now = START;
            while now <= end {
                rings.push(resolution, at(now));
                now += resolution.seconds();
            }
        }
        (rings, end)
    }

    #[test]
    fn a_week_of_samples_takes_bounded_memory() {
        let (rings, end) = full();
        assert_eq!((rings.tens.len(), rings.minutes.len()), (8640, 10080));
        assert_eq!(rings.tens.front().map(|sample| sample.at), Some(end - 24 * 3600 + 10));
        let bytes = (rings.tens.capacity() + rings.minutes.capacity()) * size_of::<Sample>();
        assert!(bytes <= 8 << 20, "{bytes} bytes");
    }

    #[test]
    fn a_range_is_as_fine_as_its_age_allows() {
        let (rings, end) = full();
        let (resolution, day) = rings.range(end - 3600, end);
        assert_eq!((resolution, day.len()), (Resolution::TenSeconds, 360));
        assert_eq!((day[0].at, day[359].at), (end - 3590, end));
        let (resolution, week) = rings.range(0, end);
        assert_eq!((resolution, week.len()), (Resolution::Minute, 10080));
        let (_, none) = rings.range(end, end - 3600);
        assert!(none.is_empty(), "it ends before it begins");
        let mut young = Rings::default();
        young.push(Resolution::TenSeconds, at(START));
        assert_eq!(young.range(0, START).1.len(), 1, "the first minute is not over");
    }

    #[test]
    fn a_clock_that_is_set_back_takes_the_samples_of_the_future_along() {
        let mut rings = Rings::default();
        [START, START + 10, START + 20, START + 10]
            .into_iter()
            .for_each(|now| rings.push(Resolution::TenSeconds, at(now)));
        let times: Vec<u64> = rings.range(0, START + 99).1.iter().map(|sample| sample.at).collect();
        assert_eq!(times, [START, START + 10]);
    }

    #[test]
    fn what_is_loaded_is_put_in_order_and_may_be_too_old() {
        let mut rings = Rings::default();
        let times = [START, START + 30, START + 10, START + 900, START - 25 * 3600];
        rings.load(times.map(|time| (Resolution::TenSeconds, at(time))).to_vec(), START + 60);
        let times: Vec<u64> = rings.tens.iter().map(|sample| sample.at).collect();
        assert_eq!(times, [START, START + 10, START + 30]);
    }
}
