//! The pace of what goes through many keys of Redis in the background.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::Admin;

/// Keys that are asked for together. Few, because their values are in memory together.
pub(super) const TOGETHER: usize = 16;

/// Keys that Redis looks at in one SCAN.
pub(super) const SCANNED: &[u8] = b"500";

/// When the next request may be sent: one SCAN, or so many for keys as are sent together.
pub(super) struct Pace(Instant);

impl Pace {
    pub(super) fn new() -> Self {
        Pace(Instant::now())
    }

    /// Waits until then.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub(super) async fn wait(&mut self, admin: &Admin) {
        sleep_until(self.0).await;
        // It may change meanwhile.
        let rate = admin.config.get().warm_rate.max(1);
        self.0 = Instant::now() + Duration::from_secs_f64(TOGETHER as f64 / rate as f64);
    }
}
