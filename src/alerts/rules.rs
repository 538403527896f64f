//! The alerts that there are: what each is about, and how samples are judged.

use crate::config::Config;
use crate::history::sample::{Sample, Trouble};

/// An alert.
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it means while it fires, in one sentence.
    pub text: &'static str,
    /// Seconds of samples that are judged.
    pub window: usize,
    /// How they are judged.
    pub judge: Judge,
}

/// How samples are judged.
pub enum Judge {
    /// A number must not be below (`min`) or above a threshold.
    Number {
        /// The number, and the events from which it was made. `None`: there were none.
        value: fn(&[Sample]) -> Option<(f64, u64)>,
        /// The threshold.
        limit: fn(&Config) -> f64,
        /// The threshold is the lowest good number.
        is_min: bool,
        /// So many events are needed for the alert to fire. Half of them are enough for it to go on.
        traffic: u64,
    },
    /// This must not last for [`LASTS`].
    Trouble(Trouble),
}

/// Seconds for which a trouble must last before its alert fires.
pub const LASTS: usize = 5;

/// Requests in the window without which a rate means nothing.
const TRAFFIC: u64 = 100;

/// How many there are. Not `RULES.len()`: in a type, that makes the compiler go round in a circle when it optimizes.
pub const COUNT: usize = 11;

/// All of them. The place of one is its bit in a sample.
pub const RULES: &[Rule; COUNT] = &[
    Rule {
        name: "hit_rate",
        text: "fewer reads are answered from L1 than alerts.hit_rate_min",
        window: 300,
        judge: Judge::Number {
            value: |samples| {
                let all = together(samples);
                Some((all.hit_rate()?, all.hits + all.misses))
            },
            limit: |config| config.alerts.hit_rate_min.get(),
            is_min: true,
            traffic: TRAFFIC,
        },
    },
    Rule {
        name: "response_time",
        text: "one of a hundred reads takes longer than alerts.response_time_max",
        window: 60,
        judge: Judge::Number {
            value: read_p99,
            limit: |config| config.alerts.response_time_max.as_secs_f64(),
            is_min: false,
            traffic: TRAFFIC,
        },
    },
    Rule {
        name: "memory_usage",
        text: "this process takes more of the available memory than alerts.memory_usage_max",
        window: 10,
        judge: Judge::Number {
            value: |samples| mean(samples, Sample::memory_usage),
            limit: |config| config.alerts.memory_usage_max.get(),
            is_min: false,
            traffic: 1,
        },
    },
    Rule {
        name: "error_rate",
        text: "more requests fail because of Redis or Shortstop than alerts.error_rate_max",
        window: 60,
        judge: Judge::Number {
            value: |samples| {
                let all = together(samples);
                Some((all.error_rate()?, all.commands.max(all.errors)))
            },
            limit: |config| config.alerts.error_rate_max.get(),
            is_min: false,
            traffic: TRAFFIC,
        },
    },
    Rule {
        name: "buffers_usage",
        text: "the buffers of clients take more of limits.buffers_total than alerts.buffers_usage_max",
        window: 10,
        judge: Judge::Number {
            value: |samples| mean(samples, Sample::buffers_usage),
            limit: |config| config.alerts.buffers_usage_max.get(),
            is_min: false,
            traffic: 1,
        },
    },
    trouble("coherence_not_live", "L1 is off or degraded: mode_reason says why", Trouble::NotLive),
    trouble("peers_lost", "a Shortstop of the fleet is not heard on NATS and may still write", Trouble::PeersLost),
    trouble("upstream_down", "Redis does not answer: upstream_last_error says why", Trouble::UpstreamDown),
    trouble("upstream_overdue", "Redis leaves requests without a reply", Trouble::UpstreamOverdue),
    trouble("password_refused", "Redis refuses Shortstop's login", Trouble::PasswordRefused),
    Rule {
        name: "stale_beyond_bound",
        text: "L1 serves, and for longer than max_staleness nothing has shown that writes of other Shortstops are heard in time",
        window: 5,
        judge: Judge::Number {
            value: |samples| mean(samples, Sample::unproven),
            limit: |config| config.max_staleness.as_secs_f64(),
            is_min: false,
            traffic: 1,
        },
    },
];

const fn trouble(name: &'static str, text: &'static str, trouble: Trouble) -> Rule {
    Rule { name, text, window: 10, judge: Judge::Trouble(trouble) }
}

fn together(samples: &[Sample]) -> Sample {
    let mut all = Sample::default();
    samples.iter().for_each(|sample| all.add_later(sample));
    all
}

/// The mean of the 99th percentiles of reads, by the number of reads, in seconds.
fn read_p99(samples: &[Sample]) -> Option<(f64, u64)> {
    let reads = |sample: &Sample| sample.hit_count + sample.miss_count;
    let all: u64 = samples.iter().map(reads).sum();
    let sum: f64 = samples.iter().map(|sample| sample.read_p99_ns as f64 / 1e9 * reads(sample) as f64).sum();
    (all > 0).then(|| (sum / all as f64, all))
}

/// The mean of a state, and the number of samples.
fn mean(samples: &[Sample], read: fn(&Sample) -> Option<f64>) -> Option<(f64, u64)> {
    let values: Vec<f64> = samples.iter().filter_map(read).collect();
    let count = values.len();
    (count > 0).then(|| (values.iter().sum::<f64>() / count as f64, count as u64))
}
