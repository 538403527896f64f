//! Compares the end of a reply with what redis-protocol finds. No input makes the helpers panic.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use redis_protocol::resp2::decode::decode_bytes;
use shortstop::resp::{ReplyScanner, bulk_of, elements};

fuzz_target!(|data: &[u8]| {
    let found = ReplyScanner::default().scan(data);
    if let (Ok(Some(end)), Ok(Some((_, used)))) = (found, decode_bytes(&Bytes::copy_from_slice(data)))
        && matches!(data[0], b'+' | b'-' | b':' | b'$')
    {
        assert_eq!(end, used);
    }
    let _ = bulk_of(data);
    let _ = elements(data).map(|all| all.take(10_000).count());
});
