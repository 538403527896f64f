//! Compresses a value into an envelope, if that saves enough.

use super::dictionary::Dictionary;
use super::format::Codec;
use super::mark::is_compressed;
use super::number::is_number;
use super::{gzip, zstd};

/// Maximum size of a value for [`compress`]: the value and its stored form stay below gzip's 4 GiB.
pub const MAX_LEN: usize = 1 << 31;

/// The beginning of a HyperLogLog. PFADD and PFCOUNT look for these bytes inside Redis, so such a value is never compressed.
const HYPERLOGLOG: &[u8] = b"HYLL";

/// When compression is worth it, and how hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressOptions {
    /// The format.
    pub codec: Codec,
    /// One of the codec's [`levels`](Codec::levels). Any other number counts as the nearest of them.
    pub level: u32,
    /// Values shorter than this many bytes are stored uncompressed.
    pub min_size: usize,
    /// An envelope must be at least this many percent shorter than the value, and at least one byte.
    pub min_saving: u8,
}

impl CompressOptions {
    /// Maximum memory that [`compress`] takes for a value of this length, beside the value, its envelope, and the compressor that a
    /// thread keeps for its next value.
    pub fn memory(&self, len: usize) -> usize {
        match self.codec {
            Codec::Gzip => 0,
            Codec::Zstd => zstd::memory(self.level, len),
        }
    }

    /// The maximum size of an envelope that saves enough. `None` if no envelope can.
    fn longest(&self, value: &[u8]) -> Option<usize> {
        if value.len() < self.min_size || value.len() > MAX_LEN {
            return None;
        }
        let due = (value.len() as u64 * u64::from(self.min_saving)).div_ceil(100);
        value.len().checked_sub((due as usize).max(1))
    }
}

/// Whether a value is never compressed, because commands read it inside Redis.
pub fn stays_plain(value: &[u8]) -> bool {
    value.starts_with(HYPERLOGLOG) || is_number(value)
}

/// The envelope of `value`. `None` if the value is to be stored uncompressed.
///
/// `how` is `None` if compression is off. Even then, and whatever it saves, a value that [`is_compressed`] recognises gets an
/// envelope: otherwise it would be decompressed when it is read. A HyperLogLog never gets an envelope, nor does a number
/// ([`is_number`]), because commands read them inside Redis. Neither does a value above [`MAX_LEN`]; if such a value begins with
/// a mark, it must not be stored at all.
pub fn compress(value: &[u8], how: Option<&CompressOptions>) -> Option<Vec<u8>> {
    compress_with(value, how, None)
}

/// [`compress`], where zstd uses this dictionary, at the dictionary's level. gzip has none.
pub fn compress_with(value: &[u8], how: Option<&CompressOptions>, dictionary: Option<&Dictionary>) -> Option<Vec<u8>> {
    if stays_plain(value) {
        return None;
    }
    let compressed = how.and_then(|how| {
        let longest = how.longest(value)?;
        match how.codec {
            Codec::Gzip => gzip::compress(value, how.level, longest),
            Codec::Zstd => zstd::compress(value, how.level, longest, dictionary),
        }
    });
    if compressed.is_none() && is_compressed(value) && value.len() <= MAX_LEN {
        // The same for every codec: it needs no compressor and cannot fail.
        return Some(gzip::store(value));
    }
    compressed
}

/// Maximum number of bytes that [`compress`] adds to a value of this length.
pub fn most_added(len: usize) -> usize {
    gzip::most_added(len)
}
