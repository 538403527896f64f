//! What decides how requests are handled: the current configuration, and the server's command table.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::command::Table;
use crate::config::{self, Compression, Config, Limits, SlowLog};
use crate::metrics::rules::RuleCounts;
use crate::reads::Reads;
use crate::resp::ScanLimits;
use crate::rules::Rules;

/// The configuration as far as requests need it. A reload replaces it as a whole.
#[derive(Debug)]
pub struct Policy {
    /// The rules for keys.
    pub rules: Rules,
    /// Whether any key may be cached.
    pub caches: bool,
    /// Commands whose replies are kept for at least one key.
    pub reads: Reads,
    /// Whether MGET is one of them for every key that is kept at all.
    pub mget_everywhere: bool,
    /// Size of the smallest value that may be compressed. `None` if no value is compressed.
    pub compresses_from: Option<usize>,
    /// What the configuration says about compressed values.
    pub compression: Compression,
    /// How long a string is not compressed again after it was turned to plain.
    pub plain_for: Duration,
    /// A compressed value has come from Redis although the configuration says that there is none.
    compressed_met: Arc<AtomicBool>,
    /// Whether written values of any key are announced.
    pub announces: bool,
    /// Commands whose replies would be kept for at least one key that is only observed.
    pub would_keep: Reads,
    /// The same as `compresses_from` for keys that are only observed.
    pub would_compress_from: Option<usize>,
    /// Bounds of L1. Used here for the hot set.
    pub l1: config::L1,
    /// Bounds of buffers and queues.
    pub limits: Limits,
    /// What is logged as slow.
    pub slowlog: SlowLog,
    /// `limits.buffers_total` in bytes.
    pub buffers_total: usize,
    /// Bounds of a request.
    pub scan: ScanLimits,
    /// Values larger than this are compressed and decompressed on another thread.
    pub offload_above: usize,
    /// Whether `PROXY DEBUG` is allowed.
    pub debug_command: bool,
    /// Whether clients from other machines are refused while Redis requires no login.
    pub protected_mode: bool,
}

impl Policy {
    /// From a checked configuration, on a machine with this much memory. `compressed_met` is shared by all policies of this process.
    pub fn new(config: &Config, memory: usize, compressed_met: Arc<AtomicBool>) -> Self {
        let rules = Rules::compile(config);
        Policy {
            caches: rules.caches_anything(),
            reads: rules.reads(),
            mget_everywhere: rules.mget_everywhere(),
            compresses_from: rules.compresses_from(),
            compression: config.compression,
            plain_for: config.plain_for,
            compressed_met,
            announces: rules.announces_anything(),
            would_keep: rules.would_keep(),
            would_compress_from: rules.would_compress_from(),
            rules,
            l1: config.l1.clone(),
            limits: config.limits.clone(),
            slowlog: config.slowlog,
            buffers_total: config.limits.buffers_total.of(memory),
            scan: ScanLimits {
                bulk_length: config.limits.max_bulk_length,
                arguments: config.limits.max_arguments,
                line_length: config.limits.max_inline_length,
            },
            offload_above: config.offload_above,
            debug_command: config.enable_debug_command,
            protected_mode: config.protected_mode,
        }
    }

    /// Whether a stored value may be compressed. False only with `compression: off`, and until a reply has disproved it.
    #[inline]
    pub fn may_be_compressed(&self) -> bool {
        self.compression != Compression::Off || self.compressed_met.load(Ordering::Relaxed)
    }

    /// A compressed value has come from Redis. Returns whether it is the first that should not be there.
    pub fn met_compressed(&self) -> bool {
        self.compression == Compression::Off && !self.compressed_met.swap(true, Ordering::Relaxed)
    }
}

/// The policy and the command table, as one worker's own handles, so that reading them touches no shared memory.
#[derive(Clone, Debug)]
pub struct View {
    /// From the configuration.
    pub policy: Arc<Policy>,
    /// From the server.
    pub table: Arc<Table>,
    /// This worker's counts for these rules.
    pub rule_counts: Arc<RuleCounts>,
}
