//! A sample of the values whose keys match a pattern: the first ones that SCAN gives, which has no order. Bounded in number, bytes and time.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};

use crate::admin::Admin;
use crate::admin::inner_client::{Got, InnerClient, SCANNED};
use crate::pace::{Pace, TOGETHER};
use crate::worker_state::windows::Asker;

/// A larger value is left out.
const MOST_BYTES: usize = 1 << 20;

/// The sample is complete at this size.
const MOST_BYTES_TOGETHER: usize = 4 << 20;

/// The sample is complete after this time.
const WITHIN: Duration = Duration::from_secs(5);

/// What was read.
#[derive(Default)]
pub(super) struct Sample {
    /// Keys and values.
    pub(super) values: Vec<(Vec<u8>, Bytes)>,
    bytes: usize,
    /// Keys that matched.
    pub(super) scanned: usize,
    /// All keys that match were found.
    pub(super) is_all: bool,
    /// Reads that Redis has refused.
    pub(super) refused: usize,
    /// Values that were left out for their size.
    pub(super) too_large: usize,
}

impl Sample {
    /// Reads so many values, as the asker's user.
    pub(super) async fn read(admin: &Admin, pattern: &[u8], count: usize, asker: Asker) -> Result<Sample, String> {
        let mut sample = Sample::default();
        let mut client = InnerClient::open(&admin.mailboxes, asker.user, asker.db, false).await?;
        let until = Instant::now() + WITHIN;
        match timeout_at(until, sample.fill(admin, &mut client, pattern, count)).await {
            Ok(Err(why)) if sample.values.is_empty() => Err(why),
            // What was read until then is a sample too.
            _ => Ok(sample),
        }
    }

    async fn fill(
        &mut self,
        admin: &Admin,
        client: &mut InnerClient,
        pattern: &[u8],
        count: usize,
    ) -> Result<(), String> {
        let (mut pace, mut cursor) = (Pace::default(), b"0".to_vec());
        loop {
            pace.wait(admin.config.get().warm_rate).await;
            let (next, keys) =
                client.scan(&[b"SCAN", &cursor, b"MATCH", pattern, b"COUNT", SCANNED, b"TYPE", b"string"]).await?;
            self.scanned += keys.len();
            for keys in keys.chunks(TOGETHER) {
                pace.wait(admin.config.get().warm_rate).await;
                for (key, got) in keys.iter().zip(client.get_each(keys, MOST_BYTES).await?) {
                    if self.values.len() >= count || self.bytes >= MOST_BYTES_TOGETHER {
                        return Ok(());
                    }
                    self.add(key, got);
                }
            }
            if next == b"0" {
                self.is_all = true;
                return Ok(());
            }
            cursor = next;
        }
    }

    fn add(&mut self, key: &[u8], got: Got) {
        match got {
            Got::Value(value) => {
                self.bytes += value.len();
                self.values.push((key.to_vec(), value));
            }
            Got::Refused => self.refused += 1,
            Got::TooLarge => self.too_large += 1,
            // It was deleted meanwhile.
            Got::Nothing => {}
        }
    }
}
