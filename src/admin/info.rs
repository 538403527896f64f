//! PROXY INFO, and the sections that INFO gets: the snapshot of the metrics in INFO's own form, and as JSON.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::metrics::metric::{Kind, Metric, Section, Unit, Value};
use crate::metrics::snapshot;
use crate::resp::build;

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// PROXY INFO.
pub(super) fn info(admin: &Arc<Admin>, asked: Asked<'_>) -> Answer {
    let mut out = Vec::new();
    // The first section needs no empty line before it.
    build::bulk(&mut out, text(admin, asked.words).trim_start().as_bytes());
    Answer::Frame(out)
}

/// Whether a section is among those that were asked for. None asked for: all.
fn is_asked(section: Section, asked: &[&[u8]]) -> bool {
    let all = [&b"all"[..], b"default", b"everything"];
    let is = |word: &[u8]| {
        word.eq_ignore_ascii_case(section.title().as_bytes()) || all.iter().any(|all| word.eq_ignore_ascii_case(all))
    };
    asked.is_empty() || asked.iter().any(|word| is(word))
}

/// The sections that were asked for, each behind an empty line.
pub(super) fn text(admin: &Admin, sections: &[&[u8]]) -> String {
    let mut out = String::new();
    let mut last = None;
    for (metric, value) in snapshot::since_reset(&admin.sources(), |section| is_asked(section, sections)) {
        if last.replace(metric.section) != Some(metric.section) {
            let _ = write!(out, "\r\n# {}\r\n", metric.section.title());
        }
        show(&mut out, metric, &value);
    }
    out
}

/// The lines of a metric. Writing to memory does not fail.
fn show(out: &mut String, metric: &Metric, value: &Value) {
    let name = metric.name;
    let _ = match value {
        Value::Count(number) => write!(out, "{name}:{number}\r\n"),
        Value::Known(Some(number)) => write!(out, "{name}:{number}\r\n"),
        Value::Known(None) => write!(out, "{name}:-1\r\n"),
        Value::Ratio(ratio) => write!(out, "{name}:{ratio:.4}\r\n"),
        Value::Time(time) if metric.unit == Unit::Microseconds => {
            write!(out, "{name}:{:.3}\r\n", time.as_secs_f64() * 1e6)
        }
        Value::Time(time) => write!(out, "{name}:{}\r\n", time.as_millis()),
        // A line is one line, whatever another server has said.
        Value::Text(text) => write!(out, "{name}:{}\r\n", text.replace(['\r', '\n'], " ")),
        Value::ByOutcome(numbers) => {
            numbers.iter().try_for_each(|(outcome, number)| write!(out, "{name}_{outcome}:{number}\r\n"))
        }
    };
}

impl Admin {
    /// The sections that were asked for as JSON: an object of each section's fields, named and measured as in INFO. What is not known is
    /// null. Numbers by outcome are an object.
    pub fn info_view(&self, sections: &[&[u8]]) -> View {
        let mut out: Vec<(&'static str, View)> = Vec::new();
        for (metric, value) in snapshot::since_reset(&self.sources(), |section| is_asked(section, sections)) {
            let title = metric.section.title();
            if out.last().is_none_or(|(last, _)| *last != title) {
                out.push((title, View::Map(Vec::new())));
            }
            let Some((_, View::Map(fields))) = out.last_mut() else { continue };
            match value {
                // One field each, as in INFO: a metric of the same name may stand beside them.
                Value::ByOutcome(numbers) => {
                    let numbers = numbers.into_iter().map(|(outcome, number)| (outcome, View::count(number))).collect();
                    fields.push((by_reason(metric.name), View::Map(numbers)));
                }
                other => fields.push((metric.name, view_of(metric, other))),
            }
        }
        View::Map(out)
    }

    /// What each field of [`Admin::info_view`] means: its section, name, kind, unit and a sentence.
    pub fn fields_view(&self) -> View {
        let all = snapshot::take(&self.sources(), |_| true);
        View::List(all.into_iter().map(|(metric, value)| field_of(metric, &value)).collect())
    }
}

fn field_of(metric: &Metric, value: &Value) -> View {
    let kind = match metric.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Text => "text",
    };
    let unit = match metric.unit {
        Unit::None => View::Nil,
        Unit::Bytes => View::text("bytes"),
        Unit::Seconds => View::text("seconds"),
        Unit::Milliseconds => View::text("milliseconds"),
        Unit::Microseconds => View::text("microseconds"),
        Unit::Ratio => View::text("ratio"),
    };
    let name = if matches!(value, Value::ByOutcome(_)) { by_reason(metric.name) } else { metric.name };
    View::Map(vec![
        ("section", View::text(metric.section.title())),
        ("name", View::text(name)),
        ("kind", View::text(kind)),
        ("unit", unit),
        ("help", View::text(metric.help)),
    ])
}

/// The name of an object of numbers by outcome, next to the metric that has their sum.
fn by_reason(name: &'static str) -> &'static str {
    match name {
        "proxy_clients_dropped" => "proxy_clients_dropped_by_reason",
        "flushes" => "flushes_by_reason",
        "writes_unknown" => "writes_unknown_by_reason",
        other => other,
    }
}

fn view_of(metric: &Metric, value: Value) -> View {
    match value {
        Value::Count(number) => View::count(number),
        Value::Known(number) => View::maybe(number, View::count),
        Value::Ratio(ratio) => View::Float(ratio),
        Value::Time(time) if metric.unit == Unit::Microseconds => View::Float(time.as_secs_f64() * 1e6),
        Value::Time(time) => View::count(time.as_millis()),
        Value::Text(text) => View::Text(text),
        Value::ByOutcome(_) => View::Nil,
    }
}
