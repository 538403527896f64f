//! Finds where a reply ends, in RESP2 and RESP3, without building it.

use memchr::memchr_iter;

use super::int::plain_header;
use super::parse_int;

/// Maximum length of a string. Redis's own limit is 512 MiB unless it is raised.
const MOST: i64 = 1 << 40;

/// The upstream sent something that is not RESP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the reply is no RESP")]
pub struct BrokenReply;

/// The scan of one reply that may arrive in pieces. Each byte is scanned once, however many pieces there are. Nesting takes no
/// stack.
#[derive(Clone, Copy, Debug)]
pub struct ReplyScanner {
    at: usize,
    /// Missing bytes of the string at `at`.
    skip: usize,
    /// Frames that have not begun yet, including nested ones.
    missing: u64,
}

impl Default for ReplyScanner {
    fn default() -> Self {
        ReplyScanner { at: 0, skip: 0, missing: 1 }
    }
}

impl ReplyScanner {
    /// For `count` consecutive replies, scanned as one.
    pub fn of(count: usize) -> Self {
        ReplyScanner { missing: count as u64, ..ReplyScanner::default() }
    }

    /// A lower bound of the bytes that the buffer should have room for.
    pub fn need(&self) -> usize {
        self.at + self.skip
    }

    /// Bytes at the beginning of the buffer that belong to the reply and have been scanned.
    pub fn seen(&self) -> usize {
        self.at
    }

    /// `count` scanned bytes at the beginning of the buffer have been removed.
    pub fn passed_on(&mut self, count: usize) {
        self.at -= count;
    }

    /// Scans `buffer`, which begins with the reply and has grown since the last call. `None` if the reply is incomplete.
    ///
    /// # Errors
    /// Unknown types, or lengths that are no numbers. Later bytes cannot be trusted.
    #[inline]
    pub fn scan(&mut self, buffer: &[u8]) -> Result<Option<usize>, BrokenReply> {
        loop {
            let come = self.skip.min(buffer.len() - self.at);
            self.at += come;
            self.skip -= come;
            if self.skip > 0 {
                return Ok(None);
            }
            if self.missing == 0 {
                return Ok(Some(self.at));
            }
            // The two most frequent types.
            if let Some((length, after)) = plain_header(buffer, self.at, b'$') {
                self.at = after;
                self.skip = length + 2;
                self.missing -= 1;
                continue;
            }
            if buffer[self.at..].starts_with(b"+OK\r\n") {
                self.at += 5;
                self.missing -= 1;
                continue;
            }
            let Some((text, after)) = line(buffer, self.at) else { return Ok(None) };
            self.at = after;
            let children = match text.first() {
                Some(b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(') => 0,
                Some(b'$' | b'=' | b'!') => {
                    let length =
                        parse_int(&text[1..]).filter(|length| (-1..=MOST).contains(length)).ok_or(BrokenReply)?;
                    self.skip = if length < 0 { 0 } else { length as usize + 2 };
                    0
                }
                Some(b'*' | b'~' | b'>') => count(text)?,
                Some(b'%') => count(text)? * 2,
                // An attribute is followed by the reply that it belongs to.
                Some(b'|') => count(text)? * 2 + 1,
                _ => return Err(BrokenReply),
            };
            self.missing = self.missing - 1 + children;
        }
    }
}

/// Elements of an aggregate. A null array has none.
fn count(text: &[u8]) -> Result<u64, BrokenReply> {
    match parse_int(&text[1..]) {
        Some(-1) => Ok(0),
        Some(count @ 0..=0xffff_ffff) => Ok(count as u64),
        _ => Err(BrokenReply),
    }
}

/// The line from `from`, without its CR LF, and where the next one begins. A line feed alone is a part of the line.
#[inline]
fn line(buffer: &[u8], from: usize) -> Option<(&[u8], usize)> {
    let rest = buffer.get(from..)?;
    // Lengths have few digits, so a loop is faster than setting up a vector search.
    let near = rest.iter().take(12).position(|&byte| byte == b'\n').filter(|end| *end > 0 && rest[end - 1] == b'\r');
    let end = match near {
        Some(end) => end,
        None => memchr_iter(b'\n', rest).find(|end| *end > 0 && rest[end - 1] == b'\r')?,
    };
    Some((&rest[..end - 1], from + end + 1))
}

/// The type of a complete reply, if only bulk strings matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bulk<'a> {
    /// A bulk string.
    Value(&'a [u8]),
    /// A verbatim string of RESP3, with its format in front.
    Verbatim(&'a [u8]),
    /// The null of either protocol.
    Null,
    /// Anything else: a number, an error, an aggregate …
    Other,
}

/// The bulk string in a complete reply.
#[inline]
pub fn bulk_of(reply: &[u8]) -> Bulk<'_> {
    if let Some((length, after)) = plain_header(reply, 0, b'$')
        && reply.len() == after + length + 2
    {
        return Bulk::Value(&reply[after..after + length]);
    }
    match reply.first() {
        Some(b'$') => match line(reply, 0) {
            Some((b"$-1", _)) => Bulk::Null,
            Some((_, after)) if reply.len() >= after + 2 => Bulk::Value(&reply[after..reply.len() - 2]),
            _ => Bulk::Other,
        },
        Some(b'=') => match line(reply, 0) {
            Some((_, after)) if reply.len() >= after + 2 => Bulk::Verbatim(&reply[after..reply.len() - 2]),
            _ => Bulk::Other,
        },
        Some(b'_') => Bulk::Null,
        Some(b'*') if reply == b"*-1\r\n" => Bulk::Null,
        _ => Bulk::Other,
    }
}

/// The elements of a complete array reply, each with its bytes. `None` if it is no array.
pub fn elements(reply: &[u8]) -> Option<impl Iterator<Item = &[u8]>> {
    let (text, mut at) = line(reply, 0)?;
    if !matches!(text.first(), Some(b'*' | b'~' | b'>')) {
        return None;
    }
    let mut left = count(text).ok()?;
    Some(std::iter::from_fn(move || {
        left = left.checked_sub(1)?;
        let rest = reply.get(at..)?;
        let end = ReplyScanner::default().scan(rest).ok()??;
        at += end;
        Some(&rest[..end])
    }))
}

/// The first of several complete replies, and the rest.
pub fn split_first(replies: &[u8]) -> (&[u8], &[u8]) {
    let Ok(Some(end)) = ReplyScanner::default().scan(replies) else {
        unreachable!("the connection hands over complete replies");
    };
    replies.split_at(end)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
    use redis_protocol::resp2::decode::decode_bytes as decode2;
    use redis_protocol::resp3::decode::complete::decode_bytes as decode3;

    use super::{BrokenReply, Bulk, ReplyScanner, bulk_of, elements};
    use crate::resp::build;

    fn reply() -> impl Strategy<Value = Vec<u8>> {
        let leaf = prop_oneof![
            "[a-zA-Z ]{0,20}".prop_map(|text| format!("+{text}\r\n").into_bytes()),
            "[A-Z]{3} [a-z ]{0,20}".prop_map(|text| format!("-{text}\r\n").into_bytes()),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            proptest::collection::vec(any::<u8>(), 0..60).prop_map(|value| {
                let mut out = Vec::new();
                build::bulk(&mut out, &value);
                out
            }),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            proptest::collection::vec(inner, 0..6)
                .prop_map(|items| [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat())
        })
    }

    proptest! {
        #[test]
        fn ends_where_redis_protocol_ends(reply in reply(), behind in any::<Vec<u8>>()) {
            let mut buffer = reply.clone();
            buffer.extend(behind);
            let found = ReplyScanner::default().scan(&buffer).expect("valid");
            prop_assert_eq!(found, Some(reply.len()));
            let (_, used) = decode2(&Bytes::from(buffer)).expect("valid").expect("whole");
            prop_assert_eq!(used, reply.len());
        }

        #[test]
        fn resumes_anywhere(reply in reply()) {
            let mut scanner = ReplyScanner::default();
            for end in 0..reply.len() {
                prop_assert_eq!(scanner.scan(&reply[..end]), Ok(None));
            }
            prop_assert_eq!(scanner.scan(&reply), Ok(Some(reply.len())));
        }

        #[test]
        fn elements_put_together_are_the_array(items in proptest::collection::vec(reply(), 0..6)) {
            let array = [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat();
            let found: Vec<Vec<u8>> = elements(&array).expect("an array").map(<[u8]>::to_vec).collect();
            prop_assert_eq!(found, items);
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(
            proptest::sample::select(b"*$:+-_#,(=!%~>|\r\n0123456789t".to_vec()), 0..64),
        ) {
            if let Ok(Some(end)) = ReplyScanner::default().scan(&bytes) {
                prop_assert!(end <= bytes.len());
            }
            let _ = bulk_of(&bytes);
            let _ = elements(&bytes).map(Iterator::count);
        }
    }

    #[test]
    fn resp3_types() {
        for reply in [
            &b"_\r\n"[..],
            b"#t\r\n",
            b",3.25\r\n",
            b"(12345678901234567890\r\n",
            b"!5\r\nERR x\r\n",
            b"=7\r\ntxt:abc\r\n",
            b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
            b"~2\r\n:1\r\n:2\r\n",
            b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
        ] {
            assert_eq!(ReplyScanner::default().scan(reply), Ok(Some(reply.len())));
            let (_, used) = decode3(&Bytes::copy_from_slice(reply)).expect("valid").expect("whole");
            assert_eq!(used, reply.len());
        }
        let with_attribute = b"|1\r\n+ttl\r\n:3\r\n$2\r\nab\r\n+next\r\n";
        assert_eq!(ReplyScanner::default().scan(with_attribute), Ok(Some(with_attribute.len() - 7)));
    }

    /// Found by the fuzzer: a line feed without a carriage return ended the line.
    #[test]
    fn a_line_feed_alone_ends_nothing() {
        assert_eq!(ReplyScanner::default().scan(b"+a\nb\r\n"), Ok(Some(6)));
        assert_eq!(ReplyScanner::default().scan(b"+a\nb\n"), Ok(None));
    }

    #[test]
    fn nonsense_is_an_error() {
        for reply in [&b"x\r\n"[..], b"$abc\r\n", b"*-2\r\n", b"$-5\r\n", b"\r\n", b"*99999999999\r\n"] {
            assert_eq!(ReplyScanner::default().scan(reply), Err(BrokenReply));
        }
    }

    #[test]
    fn bulks() {
        assert_eq!(bulk_of(b"$3\r\nabc\r\n"), Bulk::Value(b"abc"));
        assert_eq!(bulk_of(b"$0\r\n\r\n"), Bulk::Value(b""));
        assert_eq!(bulk_of(b"$-1\r\n"), Bulk::Null);
        assert_eq!(bulk_of(b"_\r\n"), Bulk::Null);
        assert_eq!(bulk_of(b"-ERR x\r\n"), Bulk::Other);
        assert_eq!(bulk_of(b"*1\r\n:1\r\n"), Bulk::Other);
    }
}
