//! `decode` returns a value within the limit, or an error, for any bytes: as they are, and behind the mark of each codec, so that each
//! decoder sees them. A compressed value decodes to the original; a damaged one to nothing else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shortstop::codec::{Codec, CompressOptions, MARKS, compress, decode};

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    for mark in [&b""[..], MARKS[0], MARKS[1]] {
        if let Ok(value) = decode(&[mark, data].concat(), LIMIT) {
            assert!(value.len() <= LIMIT);
        }
    }
    let (Some(first), Some(last)) = (data.first(), data.last()) else { return };
    for codec in [Codec::Gzip, Codec::Zstd] {
        let how = CompressOptions { codec, level: 1 + u32::from(*first) % 9, min_size: 0, min_saving: 0 };
        let Some(mut envelope) = compress(data, Some(&how)) else { continue };
        assert_eq!(decode(&envelope, LIMIT).as_deref(), Ok(data));
        let at = (data.len() * 31 + usize::from(*last)) % envelope.len();
        envelope[at] ^= 1 << (first % 8);
        assert!(decode(&envelope, LIMIT).is_ok_and(|value| value == data) || decode(&envelope, LIMIT).is_err());
    }
});
