//! zstd envelopes: written and parsed, compressed and decompressed. The format is in [`super`].

use std::cell::Cell;
use std::io::Cursor;
use std::num::NonZeroU32;

use xxhash_rust::xxh64::xxh64;
use zstd_safe::{CCtx, CParameter, DCtx, find_frame_compressed_size, get_dict_id_from_frame, get_error_name};

use super::dictionary::Dictionary;
use super::error::DecodeError;
use super::format::Codec;
use super::mark::ZSTD_MARK;

/// Where the frame begins, with the second half of the mark.
const FRAME_AT: usize = 8;
/// Where the frame's header describes itself (RFC 8878 §3.1.1.1.1).
const DESCRIPTOR_AT: usize = ZSTD_MARK.len();
/// Of the descriptor: bits that must be zero, and the flag of the checksum.
const RESERVED: u8 = 0b0001_1000;
const HAS_CHECKSUM: u8 = 0b0000_0100;
const HAS_DICTIONARY: u8 = 0b0000_0011;
/// The shortest frame: magic number, descriptor, length, header of a block, checksum.
const SHORTEST: usize = FRAME_AT + 4 + 1 + 1 + 3 + 4;

/// Maximum expansion of one byte: a block of 4 bytes repeats its last one 128 Ki times.
const MOST_INFLATION: u64 = 32 << 10;

/// A compressor that takes more memory than this is not kept for the next value.
pub(super) const MOST_KEPT: usize = 2 << 20;

/// zstd gives up somewhat before the buffer is full.
const SLACK: usize = 64;

thread_local! {
    // Their states take up to megabytes, so they are reused. Each value begins with a reset, whatever became of the last one.
    static COMPRESSOR: Cell<Option<CCtx<'static>>> = const { Cell::new(None) };
    static DECOMPRESSOR: Cell<Option<DCtx<'static>>> = const { Cell::new(None) };
}

/// Maximum memory of a compressor that is not kept, for a value of this length. Measured for zstd 1.5.7.
pub(super) fn memory(level: u32, len: usize) -> usize {
    let most = match Codec::Zstd.nearest(level) {
        0..=3 => 0,
        4..=8 => 6 << 20,
        9..=11 => 21 << 20,
        _ => 84 << 20,
    };
    len.saturating_mul(32).min(most)
}

fn new_compressor() -> Option<CCtx<'static>> {
    let mut compressor = CCtx::try_create()?;
    compressor.set_parameter(CParameter::ChecksumFlag(true)).ok()?;
    Some(compressor)
}

/// The envelope of `value`. `None` if it would be longer than `longest`, or there is no memory.
pub(super) fn compress(value: &[u8], level: u32, longest: usize, dictionary: Option<&Dictionary>) -> Option<Vec<u8>> {
    let mut compressor = COMPRESSOR.take().or_else(new_compressor)?;
    compressor.set_parameter(CParameter::CompressionLevel(Codec::Zstd.nearest(level) as i32)).ok()?;
    let mut envelope = Vec::with_capacity(longest + SLACK);
    envelope.extend_from_slice(&ZSTD_MARK[..FRAME_AT]);
    let mut envelope = Cursor::new(envelope);
    envelope.set_position(FRAME_AT as u64);
    let written = match dictionary {
        None => compressor.compress2(&mut envelope, value),
        Some(dictionary) => compressor.compress_using_cdict(&mut envelope, value, dictionary.compressing()),
    };
    if compressor.sizeof() <= MOST_KEPT {
        COMPRESSOR.set(Some(compressor));
    }
    written.ok()?;
    let mut envelope = envelope.into_inner();
    if dictionary.is_some() {
        add_checksum(&mut envelope, value);
    }
    (envelope.len() <= longest).then_some(envelope)
}

/// zstd writes no checksum where it gets a prepared dictionary for one frame. It is a flag, and four bytes behind the last block
/// (RFC 8878 §3.1.1).
fn add_checksum(envelope: &mut Vec<u8>, value: &[u8]) {
    envelope[DESCRIPTOR_AT] |= HAS_CHECKSUM;
    envelope.extend_from_slice(&(xxh64(value, 0) as u32).to_le_bytes());
}

/// The frame of an envelope. Only the mark and the frame's header have been checked.
struct Frame<'a> {
    bytes: &'a [u8],
    /// The size that it declares for its value.
    declared: usize,
    /// The dictionary that it needs.
    dictionary: Option<u32>,
}

fn frame_of(envelope: &[u8]) -> Result<Frame<'_>, DecodeError> {
    if !envelope.starts_with(&ZSTD_MARK) {
        let [first, rest @ ..] = &ZSTD_MARK;
        let is_another_version = envelope[0] >> 4 == first >> 4 && envelope[1..].starts_with(rest);
        return Err(match is_another_version {
            true => DecodeError::UnknownVersion(envelope[0] & 0xf),
            false => DecodeError::Damaged("its mark has changed"),
        });
    }
    if envelope.len() < SHORTEST {
        return Err(DecodeError::Truncated { len: envelope.len() });
    }
    let (bytes, descriptor) = (&envelope[FRAME_AT..], envelope[DESCRIPTOR_AT]);
    let dictionary = get_dict_id_from_frame(bytes).map(NonZeroU32::get);
    let is_ours = descriptor & (RESERVED | HAS_CHECKSUM) == HAS_CHECKSUM;
    if !is_ours || dictionary.is_some() != (descriptor & HAS_DICTIONARY != 0) {
        return Err(DecodeError::Damaged("the header of its frame has changed"));
    }
    match zstd_safe::get_frame_content_size(bytes) {
        Ok(Some(declared)) => {
            Ok(Frame { bytes, declared: usize::try_from(declared).unwrap_or(usize::MAX), dictionary })
        }
        Ok(None) | Err(_) => Err(DecodeError::Damaged("it does not declare the length of its value")),
    }
}

/// What [`super::declared_len`] returns for a zstd envelope.
pub(super) fn declared_len(envelope: &[u8]) -> Option<usize> {
    Some(frame_of(envelope).ok()?.declared)
}

/// What [`super::dictionary_of`] returns for a zstd envelope.
pub(super) fn dictionary_of(envelope: &[u8]) -> Option<u32> {
    frame_of(envelope).ok()?.dictionary
}

/// What [`super::decode_with`] returns for a value that begins like a zstd envelope.
pub(super) fn decode(envelope: &[u8], max_len: usize, dictionary: Option<&Dictionary>) -> Result<Vec<u8>, DecodeError> {
    let Frame { bytes: frame, declared, dictionary: needed } = frame_of(envelope)?;
    let dictionary = match needed {
        Some(id) => Some(dictionary.filter(|known| known.id() == id).ok_or(DecodeError::UnknownDictionary(id))?),
        None => None,
    };
    // The blocks have lengths of their own. One frame, and nothing behind it.
    match find_frame_compressed_size(frame) {
        Ok(size) if size == frame.len() => {}
        Ok(_) => return Err(DecodeError::Damaged("bytes follow the end of its frame")),
        Err(code) => return Err(DecodeError::Damaged(get_error_name(code))),
    }
    if declared > max_len {
        return Err(DecodeError::TooLarge { declared, max: max_len });
    }
    if declared as u64 > (frame.len() as u64).saturating_mul(MOST_INFLATION) {
        return Err(DecodeError::Damaged("it declares more than it can decompress to"));
    }

    let no_memory = DecodeError::NoMemory { declared };
    let mut value = Vec::new();
    value.try_reserve_exact(declared).map_err(|_| no_memory)?;
    let mut decompressor = DECOMPRESSOR.take().or_else(DCtx::try_create).ok_or(no_memory)?;
    let decompressed = match dictionary {
        None => decompressor.decompress(&mut value, frame),
        Some(dictionary) => decompressor.decompress_using_ddict(&mut value, frame, dictionary.decompressing()),
    };
    DECOMPRESSOR.set(Some(decompressor));
    match decompressed {
        // It compares the checksum, and the declared length.
        Ok(_) if value.len() == declared => Ok(value),
        Ok(_) => Err(DecodeError::Damaged("its value is shorter than declared")),
        Err(code) => Err(DecodeError::Damaged(get_error_name(code))),
    }
}
