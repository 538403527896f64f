//! The metrics for Prometheus: the snapshot that INFO is written from, read when somebody asks, in base units.
//!
//! A metric is called `shortstop_`, its name in INFO without the unit there, and its base unit: `_seconds`, `_bytes` or `_ratio`; and
//! `_total` if it only grows. A few texts are labels; what is not known is left out. No key, user or address is a label.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, prometheus_text, text as openmetrics,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit as BaseUnit};

use crate::metrics::counter::Totals;
use crate::metrics::metric::{Kind, Metric, Section, Sources, Unit, Value};
use crate::metrics::outcome::{Family, Outcome, Skipped};
use crate::metrics::rules::{OWN, RuleSums, RuleTotals};
use crate::metrics::slots::Latencies;
use crate::metrics::snapshot;

/// The text formats that there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Prometheus's own, version 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Form {
    /// The one that a reader wants, by its `Accept` header.
    pub(super) fn accepted(accept: &str) -> Form {
        if accept.contains("application/openmetrics-text") { Form::OpenMetrics } else { Form::Prometheus }
    }

    pub(super) fn content_type(self) -> &'static str {
        match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The metrics of this moment in one of the formats.
///
/// # Errors
/// Writing failed, which writing to memory does not.
pub(super) fn text(sources: &Sources<'_>, form: Form) -> Result<String, fmt::Error> {
    let Latencies { hit, miss } = sources.stats.latencies();
    let mut durations = vec![("hit", hit), ("miss", miss)];
    durations.extend(Family::ALL.iter().map(|family| (family.name(), sources.stats.family(*family))));
    durations.push(("invalidation", Totals::of([&sources.bus.round_trips].into_iter())));
    let rules = by_label(sources.stats.rules());
    let scrape = Scrape { metrics: snapshot::take(sources, |_| true), durations, rules };
    let mut registry = Registry::with_prefix("shortstop");
    registry.register_collector(Box::new(scrape));
    let mut out = String::new();
    match form {
        Form::Prometheus => prometheus_text::encode(&mut out, &registry)?,
        Form::OpenMetrics => openmetrics::encode(&mut out, &registry)?,
    }
    Ok(out)
}

/// What one reader is told.
#[derive(Debug)]
struct Scrape {
    metrics: Vec<(&'static Metric, Value)>,
    durations: Vec<(&'static str, Totals)>,
    rules: Vec<(String, RuleSums)>,
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        self.texts(&mut encoder)?;
        for (metric, value) in &self.metrics {
            let is_split = self.metrics.iter().any(|(other, value)| {
                other.name == metric.name && matches!(value, Value::ByOutcome(_)) && !std::ptr::eq(*other, *metric)
            });
            // The sum of what stands beside it by reason is for the reader to make.
            if metric.kind != Kind::Text && !is_split && !is_summary(metric) {
                one(&mut encoder, metric, value)?;
            }
        }
        self.rules(&mut encoder)?;
        self.durations.iter().try_for_each(|(name, totals)| duration(&mut encoder, name, totals))
    }
}

impl Scrape {
    fn texts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let text = |name: &str| {
            let found = self.metrics.iter().find(|(metric, _)| metric.name == name);
            found.map_or("", |(_, value)| if let Value::Text(text) = value { text } else { "" })
        };
        let labels = [("version", text("shortstop_version")), ("fleet", text("fleet"))];
        ConstGauge::new(1_i64).encode(
            encoder
                .encode_descriptor(
                    "build_info",
                    "The version and the fleet, as labels of a 1.",
                    None,
                    MetricType::Gauge,
                )?
                .encode_family(&labels)?,
        )?;
        let labels = [("mode", text("mode")), ("reason", text("mode_reason"))];
        let help = "How far L1 may be trusted, and why, as labels of a 1.";
        ConstGauge::new(1_i64)
            .encode(encoder.encode_descriptor("mode", help, None, MetricType::Gauge)?.encode_family(&labels)?)
    }

    /// What was counted for each rule. Its pattern is the label, which is a part of the configuration and no key of a client.
    fn rules(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        type Row = (&'static str, &'static str, Option<BaseUnit>, fn(&RuleSums) -> u64);
        let rows: [Row; 5] = [
            ("rule_hits", "Keys of reads answered from L1, by rule.", None, |sums| sums.hits),
            ("rule_misses", "Keys of reads sent to Redis that L1 could have answered, by rule.", None, |sums| {
                sums.misses
            }),
            ("rule_compressed_values", "Values compressed on their way to Redis, by rule.", None, |sums| {
                sums.compressed
            }),
            ("rule_compressed_in", "Bytes of these values, by rule.", Some(BaseUnit::Bytes), |sums| sums.bytes_in),
            ("rule_compression_saved", "Bytes that Redis need not store, by rule.", Some(BaseUnit::Bytes), |sums| {
                sums.saved_bytes
            }),
        ];
        for (name, help, unit, read) in rows {
            let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (label, sums) in &self.rules {
                count(encoder.encode_family(&[("rule", label.as_str())])?, MetricType::Counter, read(sums))?;
            }
        }
        let (seconds, counter) = (Some(BaseUnit::Seconds), MetricType::Counter);
        let help = "Time that compressing took, by rule.";
        let mut times = encoder.encode_descriptor("rule_compression", help, seconds.as_ref(), counter)?;
        for (label, sums) in &self.rules {
            let time = ConstCounter::new(sums.compress_nanos as f64 / 1e9);
            time.encode(times.encode_family(&[("rule", label.as_str())])?)?;
        }
        let help = "Values that a rule compresses and that were stored as they came, by rule and reason.";
        let mut skips = encoder.encode_descriptor("rule_compression_skipped", help, None, MetricType::Counter)?;
        for (label, sums) in &self.rules {
            for (why, number) in Skipped::ALL.iter().zip(sums.skipped) {
                let labels = [("rule", label.as_str()), ("reason", why.name())];
                count(skips.encode_family(&labels)?, MetricType::Counter, number)?;
            }
        }
        Ok(())
    }
}

/// What was counted for the rules, by the label of each. Those of one label are together: a series must not stand twice.
fn by_label(totals: RuleTotals) -> Vec<(String, RuleSums)> {
    let mut all: Vec<(String, RuleSums)> = Vec::new();
    let others = (totals.own.len() == OWN).then(|| ("others".to_owned(), totals.others));
    let own = totals.own.into_iter().map(|(pattern, sums)| (String::from(pattern), sums));
    for (label, sums) in own.chain(others).chain([("defaults".to_owned(), totals.defaults)]) {
        match all.iter_mut().find(|(known, _)| *known == label) {
            Some((_, known)) => *known = known.and(sums),
            None => all.push((label, sums)),
        }
    }
    all
}

/// Whether a metric sums up what the histograms tell better.
fn is_summary(metric: &Metric) -> bool {
    metric.section == Section::Latency
}

/// One metric, in its base unit.
fn one(encoder: &mut DescriptorEncoder<'_>, metric: &Metric, value: &Value) -> fmt::Result {
    let (name, unit) = name_of(metric);
    let kind = if metric.kind == Kind::Counter { MetricType::Counter } else { MetricType::Gauge };
    let mut encoder = encoder.encode_descriptor(&name, metric.help, unit.as_ref(), kind)?;
    let milliseconds = metric.unit == Unit::Milliseconds;
    match value {
        Value::Count(number) if metric.unit == Unit::Microseconds => {
            ConstCounter::new(*number as f64 / 1e6).encode(encoder)
        }
        Value::Count(number) => count(encoder, kind, *number),
        Value::Known(Some(number)) if milliseconds => ConstGauge::new(*number as f64 / 1e3).encode(encoder),
        Value::Known(Some(number)) => count(encoder, kind, *number),
        Value::Ratio(ratio) => ConstGauge::new(*ratio).encode(encoder),
        Value::Time(time) => ConstGauge::new(time.as_secs_f64()).encode(encoder),
        Value::ByOutcome(numbers) => {
            let label = if metric.name == "proxy_errors" { "side" } else { "reason" };
            numbers
                .iter()
                .try_for_each(|(outcome, number)| count(encoder.encode_family(&[(label, *outcome)])?, kind, *number))
        }
        Value::Known(None) | Value::Text(_) => Ok(()),
    }
}

fn count(encoder: MetricEncoder<'_>, kind: MetricType, number: u64) -> fmt::Result {
    match kind {
        MetricType::Counter => ConstCounter::new(number).encode(encoder),
        _ => ConstGauge::new(number).encode(encoder),
    }
}

/// What a metric is called here, without the prefix and the unit, which the encoder adds.
fn name_of(metric: &Metric) -> (String, Option<BaseUnit>) {
    let (inside, unit) = match metric.unit {
        Unit::None => ("", None),
        Unit::Bytes => ("_bytes", Some(BaseUnit::Bytes)),
        Unit::Seconds => ("_in_seconds", Some(BaseUnit::Seconds)),
        Unit::Milliseconds => ("_ms", Some(BaseUnit::Seconds)),
        Unit::Microseconds => ("_usec", Some(BaseUnit::Seconds)),
        Unit::Ratio => ("_ratio", Some(BaseUnit::Other("ratio".to_owned()))),
    };
    let name = if inside.is_empty() { metric.name.to_owned() } else { metric.name.replacen(inside, "", 1) };
    (name, unit)
}

/// Upper bounds of the buckets of durations, in microseconds: from a hit to a reply that is given up.
const BOUNDS: [u64; 18] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000, 10_000_000];

fn duration(encoder: &mut DescriptorEncoder<'_>, name: &str, totals: &Totals) -> fmt::Result {
    let help = match name {
        "hit" => "From the read of the request to the write of the reply, for reads answered from L1.",
        "miss" => "From the send to the reply, for reads that went to Redis.",
        "read" => "From the read of the request to Redis's reply, for commands that only read.",
        "write" => "From the read of the request to Redis's reply, for writes.",
        "script" => "From the read of the request to Redis's reply, for scripts and functions.",
        "invalidation" => {
            "From handing a heartbeat to NATS until it has come back and all that came before it is applied; an invalidation goes the same way."
        }
        _ => "From the read of the request to Redis's reply, for other commands that cannot block.",
    };
    let name = format!("{name}_duration");
    let mut encoder = encoder.encode_descriptor(&name, help, Some(&BaseUnit::Seconds), MetricType::Histogram)?;
    let bounds = BOUNDS.map(Duration::from_micros);
    let mut buckets: Vec<(f64, u64)> =
        bounds.iter().map(|bound| bound.as_secs_f64()).zip(totals.split(&bounds)).collect();
    let count = totals.count();
    buckets.push((f64::MAX, count - buckets.iter().map(|(_, count)| count).sum::<u64>()));
    encoder.encode_histogram::<NoLabelSet>(totals.sum().as_secs_f64(), count, &buckets, None)
}
