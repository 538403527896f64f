//! What the runs in the background count, and how it is shown.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::decompress;

use super::background::{Counts, End};
use super::view::View;

/// What a warm-up counts.
#[derive(Default)]
pub struct Warmed {
    /// Keys that were found.
    pub(super) scanned: AtomicU64,
    /// Keys that were read.
    pub(super) read: AtomicU64,
    /// Reads that Redis has refused.
    pub(super) refused: AtomicU64,
}

impl Counts for Warmed {
    const RUNS: &'static str = "a warm-up is running; PROXY WARM CANCEL ends it";

    fn fields(&self) -> Vec<(&'static str, View)> {
        let count = |number: &AtomicU64| View::count(number.load(Ordering::Relaxed));
        vec![("scanned", count(&self.scanned)), ("read", count(&self.read)), ("refused", count(&self.refused))]
    }

    fn log(&self, end: &End, seconds: f64) {
        let read = self.read.load(Ordering::Relaxed);
        match end {
            End::Done => tracing::info!(read, seconds, "the warm-up of L1 is done"),
            End::Cancelled => tracing::info!(read, seconds, "the warm-up of L1 was cancelled"),
            End::Failed(why) => {
                tracing::warn!(read, seconds, why, "the warm-up of L1 has failed");
            }
        }
    }
}

/// What a run that turns values to plain counts, and where.
pub struct OfDatabase {
    /// The database.
    pub(super) db: u32,
    /// Keys are not shown.
    pub(super) redacts: bool,
    /// Values that are written meanwhile may be compressed again.
    pub(super) compresses: bool,
    /// What is counted.
    pub(super) counts: decompress::Counts,
}

impl Counts for OfDatabase {
    const RUNS: &'static str = "values are being decompressed; PROXY DECOMPRESS CANCEL ends it";

    fn fields(&self) -> Vec<(&'static str, View)> {
        let counts = &self.counts;
        let count = |number: &AtomicU64| View::count(number.load(Ordering::Relaxed));
        let shown = |key: Vec<u8>| if self.redacts { View::text("(redacted)") } else { View::Bytes(key) };
        let again = "compression is on: values that are written now are compressed again. Set compression: read in all of the fleet \
                     first";
        vec![
            ("db", View::count(self.db)),
            ("scanned", count(&counts.scanned)),
            ("decompressed", count(&counts.decompressed)),
            ("bytes_before", count(&counts.bytes_before)),
            ("bytes_after", count(&counts.bytes_after)),
            ("look_compressed", count(&counts.look_compressed)),
            ("damaged", count(&counts.damaged)),
            ("changing", count(&counts.changing)),
            ("refused", count(&counts.refused)),
            ("left", View::List(counts.left_keys().into_iter().map(|key| shown(key.to_vec())).collect())),
            ("note", View::maybe(self.compresses.then_some(again), View::text)),
        ]
    }

    fn log(&self, end: &End, seconds: f64) {
        let decompressed = self.counts.decompressed.load(Ordering::Relaxed);
        let left = self.counts.left();
        match end {
            End::Done => tracing::info!(decompressed, left, seconds, "stored values were turned to plain"),
            End::Cancelled => {
                tracing::info!(decompressed, left, seconds, "turning stored values to plain was cancelled")
            }
            End::Failed(why) => {
                tracing::warn!(
                    decompressed,
                    left,
                    seconds,
                    why,
                    "turning stored values to plain has failed; run it again"
                );
            }
        }
    }
}
