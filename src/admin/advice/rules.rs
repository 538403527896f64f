//! Rules that do not do what they are there for.

use std::time::Duration;

use crate::config::units::show_time;
use crate::config::{CachePatch, CompressPatch, Config, Switch, rules_as_yaml};
use crate::metrics::rules::{OWN, RuleSums};
use crate::rules::Rule;
use crate::traffic::OfRule;

use super::piece::{Advice, FEWEST_READS, Place, percent};

/// Without so many requests a rule that matches nothing may only be waiting.
const FEWEST_REQUESTS: u64 = 20_000;

/// Without so many bytes nothing is said about their compression.
const FEWEST_BYTES: u64 = 1 << 20;

/// A part of the reads that is worth a longer `ttl`.
const WORTH: f64 = 0.1;

/// Memory is wasted on a rule whose reads hit less often.
const WASTED: f64 = 0.05;

/// Compression that saves less than this part does not pay.
const PAYS: f64 = 0.05;

/// Rules without a single request, while there were many for others.
pub(super) fn unused(config: &Config, sums: &[RuleSums]) -> Result<Option<Advice>, String> {
    if config.rules.is_empty() {
        return Ok(None);
    }
    let requests: u64 = sums.iter().map(|sums| sums.requests).sum();
    let own = config.rules.iter().zip(sums).take(OWN);
    let unused: Vec<&str> = own.filter(|(_, sums)| sums.requests == 0).map(|(spec, _)| spec.pattern.as_str()).collect();
    if unused.is_empty() {
        return Ok(None);
    }
    if requests < FEWEST_REQUESTS {
        return Err(format!(
            "Rules that never match: not enough traffic yet ({requests} requests for keys; {FEWEST_REQUESTS} are needed)."
        ));
    }
    let rest: Vec<_> = config.rules.iter().filter(|spec| !unused.contains(&spec.pattern.as_str())).cloned().collect();
    Ok(Some(Advice {
        about: "unused_rule",
        what: format!("Remove rules that match no key, or correct their patterns: {}.", unused.join(", ")),
        why: format!(
            "None of {requests} requests for keys was for one of theirs, since the start or PROXY STATS RESET."
        ),
        lines: rules_as_yaml(&rest),
    }))
}

/// A rule whose `ttl` ends the life of entries before they are read again.
pub(super) fn short_ttl(config: &Config, place: Place<'_>, rule: &Rule, seen: &OfRule) -> Option<Advice> {
    let ttl = rule.cache?.ttl;
    if seen.reads < FEWEST_READS as f64 || seen.lapsed < WORTH {
        return None;
    }
    let longer = Duration::from_millis(seen.lapsed_within).min(config.max_staleness);
    if longer < ttl * 2 {
        return None;
    }
    let (ttl, longer) = (show_time(ttl), round_up(longer).min(config.max_staleness));
    Some(Advice {
        about: "short_ttl",
        what: format!("Keep {} for longer, if its values may be {} old.", place.name(), show_time(longer)),
        why: format!(
            "{} of {:.0} reads came when the ttl of {ttl} had ended the life of the entry, most of them within {} after it was read \
             from Redis; {} were answered.",
            percent(seen.lapsed),
            seen.reads,
            show_time(longer),
            percent(seen.hit_rate)
        ),
        lines: cache_lines(config, place, |patch| patch.ttl = Some(longer)),
    })
}

/// To a time that reads well.
fn round_up(time: Duration) -> Duration {
    if time > Duration::from_secs(1) { Duration::from_secs(time.as_secs() + 1) } else { time }
}

/// A rule whose entries are hardly ever read again.
pub(super) fn wasted(config: &Config, place: Place<'_>, rule: &Rule, seen: &OfRule) -> Option<Advice> {
    let admit_after = rule.cache?.admit_after;
    if seen.reads < FEWEST_READS as f64 || seen.hit_rate >= WASTED || seen.bytes < FEWEST_BYTES || seen.lapsed >= WORTH
    {
        return None;
    }
    let lines = match place {
        Place::Defaults => cache_lines(config, place, |patch| patch.admit_after = Some((admit_after * 2).min(255))),
        Place::Rule(index, _) => {
            let mut rules = config.rules.clone();
            rules[index].cache = Some(Switch::<CachePatch>::Off);
            rules_as_yaml(&rules)
        }
    };
    Some(Advice {
        about: "wasted_memory",
        what: format!("Keep less of {} in L1: its entries are hardly ever read again.", place.name()),
        why: format!(
            "{} of {:.0} reads were answered; {} entries take {} kb.",
            percent(seen.hit_rate),
            seen.reads,
            seen.entries,
            seen.bytes >> 10
        ),
        lines,
    })
}

/// The lines that change how a rule keeps values.
fn cache_lines(config: &Config, place: Place<'_>, change: impl FnOnce(&mut CachePatch)) -> String {
    let mut patch = CachePatch::default();
    match place {
        Place::Defaults => {
            change(&mut patch);
            let ttl = patch.ttl.map(|ttl| format!("    ttl: {}\n", show_time(ttl))).unwrap_or_default();
            let admit = patch.admit_after.map(|after| format!("    admit_after: {after}\n")).unwrap_or_default();
            format!("defaults:\n  cache:\n{ttl}{admit}")
        }
        Place::Rule(index, _) => {
            let mut rules = config.rules.clone();
            if let Some(Switch::On(known)) = &rules[index].cache {
                patch = known.clone();
            }
            change(&mut patch);
            rules[index].cache = Some(Switch::On(patch));
            rules_as_yaml(&rules)
        }
    }
}

/// A rule whose values do not shrink.
pub(super) fn incompressible(config: &Config, place: Place<'_>, rule: &Rule, sums: &RuleSums) -> Option<Advice> {
    rule.compress?;
    let saved = sums.saved_bytes as f64 / sums.tried_bytes.max(1) as f64;
    if sums.tried_bytes < FEWEST_BYTES || saved >= PAYS {
        return None;
    }
    let lines = match place {
        Place::Defaults => "defaults:\n  compress: false\n".to_owned(),
        Place::Rule(index, _) => {
            let mut rules = config.rules.clone();
            rules[index].compress = Some(Switch::<CompressPatch>::Off);
            rules_as_yaml(&rules)
        }
    };
    Some(Advice {
        about: "compression",
        what: format!("Do not compress the values of {}: they do not shrink.", place.name()),
        why: format!("Compression saved {} of {} bytes that it tried.", percent(saved), sums.tried_bytes),
        lines,
    })
}
