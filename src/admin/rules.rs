//! PROXY RULES: what each rule of the configuration says, and what was counted for it. A rule as a view is also a part of EXPLAIN.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crate::config::RuleSpec;
use crate::metrics::outcome::{Outcome, Skipped};
use crate::metrics::rules::{OWN, RulePlace, RuleSums};
use crate::metrics::stored::StoredSums;
use crate::rules::{CacheRule, CompressRule, Rule, Rules};

use super::Admin;
use super::answer::{Answer, Asked};
use super::view::View;

/// PROXY RULES.
pub(super) fn rules(admin: &Arc<Admin>, _: Asked<'_>) -> Answer {
    let config = admin.config.get();
    let rules = Rules::compile(&config);
    let totals = admin.stats.rules_since_reset();
    let stored = admin.stats.shared.stored.lock().unwrap_or_else(PoisonError::into_inner);
    let of = |place| stored.as_ref().map(|stored| stored.of(place));
    let own = config.rules.iter().take(OWN).enumerate();
    let mut rows: Vec<View> = own
        .zip(rules.all())
        .map(|((index, spec), rule)| {
            let stored = stored.as_ref().and_then(|stored| stored.at(index, &spec.pattern));
            row(Some((index, spec)), "", Some(rule), totals.at(index, &spec.pattern), stored)
        })
        .collect();
    if config.rules.len() > OWN {
        rows.push(row(None, "others", None, totals.others, of(RulePlace::OTHERS)));
    }
    rows.push(row(None, "defaults", rules.all().last(), totals.defaults, of(RulePlace::DEFAULTS)));
    Answer::View(View::List(rows))
}

/// One row: a rule of the configuration with its index; or several of them, or the defaults, by a name. Several say nothing together.
fn row(
    spec: Option<(usize, &RuleSpec)>,
    name: &str,
    rule: Option<&Rule>,
    sums: RuleSums,
    stored: Option<StoredSums>,
) -> View {
    let reads = sums.hits + sums.misses;
    let skipped = Skipped::ALL.iter().map(|why| (why.name(), View::count(sums.skipped[why.place()]))).collect();
    View::Map(vec![
        ("number", View::maybe(spec, |(index, _)| View::count(index + 1))),
        ("match", View::text(spec.map_or(name, |(_, spec)| &spec.pattern))),
        ("line", View::maybe(spec.and_then(|(_, spec)| spec.line.0), View::count)),
        ("cache", View::maybe(rule.and_then(|rule| rule.cache), cache)),
        ("watch", View::maybe(rule, |rule| View::Bool(rule.watch))),
        ("compress", View::maybe(rule.and_then(|rule| rule.compress), compress)),
        ("requests", View::count(sums.requests)),
        ("hits", View::count(sums.hits)),
        ("misses", View::count(sums.misses)),
        ("hit_rate", View::maybe((reads > 0).then_some(sums.hits as f64 / reads as f64), View::Float)),
        ("writes", View::count(sums.writes)),
        ("compressed_values", View::count(sums.compressed)),
        ("compressed_bytes_in", View::count(sums.bytes_in)),
        ("compressed_bytes_out", View::count(sums.bytes_in.saturating_sub(sums.saved_bytes))),
        ("compression_saved_bytes", View::count(sums.saved_bytes)),
        ("compression_usec", View::count(sums.compress_nanos / 1000)),
        ("compression_skipped", View::Map(skipped)),
        ("stored", View::maybe(stored, in_redis)),
    ])
}

/// What Redis has compressed now.
fn in_redis(sums: StoredSums) -> View {
    View::Map(vec![
        ("values", View::count(sums.values as u64)),
        ("bytes", View::count(sums.bytes as u64)),
        ("saved_bytes", View::count(sums.saved_bytes())),
    ])
}

/// A time in milliseconds.
pub(super) fn millis(time: Duration) -> View {
    View::count(time.as_millis())
}

/// How a rule keeps values.
pub(super) fn cache(rule: CacheRule) -> View {
    View::Map(vec![
        ("ttl_ms", millis(rule.ttl)),
        ("max_value", View::count(rule.max_value)),
        ("admit_after", View::count(rule.admit_after)),
        ("negative_ttl_ms", millis(rule.negative_ttl)),
        ("reads", View::List(rule.reads.names().map(View::text).collect())),
    ])
}

/// How a rule compresses values.
pub(super) fn compress(rule: CompressRule) -> View {
    View::Map(vec![
        ("codec", View::text(rule.codec.as_str())),
        ("level", View::count(rule.level)),
        ("min_size", View::count(rule.min_size)),
        ("min_saving_percent", View::count(rule.min_saving)),
    ])
}
