//! gzip envelopes: written and parsed, compressed and decompressed. The format is in [`super`].

use std::cell::Cell;

use flate2::{Compress, Compression, Crc, Decompress, FlushCompress, FlushDecompress, Status};

use super::error::DecodeError;
use super::format::Codec;
use super::mark::MARK;

pub(super) const VERSION: u8 = 1;
const BODY_CRC_AT: usize = MARK.len() + 1;
pub(super) const HEADER_LEN: usize = BODY_CRC_AT + 4;
pub(super) const TRAILER_LEN: usize = 8;

/// No deflate stream is shorter: block header and end of block take 10 bits.
const SHORTEST_BODY: usize = 2;

/// Maximum size of a stored block of deflate (RFC 1951 §3.2.4).
const STORED_BLOCK: usize = 0xffff;

/// Maximum expansion of one byte of deflate: a match of 258 bytes takes at least 2 bits.
const MOST_INFLATION: u64 = 1032;

thread_local! {
    // A compressor's state takes hundreds of kilobytes, so it is reused. It is put back only after it has ended its stream, so no
    // panic, damage or abort can affect the next value. An abort is the critical case: in zlib-rs 0.6 a reset keeps the open block
    // of level 1 and the offset of the pending output, and the next value panics.
    static DEFLATER: Cell<Option<Deflater>> = const { Cell::new(None) };
    // Like the compressor, put back only after it has ended its stream.
    static INFLATER: Cell<Option<Decompress>> = const { Cell::new(None) };
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

fn fresh_inflater() -> Decompress {
    match INFLATER.take() {
        Some(mut old) => {
            old.reset(false);
            old
        }
        None => Decompress::new(false),
    }
}

/// The envelope of `value`. `None` if it would be longer than `longest`.
pub(super) fn compress(value: &[u8], level: u32, longest: usize) -> Option<Vec<u8>> {
    if longest < HEADER_LEN + SHORTEST_BODY + TRAILER_LEN {
        return None;
    }
    // The capacity is the limit, so that the compressor stops as soon as the saving is out of reach.
    let mut compressed = begin(longest);
    let mut deflater = fresh_deflater(Codec::Gzip.nearest(level));
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
pub(super) fn store(value: &[u8]) -> Vec<u8> {
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

/// Number of bytes that [`store`] adds to a value of this length.
pub(super) fn most_added(len: usize) -> usize {
    HEADER_LEN + 5 * len.div_ceil(STORED_BLOCK) + TRAILER_LEN
}

fn begin(capacity: usize) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(capacity);
    compressed.extend_from_slice(&MARK);
    compressed.push(VERSION);
    compressed.extend_from_slice(&[0; 4]); // finish() knows the checksum
    compressed
}

/// Completes an envelope that [`begin`] began, after the deflate stream of `value` (at most `MAX_LEN` bytes).
fn finish(mut compressed: Vec<u8>, value: &[u8]) -> Vec<u8> {
    let body_crc = crc32(&compressed[HEADER_LEN..]);
    compressed[BODY_CRC_AT..HEADER_LEN].copy_from_slice(&body_crc.to_le_bytes());
    compressed.extend_from_slice(&crc32(value).to_le_bytes());
    compressed.extend_from_slice(&(value.len() as u32).to_le_bytes());
    compressed
}

pub(super) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The parts of an envelope. Only the mark, the version and the minimum length have been checked.
struct Parts<'a> {
    body: &'a [u8],
    body_crc: u32,
    value_crc: u32,
    declared: usize,
}

impl<'a> Parts<'a> {
    fn of(compressed: &'a [u8]) -> Result<Self, DecodeError> {
        let rest = compressed.strip_prefix(&MARK).ok_or(DecodeError::Damaged("its mark has changed"))?;
        let truncated = DecodeError::Truncated { len: compressed.len() };
        let (&version, rest) = rest.split_first().ok_or(truncated)?;
        if version != VERSION {
            return Err(DecodeError::UnknownVersion(version));
        }
        let (&body_crc, rest) = rest.split_first_chunk().ok_or(truncated)?;
        let (rest, &declared) = rest.split_last_chunk().ok_or(truncated)?;
        let (body, &value_crc) = rest.split_last_chunk().ok_or(truncated)?;
        if body.len() < SHORTEST_BODY {
            return Err(truncated);
        }
        Ok(Self {
            body,
            body_crc: u32::from_le_bytes(body_crc),
            value_crc: u32::from_le_bytes(value_crc),
            declared: u32::from_le_bytes(declared) as usize,
        })
    }
}

/// What [`super::declared_len`] returns for a gzip envelope.
pub(super) fn declared_len(compressed: &[u8]) -> Option<usize> {
    Some(Parts::of(compressed).ok()?.declared)
}

/// What [`super::decode`] returns for a value that begins like a gzip envelope.
pub(super) fn decode(compressed: &[u8], max_len: usize) -> Result<Vec<u8>, DecodeError> {
    let parts = Parts::of(compressed)?;
    // First, so that a flipped bit is reported as damage and not as "too large", and is not decompressed.
    if crc32(parts.body) != parts.body_crc {
        return Err(DecodeError::Damaged("its compressed bytes have changed"));
    }
    let declared = parts.declared;
    if declared > max_len {
        return Err(DecodeError::TooLarge { declared, max: max_len });
    }
    if declared as u64 > (parts.body.len() as u64).saturating_mul(MOST_INFLATION) {
        return Err(DecodeError::Damaged("it declares more than it can decompress to"));
    }

    let mut value = Vec::new();
    value.try_reserve_exact(declared).map_err(|_| DecodeError::NoMemory { declared })?;
    let mut inflater = fresh_inflater();
    match inflater.decompress_vec(parts.body, &mut value, FlushDecompress::Finish) {
        Ok(Status::StreamEnd) => {}
        Ok(_) => {
            return Err(DecodeError::Damaged("its stream does not end where it should"));
        }
        Err(_) => return Err(DecodeError::Damaged("its stream is not valid deflate")),
    }
    let read = inflater.total_in();
    INFLATER.set(Some(inflater));

    if read != parts.body.len() as u64 {
        return Err(DecodeError::Damaged("bytes follow the end of its stream"));
    }
    if value.len() != declared {
        return Err(DecodeError::Damaged("its value is shorter than declared"));
    }
    if crc32(&value) != parts.value_crc {
        return Err(DecodeError::Damaged("the checksum of its value is wrong"));
    }
    Ok(value)
}
