//! Makes the envelope of a value, if one is worth it.

use std::cell::Cell;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::envelope::{HEADER_LEN, SHORTEST_BODY, TRAILER_LEN, begin, finish, is_compressed};
use super::number::is_number;

/// The longest value, in bytes, that [`compress`] takes: both the value and its stored form stay below gzip's 4 GiB.
pub const MAX_LEN: usize = 1 << 31;

/// The longest stored block of deflate, in bytes (RFC 1951 §3.2.4).
const STORED_BLOCK: usize = 0xffff;

/// How a HyperLogLog begins. PFADD and PFCOUNT look for these bytes inside Redis, so they are left where they are.
const HYPERLOGLOG: &[u8] = b"HYLL";

thread_local! {
    // Making a compressor costs hundreds of kilobytes. A state is put back only when it has ended its stream, so no
    // panic, damage or stop half way can leak into the next value. Stopping half way is where this bites: in zlib-rs
    // 0.6 a reset keeps the open block of level 1 and the offset of the pending output, and the next value panics.
    static DEFLATER: Cell<Option<Deflater>> = const { Cell::new(None) };
}

/// When compressing pays, and how hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressOptions {
    /// Level of gzip, 1 (fast) to 9 (small); above 9 counts as 9. At 0 nothing is ever saved.
    pub level: u32,
    /// Values shorter than this many bytes stay raw.
    pub min_size: usize,
    /// An envelope must be at least this many percent shorter than the value, and at least one byte.
    pub min_saving: u8,
}

impl CompressOptions {
    /// The longest envelope, in bytes, that still saves enough; `None` when no envelope could.
    fn longest(&self, value: &[u8]) -> Option<usize> {
        if value.len() < self.min_size || value.len() > MAX_LEN {
            return None;
        }
        let due = (value.len() as u64 * u64::from(self.min_saving)).div_ceil(100);
        let longest = value.len().checked_sub((due as usize).max(1))?;
        (longest >= HEADER_LEN + SHORTEST_BODY + TRAILER_LEN).then_some(longest)
    }
}

/// The envelope of `value`, or `None` when the value is to be stored as it is.
///
/// `how` is `None` where nothing is compressed. Even then, and whatever it saves, a value that [`is_compressed`] recognises gets
/// an envelope: else it would be opened when it comes back. A HyperLogLog never gets one, nor does a number ([`is_number`]),
/// because commands read them inside Redis. Nor does a value above [`MAX_LEN`]; if such a value begins with the mark it must
/// not be stored at all.
pub fn compress(value: &[u8], how: Option<&CompressOptions>) -> Option<Vec<u8>> {
    if value.starts_with(HYPERLOGLOG) || is_number(value) {
        return None;
    }
    let compressed = how.and_then(|how| gzip(value, how));
    if compressed.is_none() && is_compressed(value) && value.len() <= MAX_LEN {
        return Some(store(value));
    }
    compressed
}

/// Bytes that [`compress`] adds at most to a value of this length, where it does not make it shorter.
pub fn most_added(len: usize) -> usize {
    HEADER_LEN + 5 * len.div_ceil(STORED_BLOCK) + TRAILER_LEN
}

struct Deflater {
    level: u32,
    state: Compress,
}

fn fresh_deflater(level: u32) -> Deflater {
    // Not `set_level` on the one at hand: rules rarely differ in level, and a new state has no history to reason about.
    match DEFLATER.take() {
        Some(mut old) if old.level == level => {
            old.state.reset();
            old
        }
        _ => Deflater { level, state: Compress::new(Compression::new(level), false) },
    }
}

fn gzip(value: &[u8], how: &CompressOptions) -> Option<Vec<u8>> {
    let longest = how.longest(value)?;
    // The room is what may be used, so that the compressor stops as soon as the saving is out of reach.
    let mut compressed = begin(longest);
    let mut deflater = fresh_deflater(how.level.min(9));
    match deflater.state.compress_vec(value, &mut compressed, FlushCompress::Finish) {
        Ok(Status::StreamEnd) => DEFLATER.set(Some(deflater)),
        Ok(_) | Err(_) => return None,
    }
    if compressed.len() + TRAILER_LEN > longest {
        return None;
    }
    Some(finish(compressed, value))
}

/// An envelope of stored blocks: a little longer than the value, needs no compressor, cannot fail.
fn store(value: &[u8]) -> Vec<u8> {
    let blocks = value.len().div_ceil(STORED_BLOCK);
    let mut compressed = begin(value.len() + most_added(value.len()));
    for (i, block) in value.chunks(STORED_BLOCK).enumerate() {
        let len = block.len() as u16; // chunks() gives no more than STORED_BLOCK
        compressed.push(u8::from(i + 1 == blocks)); // BFINAL, BTYPE 00, padding
        compressed.extend_from_slice(&len.to_le_bytes());
        compressed.extend_from_slice(&(!len).to_le_bytes());
        compressed.extend_from_slice(block);
    }
    finish(compressed, value)
}
