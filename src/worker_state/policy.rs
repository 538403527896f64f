//! What requests are decided by: the configuration as it is now, and the server's table of commands.

use std::sync::Arc;

use crate::command::Table;
use crate::config::{self, Config, Limits};
use crate::reads::Reads;
use crate::resp::ScanLimits;
use crate::rules::Rules;

/// What the configuration says about requests; replaced as a whole at a reload.
#[derive(Debug)]
pub struct Policy {
    /// What happens to which keys.
    pub rules: Rules,
    /// Whether any key may be cached.
    pub caches: bool,
    /// Commands whose replies are kept of some key.
    pub reads: Reads,
    /// Whether MGET is one of them for every key that is kept at all.
    pub mget_everywhere: bool,
    /// Bytes of the smallest value that may be compressed; none: nothing is.
    pub compresses_from: Option<usize>,
    /// Bounds of L1; of the hot set, here.
    pub l1: config::L1,
    /// Bounds of buffers and queues.
    pub limits: Limits,
    /// `limits.buffers_total` in bytes.
    pub buffers_total: usize,
    /// Bounds of a request.
    pub scan: ScanLimits,
    /// Bytes above which a value is compressed and opened elsewhere.
    pub offload_above: usize,
    /// Whether `PROXY DEBUG` is allowed.
    pub debug_command: bool,
}

impl Policy {
    /// From a checked configuration, on a machine with so many bytes of memory.
    pub fn new(config: &Config, memory: usize) -> Self {
        let rules = Rules::compile(config);
        Policy {
            caches: rules.caches_anything(),
            reads: rules.reads(),
            mget_everywhere: rules.mget_everywhere(),
            compresses_from: rules.compresses_from(),
            rules,
            l1: config.l1.clone(),
            limits: config.limits.clone(),
            buffers_total: config.limits.buffers_total.of(memory),
            scan: ScanLimits {
                bulk_length: config.limits.max_bulk_length,
                arguments: config.limits.max_arguments,
                line_length: config.limits.max_inline_length,
            },
            offload_above: config.offload_above,
            debug_command: config.enable_debug_command,
        }
    }
}

/// What a request is decided by: a worker's own handle, so that looking costs nothing shared.
#[derive(Clone, Debug)]
pub struct View {
    /// From the configuration.
    pub policy: Arc<Policy>,
    /// From the server.
    pub table: Arc<Table>,
}
