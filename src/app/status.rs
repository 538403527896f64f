//! The timer that tells the fleet of this instance: every few seconds, and when L1's mode has changed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use crate::admin::Admin;
use crate::summaries::{EVERY, Summary};

/// Interval of checks of the mode.
const LOOK: Duration = Duration::from_millis(100);

/// Interval of looks for hot keys. It costs each worker some microseconds.
const HOT_KEYS_EVERY: Duration = Duration::from_secs(9);

/// Tells until the process ends.
pub(super) async fn tell(admin: Arc<Admin>, status: mpsc::Sender<Vec<u8>>) {
    let mut ticks = tokio::time::interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut told, mut looked) = (None, None);
    let mut hot_keys = Vec::new();
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let (mode, _) = admin.observe_mode(now);
        if told.is_some_and(|(at, of)| of == mode && now < at + EVERY) {
            continue;
        }
        told = Some((now, mode));
        if looked.is_none_or(|at| now >= at + HOT_KEYS_EVERY) {
            looked = Some(now);
            hot_keys = admin.hot_key_names().await;
        }
        let summary = Summary { hot_keys: hot_keys.clone(), ..admin.summary(now) };
        // A full queue: NATS has not taken the last one.
        let _ = status.try_send(summary.encode());
    }
}
