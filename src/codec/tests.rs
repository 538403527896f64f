//! An envelope is what comes back, damage is an error, and the `gzip` program opens it.

use super::envelope::{HEADER_LEN, TRAILER_LEN, VERSION, crc32};
use super::{CompressOptions, DecodeError, MARK, compress, declared_len, decode, is_compressed, is_number, most_added};
use flate2::{Compress, Compression, FlushCompress, read::MultiGzDecoder, write::GzEncoder};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::{collection::vec, proptest, sample::Index};
use std::io::{Read, Write};
use std::process::{Command, Stdio};

const ANY_LEN: usize = usize::MAX;
const DEFAULT: CompressOptions = CompressOptions { level: 3, min_size: 1024, min_saving: 10 };

fn level(level: u32) -> CompressOptions {
    CompressOptions { level, min_size: 0, min_saving: 0 }
}

/// Text of `len` bytes that compresses about as JSON does.
fn text(len: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(len + 64);
    let mut i = 0u64;
    while out.len() < len {
        i += 1;
        write!(out, r#"{{"t":{},"price":{}}},"#, 1_700_000_000 + i * 60, i * 7919 % 9973)
            .expect("writing to a Vec does not fail");
    }
    out.truncate(len);
    out
}

/// `len` bytes that no compressor makes shorter (xorshift64*).
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut x = seed | 1;
    let next = || {
        x ^= x >> 12;
        x ^= x << 25;
        x ^= x >> 27;
        (x.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    std::iter::repeat_with(next).take(len).collect()
}

fn marked(tail: &[u8]) -> Vec<u8> {
    [&MARK[..], tail].concat()
}

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

fn gunzip(compressed: &[u8]) -> Vec<u8> {
    let mut gzip = Command::new("gzip")
        .arg("-dc")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the gzip program is installed");
    let mut stdin = gzip.stdin.take().expect("stdin was piped");
    let compressed = compressed.to_vec();
    // On a thread of its own, because both pipes may be full at once.
    let feeder = std::thread::spawn(move || stdin.write_all(&compressed));
    let done = gzip.wait_with_output().expect("gzip runs to its end");
    feeder.join().expect("the feeder does not panic").expect("gzip reads everything");
    assert!(done.status.success());
    done.stdout
}

#[test]
fn the_threshold_and_the_saving_decide() {
    assert_eq!(compress(&text(1023), Some(&DEFAULT)), None);
    let value = text(1024);
    let compressed = compress(&value, Some(&DEFAULT)).expect("text saves more than a tenth");
    assert!(compressed.len() * 10 <= value.len() * 9);
    assert_eq!(decode(&compressed, 1024), Ok(value.clone()));
    assert_eq!(declared_len(&compressed), Some(1024));

    let saved = |min_saving| compress(&value, Some(&CompressOptions { min_saving, ..DEFAULT }));
    let percent = ((value.len() - compressed.len()) * 100 / value.len()) as u8;
    assert_eq!(saved(percent), Some(compressed));
    assert_eq!(saved(percent + 1), None);
    assert_eq!(saved(100), None);
    assert_eq!(saved(255), None);
    assert_eq!(compress(&value, None), None);
    assert_eq!(compress(&noise(70_000, 1), Some(&level(3))), None);
    assert_eq!(compress(b"", Some(&level(9))), None);
}

#[test]
fn a_value_that_begins_with_the_mark_is_compressed_whatever_it_costs() {
    for tail in [0, 1, 100, 65_535 - MARK.len(), 65_536 - MARK.len(), 140_000] {
        for value in [marked(&noise(tail, 7)), marked(&text(tail))] {
            for how in [None, Some(&DEFAULT), Some(&level(9))] {
                let compressed = compress(&value, how).expect("a marked value is always compressed");
                assert_eq!(decode(&compressed, value.len()).as_ref(), Ok(&value));
            }
        }
    }
}

/// Every mark with `count` bits flipped.
fn damaged_marks(count: usize) -> Vec<[u8; 16]> {
    let bits = MARK.len() * 8;
    let flip = |mark: [u8; 16], bit: usize| {
        let mut mark = mark;
        mark[bit / 8] ^= 1 << (bit % 8);
        mark
    };
    (0..count)
        .fold(vec![(0, MARK)], |marks, _| {
            let more =
                marks.into_iter().flat_map(|(next, mark)| (next..bits).map(move |bit| (bit + 1, flip(mark, bit))));
            more.collect()
        })
        .into_iter()
        .map(|(_, mark)| mark)
        .collect()
}

#[test]
fn a_mark_with_up_to_three_flipped_bits_is_damage() {
    let good = compress(&text(200), Some(&level(6))).expect("text saves");
    for (flips, all) in [(1, 128), (2, 128 * 127 / 2), (3, 128 * 127 * 126 / 6)] {
        let marks = damaged_marks(flips);
        assert_eq!(marks.len(), all);
        for mark in marks {
            assert!(is_compressed(&mark));
            let mut bad = good.clone();
            bad[..16].copy_from_slice(&mark);
            assert_eq!(decode(&bad, ANY_LEN), Err(DecodeError::Damaged("its mark has changed")));
        }
    }
    // With one more flipped bit it is a client's own value.
    for mark in damaged_marks(3).into_iter().step_by(1009) {
        let unflipped = (0..128).filter(|bit| (mark[bit / 8] ^ MARK[bit / 8]) >> (bit % 8) & 1 == 0);
        for bit in unflipped {
            let mut value = [&mark[..], b"and more"].concat();
            value[bit / 8] ^= 1 << (bit % 8);
            assert!(!is_compressed(&value));
            assert_eq!(decode(&value, ANY_LEN), Err(DecodeError::NotCompressed));
            assert_eq!(compress(&value, None), None);
        }
    }
}

#[test]
fn a_value_that_looks_like_a_damaged_mark_is_compressed() {
    for mark in [1, 2].into_iter().flat_map(damaged_marks).chain(damaged_marks(3).into_iter().step_by(97)) {
        for tail in [&b""[..], b"and more"] {
            let value = [&mark[..], tail].concat();
            let compressed = compress(&value, None).expect("it is compressed whatever it costs");
            assert!(compressed.starts_with(&MARK));
            assert_eq!(decode(&compressed, value.len()), Ok(value));
        }
    }
    assert!(!is_compressed(&MARK[..15]), "too short to be a mark");
}

/// Block gzip of genomics (BGZF): the same format with a subfield of its own.
#[test]
fn a_header_of_bgzf_is_a_clients_own_value() {
    let bgzf = [0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 6, 0, b'B', b'C', 2, 0, 0x1b, 0, 3, 0];
    assert!(!is_compressed(&bgzf));
    assert_eq!(compress(&bgzf, None), None);
}

#[test]
fn a_number_stays_where_redis_finds_it() {
    let zeros = |count| "0".repeat(count);
    for number in [
        format!("7.{}", zeros(1100)),
        zeros(5000),
        format!("-{}", "12345".repeat(300)),
        format!("+.{}1", zeros(1100)),
        format!("{}.", zeros(1100)),
        format!("1e{}1", zeros(1100)),
        format!("1.{}E-{}9", zeros(600), zeros(600)),
        format!("0x{}.8p+{}1", zeros(600), zeros(600)),
        format!("0X.{}A", zeros(1100)),
        format!("{}7", " \t\n\x0b\x0c\r".repeat(300)),
        format!("{}-inf", " ".repeat(1100)),
        format!("{}Infinity", " ".repeat(1100)),
        // For SORT BY, a zero byte is the end.
        format!("7.5\0{}", zeros(1100)),
    ] {
        assert!(is_number(number.as_bytes()), "{number}");
        assert_eq!(compress(number.as_bytes(), Some(&level(9))), None, "{number}");
    }
    for other in [
        String::new(),
        "\0".repeat(2000),
        " ".repeat(2000),
        format!("{}x", zeros(1100)),
        format!("{} ", zeros(1100)),
        format!("{}.0.0", zeros(1100)),
        format!("- {}", zeros(1100)),
        format!("--{}", zeros(1100)),
        format!(".{}e", zeros(1100)),
        format!("1e+{}", "-".repeat(1100)),
        format!("0x{}", "g".repeat(1100)),
        format!("1{}", ",000".repeat(400)),
        "1\n".repeat(1000),
        format!("{}nan", " ".repeat(1100)),
    ] {
        assert!(!is_number(other.as_bytes()), "{other}");
        assert_eq!(compress(other.as_bytes(), Some(&level(9))).is_some(), !other.is_empty(), "{other}");
    }
}

#[test]
fn no_envelope_is_longer_than_most_added() {
    for len in [16, 17, 65_535, 65_536, 140_000] {
        let value = marked(&noise(len - MARK.len(), 11));
        let compressed = compress(&value, None).expect("a marked value is always compressed");
        assert_eq!(compressed.len(), len + most_added(len));
    }
}

#[test]
fn envelopes_nest() {
    let value = text(4096);
    let one = compress(&value, Some(&DEFAULT)).expect("text saves");
    let two = compress(&one, Some(&DEFAULT)).expect("an envelope begins with the mark");
    assert_eq!(decode(&two, ANY_LEN), Ok(one));
}

#[test]
fn a_hyperloglog_stays_where_redis_finds_it() {
    let value = [b"HYLL".to_vec(), vec![0; 12_000]].concat();
    assert_eq!(compress(&value, Some(&level(3))), None);
}

#[test]
fn a_clients_own_gzip_data_is_not_decompressed() {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(&text(9000)).expect("writing to a Vec does not fail");
    let value = gz.finish().expect("writing to a Vec does not fail");
    assert!(!is_compressed(&value));
    assert_eq!(decode(&value, ANY_LEN), Err(DecodeError::NotCompressed));
    if let Some(compressed) = compress(&value, Some(&level(9))) {
        assert_eq!(decode(&compressed, ANY_LEN), Ok(value));
    }
}

#[test]
fn the_gzip_program_decompresses_an_envelope() {
    let stored = marked(&noise(200_000, 3));
    for value in [text(1024), text(300_000), vec![0; 1 << 20], stored] {
        let compressed = compress(&value, Some(&DEFAULT)).expect("each of them is compressed");
        assert_eq!(gunzip(&compressed), value);
    }
}

/// In zlib-rs 0.6 a reset after an unfinished stream leaves state behind: at level 1 the next value on this thread panicked.
#[test]
fn an_aborted_compression_leaves_no_state_behind() {
    let (noise, value) = (noise(200_000, 5), text(20_000));
    for how in (0..=12).map(level) {
        for cut in [60, 1000, 20_000, 70_000, 200_000] {
            assert_eq!(compress(&noise[..cut], Some(&how)), None);
            if let Some(compressed) = compress(&value, Some(&how)) {
                assert_eq!(decode(&compressed, ANY_LEN).as_ref(), Ok(&value), "{how:?}");
            }
        }
    }
}

#[test]
fn every_bit_matters() {
    // Three lengths, so that the padding after the last block differs.
    for value in [text(200), text(201), text(202), marked(&noise(30, 9))] {
        let compressed = compress(&value, Some(&level(6))).expect("each of them is compressed");
        for bit in 0..compressed.len() * 8 {
            let mut bad = compressed.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad, ANY_LEN).is_err(), "bit {bit}");
        }
    }
}

#[test]
fn every_truncation_and_every_tail_is_an_error() {
    let compressed = compress(&text(3000), Some(&DEFAULT)).expect("text saves");
    for len in 0..compressed.len() {
        assert!(decode(&compressed[..len], ANY_LEN).is_err(), "{len} bytes");
    }
    for tail in [&[0][..], &[0; 8], &compressed] {
        assert!(decode(&[&compressed, tail].concat(), ANY_LEN).is_err());
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

fn values() -> impl Strategy<Value = Vec<u8>> {
    let long = 0usize..70_000;
    prop_oneof![
        vec(any::<u8>(), 0..300),
        vec(0u8..4, 0..3000),
        (long.clone(), any::<u64>()).prop_map(|(len, seed)| noise(len, seed)),
        long.clone().prop_map(text),
        (long.clone(), any::<u8>()).prop_map(|(len, byte)| vec![byte; len]),
        // Its nature changes half way: a compressor that gives up early must be right about the rest.
        (0usize..35_000, 0usize..35_000, any::<u64>()).prop_map(|(a, b, seed)| [noise(a, seed), text(b)].concat()),
        (0usize..40_000, any::<u64>()).prop_map(|(len, seed)| marked(&noise(len, seed))),
        (0usize..40_000).prop_map(|len| marked(&text(len))),
        // A client's own gzip data.
        long.prop_map(|len| {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&text(len)).expect("writing to a Vec does not fail");
            gz.finish().expect("writing to a Vec does not fail")
        }),
    ]
}

fn hows() -> impl Strategy<Value = Option<CompressOptions>> {
    let how = (0u32..12, 0usize..3000, 0u8..120)
        .prop_map(|(level, min_size, min_saving)| Some(CompressOptions { level, min_size, min_saving }));
    prop_oneof![1 => Just(None), 2 => Just(Some(level(1))), 6 => how]
}

proptest! {
    #[test]
    fn every_stored_value_is_returned_unchanged(value in values(), how in hows()) {
        match compress(&value, how.as_ref()) {
            None => prop_assert!(!is_compressed(&value)),
            Some(compressed) => {
                prop_assert!(is_compressed(&compressed));
                if let Some(how) = how && !is_compressed(&value) {
                    let saved = (value.len() - compressed.len()) * 100;
                    prop_assert!(saved > 0 && saved >= value.len() * usize::from(how.min_saving));
                }
                prop_assert_eq!(declared_len(&compressed), Some(value.len()));
                let mut by_another_reader = Vec::new();
                MultiGzDecoder::new(&compressed[..]).read_to_end(&mut by_another_reader).expect("it is gzip");
                prop_assert_eq!(&by_another_reader, &value);
                if let Some(less) = value.len().checked_sub(1) {
                    let too_large = DecodeError::TooLarge { declared: value.len(), max: less };
                    prop_assert_eq!(decode(&compressed, less), Err(too_large));
                }
                prop_assert_eq!(decode(&compressed, value.len()), Ok(value));
            }
        }
    }

    #[test]
    fn damage_is_never_a_value(
        value in values(),
        flips in vec((any::<Index>(), 1u8..), 1..9),
        cut in any::<Index>(),
    ) {
        if let Some(compressed) = compress(&value, Some(&level(3))) {
            prop_assert!(decode(&compressed[..cut.index(compressed.len())], ANY_LEN).is_err());
            let mut bad = compressed.clone();
            for (at, xor) in flips {
                bad[at.index(compressed.len())] ^= xor;
            }
            if bad != compressed {
                prop_assert!(decode(&bad, 1 << 24).is_err());
            }
        }
    }

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

    #[test]
    fn any_bytes_may_be_decoded(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, 1 << 20).is_err());
        prop_assert!(decode(&marked(&bytes), 1 << 20).is_err());
    }
}
