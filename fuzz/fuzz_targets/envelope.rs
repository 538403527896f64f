//! `decode` returns a value within the limit, or an error, for any bytes. A compressed value decodes to the original.

#![no_main]

use libfuzzer_sys::fuzz_target;
use shortstop::codec::{CompressOptions, decode, compress};

const LIMIT: usize = 1 << 20;

fuzz_target!(|data: &[u8]| {
    if let Ok(value) = decode(data, LIMIT) {
        assert!(value.len() <= LIMIT);
    }
    let how = CompressOptions { level: 1 + data.len() as u32 % 9, min_size: 0, min_saving: 0 };
    if let Some(compressed) = compress(data, Some(&how)) {
        assert_eq!(decode(&compressed, LIMIT).as_deref(), Ok(data));
    }
});
