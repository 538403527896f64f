//! Laws that hold for any value, any way to compress it, and any damage.

use std::io::{Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof};
use proptest::{collection::vec, proptest, sample::Index};

use super::samples::{ANY_LEN, gzip, marked, noise, text, with, zstd, zstd_marked};
use crate::codec::{
    Codec, CompressOptions, DecodeError, MARKS, codec_of, compress, declared_len, decode, is_compressed,
};

pub(super) fn values() -> impl Strategy<Value = Vec<u8>> {
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
        (0usize..40_000, any::<u64>()).prop_map(|(len, seed)| zstd_marked(&noise(len, seed))),
        (0usize..40_000).prop_map(|len| zstd_marked(&text(len))),
        // A client's own zstd and gzip data.
        long.clone().prop_map(|len| compress(&text(len), Some(&zstd(3))).map_or(Vec::new(), |own| own[8..].to_vec())),
        long.prop_map(|len| {
            let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
            gz.write_all(&text(len)).expect("writing to a Vec does not fail");
            gz.finish().expect("writing to a Vec does not fail")
        }),
    ]
}

fn hows() -> impl Strategy<Value = Option<CompressOptions>> {
    let codecs = || prop_oneof![Just(Codec::Gzip), Just(Codec::Zstd)];
    let how = (codecs(), 0u32..22, 0usize..3000, 0u8..120)
        .prop_map(|(codec, level, min_size, min_saving)| Some(CompressOptions { codec, level, min_size, min_saving }));
    prop_oneof![1 => Just(None), 2 => codecs().prop_map(|codec| Some(with(codec, 1))), 6 => how]
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
                if codec_of(&compressed) == Some(Codec::Gzip) {
                    let mut by_another_reader = Vec::new();
                    MultiGzDecoder::new(&compressed[..]).read_to_end(&mut by_another_reader).expect("it is gzip");
                    prop_assert_eq!(&by_another_reader, &value);
                }
                if let Some(less) = value.len().checked_sub(1) {
                    let too_large = DecodeError::TooLarge { declared: value.len(), max: less };
                    prop_assert_eq!(decode(&compressed, less), Err(too_large));
                }
                prop_assert_eq!(decode(&compressed, value.len()), Ok(value));
            }
        }
    }

    #[test]
    fn damage_is_never_another_value(
        value in values(),
        flips in vec((any::<Index>(), 1u8..), 1..9),
        cut in any::<Index>(),
    ) {
        for how in [gzip(3), zstd(1), zstd(19)] {
            if let Some(compressed) = compress(&value, Some(&how)) {
                prop_assert!(decode(&compressed[..cut.index(compressed.len())], ANY_LEN).is_err());
                prop_assert!(cut.index(compressed.len()) == 0 || decode(&compressed[cut.index(compressed.len())..], ANY_LEN).is_err());
                let mut bad = compressed.clone();
                for (at, xor) in &flips {
                    bad[at.index(compressed.len())] ^= xor;
                }
                let decoded = decode(&bad, 1 << 24);
                prop_assert!(decoded.is_err() || decoded.as_ref() == Ok(&value));
            }
        }
    }

    #[test]
    fn any_bytes_may_be_decoded(bytes in vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes, 1 << 20).is_err());
        for mark in MARKS {
            prop_assert!(decode(&[mark, &bytes].concat(), 1 << 20).is_err());
        }
    }
}
