//! The PROXY command, and the sections added to INFO. Shows the state of other modules, and owns nothing.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use crate::client_state::buffers::AllBuffers;
use crate::coherence::mode_history::{Ended, ModeHistory};
use crate::coherence::{Coherence, Mode, Role};
use crate::command::ProxySubcommand;
use crate::config::{Coherence as Feeds, Config, Live};
use crate::log;
use crate::metrics::metric::{Facts, L1Bounds, Metric, Section, Server, Sources, Unit, Value};
use crate::metrics::outcome::ModeReason;
use crate::metrics::slots::{BusStats, Stats};
use crate::metrics::snapshot;
use crate::resp::build;
use crate::upstream::Endpoint;
use crate::upstream::status::{OwnRight, UpstreamStatus};
use crate::worker_state::context::Windows;

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
    /// Bytes in the buffers of clients.
    pub buffers: Arc<AllBuffers>,
    /// The addresses for clients, as INFO shows them.
    pub listen: String,
    /// The current configuration.
    pub config: Live<Arc<Config>>,
    /// This start's incarnation, as in the names of the connections to Redis.
    pub incarnation: u64,
}

const HELP: [&str; 14] = [
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "INFO [section ...]",
    "    Show the state of this Shortstop: Proxy, ProxyClients, L1, Compression, Invalidation, Upstream, Coherence,",
    "    Latency. INFO shows the same sections after those of Redis.",
    "FLUSH",
    "    Flush L1 of this Shortstop. Redis is not changed.",
    "HEALTH [live|ready]",
    "    OK, or the reasons why not. live: this process answers. ready: Redis has accepted its login since the \
     start, and is a primary.",
    "    Needs no login.",
    "DEBUG PANIC [WORKER]",
    "    Panic while serving this connection, to check that the others continue; or end the workers, to check that \
     the process ends. Only with enable_debug_command: true.",
    "HELP",
    "    Print this help.",
    "All other commands are Redis's: see COMMAND, or HELP in redis-cli.",
];

impl Windows for Admin {
    fn proxy(&self, subcommand: ProxySubcommand, args: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        match (subcommand, args.len()) {
            (_, ..2) => build::error(&mut out, "ERR wrong number of arguments for 'proxy' command"),
            // The first section needs no empty line before it.
            (ProxySubcommand::Info, _) => build::bulk(&mut out, self.info(&args[2..]).trim_start().as_bytes()),
            (ProxySubcommand::Help, 2) => {
                build::header(&mut out, b'*', HELP.len());
                for text in HELP {
                    out.push(b'+');
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
            (ProxySubcommand::Health, 2 | 3) => match args.get(2).map(|word| word.to_ascii_lowercase()).as_deref() {
                None | Some(b"live") => out = self.health(&[]),
                Some(b"ready") => out = self.health(&self.unready()),
                Some(_) => build::error(&mut out, "ERR PROXY HEALTH takes live or ready"),
            },
            (ProxySubcommand::Other, _) => {
                let shown: String = String::from_utf8_lossy(args[1]).chars().take(128).collect();
                build::error(&mut out, &format!("ERR unknown subcommand '{shown}'. Try PROXY HELP."));
            }
            _ => {
                let name = String::from_utf8_lossy(args[1]).to_ascii_lowercase();
                build::error(&mut out, &format!("ERR wrong number of arguments for 'proxy|{name}' command"));
            }
        }
        out
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        let all = [&b"all"[..], b"default", b"everything"];
        let everything =
            sections.is_empty() || sections.iter().any(|asked| all.iter().any(|all| asked.eq_ignore_ascii_case(all)));
        let is_asked =
            |section: Section| sections.iter().any(|asked| asked.eq_ignore_ascii_case(section.title().as_bytes()));
        let mut out = String::new();
        let mut last = None;
        for (metric, value) in snapshot::take(&self.sources(), |section| everything || is_asked(section)) {
            if last.replace(metric.section) != Some(metric.section) {
                let _ = write!(out, "\r\n# {}\r\n", metric.section.title());
            }
            show(&mut out, metric, &value);
        }
        out
    }
}

/// Writes the lines of a metric. Writing to memory does not fail.
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
        // A text must stay on one line, whatever another server has sent.
        Value::Text(text) => write!(out, "{name}:{}\r\n", text.replace(['\r', '\n'], " ")),
        Value::ByOutcome(numbers) => {
            numbers.iter().try_for_each(|(outcome, number)| write!(out, "{name}_{outcome}:{number}\r\n"))
        }
    };
}

impl Admin {
    fn sources(&self) -> Sources<'_> {
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
            log_lines_dropped: log::dropped_lines(),
            buffers: (self.buffers.bytes().wrapping_add(self.buffers.offloaded()), self.buffers.max()),
            buffers_offloaded: self.buffers.offloaded(),
            l1_max: L1Bounds { bytes: config.l1.max_memory as u64, entries: config.l1.max_entries as u64 },
            server,
            upstream_overdue: self.endpoint.silence().overdue() as u64,
            upstream_up: upstream.up,
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

    /// The mode and its reason. Logs a change since the last call. Call this from a timer too, because the end of a lease is no
    /// event.
    pub fn observe_mode(&self, now: Instant) -> (Mode, ModeReason) {
        let (mode, reason) = self.coherence.mode_and_reason(now);
        if let Some(Ended { mode: from, lasted }) = self.history.observe(mode, now) {
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

    /// The reasons why it is not ready; empty if it is. A process that is about to end accepts no new connection, so it cannot be
    /// asked.
    fn unready(&self) -> Vec<String> {
        let upstream = self.status.seen(Instant::now());
        let is_replica = self.coherence.role() == Role::Replica;
        let reasons =
            [(!upstream.accepted).then(|| upstream.trouble()), is_replica.then(|| "Redis is a replica".to_owned())];
        reasons.into_iter().flatten().collect()
    }

    /// The reply to `PROXY HEALTH`, with the reasons against the state that was asked for. It needs no login, so it tells nothing
    /// else.
    fn health(&self, reasons: &[String]) -> Vec<u8> {
        let mut out = Vec::new();
        let upstream = self.status.seen(Instant::now());
        if !reasons.is_empty() {
            build::error(&mut out, &format!("NOTREADY {}", reasons.join("; ")));
        } else if upstream.up {
            build::status(&mut out, "OK");
        } else {
            build::status(&mut out, &format!("OK, but {}", upstream.trouble()));
        }
        out
    }
}
