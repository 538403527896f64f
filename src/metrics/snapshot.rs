//! The values of all metrics at one moment. INFO and every other display are written from it.

use super::metric::{Metric, Section, Sources, Value};
use super::table;

/// The value of each metric of some sections, in INFO's order.
pub fn take(sources: &Sources<'_>, shows: impl Fn(Section) -> bool) -> Vec<(&'static Metric, Value)> {
    let shown = table::METRICS.iter().filter(|metric| shows(metric.section));
    shown.map(|metric| (metric, (metric.read)(sources))).collect()
}
