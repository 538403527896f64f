//! Makes samples: takes the snapshot of the metrics, and the differences to the one at the beginning of the interval.

use std::time::{Duration, Instant};

use crate::metrics::counter::Totals;
use crate::metrics::metric::{Section, Sources, Value};
use crate::metrics::outcome::ModeReason;
use crate::metrics::slots::Latencies;
use crate::metrics::snapshot;

use super::rings::Resolution;
use super::sample::{MODES, Sample, Trouble};

/// More than the interval of heartbeats.
const BETWEEN_HEARTBEATS: Duration = Duration::from_millis(250);

/// The counters at one moment.
#[derive(Clone, Debug)]
struct Reading {
    now: Instant,
    hits: u64,
    misses: u64,
    commands: u64,
    errors: u64,
    saved_bytes: u64,
    hit: Totals,
    miss: Totals,
}

/// The beginnings of the intervals that are not over.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    second: Option<Reading>,
    /// Those of the resolutions, each with the number of its interval.
    longer: [Option<(u64, Reading)>; Resolution::ALL.len()],
}

/// The samples that are due.
pub(super) struct Latest {
    /// That of the last second.
    pub(super) second: Sample,
    /// Those to keep.
    pub(super) kept: Vec<(Resolution, Sample)>,
}

impl Sampler {
    /// The samples that are due at `now`, in seconds of Unix time.
    pub(super) fn take(&mut self, sources: &Sources<'_>, now: u64) -> Latest {
        let (reading, state) = read(sources, now);
        let begins = self.second.replace(reading.clone()).unwrap_or_else(|| reading.clone());
        let mut kept = Vec::new();
        for (resolution, begins) in Resolution::ALL.into_iter().zip(&mut self.longer) {
            let number = now / resolution.seconds();
            match begins {
                Some((of, reading_then)) if *of != number => {
                    let at = number * resolution.seconds();
                    kept.push((resolution, Sample { at, ..between(reading_then, &reading, state) }));
                    *begins = Some((number, reading.clone()));
                }
                Some(_) => {}
                None => *begins = Some((number, reading.clone())),
            }
        }
        Latest { second: between(&begins, &reading, state), kept }
    }
}

/// The counters, and a sample with the state alone.
fn read(sources: &Sources<'_>, now: u64) -> (Reading, Sample) {
    let metrics = snapshot::take(sources, |section| section != Section::Latency);
    let value = |name: &str| metrics.iter().find(|(metric, _)| metric.name == name).map(|(_, value)| value);
    let known = |name: &str| match value(name) {
        Some(Value::Count(number)) => Some(*number),
        Some(Value::Known(number)) => *number,
        _ => None,
    };
    let number = |name: &str| known(name).unwrap_or(0);
    let errors = match value("proxy_errors") {
        Some(Value::ByOutcome(sides)) => {
            sides.iter().filter(|(side, _)| *side != "client").map(|(_, errors)| errors).sum()
        }
        _ => 0,
    };
    let Latencies { hit, miss } = sources.stats.latencies();
    let reading = Reading {
        now: sources.now,
        hits: number("l1_hits"),
        misses: number("l1_misses"),
        commands: number("proxy_commands"),
        errors,
        saved_bytes: number("compression_saved_bytes"),
        hit,
        miss,
    };
    let facts = &sources.facts;
    let mut state = Sample {
        at: now,
        clients: number("proxy_clients"),
        l1_bytes: number("l1_bytes"),
        l1_max_bytes: number("l1_max_bytes"),
        memory_bytes: number("proxy_memory_bytes"),
        memory_max_bytes: number("proxy_memory_max_bytes"),
        buffers_bytes: number("buffers_bytes"),
        buffers_max_bytes: number("buffers_max_bytes"),
        mode: MODES.iter().position(|mode| *mode == facts.mode).unwrap_or(MODES.len()) as u64,
        ..Sample::default()
    };
    state.set_upstream_used(known("upstream_used_memory_bytes"));
    state.set_unproven(unproven(sources));
    let is_down = number("upstream_up") == 0;
    let is_off = facts.mode == "off" && facts.mode_reason != ModeReason::SwitchedOff;
    for (trouble, is_there) in [
        (Trouble::UpstreamDown, is_down && !facts.upstream_refuses_login),
        (Trouble::PasswordRefused, is_down && facts.upstream_refuses_login),
        (Trouble::UpstreamOverdue, number("upstream_overdue") > 0),
        (Trouble::NotLive, is_off || facts.mode == "degraded"),
        (Trouble::PeersLost, number("peers_unheard") + number("peers_lost") > 0),
    ] {
        if is_there {
            state.add(trouble);
        }
    }
    (reading, state)
}

/// The time since a heartbeat that came back was sent, less the time that always lies between two heartbeats. `None`: L1 serves nothing, or
/// no other Shortstop need be heard.
fn unproven(sources: &Sources<'_>) -> Option<Duration> {
    let facts = &sources.facts;
    let serves = match facts.mode {
        "live" => true,
        "degraded" => facts.nats_configured && !facts.degraded_staleness.is_zero(),
        _ => false,
    };
    // None has come back since the start.
    let never = || sources.now.saturating_duration_since(sources.stats.started);
    serves.then(|| facts.lease_age.unwrap_or_else(never).saturating_sub(BETWEEN_HEARTBEATS))
}

/// What happened between two readings, with the state at the end.
fn between(begins: &Reading, ends: &Reading, state: Sample) -> Sample {
    // Counters that were reset meanwhile have counted since then.
    let since = |from: u64, to: u64| if to < from { to } else { to - from };
    let (hit, miss) = (ends.hit.since(&begins.hit), ends.miss.since(&begins.miss));
    let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    Sample {
        span_ms: u64::try_from(ends.now.saturating_duration_since(begins.now).as_millis()).unwrap_or(u64::MAX),
        hits: since(begins.hits, ends.hits),
        misses: since(begins.misses, ends.misses),
        commands: since(begins.commands, ends.commands),
        errors: since(begins.errors, ends.errors),
        saved_bytes: since(begins.saved_bytes, ends.saved_bytes),
        hit_count: hit.count(),
        hit_ns: ns(hit.sum()),
        hit_p50_ns: ns(hit.quantile(0.5)),
        hit_p99_ns: ns(hit.quantile(0.99)),
        hit_p999_ns: ns(hit.quantile(0.999)),
        miss_count: miss.count(),
        miss_ns: ns(miss.sum()),
        miss_p50_ns: ns(miss.quantile(0.5)),
        miss_p99_ns: ns(miss.quantile(0.99)),
        miss_p999_ns: ns(miss.quantile(0.999)),
        read_p99_ns: ns(hit.and(&miss).quantile(0.99)),
        ..state
    }
}
