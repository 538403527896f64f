//! The PROXY command, and the sections that INFO gets: shows the state of the rest, and owns nothing.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::bus::BusStats;
use crate::coherence::Coherence;
use crate::config::{Coherence as Feeds, Config, Live};
use crate::log;
use crate::resp::build;
use crate::stats::{FlushReason, Stats};
use crate::upstream::Endpoint;
use crate::worker_state::context::Windows;

/// What can be shown.
pub struct Admin {
    /// The workers' counters.
    pub stats: Arc<Stats>,
    /// The server that connections lead to.
    pub endpoint: Arc<Endpoint>,
    /// The mode and the lease.
    pub coherence: Arc<Coherence>,
    /// The bus's counters; all zero without a bus.
    pub bus: Arc<BusStats>,
    /// Where clients connect.
    pub address: SocketAddr,
    /// What is configured now.
    pub config: Live<Arc<Config>>,
    /// This start's number, as the connections to Redis are named.
    pub incarnation: u64,
}

/// A section: its title and what it shows.
type Section = (&'static str, fn(&Admin, &mut String));

const SECTIONS: [Section; 8] = [
    ("Proxy", Admin::proxy_section),
    ("ProxyClients", Admin::clients_section),
    ("L1", Admin::l1_section),
    ("Compression", Admin::compression_section),
    ("Invalidation", Admin::invalidation_section),
    ("Upstream", Admin::upstream_section),
    ("Coherence", Admin::coherence_section),
    ("Latency", Admin::latency_section),
];

const HELP: [&str; 11] = [
    "PROXY <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "INFO [section ...]",
    "    Show the state of this Shortstop: Proxy, ProxyClients, L1, Compression, Invalidation, Upstream, Coherence,",
    "    Latency. INFO shows the same sections behind those of Redis.",
    "FLUSH",
    "    Drop everything from L1 of this Shortstop. Redis is not touched.",
    "DEBUG PANIC",
    "    Panic while serving this connection, to see that the others go on. Only with enable_debug_command: true.",
    "HELP",
    "    Print this help.",
    "Everything else is Redis's: see COMMAND and HELP of redis-cli.",
];

/// One `name:value` line.
macro_rules! line {
    ($out:ident, $name:literal, $value:expr) => {
        // Writing to memory does not fail.
        let _ = write!($out, concat!($name, ":{}\r\n"), $value);
    };
}

impl Windows for Admin {
    fn proxy(&self, args: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let subcommand = args.get(1).map(|word| word.to_ascii_lowercase());
        match (subcommand.as_deref(), args.len()) {
            (None, _) => build::error(&mut out, "ERR wrong number of arguments for 'proxy' command"),
            // The first section needs no empty line before it.
            (Some(b"info"), _) => build::bulk(&mut out, self.info(&args[2..]).trim_start().as_bytes()),
            (Some(b"help"), 2) => {
                build::header(&mut out, b'*', HELP.len());
                for text in HELP {
                    out.push(b'+');
                    out.extend_from_slice(text.as_bytes());
                    out.extend_from_slice(b"\r\n");
                }
            }
            (Some(b"flush"), 2) => {
                self.coherence.flush("PROXY FLUSH");
                out.extend_from_slice(b"+OK\r\n");
            }
            (Some(b"help" | b"flush"), _) => {
                let name = String::from_utf8_lossy(subcommand.as_deref().unwrap_or_default()).into_owned();
                build::error(&mut out, &format!("ERR wrong number of arguments for 'proxy|{name}' command"));
            }
            (Some(_), _) => {
                let shown: String = String::from_utf8_lossy(args[1]).chars().take(128).collect();
                build::error(&mut out, &format!("ERR unknown subcommand '{shown}'. Try PROXY HELP."));
            }
        }
        out
    }

    fn info(&self, sections: &[&[u8]]) -> String {
        let all = [&b"all"[..], b"default", b"everything"];
        let is = |asked: &&[u8], name: &str| asked.eq_ignore_ascii_case(name.as_bytes());
        let everything =
            sections.is_empty() || sections.iter().any(|asked| all.iter().any(|all| asked.eq_ignore_ascii_case(all)));
        let mut out = String::new();
        for (title, show) in SECTIONS {
            if everything || sections.iter().any(|asked| is(asked, title)) {
                let _ = write!(out, "\r\n# {title}\r\n");
                show(self, &mut out);
            }
        }
        out
    }
}

/// As INFO writes a duration in microseconds.
fn usec(duration: Duration) -> String {
    format!("{:.3}", duration.as_secs_f64() * 1e6)
}

impl Admin {
    fn proxy_section(&self, out: &mut String) {
        line!(out, "shortstop_version", env!("CARGO_PKG_VERSION"));
        line!(out, "incarnation", format_args!("{:016x}", self.incarnation));
        line!(out, "fleet", self.config.get().fleet);
        line!(out, "listen", self.address);
        line!(out, "upstream", self.config.get().upstream);
        line!(out, "proxy_process_id", std::process::id());
        line!(out, "proxy_uptime_in_seconds", self.stats.started.elapsed().as_secs());
        line!(out, "workers", self.stats.workers.len());
        line!(out, "panics", self.stats.shared.panics.load(Ordering::Relaxed));
        line!(out, "log_lines_dropped", log::dropped_lines());
    }

    fn clients_section(&self, out: &mut String) {
        let stats = &self.stats;
        line!(out, "proxy_clients", stats.sum(|worker| &worker.clients));
        line!(out, "proxy_clients_accepted", stats.sum(|worker| &worker.clients_accepted));
        line!(out, "proxy_clients_dropped", stats.sum(|worker| &worker.clients_dropped));
        line!(out, "proxy_clients_refused", stats.shared.clients_refused.load(Ordering::Relaxed));
        line!(out, "buffers_bytes", stats.shared.buffers.load(Ordering::Relaxed));
        line!(out, "buffers_max_bytes", stats.shared.buffers_max.load(Ordering::Relaxed));
        line!(out, "proxy_commands", stats.sum(|worker| &worker.commands));
        line!(out, "proxy_errors_client", stats.sum(|worker| &worker.errors_client));
        line!(out, "proxy_errors_upstream", stats.sum(|worker| &worker.errors_upstream));
        line!(out, "proxy_errors_us", stats.sum(|worker| &worker.errors_us));
        line!(out, "proxy_sessions", stats.sum(|worker| &worker.sessions));
    }

    fn l1_section(&self, out: &mut String) {
        let hits = self.stats.sum(|worker| &worker.l1_hits);
        let misses = self.stats.sum(|worker| &worker.l1_misses);
        line!(out, "l1_hits", hits);
        line!(out, "l1_misses", misses);
        line!(out, "l1_entries", self.stats.shared.entries.load(Ordering::Relaxed));
        line!(out, "l1_bytes", self.stats.shared.entry_bytes.load(Ordering::Relaxed));
        line!(out, "l1_max_bytes", self.config.get().l1.max_memory);
        line!(out, "l1_max_entries", self.config.get().l1.max_entries);
        line!(out, "l1_evictions", self.stats.shared.evictions.load(Ordering::Relaxed));
        line!(out, "hit_rate", ratio(hits, hits + misses));
    }

    fn compression_section(&self, out: &mut String) {
        let bytes_in = self.stats.sum(|worker| &worker.compressed_bytes_in);
        let bytes_out = self.stats.sum(|worker| &worker.compressed_bytes_out);
        line!(out, "compressed_values", self.stats.sum(|worker| &worker.compressed_values));
        line!(out, "compressed_bytes_in", bytes_in);
        line!(out, "compressed_bytes_out", bytes_out);
        line!(out, "compression_saved_bytes", bytes_in.saturating_sub(bytes_out));
        line!(out, "compression_ratio", ratio(bytes_in, bytes_out));
        line!(out, "opened_values", self.stats.sum(|worker| &worker.opened_values));
        line!(out, "damaged_values", self.stats.sum(|worker| &worker.damaged_values));
    }

    fn invalidation_section(&self, out: &mut String) {
        let bus = &self.bus;
        let get = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        line!(out, "invalidations_published", get(&bus.published));
        line!(out, "invalidations_received", get(&bus.received));
        line!(out, "invalidations_applied", get(&bus.applied));
        line!(out, "invalidations_dropped", get(&bus.dropped));
        line!(out, "json_published", get(&bus.json_published));
        line!(out, "json_received", get(&bus.json_received));
        line!(out, "json_bad", get(&bus.json_bad));
        line!(out, "json_dropped", get(&bus.json_dropped));
        line!(out, "nats_configured", u8::from(self.config.get().nats.is_some()));
        line!(out, "nats_connected", u8::from(bus.connected.load(Ordering::Relaxed)));
        line!(out, "peers", get(&bus.peers));
        line!(out, "peers_unheard", get(&bus.unheard));
        line!(out, "peers_elsewhere", get(&bus.other_upstream));
        line!(out, "gaps", get(&bus.gaps));
        line!(out, "unreadable", get(&bus.unreadable));
        let flushes = |reason| self.stats.shared.flushes_for(reason);
        line!(out, "flushes", get(&self.stats.shared.flushes));
        line!(out, "flushes_scripts", flushes(FlushReason::Scripts));
        line!(out, "flushes_commands", flushes(FlushReason::Commands));
        line!(out, "flushes_bus", flushes(FlushReason::Bus));
        line!(out, "flushes_upstream", flushes(FlushReason::Upstream));
        line!(out, "flushes_other", flushes(FlushReason::Other));
    }

    fn upstream_section(&self, out: &mut String) {
        let stats = &self.stats;
        let server = self.endpoint.server();
        let address = server.as_ref().map(|server| server.address.to_string());
        line!(out, "upstream_address", address.unwrap_or_default());
        line!(out, "upstream_run_id", server.as_ref().and_then(|server| server.run_id.as_deref()).unwrap_or_default());
        line!(out, "upstream_moves", self.stats.shared.upstream_moves.load(Ordering::Relaxed));
        line!(out, "upstream_commands", stats.sum(|worker| &worker.upstream_commands));
        line!(out, "upstream_errors", stats.sum(|worker| &worker.upstream_errors));
        line!(out, "upstream_reconnects", stats.sum(|worker| &worker.upstream_reconnects));
        line!(out, "upstream_connections", stats.sum(|worker| &worker.upstream_connections));
        line!(out, "writes_unknown", stats.sum(|worker| &worker.writes_unknown));
    }

    fn coherence_section(&self, out: &mut String) {
        let now = Instant::now();
        line!(out, "mode", self.coherence.mode(now).as_str());
        line!(
            out,
            "coherence",
            match self.config.get().coherence {
                Feeds::Auto if self.config.get().nats.is_some() => "nats",
                Feeds::Auto => "none",
                other => other.as_str(),
            }
        );
        let age = self.coherence.lease_age(now);
        line!(out, "lease_age_ms", age.map_or(-1, |age| i64::try_from(age.as_millis()).unwrap_or(i64::MAX)));
        line!(out, "max_staleness_ms", self.config.get().max_staleness.as_millis());
        line!(out, "degraded_staleness_ms", self.config.get().degraded_staleness.as_millis());
        line!(out, "generation", self.coherence.generation());
        line!(out, "fills", self.stats.shared.fills.load(Ordering::Relaxed));
        line!(out, "fills_poisoned", self.stats.shared.fills_poisoned.load(Ordering::Relaxed));
    }

    fn latency_section(&self, out: &mut String) {
        let stats = &self.stats;
        line!(out, "hit_p50_usec", usec(stats.quantile(|worker| &worker.hit, 0.5)));
        line!(out, "hit_p99_usec", usec(stats.quantile(|worker| &worker.hit, 0.99)));
        line!(out, "miss_p50_usec", usec(stats.quantile(|worker| &worker.miss, 0.5)));
        line!(out, "miss_p99_usec", usec(stats.quantile(|worker| &worker.miss, 0.99)));
    }
}

/// With four decimals; zero of nothing.
fn ratio(part: u64, whole: u64) -> String {
    let ratio = if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
    format!("{ratio:.4}")
}
