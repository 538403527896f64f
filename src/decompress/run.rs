//! One run over the keys of a database.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::pace::{Pace, TOGETHER};
use crate::upstream::plain::{Outcome, Plain};

/// So many keys whose values stay compressed are named.
const NAMED: usize = 10;

/// How far a run is.
#[derive(Debug, Default)]
pub struct Counts {
    /// Keys of strings that match.
    pub scanned: AtomicU64,
    /// Values that are plain now.
    pub decompressed: AtomicU64,
    /// Bytes of these as they were stored.
    pub bytes_before: AtomicU64,
    /// Bytes of these as they are stored now.
    pub bytes_after: AtomicU64,
    /// Values that stay, because their plain form begins like a compressed value.
    pub look_compressed: AtomicU64,
    /// Values that stay, because they cannot be decompressed.
    pub damaged: AtomicU64,
    /// Values that stay, because they changed at each attempt.
    pub changing: AtomicU64,
    /// Keys to which the user has no right.
    pub refused: AtomicU64,
    /// The first keys whose values stay.
    left: Mutex<Vec<Bytes>>,
}

impl Counts {
    /// Number of values that are still compressed, as far as it is known.
    pub fn left(&self) -> u64 {
        [&self.look_compressed, &self.damaged, &self.changing, &self.refused]
            .map(|count| count.load(Ordering::Relaxed))
            .iter()
            .sum()
    }

    /// Some of their keys.
    pub fn left_keys(&self) -> Vec<Bytes> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn add(&self, key: &Bytes, outcome: Outcome) {
        let count = match outcome {
            Outcome::Nothing => return,
            Outcome::Done { from, to } => {
                self.bytes_before.fetch_add(from as u64, Ordering::Relaxed);
                self.bytes_after.fetch_add(to as u64, Ordering::Relaxed);
                self.decompressed.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Outcome::LooksCompressed => &self.look_compressed,
            Outcome::Damaged(_) => &self.damaged,
            Outcome::Changes => &self.changing,
            Outcome::Refused => &self.refused,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if left.len() < NAMED {
            left.push(key.clone());
        }
    }
}

/// Turns the values to plain whose keys match, in the database that is selected. `rate`: so many values per second at most; keys whose
/// values are plain are passed some fifteen times as fast, since only their first bytes are read.
///
/// # Errors
/// The connection has failed, or Redis refuses something that all of it needs.
///
/// # Cancel safety
/// Each value is either as it was or plain. The connection must not be used again.
pub async fn run(redis: &mut Plain, pattern: &[u8], rate: impl Fn() -> usize, counts: &Counts) -> io::Result<()> {
    let (mut pace, mut cursor) = (Pace::default(), Bytes::from_static(b"0"));
    loop {
        pace.wait(rate()).await;
        let (next, keys) = redis.scan(&cursor, pattern).await?;
        let scanned = keys.len() as u64;
        if !keys.is_empty() {
            pace.wait(rate()).await;
            let (compressed, refused) = redis.compressed(keys).await?;
            counts.refused.fetch_add(refused, Ordering::Relaxed);
            for keys in compressed.chunks(TOGETHER) {
                pace.wait(rate()).await;
                for key in keys {
                    counts.add(key, redis.to_plain(key).await?);
                }
            }
        }
        counts.scanned.fetch_add(scanned, Ordering::Relaxed);
        if next == b"0"[..] {
            return Ok(());
        }
        cursor = next;
    }
}
