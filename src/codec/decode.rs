//! Decompresses an envelope of any codec.

use super::error::DecodeError;
use super::format::Codec;
use super::mark::codec_of;
use super::{gzip, zstd};

/// The value in an envelope: exactly the bytes that were compressed, at most `max_len` of them.
///
/// Accepts any bytes. Allocates no more than the declared length, and only after checking it against `max_len` and against what
/// the codec can yield from so many bytes.
///
/// # Errors
///
/// Each [`DecodeError`]. Bytes before, after or between the parts of one envelope are [`DecodeError::Damaged`].
pub fn decode(compressed: &[u8], max_len: usize) -> Result<Vec<u8>, DecodeError> {
    match codec_of(compressed) {
        Some(Codec::Gzip) => gzip::decode(compressed, max_len),
        Some(Codec::Zstd) => zstd::decode(compressed, max_len),
        None => Err(DecodeError::NotCompressed),
    }
}

/// The size that an envelope declares for its value. `None` if it is no envelope or is truncated.
///
/// Nothing is verified. Use it to decide where to decompress, not for a reply to a client.
pub fn declared_len(compressed: &[u8]) -> Option<usize> {
    match codec_of(compressed)? {
        Codec::Gzip => gzip::declared_len(compressed),
        Codec::Zstd => zstd::declared_len(compressed),
    }
}
