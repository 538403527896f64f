//! Decompresses an envelope, and verifies it.

use std::cell::Cell;

use flate2::{Decompress, FlushDecompress, Status};

use super::envelope::{DecodeError, Parts, crc32};

/// Maximum expansion of one byte of deflate: a match of 258 bytes takes at least 2 bits.
const MOST_INFLATION: u64 = 1032;

thread_local! {
    // Like the compressor, put back only after it has ended its stream.
    static INFLATER: Cell<Option<Decompress>> = const { Cell::new(None) };
}

/// The value in an envelope: exactly the bytes that were compressed, at most `max_len` of them.
///
/// Accepts any bytes. Allocates no more than the declared length, and only after checking it against `max_len` and against what
/// deflate can yield from so many bytes.
///
/// # Errors
///
/// Each [`DecodeError`]. Bytes before, after or between the parts of one envelope are [`DecodeError::Damaged`].
pub fn decode(compressed: &[u8], max_len: usize) -> Result<Vec<u8>, DecodeError> {
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

fn fresh_inflater() -> Decompress {
    match INFLATER.take() {
        Some(mut old) => {
            old.reset(false);
            old
        }
        None => Decompress::new(false),
    }
}
