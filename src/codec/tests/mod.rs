//! An envelope is what comes back, damage is an error, and standard programs open it.

mod dictionary;
mod gzip;
mod properties;
mod samples;
mod zstd;

use self::samples::{ANY_LEN, DEFAULT, DEFAULTS, gzip, marked, noise, text, zstd, zstd_marked};
use super::{
    Codec, CompressOptions, DecodeError, LONGEST_MARK, MARK, MARKS, ZSTD_MARK, codec_of, compress, declared_len,
    decode, is_compressed, is_number, most_added,
};

#[test]
fn the_threshold_and_the_saving_decide() {
    for how in DEFAULTS {
        assert_eq!(compress(&text(1023), Some(&how)), None);
        let value = text(1024);
        let compressed = compress(&value, Some(&how)).expect("text saves more than a tenth");
        assert_eq!(codec_of(&compressed), Some(how.codec));
        assert!(compressed.len() * 10 <= value.len() * 9);
        assert_eq!(decode(&compressed, 1024), Ok(value.clone()));
        assert_eq!(declared_len(&compressed), Some(1024));

        let saved = |min_saving| compress(&value, Some(&CompressOptions { min_saving, ..how }));
        let percent = ((value.len() - compressed.len()) * 100 / value.len()) as u8;
        assert_eq!(saved(percent), Some(compressed));
        assert_eq!(saved(percent + 1), None);
        assert_eq!(saved(100), None);
        assert_eq!(saved(255), None);
        let always = CompressOptions { min_size: 0, min_saving: 0, ..how };
        assert_eq!(compress(&noise(70_000, 1), Some(&always)), None);
        assert_eq!(compress(b"", Some(&always)), None);
    }
    assert_eq!(compress(&text(1024), None), None);
}

#[test]
fn a_value_that_begins_with_a_mark_is_compressed_whatever_it_costs() {
    for tail in [0, 1, 100, 65_535 - MARK.len(), 65_536 - MARK.len(), 140_000] {
        let (noise, text) = (noise(tail, 7), text(tail));
        for value in [marked(&noise), marked(&text), zstd_marked(&noise), zstd_marked(&text)] {
            for how in [None, Some(&DEFAULT), Some(&DEFAULTS[1]), Some(&gzip(9)), Some(&zstd(19))] {
                let compressed = compress(&value, how).expect("a marked value is always compressed");
                assert_eq!(decode(&compressed, value.len()).as_ref(), Ok(&value));
            }
        }
    }
}

/// Every `mark` with `count` bits flipped.
fn damaged(mark: &[u8], count: usize) -> Vec<Vec<u8>> {
    let flip = |mark: &[u8], bit: usize| {
        let mut mark = mark.to_vec();
        mark[bit / 8] ^= 1 << (bit % 8);
        mark
    };
    let mut marks = vec![(0, mark.to_vec())];
    for _ in 0..count {
        let more = marks.iter().flat_map(|(next, mark)| (*next..mark.len() * 8).map(|bit| (bit + 1, flip(mark, bit))));
        marks = more.collect();
    }
    marks.into_iter().map(|(_, mark)| mark).collect()
}

#[test]
fn a_mark_with_up_to_three_flipped_bits_is_damage() {
    for (mark, how) in [(&MARK[..], gzip(6)), (&ZSTD_MARK, zstd(1))] {
        let good = compress(&text(200), Some(&how)).expect("text saves");
        let bits = mark.len() * 8;
        for (flips, all) in [(1, bits), (2, bits * (bits - 1) / 2), (3, bits * (bits - 1) * (bits - 2) / 6)] {
            let marks = damaged(mark, flips);
            assert_eq!(marks.len(), all);
            for bad_mark in marks {
                assert_eq!(codec_of(&bad_mark), Some(how.codec));
                let bad = [&bad_mark[..], &good[mark.len()..]].concat();
                let is_version = bad_mark[1..] == mark[1..] && bad_mark[0] >> 4 == mark[0] >> 4;
                let expected = match how.codec {
                    Codec::Zstd if is_version => DecodeError::UnknownVersion(bad_mark[0] & 0xf),
                    _ => DecodeError::Damaged("its mark has changed"),
                };
                assert_eq!(decode(&bad, ANY_LEN), Err(expected));
            }
        }
        // With one more flipped bit it is a client's own value.
        for bad_mark in damaged(mark, 3).into_iter().step_by(1009) {
            let unflipped = (0..bits).filter(|bit| (bad_mark[bit / 8] ^ mark[bit / 8]) >> (bit % 8) & 1 == 0);
            for bit in unflipped {
                let mut value = [&bad_mark[..], b"and more"].concat();
                value[bit / 8] ^= 1 << (bit % 8);
                assert!(!is_compressed(&value));
                assert_eq!(decode(&value, ANY_LEN), Err(DecodeError::NotCompressed));
                assert_eq!(compress(&value, None), None);
            }
        }
    }
}

#[test]
fn a_value_that_looks_like_a_damaged_mark_is_compressed() {
    for mark in MARKS {
        let some = damaged(mark, 3).into_iter().step_by(97);
        for mark in [1, 2].into_iter().flat_map(|count| damaged(mark, count)).chain(some) {
            for tail in [&b""[..], b"and more"] {
                let value = [&mark[..], tail].concat();
                let compressed = compress(&value, None).expect("it is compressed whatever it costs");
                assert!(compressed.starts_with(&MARK));
                assert_eq!(decode(&compressed, value.len()), Ok(value));
            }
        }
        assert!(!is_compressed(&mark[..mark.len() - 1]), "too short to be a mark");
        assert!(mark.len() <= LONGEST_MARK);
    }
}

#[test]
fn no_flipped_bit_yields_another_value() {
    // Three lengths, so that the padding after the last block differs.
    for value in [text(200), text(201), text(202), marked(&noise(30, 9))] {
        for how in [gzip(6), zstd(1), zstd(19)] {
            let compressed = compress(&value, Some(&how)).expect("each of them is compressed");
            for bit in 0..compressed.len() * 8 {
                let mut bad = compressed.clone();
                bad[bit / 8] ^= 1 << (bit % 8);
                if let Ok(decoded) = decode(&bad, ANY_LEN) {
                    // zstd has several encodings for some values.
                    assert!(how.codec == Codec::Zstd && decoded == value, "{how:?} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn every_truncation_and_every_tail_is_an_error() {
    for how in DEFAULTS {
        let compressed = compress(&text(3000), Some(&how)).expect("text saves");
        for len in 0..compressed.len() {
            assert!(decode(&compressed[..len], ANY_LEN).is_err(), "{len} bytes");
            assert!(len == 0 || decode(&compressed[len..], ANY_LEN).is_err(), "without the first {len} bytes");
        }
        let (skippable, no_value) = (&ZSTD_MARK[..8], compress_empty());
        for tail in [&[0][..], &[0; 8], &compressed, skippable, &no_value] {
            assert!(decode(&[&compressed, tail].concat(), ANY_LEN).is_err());
        }
    }
}

/// A zstd frame of no bytes: behind another frame it would not change the value.
fn compress_empty() -> Vec<u8> {
    let mut frame = Vec::with_capacity(64);
    zstd_safe::compress(&mut frame, b"", 1).expect("64 bytes are enough");
    frame
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
        assert_eq!(compress(number.as_bytes(), Some(&gzip(9))), None, "{number}");
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
        assert_eq!(compress(other.as_bytes(), Some(&gzip(9))).is_some(), !other.is_empty(), "{other}");
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
fn a_hyperloglog_stays_where_redis_finds_it() {
    let value = [b"HYLL".to_vec(), vec![0; 12_000]].concat();
    assert_eq!(compress(&value, Some(&zstd(3))), None);
}

#[test]
fn envelopes_nest() {
    for [outer, inner] in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        let mut values = vec![text(4096)];
        for depth in 0..5 {
            let how = &DEFAULTS[if depth % 2 == 0 { inner } else { outer }];
            values.push(compress(&values[depth], Some(how)).expect("an envelope begins with a mark"));
        }
        for depth in 0..5 {
            assert_eq!(decode(&values[depth + 1], ANY_LEN).as_ref(), Ok(&values[depth]));
        }
    }
}
