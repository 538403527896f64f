//! The metrics, one row each: section, name, kind, unit, meaning, and how it is read. A new metric is a new row, and nothing else.

use std::fmt::Display;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, UNIX_EPOCH};

use super::metric::Kind::{self, Counter, Gauge, Text};
use super::metric::Unit::{self, Bytes, Microseconds, Milliseconds, None as Nothing, Ratio, Seconds};
use super::metric::Value::{self, ByOutcome, Count, Known, Time};
use super::metric::{Metric, Section, Sources};
use super::outcome::{Family, FlushReason, NotKept, Outcome, Tally};
use super::slots::Worker;
use super::stored::Stored;

const MINUTE: Duration = Duration::from_secs(60);
const TEN_MINUTES: Duration = Duration::from_secs(600);

pub(super) const METRICS: &[Metric] = &[
    row(Section::Proxy, "shortstop_version", Text, Nothing, "The version of this Shortstop.", |_| {
        text(env!("CARGO_PKG_VERSION"))
    }),
    row(
        Section::Proxy,
        "incarnation",
        Text,
        Nothing,
        "The random number of this start, which the names of the connections to Redis contain.",
        |from| text(format_args!("{:016x}", from.facts.incarnation)),
    ),
    row(Section::Proxy, "fleet", Text, Nothing, "The name of the fleet.", |from| text(&from.facts.fleet)),
    row(Section::Proxy, "listen", Text, Nothing, "Where clients connect.", |from| text(&from.facts.listen)),
    row(Section::Proxy, "upstream", Text, Nothing, "The configured upstream, without its password.", |from| {
        text(&from.facts.upstream)
    }),
    row(Section::Proxy, "proxy_process_id", Gauge, Nothing, "The process id.", |_| Count(std::process::id().into())),
    row(Section::Proxy, "proxy_uptime_in_seconds", Gauge, Seconds, "Time since the start.", |from| {
        Count(from.stats.started.elapsed().as_secs())
    }),
    row(Section::Proxy, "workers", Gauge, Nothing, "Threads that serve clients.", |from| {
        Count(from.stats.workers.len() as u64)
    }),
    row(
        Section::Proxy,
        "proxy_memory_bytes",
        Gauge,
        Bytes,
        "Memory that this process takes (resident set size); -1: not known.",
        |from| Known(from.facts.memory.0),
    ),
    row(
        Section::Proxy,
        "proxy_memory_max_bytes",
        Gauge,
        Bytes,
        "Memory that is available to it: that of the machine or of its control group.",
        |from| Count(from.facts.memory.1),
    ),
    row(Section::Proxy, "alerts_firing", Gauge, Nothing, "Alerts that fire now.", |from| {
        Count(from.facts.alerts_firing.len() as u64)
    }),
    row(Section::Proxy, "alerts_firing_names", Text, Nothing, "Their names, separated by commas.", |from| {
        text(from.facts.alerts_firing.join(","))
    }),
    row(Section::Proxy, "webhook_sent", Counter, Nothing, "Alerts that alerts.webhook has accepted.", |from| {
        Count(from.stats.shared.webhook.counts()[0])
    }),
    row(Section::Proxy, "webhook_failed", Counter, Nothing, "Attempts to post an alert that failed.", |from| {
        Count(from.stats.shared.webhook.counts()[1])
    }),
    row(Section::Proxy, "webhook_dropped", Counter, Nothing, "Alerts that were not posted.", |from| {
        Count(from.stats.shared.webhook.counts()[2])
    }),
    row(
        Section::Proxy,
        "panics",
        Counter,
        Nothing,
        "Client connections that ended because of a fault in Shortstop.",
        |from| shared(&from.stats.shared.panics),
    ),
    row(
        Section::Proxy,
        "log_lines_dropped",
        Counter,
        Nothing,
        "Lines of the log that could not be written in time.",
        |from| Count(from.facts.log_lines_dropped),
    ),
    row(Section::ProxyClients, "proxy_clients", Gauge, Nothing, "Clients connected now.", |from| {
        Count(from.stats.sum(|worker| &worker.clients))
    }),
    row(Section::ProxyClients, "proxy_clients_accepted", Counter, Nothing, "Clients accepted.", |from| {
        Count(from.stats.sum(|worker| &worker.clients_accepted))
    }),
    row(
        Section::ProxyClients,
        "proxy_clients_dropped",
        Counter,
        Nothing,
        "Clients that were dropped because of a limit, or because Shortstop could not continue.",
        |from| all(from, |worker| &worker.clients_dropped),
    ),
    row(Section::ProxyClients, "proxy_clients_dropped", Counter, Nothing, "The same, by reason.", |from| {
        each(from, |worker| &worker.clients_dropped)
    }),
    row(
        Section::ProxyClients,
        "proxy_clients_refused",
        Counter,
        Nothing,
        "Clients refused because of limits.max_clients.",
        |from| shared(&from.stats.shared.clients_refused),
    ),
    row(
        Section::ProxyClients,
        "buffers_bytes",
        Gauge,
        Bytes,
        "Bytes in the buffers of all clients, including buffers_offloaded_bytes.",
        |from| Count(from.facts.buffers.0),
    ),
    row(
        Section::ProxyClients,
        "buffers_offloaded_bytes",
        Gauge,
        Bytes,
        "Bytes of memory that offloaded compression and decompression takes.",
        |from| Count(from.facts.buffers_offloaded),
    ),
    row(
        Section::ProxyClients,
        "buffers_max_bytes",
        Gauge,
        Bytes,
        "The bound of buffers_bytes: limits.buffers_total.",
        |from| Count(from.facts.buffers.1),
    ),
    row(Section::ProxyClients, "proxy_commands", Counter, Nothing, "Requests of clients.", |from| {
        Count(from.stats.sum(|worker| &worker.commands))
    }),
    row(
        Section::ProxyClients,
        "proxy_errors",
        Counter,
        Nothing,
        "Shortstop's own errors, by the side that caused them.",
        |from| each(from, |worker| &worker.errors),
    ),
    row(
        Section::ProxyClients,
        "proxy_sessions",
        Gauge,
        Nothing,
        "Private connections to Redis in use by clients.",
        |from| Count(from.stats.sum(|worker| &worker.sessions)),
    ),
    row(Section::L1, "l1_hits", Counter, Nothing, "Keys of reads answered from L1.", |from| {
        Count(from.stats.sum(|worker| &worker.l1_hits))
    }),
    row(
        Section::L1,
        "l1_misses",
        Counter,
        Nothing,
        "Keys of reads that went to Redis although a rule allows keeping them.",
        |from| Count(from.stats.sum(|worker| &worker.l1_misses)),
    ),
    row(Section::L1, "l1_entries", Gauge, Nothing, "Entries in L1.", |from| shared(&from.stats.shared.entries)),
    row(Section::L1, "l1_bytes", Gauge, Bytes, "Memory that the entries take.", |from| {
        shared(&from.stats.shared.entry_bytes)
    }),
    row(Section::L1, "l1_max_bytes", Gauge, Bytes, "The bound of l1_bytes: l1.max_memory.", |from| {
        Count(from.facts.l1_max.bytes)
    }),
    row(Section::L1, "l1_max_entries", Gauge, Nothing, "The bound of l1_entries: l1.max_entries.", |from| {
        Count(from.facts.l1_max.entries)
    }),
    row(Section::L1, "l1_evictions", Counter, Nothing, "Entries evicted to make room.", |from| {
        shared(&from.stats.shared.evictions)
    }),
    row(
        Section::L1,
        "hit_rate",
        Gauge,
        Ratio,
        "Hits among hits and misses, since the start or the last reset.",
        |from| {
            let hits = from.stats.sum(|worker| &worker.l1_hits);
            ratio(hits, hits + from.stats.sum(|worker| &worker.l1_misses))
        },
    ),
    row(
        Section::L1,
        "not_kept",
        Counter,
        Nothing,
        "Replies that were not kept although a rule allows it, by reason.",
        |from| each(from, |worker| &worker.not_kept),
    ),
    row(
        Section::Compression,
        "compression_mode",
        Text,
        Nothing,
        "on: values are compressed as the rules say; read: none is, and stored values may be; off: no stored value is compressed.",
        |from| text(from.facts.compression),
    ),
    row(
        Section::Compression,
        "compressed_while_off",
        Gauge,
        Nothing,
        "1: a compressed value has come from Redis although compression is off; it counts as read until the restart.",
        |from| Count(from.stats.shared.compressed_while_off.load(Ordering::Relaxed).into()),
    ),
    row(
        Section::Compression,
        "direct_clients",
        Gauge,
        Nothing,
        "Connections of other programs to Redis: they read compressed values as they are stored; -1: not known.",
        |from| Known(*from.stats.shared.direct_clients.lock().unwrap_or_else(PoisonError::into_inner)),
    ),
    row(
        Section::Compression,
        "compressed_values",
        Counter,
        Nothing,
        "Values compressed on their way to Redis.",
        |from| Count(from.stats.sum(|worker| &worker.compressed_values)),
    ),
    row(Section::Compression, "zstd_values", Counter, Nothing, "Of these, those compressed with zstd.", |from| {
        Count(from.stats.sum(|worker| &worker.zstd_values))
    }),
    row(Section::Compression, "compressed_bytes_in", Counter, Bytes, "Bytes of these values.", |from| {
        Count(from.stats.sum(|worker| &worker.compressed_bytes_in))
    }),
    row(
        Section::Compression,
        "compressed_bytes_out",
        Counter,
        Bytes,
        "Bytes of these values after compression.",
        |from| Count(from.stats.sum(|worker| &worker.compressed_bytes_out)),
    ),
    row(Section::Compression, "compression_saved_bytes", Counter, Bytes, "Bytes that Redis need not store.", |from| {
        let bytes_out = from.stats.sum(|worker| &worker.compressed_bytes_out);
        Count(from.stats.sum(|worker| &worker.compressed_bytes_in).saturating_sub(bytes_out))
    }),
    row(
        Section::Compression,
        "compression_ratio",
        Gauge,
        Ratio,
        "compressed_bytes_in divided by compressed_bytes_out.",
        |from| {
            let bytes_in = from.stats.sum(|worker| &worker.compressed_bytes_in);
            ratio(bytes_in, from.stats.sum(|worker| &worker.compressed_bytes_out))
        },
    ),
    row(
        Section::Compression,
        "compression_usec",
        Counter,
        Microseconds,
        "Time that compressing took, also where it did not save enough.",
        |from| Count(from.stats.sum(|worker| &worker.compress_nanos) / 1000),
    ),
    row(
        Section::Compression,
        "compression_skipped",
        Counter,
        Nothing,
        "Values that a rule compresses and that were stored as they came, by reason.",
        |from| each(from, |worker| &worker.compression_skipped),
    ),
    row(Section::Compression, "decompression_usec", Counter, Microseconds, "Time that decompressing took.", |from| {
        Count(from.stats.sum(|worker| &worker.decode_nanos) / 1000)
    }),
    row(
        Section::Compression,
        "stored_compressed_values",
        Gauge,
        Nothing,
        "Values that are compressed in Redis now, an estimate from a sample of its keys; -1: not known.",
        |from| stored(from, |stored| stored.all().values as u64),
    ),
    row(
        Section::Compression,
        "stored_saved_bytes",
        Gauge,
        Bytes,
        "Bytes that compression saves in Redis now, an estimate; -1: not known.",
        |from| stored(from, |stored| stored.all().saved_bytes()),
    ),
    row(
        Section::Compression,
        "stored_sampled_keys",
        Gauge,
        Nothing,
        "Keys in the sample from which that is estimated; -1: there was none.",
        |from| stored(from, |stored| stored.sampled),
    ),
    row(
        Section::Compression,
        "opened_values",
        Counter,
        Nothing,
        "Values decompressed on their way to clients.",
        |from| Count(from.stats.sum(|worker| &worker.opened_values)),
    ),
    row(
        Section::Compression,
        "converted_values",
        Counter,
        Nothing,
        "Stored values turned back to plain for commands that look into strings.",
        |from| Count(from.stats.sum(|worker| &worker.converted_values)),
    ),
    row(
        Section::Compression,
        "damaged_values",
        Counter,
        Nothing,
        "Compressed values that could not be decompressed.",
        |from| Count(from.stats.sum(|worker| &worker.damaged_values)),
    ),
    row(
        Section::Invalidation,
        "invalidations_published",
        Counter,
        Nothing,
        "Events published to the fleet. An event is one key, or one flush.",
        |from| shared(&from.bus.published),
    ),
    row(Section::Invalidation, "invalidations_received", Counter, Nothing, "Events received from the fleet.", |from| {
        shared(&from.bus.received)
    }),
    row(
        Section::Invalidation,
        "invalidations_applied",
        Counter,
        Nothing,
        "Events applied to L1, from the fleet and from other services.",
        |from| shared(&from.bus.applied),
    ),
    row(
        Section::Invalidation,
        "invalidations_dropped",
        Counter,
        Nothing,
        "Events that could not be published; the fleet flushes L1 instead.",
        |from| shared(&from.bus.dropped),
    ),
    row(Section::Invalidation, "json_published", Counter, Nothing, "Messages published to other services.", |from| {
        shared(&from.bus.json_published)
    }),
    row(Section::Invalidation, "json_received", Counter, Nothing, "Messages received from other services.", |from| {
        shared(&from.bus.json_received)
    }),
    row(
        Section::Invalidation,
        "json_bad",
        Counter,
        Nothing,
        "Messages of other services that were not understood.",
        |from| shared(&from.bus.json_bad),
    ),
    row(
        Section::Invalidation,
        "json_dropped",
        Counter,
        Nothing,
        "Messages to other services that could not be sent.",
        |from| shared(&from.bus.json_dropped),
    ),
    row(Section::Invalidation, "nats_configured", Gauge, Nothing, "1: NATS is configured.", |from| {
        Count(from.facts.nats_configured.into())
    }),
    row(
        Section::Invalidation,
        "nats_connected",
        Gauge,
        Nothing,
        "1: NATS is connected, and a heartbeat of this Shortstop has come back.",
        |from| Count(from.bus.connected.load(Ordering::Relaxed).into()),
    ),
    row(
        Section::Invalidation,
        "peers",
        Gauge,
        Nothing,
        "Other Shortstops of the fleet, including lost ones.",
        |from| shared(&from.bus.peers),
    ),
    row(
        Section::Invalidation,
        "peers_unheard",
        Gauge,
        Nothing,
        "Shortstops of the fleet that Redis shows and that are not heard.",
        |from| shared(&from.bus.unheard),
    ),
    row(
        Section::Invalidation,
        "peers_lost",
        Gauge,
        Nothing,
        "Shortstops of the fleet that fell silent without saying goodbye and may still write.",
        |from| shared(&from.bus.lost),
    ),
    row(
        Section::Invalidation,
        "peers_elsewhere",
        Gauge,
        Nothing,
        "Shortstops of the fleet that use another Redis.",
        |from| shared(&from.bus.other_upstream),
    ),
    row(
        Section::Invalidation,
        "gaps",
        Counter,
        Nothing,
        "Gaps in the sequence numbers of the fleet's messages.",
        |from| shared(&from.bus.gaps),
    ),
    row(
        Section::Invalidation,
        "unreadable",
        Counter,
        Nothing,
        "Messages of the fleet that were not understood.",
        |from| shared(&from.bus.unreadable),
    ),
    row(Section::Invalidation, "updates_published", Counter, Nothing, "Values announced to other services.", |from| {
        shared(&from.bus.updates_published)
    }),
    row(
        Section::Invalidation,
        "updates_dropped",
        Counter,
        Nothing,
        "Values that could not be announced; the message about the key was sent by itself.",
        |from| shared(&from.bus.updates_dropped),
    ),
    row(
        Section::Invalidation,
        "updates_too_large",
        Counter,
        Nothing,
        "Values that are too large to be announced.",
        |from| shared(&from.bus.updates_too_large),
    ),
    row(
        Section::Invalidation,
        "summaries_published",
        Counter,
        Nothing,
        "Summaries of this Shortstop that were published for PROXY FLEET.",
        |from| shared(&from.bus.summaries_published),
    ),
    row(
        Section::Invalidation,
        "summaries_received",
        Counter,
        Nothing,
        "Summaries of Shortstops that arrived, including those of this one.",
        |from| shared(&from.bus.summaries_received),
    ),
    row(
        Section::Invalidation,
        "summaries_bad",
        Counter,
        Nothing,
        "Messages on the subject of the summaries that were ignored.",
        |from| shared(&from.bus.summaries_bad),
    ),
    row(Section::Invalidation, "flushes", Counter, Nothing, "Flushes of L1.", |from| Count(from.flushes())),
    row(Section::Invalidation, "flushes", Counter, Nothing, "The same, by reason.", |from| {
        let flushes = &from.stats.shared.flushes;
        ByOutcome(FlushReason::ALL.iter().map(|reason| (reason.name(), flushes.get(*reason))).collect())
    }),
    row(
        Section::Invalidation,
        "last_flush_reason",
        Text,
        Nothing,
        "The reason of the last flush; none: there was none.",
        |from| text(from.stats.shared.last_flush().map_or("none", |last| last.reason.name())),
    ),
    row(Section::Invalidation, "last_flush_why", Text, Nothing, "The last flush, as the log describes it.", |from| {
        text(from.stats.shared.last_flush().map(|last| last.why).unwrap_or_default())
    }),
    row(
        Section::Invalidation,
        "last_flush_age_ms",
        Gauge,
        Milliseconds,
        "How long ago the last flush was; -1: there was none.",
        |from| age(from.stats.shared.last_flush().map(|last| from.now.saturating_duration_since(last.at))),
    ),
    row(Section::Upstream, "upstream_up", Gauge, Nothing, "1: Redis answers and accepts Shortstop's login.", |from| {
        Count(from.facts.upstream_up.into())
    }),
    row(Section::Upstream, "upstream_last_error", Text, Nothing, "The last failure; empty: there was none.", |from| {
        text(from.facts.upstream_error.as_ref().map_or("", |(why, _)| why))
    }),
    row(
        Section::Upstream,
        "upstream_last_error_age_ms",
        Gauge,
        Milliseconds,
        "How long ago the last failure was seen; -1: never.",
        |from| age(from.facts.upstream_error.as_ref().map(|(_, age)| *age)),
    ),
    row(
        Section::Upstream,
        "upstream_missing_rights",
        Text,
        Nothing,
        "Commands that Shortstop needs but its own user has no right to, separated by commas.",
        |from| text(from.facts.upstream_missing_rights.join(",")),
    ),
    row(
        Section::Upstream,
        "upstream_address",
        Text,
        Nothing,
        "The address of the server to which connections lead.",
        |from| text(from.facts.server.as_ref().map_or("", |server| &server.address)),
    ),
    row(Section::Upstream, "upstream_run_id", Text, Nothing, "The run id of that server.", |from| {
        text(from.facts.server.as_ref().map_or("", |server| &server.run_id))
    }),
    row(
        Section::Upstream,
        "upstream_used_memory_bytes",
        Gauge,
        Bytes,
        "used_memory of that server, asked every ten seconds; -1: not known.",
        |from| Known(from.facts.upstream_used_memory),
    ),
    row(
        Section::Upstream,
        "upstream_moves",
        Counter,
        Nothing,
        "How often all connections moved to another server.",
        |from| shared(&from.stats.shared.upstream_moves),
    ),
    row(Section::Upstream, "upstream_commands", Counter, Nothing, "Requests sent to Redis.", |from| {
        Count(from.stats.sum(|worker| &worker.upstream_commands))
    }),
    row(
        Section::Upstream,
        "upstream_errors",
        Counter,
        Nothing,
        "Requests answered with an error because Redis could not answer them.",
        |from| Count(from.stats.sum(|worker| &worker.upstream_errors)),
    ),
    row(
        Section::Upstream,
        "upstream_reconnects",
        Counter,
        Nothing,
        "Connections opened again after one was lost.",
        |from| Count(from.stats.sum(|worker| &worker.upstream_reconnects)),
    ),
    row(
        Section::Upstream,
        "upstream_repeats",
        Counter,
        Nothing,
        "Reads repeated after their connection was lost.",
        |from| Count(from.stats.sum(|worker| &worker.upstream_repeats)),
    ),
    row(
        Section::Upstream,
        "upstream_connections",
        Gauge,
        Nothing,
        "Connections to Redis, including private ones and those being opened.",
        |from| Count(from.stats.sum(|worker| &worker.upstream_connections)),
    ),
    row(
        Section::Upstream,
        "upstream_overdue",
        Gauge,
        Nothing,
        "Connections on which a reply is overdue by a second.",
        |from| Count(from.facts.upstream_overdue),
    ),
    row(Section::Upstream, "writes_unknown", Counter, Nothing, "Writes with an unknown outcome.", |from| {
        all(from, |worker| &worker.writes_unknown)
    }),
    row(Section::Upstream, "writes_unknown", Counter, Nothing, "The same, by reason.", |from| {
        each(from, |worker| &worker.writes_unknown)
    }),
    row(Section::Coherence, "mode", Text, Nothing, "How far L1 is trusted: off, single, live or degraded.", |from| {
        text(from.facts.mode)
    }),
    row(Section::Coherence, "mode_reason", Text, Nothing, "Why.", |from| text(from.facts.mode_reason)),
    row(Section::Coherence, "mode_since", Gauge, Seconds, "When this mode began, in seconds of Unix time.", |from| {
        Count(from.facts.mode_since.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs())
    }),
    row(
        Section::Coherence,
        "coherence",
        Text,
        Nothing,
        "The feed that keeps L1 coherent: nats, none or off.",
        |from| text(from.facts.coherence),
    ),
    row(
        Section::Coherence,
        "lease_age_ms",
        Gauge,
        Milliseconds,
        "Time since NATS last brought back a probe; -1: never, or no NATS.",
        |from| age(from.facts.lease_age),
    ),
    row(
        Section::Coherence,
        "max_staleness_ms",
        Gauge,
        Milliseconds,
        "The maximum age of an entry that L1 serves.",
        |from| Time(from.facts.max_staleness),
    ),
    row(Section::Coherence, "degraded_staleness_ms", Gauge, Milliseconds, "The same while NATS is in doubt.", |from| {
        Time(from.facts.degraded_staleness)
    }),
    row(
        Section::Coherence,
        "generation",
        Counter,
        Nothing,
        "Grows with each flush. Entries of older generations are not served.",
        |from| Count(from.facts.generation),
    ),
    row(Section::Coherence, "fills", Counter, Nothing, "Entries added to L1.", |from| shared(&from.stats.shared.fills)),
    row(
        Section::Coherence,
        "fills_poisoned",
        Counter,
        Nothing,
        "Replies that were not kept because their key changed meanwhile; the same as not_kept_changed.",
        |from| Count(from.stats.tally(|worker| &worker.not_kept, NotKept::Changed)),
    ),
    row(
        Section::Latency,
        "hit_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of reads answered from L1, from reading the request to writing the reply, since the start.",
        |from| Time(from.latency(|all| all.hit.quantile(0.5), None)),
    ),
    row(
        Section::Latency,
        "hit_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of reads answered from L1, from reading the request to writing the reply, since \
         the start.",
        |from| Time(from.latency(|all| all.hit.quantile(0.99), None)),
    ),
    row(
        Section::Latency,
        "hit_p50_usec_1m",
        Gauge,
        Microseconds,
        "Median latency of reads answered from L1, from reading the request to writing the reply, over the last \
         minute.",
        |from| Time(from.latency(|all| all.hit.quantile(0.5), Some(MINUTE))),
    ),
    row(
        Section::Latency,
        "hit_p99_usec_1m",
        Gauge,
        Microseconds,
        "99th percentile latency of reads answered from L1, from reading the request to writing the reply, over the \
         last minute.",
        |from| Time(from.latency(|all| all.hit.quantile(0.99), Some(MINUTE))),
    ),
    row(
        Section::Latency,
        "hit_p50_usec_10m",
        Gauge,
        Microseconds,
        "Median latency of reads answered from L1, from reading the request to writing the reply, over the last ten \
         minutes.",
        |from| Time(from.latency(|all| all.hit.quantile(0.5), Some(TEN_MINUTES))),
    ),
    row(
        Section::Latency,
        "hit_p99_usec_10m",
        Gauge,
        Microseconds,
        "99th percentile latency of reads answered from L1, from reading the request to writing the reply, over the \
         last ten minutes.",
        |from| Time(from.latency(|all| all.hit.quantile(0.99), Some(TEN_MINUTES))),
    ),
    row(
        Section::Latency,
        "miss_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of reads sent to Redis, from sending the request to receiving the reply, since the start.",
        |from| Time(from.latency(|all| all.miss.quantile(0.5), None)),
    ),
    row(
        Section::Latency,
        "miss_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of reads sent to Redis, from sending the request to receiving the reply, since the \
         start.",
        |from| Time(from.latency(|all| all.miss.quantile(0.99), None)),
    ),
    row(
        Section::Latency,
        "miss_p50_usec_1m",
        Gauge,
        Microseconds,
        "Median latency of reads sent to Redis, from sending the request to receiving the reply, over the last \
         minute.",
        |from| Time(from.latency(|all| all.miss.quantile(0.5), Some(MINUTE))),
    ),
    row(
        Section::Latency,
        "miss_p99_usec_1m",
        Gauge,
        Microseconds,
        "99th percentile latency of reads sent to Redis, from sending the request to receiving the reply, over the \
         last minute.",
        |from| Time(from.latency(|all| all.miss.quantile(0.99), Some(MINUTE))),
    ),
    row(
        Section::Latency,
        "miss_p50_usec_10m",
        Gauge,
        Microseconds,
        "Median latency of reads sent to Redis, from sending the request to receiving the reply, over the last ten \
         minutes.",
        |from| Time(from.latency(|all| all.miss.quantile(0.5), Some(TEN_MINUTES))),
    ),
    row(
        Section::Latency,
        "miss_p99_usec_10m",
        Gauge,
        Microseconds,
        "99th percentile latency of reads sent to Redis, from sending the request to receiving the reply, over the \
         last ten minutes.",
        |from| Time(from.latency(|all| all.miss.quantile(0.99), Some(TEN_MINUTES))),
    ),
    row(
        Section::Latency,
        "read_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of commands that only read, when they went to Redis, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Read).quantile(0.5)),
    ),
    row(
        Section::Latency,
        "read_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of commands that only read, when they went to Redis, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Read).quantile(0.99)),
    ),
    row(
        Section::Latency,
        "write_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of writes, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Write).quantile(0.5)),
    ),
    row(
        Section::Latency,
        "write_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of writes, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Write).quantile(0.99)),
    ),
    row(
        Section::Latency,
        "script_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of scripts and functions, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Script).quantile(0.5)),
    ),
    row(
        Section::Latency,
        "script_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of scripts and functions, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Script).quantile(0.99)),
    ),
    row(
        Section::Latency,
        "other_p50_usec",
        Gauge,
        Microseconds,
        "Median latency of all other commands that cannot block, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Other).quantile(0.5)),
    ),
    row(
        Section::Latency,
        "other_p99_usec",
        Gauge,
        Microseconds,
        "99th percentile latency of all other commands that cannot block, from reading the request to receiving the reply, since the start or the last reset.",
        |from| Time(from.stats.family_since_reset(Family::Other).quantile(0.99)),
    ),
];

const fn row(
    section: Section,
    name: &'static str,
    kind: Kind,
    unit: Unit,
    help: &'static str,
    read: fn(&Sources<'_>) -> Value,
) -> Metric {
    Metric { section, name, kind, unit, help, read }
}

/// A number of the estimate of what is stored.
fn stored(from: &Sources<'_>, number: impl Fn(&Stored) -> u64) -> Value {
    Known(from.stats.shared.stored.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(number))
}

fn text(text: impl Display) -> Value {
    Value::Text(text.to_string())
}

fn shared(number: &AtomicU64) -> Value {
    Count(number.load(Ordering::Relaxed))
}

fn age(age: Option<Duration>) -> Value {
    Known(age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// The ratio of two numbers. 0 if `whole` is 0.
pub(super) fn ratio(part: u64, whole: u64) -> Value {
    Value::Ratio(if whole == 0 { 0.0 } else { part as f64 / whole as f64 })
}

/// The count of each outcome.
fn each<O: Outcome>(from: &Sources<'_>, tally: impl Fn(&Worker) -> &Tally<O>) -> Value {
    ByOutcome(O::ALL.iter().map(|outcome| (outcome.name(), from.stats.tally(&tally, *outcome))).collect())
}

/// The count of all outcomes.
fn all<O: Outcome>(from: &Sources<'_>, tally: impl Fn(&Worker) -> &Tally<O>) -> Value {
    Count(O::ALL.iter().map(|outcome| from.stats.tally(&tally, *outcome)).sum())
}

#[cfg(test)]
mod tests {
    use super::{Kind, METRICS, Section, Unit};

    #[test]
    fn rows_stand_by_section_and_say_what_they_are() {
        let sections: Vec<Section> = METRICS.iter().map(|metric| metric.section).collect();
        let mut seen = sections.clone();
        seen.dedup();
        assert_eq!(seen, Section::ALL, "INFO's order");
        for metric in METRICS {
            let name = metric.name;
            assert!(metric.help.ends_with('.') && !metric.help.contains('\n'), "{name}");
            let suffixes = [("_bytes", Unit::Bytes), ("_ms", Unit::Milliseconds), ("_usec", Unit::Microseconds)];
            for (suffix, unit) in suffixes {
                assert!(!name.ends_with(suffix) || metric.unit == unit, "{name}");
            }
            assert!(metric.kind != Kind::Text || metric.unit == Unit::None, "{name}");
        }
    }
}
