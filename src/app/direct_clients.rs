//! Warns that clients use this Redis directly while values are compressed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::config::{Config, Live};
use crate::metrics::slots::Stats;
use crate::rules::Rules;

/// Minimum interval of warnings.
const WARN_EVERY: Duration = Duration::from_secs(3600);

/// Receives how many there are.
pub(super) struct DirectClients {
    stats: Arc<Stats>,
    config: Live<Arc<Config>>,
    warned: Mutex<Option<Instant>>,
}

impl DirectClients {
    pub(super) fn new(stats: Arc<Stats>, config: Live<Arc<Config>>) -> Self {
        DirectClients { stats, config, warned: Mutex::default() }
    }

    /// Redis shows so many. `None`: it does not tell.
    pub(super) fn seen(&self, number: Option<u64>, now: Instant) {
        *self.stats.shared.direct_clients.lock().unwrap_or_else(PoisonError::into_inner) = number;
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if number.is_none_or(|number| number == 0) || warned.is_some_and(|last| now < last + WARN_EVERY) {
            return;
        }
        // Rules are compiled only when a warning is due.
        if Rules::compile(&self.config.get()).compresses_from().is_none() {
            return;
        }
        *warned = Some(now);
        tracing::warn!(
            number,
            "clients are connected to Redis directly while values are compressed: they read compressed values as gzip or zstd bytes. Let them \
             connect through Shortstop, or set compression: read"
        );
    }
}
