//! Dictionaries: small values get much smaller with one, only that one opens them, and the `zstd` program does so too.

use std::io::Write;
use std::process::Command;

use zstd_safe::{CCtx, CParameter, DCtx};

use super::samples::{ANY_LEN, gzip, noise, text, zstd, zstd_marked};
use crate::codec::training::train_one;
use crate::codec::{
    DecodeError, Dictionary, MARK, ZSTD_MARK, compress, compress_with, declared_len, decode, decode_with,
    dictionary_of, train,
};

/// A value of some hundred bytes, as many keys have it.
fn signal(number: u64) -> Vec<u8> {
    let random = noise(16, number * 7919 + 1);
    let part = |at: usize| u32::from(random[at]) * 256 + u32::from(random[at + 1]);
    format!(
        r#"{{"symbol":"{}","action":"{}","strategy":"ema_cross","price":{},"confidence":0.{},"stop_loss":{},"indicators":{{"rsi":{},"macd":0.{},"ema_fast":{},"ema_slow":{}}},"timestamp":"2023-11-14T22:13:{:02}","valid":true,"exchange":"binance","timeframe":"15m"}}"#,
        ["BTCUSDT", "ETHUSDT", "SOLUSDT"][part(0) as usize % 3],
        ["BUY", "SELL", "HOLD"][part(2) as usize % 3],
        part(4),
        part(6),
        part(4) * 98 / 100,
        part(8) % 100,
        part(10),
        part(4) + part(12) % 100,
        part(4) - part(4) % 100,
        part(14) % 60,
    )
    .into_bytes()
}

fn trained() -> Dictionary {
    train(&(0..1000).map(signal).collect::<Vec<_>>(), 1).expect("they have much in common")
}

#[test]
fn small_values_get_much_smaller_with_a_dictionary() {
    let dictionary = trained();
    let (mut before, mut plain, mut after) = (0, 0, 0);
    for value in (5000..5200).map(signal) {
        assert!((260..320).contains(&value.len()), "{}", value.len());
        let envelope = compress_with(&value, Some(&zstd(1)), Some(&dictionary)).expect("it saves");
        assert_eq!((dictionary_of(&envelope), declared_len(&envelope)), (Some(dictionary.id()), Some(value.len())));
        assert_eq!(decode_with(&envelope, value.len(), Some(&dictionary)).as_ref(), Ok(&value));
        let too_large = DecodeError::TooLarge { declared: value.len(), max: 100 };
        assert_eq!(decode_with(&envelope, 100, Some(&dictionary)), Err(too_large));
        before += value.len();
        after += envelope.len();
        plain += compress(&value, Some(&zstd(1))).map_or(value.len(), |envelope| envelope.len());
    }
    assert!(after * 10 < before * 4 && after * 2 < plain, "{before} bytes, {plain} without, {after} with a dictionary");
}

/// The checksum is added by hand, so zstd's own frame is the reference.
#[test]
fn an_envelope_is_eight_bytes_longer_than_the_bare_frame_with_the_same_dictionary() {
    let dictionary = trained();
    for value in (0..50).map(signal).chain([text(100), text(5000), text(300_000)]) {
        let mut compressor = CCtx::create();
        compressor.set_parameter(CParameter::ChecksumFlag(true)).expect("a flag");
        compressor.ref_cdict(dictionary.compressing()).expect("a dictionary");
        let mut frame = Vec::with_capacity(value.len() + 100);
        compressor.compress2(&mut frame, &value).expect("there is room");
        let envelope = compress_with(&value, Some(&zstd(1)), Some(&dictionary)).expect("it saves");
        assert!(envelope == [&ZSTD_MARK[..8], &frame].concat(), "{} bytes", value.len());
        // Nothing of the dictionary is left in the compressor and the decompressor of this thread.
        let envelope = compress(&text(2000), Some(&zstd(1))).expect("text saves");
        assert_eq!((dictionary_of(&envelope), decode(&envelope, ANY_LEN)), (None, Ok(text(2000))));
        assert_eq!(decode_with(&envelope, ANY_LEN, Some(&dictionary)), Ok(text(2000)));
    }
}

#[test]
fn the_zstd_program_opens_it_with_the_dictionarys_file() {
    let dictionary = trained();
    let value = signal(7000);
    let envelope = compress_with(&value, Some(&zstd(1)), Some(&dictionary)).expect("it saves");
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("room for it");
        path
    };
    let (known, stored) = (path("dictionary", dictionary.bytes()), path("value.zst", &envelope));
    let output = Command::new("zstd").arg("-dc").arg("-D").arg(known).arg(&stored).output().expect("it is installed");
    assert!(output.status.success() && output.stdout == value, "{}", String::from_utf8_lossy(&output.stderr));
    let output = Command::new("zstd").arg("-dc").arg(&stored).output().expect("it is installed");
    assert!(!output.status.success(), "without the dictionary");
}

#[test]
fn without_its_dictionary_a_value_is_an_error_and_never_bytes() {
    let dictionary = trained();
    let value = signal(7000);
    let envelope = compress_with(&value, Some(&zstd(1)), Some(&dictionary)).expect("it saves");
    let unknown = Err(DecodeError::UnknownDictionary(dictionary.id()));
    assert_eq!(decode(&envelope, ANY_LEN), unknown);
    let samples: Vec<Vec<u8>> = (0..1000).map(|at| signal(at * 3 + 1_000_000)).collect();
    let another = train(&samples, 1).expect("they have much in common");
    let bytes = another.bytes();
    assert_ne!(another.id(), dictionary.id());
    assert_eq!(decode_with(&envelope, ANY_LEN, Some(&another)), unknown);
    // Another one under the same identifier, which has the bytes 4 to 7.
    let forged = [&bytes[..4], &dictionary.bytes()[4..8], &bytes[8..]].concat();
    let forged = Dictionary::new(&forged, 1).expect("it is one");
    assert_eq!(forged.id(), dictionary.id());
    assert!(matches!(decode_with(&envelope, ANY_LEN, Some(&forged)), Err(DecodeError::Damaged(_))));
}

#[test]
fn no_flipped_bit_and_no_truncation_yields_another_value() {
    let dictionary = trained();
    for value in [signal(8000), signal(8001), zstd_marked(&signal(8002))] {
        let envelope = compress_with(&value, Some(&zstd(1)), Some(&dictionary)).expect("it saves");
        for bit in 0..envelope.len() * 8 {
            let mut bad = envelope.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let decoded = decode_with(&bad, ANY_LEN, Some(&dictionary));
            assert!(decoded.is_err() || decoded.as_ref() == Ok(&value), "bit {bit}");
        }
        for len in 0..envelope.len() {
            assert!(decode_with(&envelope[..len], ANY_LEN, Some(&dictionary)).is_err(), "{len} bytes");
            assert!(len == 0 || decode_with(&envelope[len..], ANY_LEN, Some(&dictionary)).is_err(), "from {len}");
        }
        assert!(decode_with(&envelope.repeat(2), ANY_LEN, Some(&dictionary)).is_err());
    }
}

#[test]
fn a_dictionary_changes_nothing_for_gzip_and_for_what_is_never_compressed() {
    let dictionary = trained();
    let value = text(2000);
    assert_eq!(compress_with(&value, Some(&gzip(3)), Some(&dictionary)), compress(&value, Some(&gzip(3))));
    assert_eq!(compress_with(&noise(5000, 3), Some(&zstd(1)), Some(&dictionary)), None);
    assert_eq!(compress_with(b"12345", Some(&zstd(1)), Some(&dictionary)), None);
    let marked = compress_with(&MARK, Some(&zstd(1)), Some(&dictionary)).expect("it looks compressed");
    assert_eq!(decode(&marked, 16), Ok(MARK.to_vec()));
}

#[test]
fn bytes_that_are_no_dictionary_are_refused() {
    let good = trained();
    for bytes in [&b""[..], b"raw content", &noise(5000, 1), &good.bytes()[..100], &good.bytes()[1..]] {
        assert!(Dictionary::new(bytes, 1).is_none(), "{} bytes", bytes.len());
    }
    assert!(train_one(&[b"too few"], 1000).is_none() && train_one(&[], 1000).is_none());
    // Damaged ones are refused, or compress and decompress all the same.
    for at in (4..600).step_by(7) {
        let mut bytes = good.bytes().to_vec();
        bytes[at] ^= 0x41;
        if let Some(other) = Dictionary::new(&bytes, 1)
            && let Some(envelope) = compress_with(&signal(1), Some(&zstd(1)), Some(&other))
        {
            assert_eq!(decode_with(&envelope, ANY_LEN, Some(&other)), Ok(signal(1)));
        }
    }
    let mut decompressor = DCtx::create();
    let envelope = compress_with(&signal(1), Some(&zstd(1)), Some(&good)).expect("it saves");
    assert!(decompressor.decompress(&mut Vec::with_capacity(1000), &envelope[8..]).is_err(), "zstd itself refuses too");
}

#[test]
fn a_dictionary_that_does_not_pay_is_not_made() {
    let signals: Vec<Vec<u8>> = (0..400).map(signal).collect();
    let dictionary = train(&signals, 1).expect("they have much in common");
    assert!(dictionary.bytes().len() <= 16 << 10);
    assert_eq!(train(&signals, 1).expect("again").bytes(), dictionary.bytes(), "the same of the same samples");
    let envelope = compress_with(&signal(9000), Some(&zstd(1)), Some(&dictionary)).expect("it saves");
    assert!(envelope.len() * 2 < signal(9000).len(), "{} bytes", envelope.len());
    let random: Vec<Vec<u8>> = (0..400).map(|seed| noise(300, seed * 31 + 5)).collect();
    assert!(train(&random, 1).is_none(), "nothing in common");
    let long: Vec<Vec<u8>> = (0..24).map(|at| (0..100).flat_map(|part| signal(at * 100 + part)).collect()).collect();
    assert!(train(&long, 1).is_none(), "what they have in common is in each of them");
    assert!(train(&signals[..3], 1).is_none() && train(&signals[..0], 1).is_none());
}
