//! The values of all metrics at one moment. INFO and every other display are written from it. INFO's counters may begin anew; those of
//! Prometheus must only grow, so what was counted before is remembered and subtracted.

use super::metric::{Kind, Metric, Section, Sources, Value};
use super::table;

/// Counters that are a state: they do not begin anew.
const STATES: [&str; 1] = ["generation"];

/// Ratios of counters, which are computed again once the counters have begun anew: part, and the sum that is the whole.
const RATIOS: [(&str, &str, &[&str]); 2] = [
    ("hit_rate", "l1_hits", &["l1_hits", "l1_misses"]),
    ("compression_ratio", "compressed_bytes_in", &["compressed_bytes_out"]),
];

/// The value of each metric of some sections, in INFO's order, since the start.
pub fn take(sources: &Sources<'_>, shows: impl Fn(Section) -> bool) -> Vec<(&'static Metric, Value)> {
    let shown = table::METRICS.iter().filter(|metric| shows(metric.section));
    shown.map(|metric| (metric, (metric.read)(sources))).collect()
}

/// Counters begin anew for [`since_reset`].
pub fn reset(sources: &Sources<'_>) {
    let counted = take(sources, |_| true).into_iter().map(|(_, value)| match value {
        Value::Count(number) => vec![number],
        Value::ByOutcome(numbers) => numbers.into_iter().map(|(_, number)| number).collect(),
        _ => Vec::new(),
    });
    sources.stats.reset(counted.collect());
}

/// Like [`take`], but counters show what was counted since the last reset.
pub fn since_reset(sources: &Sources<'_>, shows: impl Fn(Section) -> bool) -> Vec<(&'static Metric, Value)> {
    let before = sources.stats.counted_before();
    let Some(before) = before.as_deref() else { return take(sources, shows) };
    let all = table::METRICS.iter().zip(before).filter(|(metric, _)| shows(metric.section));
    let mut values: Vec<(&Metric, Value)> = all
        .map(|(metric, before)| {
            let value = (metric.read)(sources);
            let is_counted = metric.kind == Kind::Counter && !STATES.contains(&metric.name);
            (metric, if is_counted { since(value, before) } else { value })
        })
        .collect();
    for (name, part, whole) in RATIOS {
        let count = |name: &str| match values.iter().find(|(metric, _)| metric.name == name) {
            Some((_, Value::Count(count))) => *count,
            _ => 0,
        };
        let ratio = table::ratio(count(part), whole.iter().map(|name| count(name)).sum());
        values.iter_mut().filter(|(metric, _)| metric.name == name).for_each(|(_, value)| *value = ratio.clone());
    }
    values
}

fn since(value: Value, before: &[u64]) -> Value {
    match (value, before) {
        // Workers count on during the read.
        (Value::Count(now), [before]) => Value::Count(now.saturating_sub(*before)),
        (Value::ByOutcome(now), before) => {
            let each = now.into_iter().zip(before);
            Value::ByOutcome(each.map(|((name, now), before)| (name, now.saturating_sub(*before))).collect())
        }
        (value, _) => value,
    }
}

#[cfg(test)]
mod tests {
    use super::super::metric::Unit;
    use super::{Kind, RATIOS, STATES, table};

    #[test]
    fn each_ratio_is_computed_again_from_counters_of_its_section() {
        let find = |name: &str| table::METRICS.iter().find(|metric| metric.name == name).expect("it is a metric");
        for metric in table::METRICS.iter().filter(|metric| metric.unit == Unit::Ratio) {
            assert!(RATIOS.iter().any(|(name, ..)| *name == metric.name), "{} is no ratio of counters", metric.name);
        }
        for (name, part, whole) in RATIOS {
            for counter in [&part].into_iter().chain(whole) {
                assert_eq!(
                    (find(counter).kind, find(counter).section),
                    (Kind::Counter, find(name).section),
                    "{counter}"
                );
            }
        }
        assert!(STATES.iter().all(|name| find(name).kind == Kind::Counter));
    }
}
