//! The history as columns of numbers, for a page that draws it: `/api/history`.

use crate::history::Resolution;
use crate::history::sample::Sample;

use super::Admin;
use super::view::View;

/// What a reader asks for, in seconds of Unix time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Range {
    /// The beginning. `None`: an hour before the end.
    pub from: Option<u64>,
    /// The end. `None`: now.
    pub to: Option<u64>,
    /// About how many points. `None`: 360.
    pub points: Option<u64>,
}

/// Points when nobody says how many.
const POINTS: u64 = 360;

/// The most points that are given.
const MAX_POINTS: u64 = 1440;

/// A column: its name, and how it is read from a sample.
type Column = (&'static str, fn(&Sample) -> View);

/// The columns. Names and units are those of INFO where INFO has the number.
const COLUMNS: &[Column] = &[
    ("hit_rate", |sample| View::maybe(sample.hit_rate(), View::Float)),
    ("hits_per_second", |sample| View::Float(sample.per_second(sample.hits))),
    ("misses_per_second", |sample| View::Float(sample.per_second(sample.misses))),
    ("commands_per_second", |sample| View::Float(sample.per_second(sample.commands))),
    ("errors_per_second", |sample| View::Float(sample.per_second(sample.errors))),
    ("error_rate", |sample| View::maybe(sample.error_rate(), View::Float)),
    ("hit_p50_usec", |sample| usec(sample.hit_count, sample.hit_p50_ns)),
    ("hit_p99_usec", |sample| usec(sample.hit_count, sample.hit_p99_ns)),
    ("hit_p999_usec", |sample| usec(sample.hit_count, sample.hit_p999_ns)),
    ("miss_p50_usec", |sample| usec(sample.miss_count, sample.miss_p50_ns)),
    ("miss_p99_usec", |sample| usec(sample.miss_count, sample.miss_p99_ns)),
    ("miss_p999_usec", |sample| usec(sample.miss_count, sample.miss_p999_ns)),
    ("round_trips_saved", |sample| View::count(sample.hits)),
    ("compression_saved_bytes", |sample| View::count(sample.saved_bytes)),
    ("proxy_clients", |sample| View::count(sample.clients)),
    ("l1_bytes", |sample| View::count(sample.l1_bytes)),
    ("l1_max_bytes", |sample| View::count(sample.l1_max_bytes)),
    ("proxy_memory_bytes", |sample| View::count(sample.memory_bytes)),
    ("proxy_memory_max_bytes", |sample| View::count(sample.memory_max_bytes)),
    ("buffers_bytes", |sample| View::count(sample.buffers_bytes)),
    ("buffers_max_bytes", |sample| View::count(sample.buffers_max_bytes)),
    ("upstream_used_memory_bytes", |sample| View::maybe(sample.upstream_used(), View::count)),
    ("mode", |sample| View::text(sample.mode())),
    ("alerts_firing", |sample| View::count(sample.alerts.count_ones())),
];

/// A latency in microseconds. `Nil`: there was none.
fn usec(count: u64, nanos: u64) -> View {
    if count == 0 { View::Nil } else { View::Float(nanos as f64 / 1e3) }
}

impl Admin {
    /// The samples of a time as columns, with about so many points: `times` has the end of each.
    pub fn history_view(&self, range: Range, now: u64) -> View {
        let to = range.to.unwrap_or(now);
        let from = range.from.unwrap_or(to.saturating_sub(3600));
        let (resolution, samples) = self.samples.range(from, to);
        let points = range.points.unwrap_or(POINTS).clamp(1, MAX_POINTS);
        let (step, samples) = thinned(resolution, samples, to.saturating_sub(from), points);
        let columns = COLUMNS.iter().map(|(name, read)| (*name, View::List(samples.iter().map(read).collect())));
        View::Map(vec![
            ("from", View::count(from)),
            ("to", View::count(to)),
            ("step_seconds", View::count(step)),
            ("times", View::List(samples.iter().map(|sample| View::count(sample.at)).collect())),
            ("series", View::Map(columns.collect())),
        ])
    }
}

/// Joins neighbours until there are few enough, and tells the seconds that each then stands for.
fn thinned(resolution: Resolution, samples: Vec<Sample>, span: u64, points: u64) -> (u64, Vec<Sample>) {
    let each = resolution.seconds();
    let step = span.div_ceil(points).max(each).next_multiple_of(each);
    let mut out: Vec<Sample> = Vec::new();
    for sample in samples {
        // A sample stands at the end of its interval.
        let place = |at: u64| at.saturating_sub(1) / step;
        match out.last_mut() {
            Some(last) if place(last.at) == place(sample.at) => last.add_later(&sample),
            _ => out.push(sample),
        }
    }
    (step, out)
}

#[cfg(test)]
mod tests {
    use super::{Resolution, Sample, thinned};

    #[test]
    fn neighbours_are_joined_until_there_are_few_points() {
        let samples: Vec<Sample> = (1..=360)
            .map(|number| Sample { at: 36_000 + number * 10, span_ms: 10_000, hits: 1, ..Sample::default() })
            .collect();
        for (points, step, count) in [(1000, 10, 360), (360, 10, 360), (100, 40, 90), (7, 520, 8)] {
            let (found, thin) = thinned(Resolution::TenSeconds, samples.clone(), 3600, points);
            assert_eq!((found, thin.len()), (step, count), "{points}");
            assert_eq!(thin.iter().map(|sample| sample.hits).sum::<u64>(), 360);
        }
    }
}
