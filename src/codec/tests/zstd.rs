//! zstd envelopes: the `zstd` program decompresses them, they cost eight bytes, and each part of them is checked.

use zstd_safe::{CCtx, CParameter, compress_bound};

use super::samples::{ANY_LEN, DEFAULTS, decompressed_by, noise, text, zstd, zstd_marked};
use crate::codec::zstd::MOST_KEPT;
use crate::codec::{
    CompressOptions, DecodeError, ZSTD_MARK, compress, declared_len, decode, dictionary_of, is_compressed,
};

/// The frame that zstd itself writes with these parameters.
fn frame(value: &[u8], level: u32, parameters: &[CParameter]) -> Vec<u8> {
    let mut compressor = CCtx::create();
    for parameter in parameters.iter().chain(&[CParameter::CompressionLevel(level as i32)]) {
        compressor.set_parameter(*parameter).expect("a sound parameter");
    }
    let mut frame = Vec::with_capacity(compress_bound(value.len()));
    compressor.compress2(&mut frame, value).expect("there is room");
    frame
}

/// An envelope around any frame.
fn around(frame: &[u8]) -> Vec<u8> {
    [&ZSTD_MARK[..8], frame].concat()
}

const CHECKSUM: CParameter = CParameter::ChecksumFlag(true);

#[test]
fn the_zstd_program_decompresses_an_envelope() {
    for value in [text(1024), text(300_000), vec![0; 1 << 20], text(3 << 20)] {
        for level in [1, 3, 19] {
            let compressed = compress(&value, Some(&zstd(level))).expect("each of them is compressed");
            assert_eq!(decompressed_by("zstd", &compressed), value);
        }
    }
}

#[test]
fn an_envelope_is_eight_bytes_longer_than_the_bare_frame() {
    for len in [100, 255, 256, 1024, 4096, 65_535, 65_792, 300_000, 1 << 20] {
        for level in [1, 2, 3, 6, 12, 19] {
            let (value, how) = (text(len), zstd(level));
            let compressed = compress(&value, Some(&how)).unwrap_or_else(|| panic!("{len} bytes at level {level}"));
            assert!(compressed == around(&frame(&value, level, &[CHECKSUM])), "{len} bytes at level {level}");
        }
    }
}

#[test]
fn a_clients_own_zstd_data_is_not_decompressed() {
    let pzstd = [&[0x50, 0x2a, 0x4d, 0x18, 4, 0, 0, 0, 0x40, 1, 0, 0][..], &frame(&text(9000), 1, &[])].concat();
    for value in [frame(&text(9000), 1, &[]), frame(&text(9000), 19, &[CHECKSUM]), pzstd, vec![0x28, 0xb5, 0x2f, 0xfd]]
    {
        assert!(!is_compressed(&value));
        assert_eq!(compress(&value, None), None);
        assert_eq!(decode(&value, ANY_LEN), Err(DecodeError::NotCompressed));
        if let Some(compressed) = compress(&value, Some(&zstd(9))) {
            assert_eq!(decode(&compressed, ANY_LEN), Ok(value));
        }
    }
}

/// The version is in the low half of the first byte.
#[test]
fn another_version_is_an_error_and_never_bytes() {
    let good = compress(&text(2000), Some(&zstd(1))).expect("text saves");
    for version in 0..16 {
        let mut other = good.clone();
        other[0] = 0x50 | version;
        match version {
            3 => assert_eq!(decode(&other, ANY_LEN), Ok(text(2000))),
            // It differs by four bits, so it can never be one.
            12 => assert!(!is_compressed(&other)),
            _ => assert_eq!(decode(&other, ANY_LEN), Err(DecodeError::UnknownVersion(version))),
        }
        assert_eq!(declared_len(&other), (version == 3).then_some(2000));
    }
}

#[test]
fn errors_have_names() {
    let value = text(2000);
    let good = compress(&value, Some(&zstd(1))).expect("text saves");
    assert_eq!(decode(&good, 1999), Err(DecodeError::TooLarge { declared: 2000, max: 1999 }));
    assert_eq!(decode(&ZSTD_MARK[..11], 9), Err(DecodeError::NotCompressed));
    assert_eq!(decode(&ZSTD_MARK, 9), Err(DecodeError::Truncated { len: 12 }));
    assert_eq!(decode(&good[..20], 9), Err(DecodeError::Truncated { len: 20 }));
    assert_eq!(declared_len(&good[..20]), None);
    let damage = |frame: &[u8]| match decode(&around(frame), ANY_LEN) {
        Err(DecodeError::Damaged(text)) => text,
        other => panic!("{other:?}"),
    };
    // Frames that zstd would decompress: without a checksum, or without a length, nothing could be verified.
    assert_eq!(damage(&frame(&value, 1, &[])), "the header of its frame has changed");
    let unsized_frame = frame(&value, 1, &[CHECKSUM, CParameter::ContentSizeFlag(false)]);
    assert_eq!(damage(&unsized_frame), "it does not declare the length of its value");
    let frame = frame(&value, 1, &[CHECKSUM]);
    assert_eq!(damage(&[&frame[..], &[0]].concat()), "bytes follow the end of its frame");
    assert_eq!(damage(&frame.repeat(2)), "bytes follow the end of its frame");
    let (body, checksum) = frame.split_at(frame.len() - 4);
    let other = checksum.iter().map(|byte| !byte).collect::<Vec<u8>>();
    assert_eq!(damage(&[body, &other].concat()), "Restored data doesn't match checksum");
    // The length has two bytes here, and is 256 less than the value's.
    for declared in [1999_u16, 2001, 65_535] {
        let lying = [&frame[..5], &(declared - 256).to_le_bytes(), &frame[7..]].concat();
        damage(&lying);
    }
}

#[test]
fn a_dictionary_that_is_not_known_is_an_error() {
    let good = compress(&text(2000), Some(&zstd(1))).expect("text saves");
    // The identifier is behind the descriptor, and here of two bytes.
    let needy = [&good[..12], &[good[12] | 2, 0x39, 0x30], &good[13..]].concat();
    assert_eq!(decode(&needy, ANY_LEN), Err(DecodeError::UnknownDictionary(12_345)));
    assert_eq!((declared_len(&needy), dictionary_of(&needy)), (Some(2000), Some(12_345)));
}

#[test]
fn bombs_are_bounded() {
    let zeros = vec![0; 64 << 20];
    let honest = compress(&zeros, Some(&zstd(1))).expect("zeros save");
    assert!(honest.len() < 10_000);
    assert_eq!(declared_len(&honest), Some(64 << 20));
    let too_large = DecodeError::TooLarge { declared: 64 << 20, max: 1 << 20 };
    assert_eq!(decode(&honest, 1 << 20), Err(too_large));
    assert_eq!(decode(&honest, 64 << 20), Ok(zeros));
    // The length has four bytes here. An envelope that understates it decompresses no further than that. One that overstates it
    // is not decompressed at all.
    let descriptor = honest[12];
    assert_eq!(descriptor >> 6, 2, "four bytes");
    let length_at = if descriptor & 0x20 == 0 { 14 } else { 13 };
    let declaring = |length: u32| [&honest[..length_at], &length.to_le_bytes(), &honest[length_at + 4..]].concat();
    assert_eq!(declaring(64 << 20), honest);
    assert!(matches!(decode(&declaring(1000), 1 << 20), Err(DecodeError::Damaged(_))));
    let impossible = Err(DecodeError::Damaged("it declares more than it can decompress to"));
    assert_eq!(decode(&declaring(u32::MAX), ANY_LEN), impossible);
}

#[test]
fn an_aborted_compression_leaves_no_state_behind() {
    let (noise, value) = (noise(200_000, 5), text(20_000));
    let expected = compress(&value, Some(&zstd(1)));
    for how in (0..=22).map(zstd) {
        for cut in [60, 1000, 20_000, 200_000] {
            assert_eq!(compress(&noise[..cut], Some(&how)), None);
            let never = CompressOptions { min_saving: 99, ..how };
            assert_eq!(compress(&value, Some(&never)), None);
            let compressed = compress(&value, Some(&how)).expect("text saves");
            assert_eq!(decode(&compressed, ANY_LEN).as_ref(), Ok(&value), "{how:?}");
            assert!(decode(&compressed[..compressed.len() / 2], ANY_LEN).is_err());
        }
    }
    assert_eq!(compress(&value, Some(&zstd(1))), expected);
}

#[test]
fn a_value_that_begins_with_its_mark_is_saved_from_being_decompressed() {
    let value = zstd_marked(&text(2000));
    for how in [None, Some(&DEFAULTS[0]), Some(&DEFAULTS[1])] {
        let compressed = compress(&value, how).expect("whatever the rule says");
        assert_eq!(decode(&compressed, value.len()).as_ref(), Ok(&value));
    }
}
#[test]
fn no_compressor_takes_more_memory_than_is_said() {
    for level in 1..=19 {
        for len in [64 << 10, 100_000, 256 << 10, 1 << 20, 5 << 20] {
            let mut compressor = CCtx::create();
            compressor.set_parameter(CParameter::CompressionLevel(level as i32)).expect("a level");
            let mut frame = Vec::with_capacity(1 << 20);
            compressor.compress2(&mut frame, &vec![7; len]).expect("there is room");
            let said = zstd(level).memory(len).max(MOST_KEPT);
            assert!(compressor.sizeof() <= said, "level {level}, {len} bytes: {} of {said}", compressor.sizeof());
        }
    }
}
