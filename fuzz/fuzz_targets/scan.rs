//! Compares the scanner with redis-protocol: each request that it finds is a request there too, with the same arguments. The result
//! must not depend on how the bytes are split.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use shortstop::resp::{Scan, ScanLimits, Scanner};

const LIMITS: ScanLimits = ScanLimits { bulk_length: 1 << 20, arguments: 1 << 10, line_length: 1 << 10 };

fuzz_target!(|data: &[u8]| {
    let mut scanner = Scanner::default();
    let whole = scanner.scan(data, &LIMITS);
    let args = scanner.args.clone();
    // Again, with the remembered beginning of the first request.
    scanner.forget();
    assert_eq!((scanner.scan(data, &LIMITS), &scanner.args), (whole.clone(), &args));
    if let Ok(Scan::Request { len, regular: true }) = &whole {
        let (frame, used) = decode_bytes(&Bytes::copy_from_slice(data)).expect("valid there too").expect("whole");
        assert_eq!(used, *len);
        let BytesFrame::Array(items) = frame else { panic!("an array") };
        assert_eq!(items.len(), args.len());
        for (item, range) in items.iter().zip(&args) {
            assert!(matches!(item, BytesFrame::BulkString(bytes) if bytes == &data[range.clone()]));
        }
    }
    let mut pieces = Scanner::default();
    for end in 0..=data.len() {
        match pieces.scan(&data[..end], &LIMITS) {
            Ok(Scan::More { need }) => assert!(need > end),
            Ok(found) => {
                if let Ok(whole) = &whole {
                    assert_eq!(&found, whole);
                    assert_eq!(pieces.args, args);
                }
                return;
            }
            Err(_) => {
                assert!(whole.is_err());
                return;
            }
        }
    }
});
