//! Compresses a value into an envelope, if that saves enough.

use std::cell::Cell;

use flate2::{Compress, Compression, FlushCompress, Status};

use super::envelope::{HEADER_LEN, SHORTEST_BODY, TRAILER_LEN, begin, finish, is_compressed};
use super::number::is_number;

/// Maximum size of a value for [`compress`]: the value and its stored form stay below gzip's 4 GiB.
pub const MAX_LEN: usize = 1 << 31;

/// Maximum size of a stored block of deflate (RFC 1951 §3.2.4).
const STORED_BLOCK: usize = 0xffff;

/// The beginning of a HyperLogLog. PFADD and PFCOUNT look for these bytes inside Redis, so such a value is never compressed.
const HYPERLOGLOG: &[u8] = b"HYLL";

thread_local! {
    // A compressor's state takes hundreds of kilobytes, so it is reused. It is put back only after it has ended its stream, so no
    // panic, damage or abort can affect the next value. An abort is the critical case: in zlib-rs 0.6 a reset keeps the open block
    // of level 1 and the offset of the pending output, and the next value panics.
    static DEFLATER: Cell<Option<Deflater>> = const { Cell::new(None) };
}

/// When compression is worth it, and how hard to try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompressOptions {
    /// gzip level, 1 (fast) to 9 (small). Above 9 counts as 9. Level 0 never saves anything.
    pub level: u32,
    /// Values shorter than this many bytes are stored uncompressed.
    pub min_size: usize,
    /// An envelope must be at least this many percent shorter than the value, and at least one byte.
    pub min_saving: u8,
}

impl CompressOptions {
    /// The maximum size of an envelope that saves enough. `None` if no envelope can.
    fn longest(&self, value: &[u8]) -> Option<usize> {
        if value.len() < self.min_size || value.len() > MAX_LEN {
            return None;
        }
        let due = (value.len() as u64 * u64::from(self.min_saving)).div_ceil(100);
        let longest = value.len().checked_sub((due as usize).max(1))?;
        (longest >= HEADER_LEN + SHORTEST_BODY + TRAILER_LEN).then_some(longest)
    }
}

/// The envelope of `value`. `None` if the value is to be stored uncompressed.
///
/// `how` is `None` if compression is off. Even then, and whatever it saves, a value that [`is_compressed`] recognises gets an
/// envelope: otherwise it would be decompressed when it is read. A HyperLogLog never gets an envelope, nor does a number
/// ([`is_number`]), because commands read them inside Redis. Neither does a value above [`MAX_LEN`]; if such a value begins with
/// the mark, it must not be stored at all.
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

/// Maximum number of bytes that [`compress`] adds to a value of this length.
pub fn most_added(len: usize) -> usize {
    HEADER_LEN + 5 * len.div_ceil(STORED_BLOCK) + TRAILER_LEN
}

struct Deflater {
    level: u32,
    state: Compress,
}

fn fresh_deflater(level: u32) -> Deflater {
    // Not `set_level` on the existing one: rules rarely differ in level, and a new state has no history.
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
    // The capacity is the limit, so that the compressor stops as soon as the saving is out of reach.
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

/// An envelope of stored blocks: slightly longer than the value, needs no compressor, and cannot fail.
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
