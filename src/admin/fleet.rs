//! PROXY FLEET and `/api/fleet`: what this instance tells of itself, what the others told, all of them together, and in which settings they
//! differ.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Instant, UNIX_EPOCH};

use crate::history::unix_time;
use crate::machine;
use crate::metrics::outcome::Outcome;
use crate::summaries::{self, Heard, HotKeyName, MAX_HOT_KEYS, Summary, hit_rate};

use super::Admin;
use super::answer::{Answer, Asked};
use super::traffic::hottest_keys;
use super::view::View;

/// PROXY FLEET.
pub(super) fn fleet(admin: &Arc<Admin>, _: Asked<'_>) -> Answer {
    Answer::View(admin.fleet_view(Instant::now()))
}

impl Admin {
    /// What this instance tells of itself, without its hot keys.
    pub fn summary(&self, now: Instant) -> Summary {
        let config = self.config.get();
        let current = self.current_sample(unix_time()).unwrap_or_default();
        let stats = &self.stats;
        let (mode, mode_reason) = self.observe_mode(now);
        let since = self.history.since().and_then(|since| since.duration_since(UNIX_EPOCH).ok());
        let bus = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        let alerts = self.alerts.firing().iter().map(|alert| alert.name.to_owned()).collect();
        Summary {
            instance: self.incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: mode.as_str().to_owned(),
            mode_reason: mode_reason.name().to_owned(),
            mode_since: since.unwrap_or_default().as_secs(),
            host: machine::host_name(),
            address: self.listen.clone(),
            uptime_seconds: stats.started.elapsed().as_secs(),
            hits_per_second: current.per_second(current.hits),
            misses_per_second: current.per_second(current.misses),
            requests_per_second: current.per_second(current.commands),
            clients: stats.sum(|worker| &worker.clients),
            l1_bytes: bus(&stats.shared.entry_bytes),
            l1_max_bytes: config.l1.max_memory as u64,
            l1_entries: bus(&stats.shared.entries),
            round_trip_usec: Some(bus(&self.bus.round_trip) / 1000).filter(|_| bus(&self.bus.round_trip) > 0),
            lease_age_ms: self.coherence.lease_age(now).map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            peers: bus(&self.bus.peers),
            peers_lost: bus(&self.bus.lost),
            gaps: bus(&self.bus.gaps),
            dropped: bus(&self.bus.dropped),
            alerts,
            settings: summaries::hashes(&config),
            hot_keys: Vec::new(),
        }
    }

    /// The names of the keys that are requested most, for the summary. None if keys are not to be shown.
    pub async fn hot_key_names(&self) -> Vec<HotKeyName> {
        if self.config.get().redact_keys {
            return Vec::new();
        }
        let keys = hottest_keys(self, 2 * MAX_HOT_KEYS).await.keys;
        let whole = keys.iter().filter(|key| key.is_whole);
        whole.take(MAX_HOT_KEYS).map(|key| HotKeyName::new(key.db, &key.key)).collect()
    }

    /// The keys that the other instances are asked for most, with their databases: for filling L1 in advance.
    pub fn hot_keys_of_others(&self) -> Vec<(u32, Vec<u8>)> {
        self.summaries.hot_keys(Instant::now())
    }

    fn fleet_view(&self, now: Instant) -> View {
        let config = self.config.get();
        let mut all = self.summaries.others(now);
        all.insert(0, Heard { summary: Arc::new(self.summary(now)), at: now });
        let has_nats = config.nats.is_some();
        let alone = "no NATS is configured: other instances are not heard, and this one is shown alone";
        View::Map(vec![
            ("fleet", View::text(config.fleet.as_str())),
            ("nats_configured", View::Bool(has_nats)),
            ("note", if has_nats { View::Nil } else { View::text(alone) }),
            ("instances", View::List(all.iter().map(|heard| self.instance_view(heard, now)).collect())),
            ("together", self.together(&all, now)),
            ("differs", differences(&all)),
        ])
    }

    fn instance_view(&self, heard: &Heard, now: Instant) -> View {
        let of = &*heard.summary;
        View::Map(vec![
            ("instance", View::Text(name(of))),
            ("is_self", View::Bool(of.instance == self.incarnation)),
            ("is_lost", View::Bool(heard.is_lost(now))),
            ("last_heard_ms", View::count(now.saturating_duration_since(heard.at).as_millis())),
            ("host", View::text(of.host.as_str())),
            ("address", View::text(of.address.as_str())),
            ("version", View::text(of.version.as_str())),
            ("uptime_seconds", View::count(of.uptime_seconds)),
            ("mode", View::text(of.mode.as_str())),
            ("mode_reason", View::text(of.mode_reason.as_str())),
            ("mode_since", View::count(of.mode_since)),
            ("hit_rate", View::maybe(of.hit_rate(), View::Float)),
            ("requests_per_second", View::Float(of.requests_per_second)),
            ("clients", View::count(of.clients)),
            ("l1_bytes", View::count(of.l1_bytes)),
            ("l1_max_bytes", View::count(of.l1_max_bytes)),
            ("l1_entries", View::count(of.l1_entries)),
            ("nats_round_trip_usec", View::maybe(of.round_trip_usec, View::count)),
            ("lease_age_ms", View::maybe(of.lease_age_ms, View::count)),
            ("peers", View::count(of.peers)),
            ("peers_lost", View::count(of.peers_lost)),
            ("gaps", View::count(of.gaps)),
            ("invalidations_dropped", View::count(of.dropped)),
            ("alerts", View::List(of.alerts.iter().map(|name| View::text(name.as_str())).collect())),
            ("settings_digest", View::Text(summaries::digest(&of.settings))),
        ])
    }

    /// The sums over the instances that are heard.
    fn together(&self, all: &[Heard], now: Instant) -> View {
        let heard: Vec<&Summary> =
            all.iter().filter(|heard| !heard.is_lost(now)).map(|heard| &*heard.summary).collect();
        let sum = |read: fn(&Summary) -> u64| View::count(heard.iter().map(|of| read(of)).fold(0, u64::saturating_add));
        let rate = |read: fn(&Summary) -> f64| heard.iter().map(|of| read(of)).sum::<f64>();
        let hits = hit_rate(rate(|of| of.hits_per_second), rate(|of| of.misses_per_second));
        View::Map(vec![
            ("instances", View::count(heard.len())),
            ("instances_lost", View::count(all.len() - heard.len())),
            ("instances_unheard", View::count(self.bus.unheard.load(Ordering::Relaxed))),
            ("hit_rate", View::maybe(hits, View::Float)),
            ("requests_per_second", View::Float(rate(|of| of.requests_per_second))),
            ("clients", sum(|of| of.clients)),
            ("l1_bytes", sum(|of| of.l1_bytes)),
            ("l1_entries", sum(|of| of.l1_entries)),
            ("alerts_firing", sum(|of| of.alerts.len() as u64)),
        ])
    }
}

/// The settings in which instances differ, each with the instances that have the same value.
fn differences(all: &[Heard]) -> View {
    let mut settings: BTreeMap<&str, BTreeMap<Option<&str>, Vec<String>>> = BTreeMap::new();
    let names = all.iter().flat_map(|heard| heard.summary.settings.keys());
    for setting in names {
        settings.entry(setting).or_insert_with(|| {
            let mut groups: BTreeMap<Option<&str>, Vec<String>> = BTreeMap::new();
            for Heard { summary, .. } in all {
                let value = summary.settings.get(setting).map(String::as_str);
                groups.entry(value).or_default().push(name(summary));
            }
            groups
        });
    }
    let differ = settings.into_iter().filter(|(_, groups)| groups.len() > 1).map(|(setting, groups)| {
        let group = |names: Vec<String>| View::List(names.into_iter().map(View::Text).collect());
        let groups = View::List(groups.into_values().map(group).collect());
        View::Map(vec![("setting", View::text(setting)), ("groups", groups)])
    });
    View::List(differ.collect())
}

/// An instance as its connections name it.
fn name(summary: &Summary) -> String {
    format!("{:016x}", summary.instance)
}
