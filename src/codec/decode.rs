//! Decompresses an envelope of any codec.

use super::dictionary::Dictionary;
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
    decode_with(compressed, max_len, None)
}

/// [`decode`], where this dictionary is at hand. It may be another one than the envelope needs, or the envelope may need none.
///
/// # Errors
///
/// As [`decode`].
pub fn decode_with(compressed: &[u8], max_len: usize, dictionary: Option<&Dictionary>) -> Result<Vec<u8>, DecodeError> {
    match codec_of(compressed) {
        Some(Codec::Gzip) => gzip::decode(compressed, max_len),
        Some(Codec::Zstd) => zstd::decode(compressed, max_len, dictionary),
        None => Err(DecodeError::NotCompressed),
    }
}

/// The identifier of the dictionary that an envelope needs. `None` if it needs none, is none, or is damaged.
pub fn dictionary_of(compressed: &[u8]) -> Option<u32> {
    match codec_of(compressed)? {
        Codec::Gzip => None,
        Codec::Zstd => zstd::dictionary_of(compressed),
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
