//! PROXY REPORT and `/api/report`: current, average, best and worst of what matters, over some hours. Also `/api/dashboard`.

use std::sync::Arc;

use crate::history::sample::Sample;
use crate::history::unix_time;

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// Hours when nobody says how many.
const HOURS: u64 = 24;

/// The most hours: a week.
const MAX_HOURS: u64 = 7 * 24;

/// Which end of a number is the better one.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

/// A number of the report.
struct Figure {
    name: &'static str,
    read: fn(&Sample) -> Option<f64>,
    /// How much a sample counts in the average: its events, or its time.
    weight: fn(&Sample) -> u64,
    better: Better,
}

const FIGURES: &[Figure] = &[
    figure("hit_rate", Sample::hit_rate, |sample| sample.hits + sample.misses, Better::Higher),
    figure("response_time_usec", |sample| sample.response_time().map(|time| time * 1e6), reads, Better::Lower),
    figure(
        "hit_p50_usec",
        |sample| usec(sample.hit_count, sample.hit_p50_ns),
        |sample| sample.hit_count,
        Better::Lower,
    ),
    figure(
        "hit_p99_usec",
        |sample| usec(sample.hit_count, sample.hit_p99_ns),
        |sample| sample.hit_count,
        Better::Lower,
    ),
    figure(
        "hit_p999_usec",
        |sample| usec(sample.hit_count, sample.hit_p999_ns),
        |sample| sample.hit_count,
        Better::Lower,
    ),
    figure(
        "miss_p50_usec",
        |sample| usec(sample.miss_count, sample.miss_p50_ns),
        |sample| sample.miss_count,
        Better::Lower,
    ),
    figure(
        "miss_p99_usec",
        |sample| usec(sample.miss_count, sample.miss_p99_ns),
        |sample| sample.miss_count,
        Better::Lower,
    ),
    figure(
        "miss_p999_usec",
        |sample| usec(sample.miss_count, sample.miss_p999_ns),
        |sample| sample.miss_count,
        Better::Lower,
    ),
    figure("error_rate", Sample::error_rate, |sample| sample.commands, Better::Lower),
    figure(
        "commands_per_second",
        |sample| Some(sample.per_second(sample.commands)),
        |sample| sample.span_ms,
        Better::Higher,
    ),
    figure("proxy_clients", |sample| Some(sample.clients as f64), |sample| sample.span_ms, Better::Higher),
    figure("l1_bytes", |sample| Some(sample.l1_bytes as f64), |sample| sample.span_ms, Better::Lower),
    figure("proxy_memory_bytes", |sample| Some(sample.memory_bytes as f64), |sample| sample.span_ms, Better::Lower),
    figure("memory_usage", Sample::memory_usage, |sample| sample.span_ms, Better::Lower),
    figure(
        "upstream_used_memory_bytes",
        |sample| sample.upstream_used().map(|bytes| bytes as f64),
        |sample| sample.span_ms,
        Better::Lower,
    ),
];

const fn figure(
    name: &'static str,
    read: fn(&Sample) -> Option<f64>,
    weight: fn(&Sample) -> u64,
    better: Better,
) -> Figure {
    Figure { name, read, weight, better }
}

fn reads(sample: &Sample) -> u64 {
    sample.hit_count + sample.miss_count
}

fn usec(count: u64, nanos: u64) -> Option<f64> {
    (count > 0).then_some(nanos as f64 / 1e3)
}

/// A figure over some samples.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Summary {
    /// At the beginning of the time.
    earliest: Option<f64>,
    average: Option<f64>,
    best: Option<f64>,
    worst: Option<f64>,
}

/// Sums a figure up. A sample with less than a tenth of the average number of events is neither best nor worst: one miss at night is no
/// hit rate of zero.
fn summary(figure: &Figure, samples: &[Sample]) -> Summary {
    let values = || {
        let all = samples.iter().filter_map(|sample| Some(((figure.read)(sample)?, (figure.weight)(sample))));
        all.filter(|(_, weight)| *weight > 0)
    };
    let count = values().count();
    let weights: f64 = values().map(|(_, weight)| weight as f64).sum();
    if count == 0 {
        return Summary::default();
    }
    let least = weights / count as f64 / 10.0;
    let heavy = || values().filter(|(_, weight)| *weight as f64 >= least).map(|(value, _)| value);
    let (highest, lowest) = (heavy().reduce(f64::max), heavy().reduce(f64::min));
    let (best, worst) = if figure.better == Better::Higher { (highest, lowest) } else { (lowest, highest) };
    let sum: f64 = values().map(|(value, weight)| value * weight as f64).sum();
    Summary { earliest: values().next().map(|(value, _)| value), average: Some(sum / weights), best, worst }
}

/// PROXY REPORT.
pub(super) fn report(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let hours = match asked.words.first() {
        None => Some(HOURS),
        Some(word) => std::str::from_utf8(word).ok().and_then(|text| text.parse().ok()),
    };
    match hours.filter(|hours| (1..=MAX_HOURS).contains(hours)) {
        Some(hours) => Answer::View(admin.report(hours, unix_time())),
        None => Answer::Error(format!("ERR hours must be a whole number from 1 to {MAX_HOURS}")),
    }
}

fn known(value: Option<f64>) -> View {
    View::maybe(value, View::Float)
}

impl Admin {
    /// The samples of the last hours, and the current one.
    fn samples_of(&self, hours: u64, now: u64) -> (Vec<Sample>, Option<Sample>) {
        let (_, samples) = self.samples.range(now.saturating_sub(hours * 3600), now);
        (samples, self.current_sample(now))
    }

    /// The sample of the last ten seconds, or of the last second until there is one.
    pub(super) fn current_sample(&self, now: u64) -> Option<Sample> {
        let (_, recent) = self.samples.range(now.saturating_sub(20), now);
        recent.last().copied().or_else(|| self.samples.latest())
    }

    fn report(&self, hours: u64, now: u64) -> View {
        let (samples, current) = self.samples_of(hours, now);
        let mut out = vec![
            ("hours", View::count(hours)),
            ("from", View::maybe(samples.first(), |sample| View::count(sample.at))),
            ("to", View::count(now)),
            ("samples", View::count(samples.len())),
            ("mode", View::maybe(current, |sample| View::text(sample.mode()))),
        ];
        for figure in FIGURES {
            let Summary { earliest, average, best, worst } = summary(figure, &samples);
            let fields = [
                ("current", known(current.as_ref().and_then(figure.read))),
                ("earliest", known(earliest)),
                ("average", known(average)),
                ("best", known(best)),
                ("worst", known(worst)),
            ];
            out.push((figure.name, View::Map(fields.into())));
        }
        let total = |count: fn(&Sample) -> u64| View::count(samples.iter().map(count).sum::<u64>());
        out.push(("round_trips_saved", total(|sample| sample.hits)));
        out.push(("compression_saved_bytes", total(|sample| sample.saved_bytes)));
        out.push(("alerts", self.recent_alerts_since(now.saturating_sub(hours * 3600))));
        View::Map(out)
    }

    /// What a dashboard shows. Times are in seconds, and rates and usages are parts of 1.
    pub fn dashboard_view(&self, now: u64) -> View {
        let (samples, current) = self.samples_of(HOURS, now);
        let current = |read: fn(&Sample) -> Option<f64>| known(current.as_ref().and_then(read));
        let average = |read, weight| known(summary(&figure("", read, weight, Better::Higher), &samples).average);
        let (_, hour) = self.samples.range(now.saturating_sub(3600), now);
        let history = hour.iter().map(|sample| {
            View::Map(vec![
                ("timestamp", View::count(sample.at)),
                ("hit_rate", known(sample.hit_rate())),
                ("response_time", known(sample.response_time())),
                ("memory_usage", known(sample.memory_usage())),
            ])
        });
        let sources = self.sources();
        let stats = &self.stats;
        View::Map(vec![
            (
                "current_metrics",
                View::Map(vec![
                    ("current_hit_rate", current(Sample::hit_rate)),
                    ("current_response_time", current(Sample::response_time)),
                    ("current_memory_usage", current(Sample::memory_usage)),
                ]),
            ),
            (
                "average_metrics",
                View::Map(vec![
                    ("avg_response_time", average(Sample::response_time, reads)),
                    ("avg_hit_rate", average(Sample::hit_rate, |sample| sample.hits + sample.misses)),
                    ("avg_memory_usage", average(Sample::memory_usage, |sample| sample.span_ms)),
                ]),
            ),
            (
                "system_metrics",
                View::Map(vec![
                    ("used_memory", View::maybe(sources.facts.upstream_used_memory, View::count)),
                    ("connected_clients", View::count(stats.sum(|worker| &worker.clients))),
                    ("total_commands_processed", View::count(stats.sum(|worker| &worker.commands))),
                ]),
            ),
            ("recent_alerts", self.recent_alerts()),
            ("performance_history", View::List(history.collect())),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::{FIGURES, Sample, Summary, summary};

    fn of(name: &str, samples: &[Sample]) -> Summary {
        summary(FIGURES.iter().find(|figure| figure.name == name).expect("a figure"), samples)
    }

    #[test]
    fn an_average_counts_events_and_quiet_times_are_no_extremes() {
        let samples = [(90, 10), (60, 40), (0, 1)].map(|(hits, misses)| Sample {
            hits,
            misses,
            span_ms: 10_000,
            ..Sample::default()
        });
        let Summary { earliest, average, best, worst } = of("hit_rate", &samples);
        assert!((average.expect("there were reads") - 150.0 / 201.0).abs() < 1e-9, "{average:?}");
        assert_eq!((earliest, best, worst), (Some(0.9), Some(0.9), Some(0.6)));
        assert_eq!(of("miss_p99_usec", &samples), Summary::default(), "nothing was measured");
        assert_eq!(of("hit_rate", &[]), Summary::default());
    }

    #[test]
    fn the_best_of_a_latency_is_the_lowest() {
        let samples = [1_000, 3_000].map(|hit_p50_ns| Sample { hit_count: 5, hit_p50_ns, ..Sample::default() });
        let all = Summary { earliest: Some(1.0), average: Some(2.0), best: Some(1.0), worst: Some(3.0) };
        assert_eq!(of("hit_p50_usec", &samples), all);
    }
}
