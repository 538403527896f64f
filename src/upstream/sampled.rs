//! A random sample of the keys in Redis: how long their strings are as they are stored, and as clients know them.

use std::io;

use bytes::Bytes;

use crate::codec;
use crate::resp::{Bulk, bulk_of, parse_int};

use super::dial::Request;
use super::plain::Plain;

/// Keys that are asked for together.
const TOGETHER: usize = 50;

/// A key of the sample with a string that is stored compressed.
#[derive(Clone, Debug)]
pub struct Compressed {
    /// The key.
    pub key: Bytes,
    /// Bytes that are stored.
    pub stored: u64,
    /// Bytes of the value.
    pub plain: u64,
    /// So many keys of the whole does the key stand for.
    pub stands_for: f64,
}

/// A sample.
#[derive(Debug, Default)]
pub struct Sample {
    /// Number of keys in Redis.
    pub keys: u64,
    /// Number of keys in the sample.
    pub sampled: u64,
    /// Those that are stored compressed.
    pub compressed: Vec<Compressed>,
}

impl Plain {
    /// So many random keys, of each database its share. `may_touch`: the server may count this as a use of the keys, which before version
    /// 7.2 it does. `None`: it would.
    ///
    /// # Errors
    /// Redis refuses a command, or the connection has failed.
    pub async fn sample(&mut self, count: u64, may_touch: bool) -> io::Result<Option<Sample>> {
        let untouched = self.ask(vec![b"CLIENT", b"NO-TOUCH", b"ON"]).await?.first() != Some(&b'-');
        if !untouched && !may_touch {
            return Ok(None);
        }
        let databases = self.databases().await?;
        let keys: u64 = databases.iter().map(|(_, keys)| keys).sum();
        let mut sample = Sample { keys, ..Sample::default() };
        for (db, keys_here) in databases {
            let share = (u128::from(count) * u128::from(keys_here)).div_ceil(u128::from(keys.max(1)));
            let share = u64::try_from(share).unwrap_or(count).max(1);
            self.select(db).await?;
            let stands_for = keys_here as f64 / share as f64;
            let mut left = share as usize;
            while left > 0 {
                let here = left.min(TOGETHER);
                self.add_to(&mut sample, here, stands_for).await?;
                left -= here;
            }
            sample.sampled += share;
        }
        Ok(Some(sample))
    }

    async fn add_to(&mut self, sample: &mut Sample, count: usize, stands_for: f64) -> io::Result<()> {
        let random: Vec<Request<'_>> = (0..count).map(|_| vec![&b"RANDOMKEY"[..]]).collect();
        let mut keys = Vec::with_capacity(count);
        for reply in self.ask_all(&random).await? {
            match bulk_of(&reply) {
                Bulk::Value(key) => keys.push(reply.slice_ref(key)),
                // The database is empty meanwhile.
                Bulk::Null => {}
                _ => return Err(super::plain::said(&reply)),
            }
        }
        // The beginning has the mark, and the end of a gzip envelope the length of the value.
        let looks = keys.iter().flat_map(|key| {
            let strlen: Request<'_> = vec![b"STRLEN", key];
            [strlen, vec![b"GETRANGE", key, b"0", b"39"], vec![b"GETRANGE", key, b"-8", b"-1"]]
        });
        let replies = self.ask_all(&looks.collect::<Vec<_>>()).await?;
        for (key, looks) in keys.iter().zip(replies.chunks_exact(3)) {
            // Another type, or the user has no right to the key.
            let [Bulk::Value(beginning), Bulk::Value(end)] = [bulk_of(&looks[1]), bulk_of(&looks[2])] else { continue };
            if !codec::is_compressed(beginning) {
                continue;
            }
            let stored = looks[0].strip_prefix(b":").and_then(|digits| parse_int(digits.strip_suffix(b"\r\n")?));
            let plain = codec::declared_len(&[beginning, end].concat());
            if let (Some(Ok(stored)), Some(plain)) = (stored.map(u64::try_from), plain) {
                sample.compressed.push(Compressed { key: key.clone(), stored, plain: plain as u64, stands_for });
            }
        }
        Ok(())
    }
}
