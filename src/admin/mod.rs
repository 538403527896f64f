//! The PROXY command, and the sections that INFO gets: shows the state of the rest, and owns nothing.
//!
//! `subcommands` is the table of what PROXY understands; each has its file. A `view` is what one shows, as a reply and as JSON.

mod advice;
mod alerts;
pub mod answer;
pub mod background;
mod compress;
mod config;
mod curve;
mod decompress;
mod events;
mod explain;
mod fleet;
mod flush;
pub mod following;
mod health;
pub mod history;
mod info;
mod inner_client;
mod key_state;
mod report;
mod rules;
pub mod runs;
pub mod settings;
mod slow_log;
mod stored;
pub mod subcommands;
mod traffic;
pub mod view;
pub mod warm;
mod windows;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Instant, SystemTime};

use tokio::runtime::Handle;

use crate::alerts::{Alert, Alerts};
use crate::bus::Outbox;
use crate::client_state::buffers::AllBuffers;
use crate::coherence::mode_history::{Ended, ModeHistory};
use crate::coherence::{Coherence, Mode};
use crate::config::{Coherence as Feeds, Compression, Config, Live};
use crate::history::History;
use crate::log;
use crate::machine;
use crate::metrics::metric::{Facts, L1Bounds, Server, Sources};
use crate::metrics::outcome::{EventKind, ModeReason, Outcome};
use crate::metrics::slots::{BusStats, Stats};
use crate::metrics::snapshot;
use crate::summaries::Summaries;
use crate::traffic::Accesses;
use crate::upstream::status::{OwnRight, UpstreamStatus};
use crate::upstream::{Dialer, Endpoint};
use crate::worker_state::context::Mailboxes;

use background::Background;
use following::Following;
use runs::{OfDatabase, Warmed};

/// What can be shown.
pub struct Admin {
    /// The workers' counters.
    pub stats: Arc<Stats>,
    /// The server to which connections lead.
    pub endpoint: Arc<Endpoint>,
    /// The mode and the lease.
    pub coherence: Arc<Coherence>,
    /// The bus's counters; all zero without a bus.
    pub bus: Arc<BusStats>,
    /// Whether Redis answers.
    pub status: Arc<UpstreamStatus>,
    /// Since when L1 has been in its mode.
    pub history: ModeHistory,
    /// Samples of the metrics over the last week.
    pub samples: History,
    /// What in them needs a person.
    pub alerts: Alerts,
    /// Bytes of memory that are available to this process.
    pub memory: u64,
    /// Bytes in the buffers of clients.
    pub buffers: Arc<AllBuffers>,
    /// The addresses for clients, as INFO shows them.
    pub listen: String,
    /// The current configuration.
    pub config: Live<Arc<Config>>,
    /// Runs what takes time.
    pub control: Handle,
    /// The warm-up of L1.
    pub warmer: Background<Warmed>,
    /// The conversion of stored values to plain.
    pub decompressor: Background<OfDatabase>,
    /// How Redis is reached.
    pub dialer: Arc<Dialer>,
    /// Held during a trial of compression.
    pub trying: tokio::sync::Mutex<()>,
    /// What changes it. Set once, at the start.
    pub settings: OnceLock<Weak<dyn settings::Settings>>,
    /// Publishes to the fleet. `None` for a single instance.
    pub outbox: Option<Outbox>,
    /// This start's incarnation, as in the names of the connections to Redis.
    pub incarnation: u64,
    /// The ways to the workers, which know the keys that pass.
    pub mailboxes: Arc<Mailboxes>,
    /// What the other instances of the fleet tell of themselves.
    pub summaries: Arc<Summaries>,
    /// What the workers note of the keys that pass, put together.
    pub following: Mutex<Following>,
    /// The sample of the keys that other instances write.
    pub heard: Arc<Mutex<Accesses>>,
}

impl Admin {
    /// Counters begin anew in INFO. They go on for Prometheus.
    pub fn reset_stats(&self) {
        snapshot::reset(&self.sources());
        self.following().curve.reset();
        self.stats.shared.journal.note(EventKind::StatsReset, "counters begin anew in INFO");
    }

    /// Where the metrics are read at this moment.
    pub fn sources(&self) -> Sources<'_> {
        let now = Instant::now();
        let config = self.config.get();
        let (mode, mode_reason) = self.observe_mode(now);
        let upstream = self.status.seen(now);
        let server = self.endpoint.server().map(|server| Server {
            address: server.address.to_string(),
            run_id: server.run_id.as_deref().unwrap_or_default().to_owned(),
        });
        let facts = Facts {
            incarnation: self.incarnation,
            fleet: config.fleet.clone(),
            listen: self.listen.clone(),
            upstream: config.upstream.to_string(),
            memory: (machine::resident(), self.memory),
            alerts_firing: self.alerts.firing().iter().map(|alert| alert.name).collect(),
            log_lines_dropped: log::dropped_lines(),
            buffers: (self.buffers.bytes().wrapping_add(self.buffers.offloaded()), self.buffers.max()),
            buffers_offloaded: self.buffers.offloaded(),
            compression: match config.compression {
                Compression::Off if self.stats.shared.compressed_while_off.load(Ordering::Relaxed) => Compression::Read,
                mode => mode,
            }
            .as_str(),
            l1_max: L1Bounds { bytes: config.l1.max_memory as u64, entries: config.l1.max_entries as u64 },
            server,
            upstream_overdue: self.endpoint.silence().overdue() as u64,
            upstream_up: upstream.up,
            upstream_refuses_login: upstream.refuses_login(),
            upstream_used_memory: upstream.used_memory,
            upstream_error: upstream.error,
            upstream_missing_rights: upstream.missing.into_iter().map(OwnRight::name).collect(),
            nats_configured: config.nats.is_some(),
            coherence: match config.coherence {
                Feeds::Auto if config.nats.is_some() => "nats",
                Feeds::Auto => "none",
                other => other.as_str(),
            },
            mode: mode.as_str(),
            mode_reason,
            mode_since: self.history.since().unwrap_or_else(SystemTime::now),
            lease_age: self.coherence.lease_age(now),
            max_staleness: config.max_staleness,
            degraded_staleness: config.degraded_staleness,
            generation: self.coherence.generation(),
        };
        Sources { stats: &self.stats, bus: &self.bus, facts, now }
    }

    /// Takes the sample of the last second, and judges it. Logs the alerts that begin to fire or clear, and returns them. Call this once a
    /// second.
    pub fn sample(&self, now: u64) -> Vec<Alert> {
        let config = self.config.get();
        let mut changes = Vec::new();
        self.samples.take(&self.sources(), now, |sample| {
            changes = self.alerts.judge(sample, &config);
            self.alerts.bits()
        });
        for (number, note) in changes.iter().filter_map(|alert| self.alerts.note(alert)) {
            self.samples.keep_note(number, &note);
        }
        for Alert { name, text, value, limit, since, cleared } in &changes {
            match cleared {
                None => tracing::warn!(alert = name, value, limit, "an alert fires: {text}"),
                Some(cleared) => {
                    let seconds = cleared.saturating_sub(*since);
                    tracing::info!(alert = name, value, limit, seconds, "an alert has cleared: {text}");
                }
            }
        }
        changes
    }

    /// The mode and its reason. Logs a change since the last call. Call this from a timer too, because the end of a lease is no
    /// event.
    pub fn observe_mode(&self, now: Instant) -> (Mode, ModeReason) {
        let (mode, reason) = self.coherence.mode_and_reason(now);
        if let Some(Ended { mode: from, lasted }) = self.history.observe(mode, now) {
            let why = format_args!(
                "{from} to {mode}: {why}",
                from = from.as_str(),
                mode = mode.as_str(),
                why = mode.for_reads()
            );
            self.stats.shared.journal.note_for(EventKind::Mode, reason.name(), why);
            tracing::info!(
                mode = mode.as_str(),
                reason = %reason,
                from = from.as_str(),
                ?lasted,
                "L1's mode has changed: {}",
                mode.for_reads()
            );
        }
        (mode, reason)
    }
}
