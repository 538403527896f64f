//! The scanner against redis-protocol: what it takes for a request is one there too, with the same arguments; and it comes to the
//! same end however the bytes arrive.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use shortstop::resp::{Args, Resume, Scan, ScanLimits, scan};

const LIMITS: ScanLimits = ScanLimits { bulk_length: 1 << 20, arguments: 1 << 10, line_length: 1 << 10 };

fuzz_target!(|data: &[u8]| {
    let mut args = Args::new();
    let whole = scan(data, &LIMITS, &mut args, &mut Resume::default());
    if let Ok(Scan::Request { len, regular: true }) = &whole {
        let (frame, used) = decode_bytes(&Bytes::copy_from_slice(data)).expect("valid there too").expect("whole");
        assert_eq!(used, *len);
        let BytesFrame::Array(items) = frame else { panic!("an array") };
        assert_eq!(items.len(), args.len());
        for (item, range) in items.iter().zip(&args) {
            assert!(matches!(item, BytesFrame::BulkString(bytes) if bytes == &data[range.clone()]));
        }
    }
    let (mut pieces, mut resume) = (Args::new(), Resume::default());
    for end in 0..=data.len() {
        match scan(&data[..end], &LIMITS, &mut pieces, &mut resume) {
            Ok(Scan::More { need }) => assert!(need > end),
            Ok(found) => {
                if let Ok(whole) = &whole {
                    assert_eq!(&found, whole);
                    assert_eq!(pieces, args);
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
