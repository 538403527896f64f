//! `decode` returns a value within the limit, or an error, for any bytes: as they are, and behind the mark of each codec, so that each
//! decoder sees them, also with a dictionary. A compressed value decodes to the original; a damaged one to nothing else.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use shortstop::codec::{Codec, CompressOptions, Dictionary, MARKS, compress_with, decode_with, train};

const LIMIT: usize = 1 << 20;

static DICTIONARY: LazyLock<Dictionary> = LazyLock::new(|| {
    let sample = |at: u32| format!("{{\"symbol\":\"BTCUSDT\",\"price\":{},\"id\":{at}}}", at.wrapping_mul(2_654_435_761));
    train(&(0..2_000).map(sample).collect::<Vec<_>>(), 1).expect("they have much in common")
});

fuzz_target!(|data: &[u8]| {
    // Any bytes.
    let decode = |bytes: &[u8]| decode_with(bytes, LIMIT, Some(&DICTIONARY));
    let needs_it = [MARKS[1], &[0x27], &DICTIONARY.id().to_le_bytes()].concat();
    for beginning in [b"", MARKS[0], MARKS[1], &needs_it] {
        if let Ok(value) = decode(&[beginning, data].concat()) {
            assert!(value.len() <= LIMIT);
        }
    }
    let _ = Dictionary::new(data, 1);
    // What was compressed, whole and with a flipped bit.
    let (Some(first), Some(last)) = (data.first(), data.last()) else { return };
    for (codec, dictionary) in [(Codec::Gzip, None), (Codec::Zstd, None), (Codec::Zstd, Some(&*DICTIONARY))] {
        let how = CompressOptions { codec, level: 1 + u32::from(*first) % 9, min_size: 0, min_saving: 0 };
        let Some(mut envelope) = compress_with(data, Some(&how), dictionary) else { continue };
        assert_eq!(decode(&envelope).as_deref(), Ok(data));
        let at = (data.len() * 31 + usize::from(*last)) % envelope.len();
        envelope[at] ^= 1 << (first % 8);
        assert!(decode(&envelope).map_or(true, |value| value == data));
    }
});
