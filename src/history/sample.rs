//! A sample: what happened in an interval, and the state at its end. All fields are numbers of eight bytes, so that a record of the
//! history's file has a fixed size.

use std::time::Duration;

/// Stands for a number that is not known.
const UNKNOWN: u64 = u64::MAX;

/// Declares the fields of a sample, in the order in which the file has them. Another order is another version of the file.
macro_rules! sample {
    ($($(#[doc = $doc:literal])+ $name:ident),+ $(,)?) => {
        /// What happened in an interval, and the state at its end.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Sample {
            $($(#[doc = $doc])+ pub $name: u64,)+
        }

        impl Sample {
            /// Number of fields.
            pub(super) const FIELDS: usize = [$(stringify!($name)),+].len();

            /// The fields in order.
            pub(super) fn to_words(self) -> [u64; Sample::FIELDS] {
                [$(self.$name),+]
            }

            /// From the fields in order.
            pub(super) fn from_words(words: [u64; Sample::FIELDS]) -> Sample {
                let [$($name),+] = words;
                Sample { $($name),+ }
            }
        }
    };
}

sample! {
    /// The end of the interval, in seconds of Unix time.
    at,
    /// Length of the interval in milliseconds.
    span_ms,
    /// `l1_hits` of the interval: each is also a round trip to Redis saved.
    hits,
    /// `l1_misses` of the interval.
    misses,
    /// `proxy_commands` of the interval.
    commands,
    /// Errors of the interval that Redis or Shortstop caused: `proxy_errors_upstream` and `proxy_errors_us`.
    errors,
    /// `compression_saved_bytes` of the interval.
    saved_bytes,
    /// Replies from L1 whose latency was measured.
    hit_count,
    /// Their latencies together, in nanoseconds.
    hit_ns,
    /// Their median.
    hit_p50_ns,
    /// Their 99th percentile.
    hit_p99_ns,
    /// Their 99.9th percentile.
    hit_p999_ns,
    /// Reads sent to Redis whose latency was measured.
    miss_count,
    /// Their latencies together, in nanoseconds.
    miss_ns,
    /// Their median.
    miss_p50_ns,
    /// Their 99th percentile.
    miss_p99_ns,
    /// Their 99.9th percentile.
    miss_p999_ns,
    /// 99th percentile of both together.
    read_p99_ns,
    /// `proxy_clients`.
    clients,
    /// `l1_bytes`.
    l1_bytes,
    /// `l1_max_bytes`.
    l1_max_bytes,
    /// `proxy_memory_bytes`.
    memory_bytes,
    /// `proxy_memory_max_bytes`.
    memory_max_bytes,
    /// `buffers_bytes`.
    buffers_bytes,
    /// `buffers_max_bytes`.
    buffers_max_bytes,
    /// `upstream_used_memory_bytes`; see [`Sample::upstream_used`].
    upstream_used_bytes,
    /// `mode`, as its place in [`MODES`].
    mode,
    /// What is wrong now, as bits of [`Trouble`].
    troubles,
    /// The alerts that fire, as bits.
    alerts,
    /// Milliseconds since the writes of other Shortstops were last shown to be heard, while L1 serves; see [`Sample::unproven`].
    unproven_ms,
}

/// The modes of L1, in the order of their numbers in a sample.
pub const MODES: [&str; 4] = ["off", "single", "live", "degraded"];

/// Something that is wrong at the end of an interval. Its number is a bit of [`Sample::troubles`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Redis does not answer.
    UpstreamDown,
    /// Redis refuses Shortstop's login.
    PasswordRefused,
    /// A reply of Redis is overdue.
    UpstreamOverdue,
    /// L1 is off or degraded, and is not meant to be.
    NotLive,
    /// A Shortstop of the fleet is connected to Redis and not heard.
    PeersLost,
}

impl Sample {
    /// Records that something is wrong.
    pub fn add(&mut self, trouble: Trouble) {
        self.troubles |= 1 << trouble as u64;
    }

    /// Whether this is wrong.
    pub fn has(&self, trouble: Trouble) -> bool {
        self.troubles & (1 << trouble as u64) != 0
    }

    /// The name of the mode.
    pub fn mode(&self) -> &'static str {
        usize::try_from(self.mode).ok().and_then(|at| MODES.get(at)).copied().unwrap_or("unknown")
    }

    /// The memory that Redis uses, if it is known.
    pub fn upstream_used(&self) -> Option<u64> {
        Some(self.upstream_used_bytes).filter(|bytes| *bytes != UNKNOWN)
    }

    /// Sets the memory that Redis uses.
    pub fn set_upstream_used(&mut self, bytes: Option<u64>) {
        self.upstream_used_bytes = bytes.unwrap_or(UNKNOWN);
    }

    /// Seconds since the writes of other Shortstops were last shown to be heard. `None`: L1 serves nothing, or nothing need be heard.
    pub fn unproven(&self) -> Option<f64> {
        (self.unproven_ms != UNKNOWN).then_some(self.unproven_ms as f64 / 1e3)
    }

    /// Sets the time since the writes of other Shortstops were last shown to be heard.
    pub fn set_unproven(&mut self, time: Option<Duration>) {
        self.unproven_ms = time.map_or(UNKNOWN, |time| u64::try_from(time.as_millis()).unwrap_or(UNKNOWN - 1));
    }

    /// Hits among hits and misses. `None`: there were none.
    pub fn hit_rate(&self) -> Option<f64> {
        share(self.hits, self.hits + self.misses)
    }

    /// Errors among commands. `None`: there were no commands.
    pub fn error_rate(&self) -> Option<f64> {
        // A request counts when it comes, its error later: perhaps in the next interval.
        share(self.errors, self.commands.max(self.errors))
    }

    /// Used part of the available memory. `None`: not known.
    pub fn memory_usage(&self) -> Option<f64> {
        share(self.memory_bytes, self.memory_max_bytes)
    }

    /// Used part of the memory for buffers. `None`: not known.
    pub fn buffers_usage(&self) -> Option<f64> {
        share(self.buffers_bytes, self.buffers_max_bytes)
    }

    /// Average time of reads in seconds. `None`: there were none.
    pub fn response_time(&self) -> Option<f64> {
        let count = self.hit_count + self.miss_count;
        (count > 0).then(|| (self.hit_ns + self.miss_ns) as f64 / 1e9 / count as f64)
    }

    /// How many times a second something happened, from its count in the interval.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.span_ms == 0 { 0.0 } else { count as f64 * 1e3 / self.span_ms as f64 }
    }

    /// Adds the sample of a later interval. Counts are added, the state is the later one. A median becomes the weighted mean, and a high
    /// percentile the higher one, so that no peak is lost.
    pub fn add_later(&mut self, later: &Sample) {
        let mean = |(one, ones): (u64, u64), (other, others): (u64, u64)| {
            let all = u128::from(ones) + u128::from(others);
            let sum = u128::from(one) * u128::from(ones) + u128::from(other) * u128::from(others);
            u64::try_from(sum.checked_div(all).unwrap_or(0)).unwrap_or(u64::MAX)
        };
        let Sample { hit_count, miss_count, .. } = *self;
        *self = Sample {
            span_ms: self.span_ms + later.span_ms,
            hits: self.hits + later.hits,
            misses: self.misses + later.misses,
            commands: self.commands + later.commands,
            errors: self.errors + later.errors,
            saved_bytes: self.saved_bytes + later.saved_bytes,
            hit_count: hit_count + later.hit_count,
            hit_ns: self.hit_ns + later.hit_ns,
            hit_p50_ns: mean((self.hit_p50_ns, hit_count), (later.hit_p50_ns, later.hit_count)),
            hit_p99_ns: self.hit_p99_ns.max(later.hit_p99_ns),
            hit_p999_ns: self.hit_p999_ns.max(later.hit_p999_ns),
            miss_count: miss_count + later.miss_count,
            miss_ns: self.miss_ns + later.miss_ns,
            miss_p50_ns: mean((self.miss_p50_ns, miss_count), (later.miss_p50_ns, later.miss_count)),
            miss_p99_ns: self.miss_p99_ns.max(later.miss_p99_ns),
            miss_p999_ns: self.miss_p999_ns.max(later.miss_p999_ns),
            read_p99_ns: self.read_p99_ns.max(later.read_p99_ns),
            troubles: self.troubles | later.troubles,
            alerts: self.alerts | later.alerts,
            ..*later
        };
    }
}

/// A part of a whole. `None`: the whole is zero.
fn share(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::{Sample, Trouble};

    #[test]
    fn nothing_is_no_rate() {
        let mut sample = Sample::default();
        assert_eq!((sample.hit_rate(), sample.error_rate(), sample.response_time()), (None, None, None));
        assert_eq!(sample.per_second(7), 0.0);
        sample.set_upstream_used(None);
        assert_eq!(sample.upstream_used(), None);
        sample.add(Trouble::PeersLost);
        assert!(sample.has(Trouble::PeersLost) && !sample.has(Trouble::UpstreamDown));
    }

    #[test]
    fn two_intervals_become_one_and_no_peak_is_lost() {
        let one = Sample {
            at: 10,
            span_ms: 10_000,
            hits: 3,
            misses: 1,
            hit_count: 3,
            hit_p50_ns: 100,
            hit_p99_ns: 900,
            ..Sample::default()
        };
        let later = Sample {
            at: 20,
            span_ms: 10_000,
            hits: 1,
            hit_count: 1,
            hit_p50_ns: 500,
            hit_p99_ns: 700,
            clients: 4,
            ..Sample::default()
        };
        let mut both = one;
        both.add_later(&later);
        assert_eq!((both.at, both.span_ms, both.hits, both.misses, both.clients), (20, 20_000, 4, 1, 4));
        assert_eq!((both.hit_p50_ns, both.hit_p99_ns), (200, 900));
        assert_eq!(both.hit_rate(), Some(0.8));
    }
}
