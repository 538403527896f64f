//! The pace of work in the background that goes through many keys of Redis.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Values that are asked for together. Few, because they are in memory together.
pub const TOGETHER: usize = 16;

/// When the next request may be sent.
pub struct Pace(Instant);

impl Default for Pace {
    fn default() -> Self {
        Pace(Instant::now())
    }
}

impl Pace {
    /// Waits until then. After that one SCAN may be sent, or requests for as many values as are asked for together. `rate`: values per
    /// second.
    ///
    /// # Cancel safety
    /// Nothing is lost.
    pub async fn wait(&mut self, rate: usize) {
        sleep_until(self.0).await;
        self.0 = Instant::now() + Duration::from_secs_f64(TOGETHER as f64 / rate.max(1) as f64);
    }
}
