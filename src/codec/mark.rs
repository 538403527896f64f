//! The marks with which envelopes begin. No other bytes decide whether a stored value is compressed.

use super::format::Codec;

/// The beginning of every gzip envelope of every version.
///
/// The version is not part of the mark: an envelope from a newer Shortstop must be an error here, not a client's own value.
pub const MARK: [u8; 16] = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 9, 0, b'S', b's', 5, 0];

/// The beginning of every zstd envelope: an empty skippable frame, and the magic number of the frame that follows (RFC 8878 §3.1).
///
/// A skippable frame's magic number leaves four bits to its user, here 3. They are the version: a newer Shortstop will take others,
/// which differ from these by at most [`MARK_DAMAGE`] bits, so that they are recognised here. 0 and 14 are in use by other programs
/// (pzstd, the seekable format).
pub const ZSTD_MARK: [u8; 12] = [0x53, 0x2a, 0x4d, 0x18, 0, 0, 0, 0, 0x28, 0xb5, 0x2f, 0xfd];

/// The marks of all codecs.
pub const MARKS: [&[u8]; 2] = [&MARK, &ZSTD_MARK];

/// So many bytes of a value tell whether it begins with a mark.
pub const LONGEST_MARK: usize = MARK.len();

/// Up to this many flipped bits of a mark are recognised as damage. The headers of other programs differ more: of those in use, BGZF's
/// is the nearest to gzip's mark, by 11 bits.
pub const MARK_DAMAGE: u32 = 3;

/// Whether a stored value is an envelope (of any codec and version, intact or damaged).
#[inline]
pub fn is_compressed(value: &[u8]) -> bool {
    codec_of(value).is_some()
}

/// The codec of an envelope (of any version, intact or damaged): the one with whose mark it begins, or from whose mark its beginning
/// differs by at most [`MARK_DAMAGE`] bits. `None` if the value is no envelope.
#[inline]
pub fn codec_of(value: &[u8]) -> Option<Codec> {
    if begins_like(value, &MARK) {
        Some(Codec::Gzip)
    } else if begins_like(value, &ZSTD_MARK) {
        Some(Codec::Zstd)
    } else {
        None
    }
}

#[inline]
fn begins_like<const N: usize>(value: &[u8], mark: &[u8; N]) -> bool {
    let Some(beginning) = value.first_chunk::<N>() else { return false };
    let mut flipped = 0;
    // By four bytes, the first of which almost always decide.
    for (found, expected) in beginning.as_chunks::<4>().0.iter().zip(mark.as_chunks::<4>().0) {
        flipped += (u32::from_ne_bytes(*found) ^ u32::from_ne_bytes(*expected)).count_ones();
        if flipped > MARK_DAMAGE {
            return false;
        }
    }
    true
}
