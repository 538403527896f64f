//! The format of an envelope: its mark, its header and its trailer, written and parsed. Does not compress.

use flate2::Crc;

/// The beginning of every envelope of every version.
///
/// The version is not part of the mark: an envelope from a newer Shortstop must be an error here, not a client's own value.
pub const MARK: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 9, 0, b'S', b's', 5, 0];

/// Up to this many flipped bits of the mark are recognised as damage. Gzip headers of other programs differ more: BGZF's, the
/// nearest in use, by 11 bits.
pub const MARK_DAMAGE: u32 = 3;

pub(super) const VERSION: u8 = 1;
const BODY_CRC_AT: usize = MARK.len() + 1;
pub(super) const HEADER_LEN: usize = BODY_CRC_AT + 4;
pub(super) const TRAILER_LEN: usize = 8;

/// No deflate stream is shorter: block header and end of block take 10 bits.
pub(super) const SHORTEST_BODY: usize = 2;

/// Why an envelope could not be decompressed. The texts contain numbers only, never a byte of the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The value begins neither with [`MARK`] nor with a damaged mark.
    #[error("the value is not an envelope")]
    NotCompressed,
    /// Shorter than the shortest envelope.
    #[error("the envelope is truncated: only {len} bytes are left")]
    Truncated {
        /// Its size in bytes.
        len: usize,
    },
    /// Compressed by a newer Shortstop whose envelopes are unknown here.
    #[error("the envelope has version {0}; this Shortstop supports version 1")]
    UnknownVersion(u8),
    /// Its value is longer than allowed.
    #[error("the envelope contains {declared} bytes; at most {max} are allowed")]
    TooLarge {
        /// The size that the envelope declares.
        declared: usize,
        /// The size that is allowed.
        max: usize,
    },
    /// The allocator has no memory for the value.
    #[error("no memory for the {declared} bytes in the envelope")]
    NoMemory {
        /// The size that the envelope declares.
        declared: usize,
    },
    /// A byte of it has changed since compression.
    #[error("the envelope is damaged: {0}")]
    Damaged(&'static str),
}

/// Whether a stored value is an envelope (of any version, intact or damaged): it begins with [`MARK`], or differs from the mark by
/// at most [`MARK_DAMAGE`] bits.
#[inline]
pub fn is_compressed(value: &[u8]) -> bool {
    const HALVES: (u64, u64) = halves(&MARK);
    let Some(beginning) = value.first_chunk() else { return false };
    let (first, second) = halves(beginning);
    (first ^ HALVES.0).count_ones() + (second ^ HALVES.1).count_ones() <= MARK_DAMAGE
}

/// 16 bytes as two numbers, whose bits can be compared at once.
const fn halves(bytes: &[u8; 16]) -> (u64, u64) {
    let both = u128::from_le_bytes(*bytes);
    (both as u64, (both >> 64) as u64)
}

/// The size that an envelope declares for its value. `None` if it is no envelope or is truncated.
///
/// Nothing is verified. Use it to decide where to decompress, not for a reply to a client.
pub fn declared_len(compressed: &[u8]) -> Option<usize> {
    Some(Parts::of(compressed).ok()?.declared)
}

/// The parts of an envelope. Only the mark, the version and the minimum length have been checked.
pub(super) struct Parts<'a> {
    pub(super) body: &'a [u8],
    pub(super) body_crc: u32,
    pub(super) value_crc: u32,
    pub(super) declared: usize,
}

impl<'a> Parts<'a> {
    pub(super) fn of(compressed: &'a [u8]) -> Result<Self, DecodeError> {
        let rest = match compressed.strip_prefix(&MARK) {
            Some(rest) => rest,
            None if is_compressed(compressed) => return Err(DecodeError::Damaged("its mark has changed")),
            None => return Err(DecodeError::NotCompressed),
        };
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

pub(super) fn begin(capacity: usize) -> Vec<u8> {
    let mut compressed = Vec::with_capacity(capacity);
    compressed.extend_from_slice(&MARK);
    compressed.push(VERSION);
    compressed.extend_from_slice(&[0; 4]); // finish() knows the checksum
    compressed
}

/// Completes an envelope that [`begin`] began, after the deflate stream of `value` (at most [`MAX_LEN`] bytes).
pub(super) fn finish(mut compressed: Vec<u8>, value: &[u8]) -> Vec<u8> {
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
