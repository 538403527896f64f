//! gzip envelopes: other programs decompress them, and damage behind correct checksums is found.

use std::io::Write;

use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use proptest::prelude::{any, prop_assert, prop_assert_eq};
use proptest::{collection::vec, proptest, sample::Index};

use super::properties::values;
use super::samples::{ANY_LEN, DEFAULT, decompressed_by, gzip, marked, noise, text};
use crate::codec::gzip::{HEADER_LEN, TRAILER_LEN, VERSION, crc32};
use crate::codec::{DecodeError, MARK, compress, decode, is_compressed};

fn deflate(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len() + 1024);
    Compress::new(Compression::new(6), false)
        .compress_vec(value, &mut out, FlushCompress::Finish)
        .expect("a new compressor takes any bytes");
    out
}

/// An envelope with a correct checksum around an arbitrary body and trailer.
fn forge(body: &[u8], value_crc: u32, declared: u32) -> Vec<u8> {
    let mut out = marked(&[VERSION]);
    out.extend_from_slice(&crc32(body).to_le_bytes());
    out.extend_from_slice(body);
    out.extend_from_slice(&value_crc.to_le_bytes());
    out.extend_from_slice(&declared.to_le_bytes());
    out
}

/// Block gzip of genomics (BGZF): the same format with a subfield of its own.
#[test]
fn a_header_of_bgzf_is_a_clients_own_value() {
    let bgzf = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0, 0x1b, 0, 3, 0];
    assert!(!is_compressed(&bgzf));
    assert_eq!(compress(&bgzf, None), None);
}

#[test]
fn a_clients_own_gzip_data_is_not_decompressed() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(&text(9000)).expect("writing to a Vec does not fail");
    let value = gz.finish().expect("writing to a Vec does not fail");
    assert!(!is_compressed(&value));
    assert_eq!(decode(&value, ANY_LEN), Err(DecodeError::NotCompressed));
    if let Some(compressed) = compress(&value, Some(&gzip(9))) {
        assert_eq!(decode(&compressed, ANY_LEN), Ok(value));
    }
}

#[test]
fn the_gzip_program_decompresses_an_envelope() {
    let stored = marked(&noise(200_000, 3));
    for value in [text(1024), text(300_000), vec![0; 1 << 20], stored] {
        let compressed = compress(&value, Some(&DEFAULT)).expect("each of them is compressed");
        assert_eq!(decompressed_by("gzip", &compressed), value);
    }
}

/// In zlib-rs 0.6 a reset after an unfinished stream leaves state behind: at level 1 the next value on this thread panicked.
#[test]
fn an_aborted_compression_leaves_no_state_behind() {
    let (noise, value) = (noise(200_000, 5), text(20_000));
    for how in (0..=12).map(gzip) {
        for cut in [60, 1000, 20_000, 70_000, 200_000] {
            assert_eq!(compress(&noise[..cut], Some(&how)), None);
            if let Some(compressed) = compress(&value, Some(&how)) {
                assert_eq!(decode(&compressed, ANY_LEN).as_ref(), Ok(&value), "{how:?}");
            }
        }
    }
}

#[test]
fn errors_have_names() {
    let value = text(2000);
    let good = compress(&value, Some(&DEFAULT)).expect("text saves");
    let too_large = DecodeError::TooLarge { declared: 2000, max: 1999 };
    assert_eq!(decode(&good, 1999), Err(too_large));
    assert_eq!(decode(b"", 9), Err(DecodeError::NotCompressed));
    assert_eq!(decode(&MARK[..15], 9), Err(DecodeError::NotCompressed));
    assert_eq!(decode(&MARK, 9), Err(DecodeError::Truncated { len: 16 }));
    assert_eq!(decode(&good[..30], 9), Err(DecodeError::Truncated { len: 30 }));
    assert_eq!(decode(&marked(&[2]), 9), Err(DecodeError::UnknownVersion(2)));
    let damaged = |envelope: &[u8]| matches!(decode(envelope, 1 << 20), Err(DecodeError::Damaged(_)));
    assert!(damaged(&good[..good.len() - 1]));
    let (body, crc) = (deflate(&value), crc32(&value));
    assert_eq!(decode(&forge(&body, crc, 2000), 2000), Ok(value));
    assert!(damaged(&forge(&body, crc, 1999)));
    assert!(damaged(&forge(&body, crc, 2001)));
    assert!(damaged(&forge(&body, !crc, 2000)));
    assert!(damaged(&forge(&body[..body.len() - 1], crc, 2000)));
    assert!(damaged(&forge(&[&body[..], &[0]].concat(), crc, 2000)));
    assert!(damaged(&forge(&[7, 7], 0, 0))); // reserved block type
    assert_eq!(decode(&forge(&[3, 0], 0, 0), 0), Ok(Vec::new()));
}

/// Further gzip members are for `zcat`, not for Shortstop.
#[test]
fn a_second_member_is_an_error() {
    let value = text(2000);
    let good = compress(&value, Some(&DEFAULT)).expect("text saves");
    let inner = [&good[HEADER_LEN..], &good[..good.len() - TRAILER_LEN]].concat();
    let two = forge(&inner, crc32(&value), 2000);
    assert!(matches!(decode(&two, ANY_LEN), Err(DecodeError::Damaged(_))));
}

#[test]
fn bombs_are_bounded() {
    let zeros = vec![0; 64 << 20];
    let (body, crc) = (deflate(&zeros), crc32(&zeros));
    let honest = forge(&body, crc, 64 << 20);
    let too_large = DecodeError::TooLarge { declared: 64 << 20, max: 1 << 20 };
    assert_eq!(decode(&honest, 1 << 20), Err(too_large));
    assert_eq!(decode(&honest, 64 << 20), Ok(zeros));
    // An envelope that understates its length decompresses no further than that. One that overstates it is not decompressed at
    // all.
    assert!(matches!(decode(&forge(&body, crc, 1000), 1 << 20), Err(DecodeError::Damaged(_))));
    let impossible = Err(DecodeError::Damaged("it declares more than it can decompress to"));
    assert_eq!(decode(&forge(&deflate(b"small"), 0, u32::MAX), ANY_LEN), impossible);
}

proptest! {
    /// Behind a correct checksum of the body, so that the decompressor, the lengths and the other checksum are tested.
    #[test]
    fn a_forged_body_is_an_error_or_what_its_checksum_says(
        value in values(),
        at in any::<Index>(),
        xor in 1u8..,
        garbage in vec(any::<u8>(), 0..400),
        declared in 0u32..100_000,
    ) {
        let mut body = deflate(&value);
        let i = at.index(body.len());
        body[i] ^= xor;
        let forged = forge(&body, crc32(&value), value.len() as u32);
        prop_assert!(decode(&forged, ANY_LEN).map_or(true, |opened| opened == value));
        if let Ok(opened) = decode(&forge(&garbage, declared, declared), 100_000) {
            prop_assert_eq!(crc32(&opened), declared);
        }
    }
}
