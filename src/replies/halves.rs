//! BITFIELD's reply when a script read integers of more than 53 bits in two halves: puts the halves together.

use crate::exchange::reply_shape::LOW_BITS;
use crate::resp::{Bulk, build, bulk_of, elements, parse_int};

/// The script's reply in the form of BITFIELD's reply.
pub(crate) fn join_halves(reply: &[u8]) -> Vec<u8> {
    let Some(elements) = elements(reply).filter(|_| reply.starts_with(b"*")) else { return reply.to_vec() };
    let elements: Vec<&[u8]> = elements.collect();
    let mut out = Vec::with_capacity(reply.len());
    build::header(&mut out, b'*', elements.len());
    for element in elements {
        match integer(element) {
            Some(integer) => out.extend_from_slice(format!(":{integer}\r\n").as_bytes()),
            None => out.extend_from_slice(element),
        }
    }
    out
}

/// The integer that an element holds in two halves.
fn integer(element: &[u8]) -> Option<i64> {
    let Bulk::Value(halves) = bulk_of(element) else { return None };
    let (high, low) = halves.split_at_checked(memchr::memchr(b' ', halves)?)?;
    parse_int(high)?.checked_mul(1 << LOW_BITS)?.checked_add(parse_int(&low[1..])?)
}

#[cfg(test)]
mod tests {
    use super::{integer, join_halves};

    #[test]
    fn halves_are_put_together() {
        for (halves, expected) in [
            ("0 0", 0),
            ("2147483647 4294967295", i64::MAX),
            ("-2147483648 0", i64::MIN),
            ("-1 4294967295", -1),
            ("-1 0", -4_294_967_296),
        ] {
            assert_eq!(integer(format!("${}\r\n{halves}\r\n", halves.len()).as_bytes()), Some(expected));
        }
        let reply = b"*3\r\n$3\r\n1 2\r\n$-1\r\n:7\r\n";
        assert_eq!(join_halves(reply), b"*3\r\n:4294967298\r\n$-1\r\n:7\r\n");
        assert_eq!(join_halves(b"-ERR no\r\n"), b"-ERR no\r\n");
    }
}
