//! Finds one request at the start of a buffer, without copying it. Every request goes through this scan.
//!
//! Accepts and refuses what Redis accepts and refuses, with Redis's errors (`networking.c`, `processMultibulkBuffer`). So bytes
//! that are passed on unchanged cannot mean something else to Redis. Bounds are checked before anything is allocated for what they
//! bound.

use std::ops::Range;

use memchr::memchr;
use smallvec::SmallVec;

use super::int::plain_header;
use super::prefix::Prefix;
use super::{inline, parse_int};

/// The ranges of a request's arguments in the buffer.
pub type Args = SmallVec<[Range<usize>; 8]>;

/// Limits on requests, from the configuration.
#[derive(Clone, Copy, Debug)]
pub struct ScanLimits {
    /// Size of one argument.
    pub bulk_length: usize,
    /// Number of arguments of one request.
    pub arguments: usize,
    /// Size of a line: an inline request, or the line of a length.
    pub line_length: usize,
}

/// What the start of the buffer contains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scan {
    /// A request of `len` bytes. Its arguments are in `args`. `regular`: every RESP parser accepts it unchanged (Redis is lenient
    /// about the bytes in place of line ends).
    Request {
        /// Bytes of the buffer that it takes up.
        len: usize,
        /// May be passed on unchanged.
        regular: bool,
    },
    /// An inline request of `len` bytes with these words.
    Inline {
        /// Bytes of the buffer that it takes up.
        len: usize,
        /// Its arguments.
        words: Vec<Vec<u8>>,
    },
    /// `len` bytes that need no reply (an empty line, `*0`).
    Nothing {
        /// Bytes of the buffer that it takes up.
        len: usize,
    },
    /// The request is incomplete. It takes up at least `need` bytes from the start of the buffer.
    More {
        /// A lower bound of the size of the whole request.
        need: usize,
    },
}

/// Errors that Redis answers with `-ERR Protocol error: …` before it closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// `*` without a count.
    #[error("invalid multibulk length")]
    ArrayLength,
    /// `$` without a length.
    #[error("invalid bulk length")]
    BulkLength,
    /// Another byte where an argument begins.
    #[error("expected '$', got '{}'", char::from(*.0))]
    NotBulk(u8),
    /// No line end after a count.
    #[error("too big mbulk count string")]
    ArrayLine,
    /// No line end after a length.
    #[error("too big bulk count string")]
    BulkLine,
    /// No line end in an inline request.
    #[error("too big inline request")]
    InlineLength,
    /// Unbalanced quotes in an inline request.
    #[error("unbalanced quotes in request")]
    Quotes,
}

/// Capacity for arguments that is kept from one request to the next.
const KEPT_ARGUMENTS: usize = 1024;

/// Scans one request after the other.
#[derive(Debug, Default)]
pub struct Scanner {
    /// The ranges of the arguments found so far.
    pub args: Args,
    resume: Resume,
    last: Opening,
}

/// The progress of an incomplete scan. Starting again at each read would take quadratic time for requests with many arguments.
/// Valid for the same bytes with more behind them.
#[derive(Debug, Default)]
struct Resume {
    at: usize,
    missing: usize,
    irregular: bool,
}

/// The beginning of the last request: the next one often begins with the same bytes.
#[derive(Debug, Default)]
struct Opening {
    prefix: Prefix,
    argc: usize,
    name: Range<usize>,
}

impl Scanner {
    /// Call this before scanning another request.
    #[inline]
    pub fn forget(&mut self) {
        if self.args.capacity() > KEPT_ARGUMENTS {
            // A single large request must not hold its memory for as long as the client stays.
            self.args = Args::default();
        }
        self.args.clear();
        self.resume = Resume::default();
    }

    /// Finds the request at the start of `buffer`. The buffer must contain the same bytes as at the last call with more behind
    /// them, unless [`Scanner::forget`] was called.
    ///
    /// # Errors
    /// Errors for which Redis would close the connection.
    #[inline]
    pub fn scan(&mut self, buffer: &[u8], limits: &ScanLimits) -> Result<Scan, ProtocolError> {
        let Scanner { args, resume, last } = self;
        let mut at = resume.at;
        let mut regular = !resume.irregular;
        let mut missing = resume.missing;
        let mut known = false;
        if at > 0 {
            // The request is incomplete.
        } else if last.prefix.begins(buffer) && last.argc <= limits.arguments && last.name.len() <= limits.bulk_length {
            args.push(last.name.clone());
            (missing, at, known) = (last.argc - 1, last.name.end + 2, true);
        } else if let Some((count @ 1.., after)) = plain_header(buffer, 0, b'*')
            && count <= limits.arguments
        {
            (missing, at) = (count, after);
        } else {
            match buffer.first() {
                None => return Ok(Scan::More { need: 1 }),
                Some(b'*') => {}
                Some(_) => return scan_inline(buffer, limits),
            }
            let (count, after, proper) = match line(buffer, 1, limits.line_length) {
                Line::Found { text, after, proper } => (parse_int(text), after, proper),
                Line::More { need } => return Ok(Scan::More { need }),
                Line::TooLong => return Err(ProtocolError::ArrayLine),
            };
            missing = match count {
                Some(count) if count <= 0 => return Ok(Scan::Nothing { len: after }),
                Some(count) if count as u64 <= limits.arguments as u64 => count as usize,
                _ => return Err(ProtocolError::ArrayLength),
            };
            at = after;
            regular = proper;
        }
        let mut need = None;
        while missing > 0 {
            if let Some((length, start)) = plain_header(buffer, at, b'$')
                && length <= limits.bulk_length
                && buffer.get(start + length..start + length + 2) == Some(b"\r\n")
            {
                args.push(start..start + length);
                at = start + length + 2;
                missing -= 1;
                continue;
            }
            let (length, after, proper) = match line(buffer, at, limits.line_length) {
                Line::Found { text: [b'$', length @ ..], after, proper } => (parse_int(length), after, proper),
                Line::Found { text, .. } => return Err(ProtocolError::NotBulk(*text.first().unwrap_or(&b'\r'))),
                Line::More { need: least } => {
                    need = Some(least);
                    break;
                }
                Line::TooLong => return Err(ProtocolError::BulkLine),
            };
            let length = match length {
                Some(length) if length >= 0 && length as u64 <= limits.bulk_length as u64 => length as usize,
                _ => return Err(ProtocolError::BulkLength),
            };
            let end = after + length;
            if buffer.len() < end + 2 {
                need = Some(end + 2);
                break;
            }
            regular &= proper && buffer[end..end + 2] == *b"\r\n";
            args.push(after..end);
            at = end + 2;
            missing -= 1;
        }
        if let Some(need) = need {
            *resume = Resume { at, missing, irregular: !regular };
            return Ok(Scan::More { need });
        }
        if regular && !known {
            let name = args[0].clone();
            *last = Opening { prefix: Prefix::of(&buffer[..name.end + 2]), argc: args.len(), name };
        }
        Ok(Scan::Request { len: at, regular })
    }
}

enum Line<'a> {
    /// The text, where the next one begins, and whether the line ended in CR LF.
    Found {
        text: &'a [u8],
        after: usize,
        proper: bool,
    },
    More {
        need: usize,
    },
    TooLong,
}

/// The line from `from`. Redis looks for the CR and skips whatever byte follows it.
#[inline]
fn line(buffer: &[u8], from: usize, limit: usize) -> Line<'_> {
    let rest = buffer.get(from..).unwrap_or_default();
    // Lengths have few digits, so a loop is faster than setting up a vector search.
    let near = rest.iter().take(12).position(|&byte| byte == b'\r');
    match near.or_else(|| memchr(b'\r', rest)) {
        Some(end) if from + end + 1 < buffer.len() => {
            Line::Found { text: &rest[..end], after: from + end + 2, proper: rest[end + 1] == b'\n' }
        }
        Some(end) => Line::More { need: from + end + 2 },
        None if rest.len() > limit => Line::TooLong,
        None => Line::More { need: buffer.len() + 1 },
    }
}

fn scan_inline(buffer: &[u8], limits: &ScanLimits) -> Result<Scan, ProtocolError> {
    let Some(end) = memchr(b'\n', buffer) else {
        if buffer.len() > limits.line_length {
            return Err(ProtocolError::InlineLength);
        }
        return Ok(Scan::More { need: buffer.len() + 1 });
    };
    if end > limits.line_length {
        return Err(ProtocolError::InlineLength);
    }
    let line = &buffer[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let len = end + 1;
    match inline::split(line) {
        None => Err(ProtocolError::Quotes),
        Some(words) if words.is_empty() => Ok(Scan::Nothing { len }),
        Some(words) => Ok(Scan::Inline { len, words }),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};
    use redis_protocol::resp2::decode::decode_bytes;
    use redis_protocol::resp2::types::BytesFrame;

    use super::{KEPT_ARGUMENTS, ProtocolError, Scan, ScanLimits, Scanner};
    use crate::resp::build;

    const LIMITS: ScanLimits = ScanLimits { bulk_length: 512 << 20, arguments: 1 << 20, line_length: 64 << 10 };

    fn once(buffer: &[u8]) -> Result<(Scan, Vec<Vec<u8>>), ProtocolError> {
        let mut scanner = Scanner::default();
        let found = scanner.scan(buffer, &LIMITS)?;
        Ok((found, scanner.args.iter().map(|range| buffer[range.clone()].to_vec()).collect()))
    }

    #[test]
    fn errors_are_those_of_redis() {
        for (input, text) in [
            (&b"*x\r\n"[..], "invalid multibulk length"),
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*01\r\n", "invalid multibulk length"),
            (b"*1\r\n:1\r\n", "expected '$', got ':'"),
            (b"*1\r\n\r\n", "expected '$', got '\r'"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$536870913\r\n", "invalid bulk length"),
            (b"*1\r\n$4x\r\n", "invalid bulk length"),
            (b"GET \"a\r\n", "unbalanced quotes in request"),
        ] {
            let error = once(input).expect_err("a protocol error");
            assert_eq!(error.to_string(), text, "{:?}", String::from_utf8_lossy(input));
        }
        let long = [b"*".as_slice(), &[b'1'; 70_000]].concat();
        assert_eq!(once(&long), Err(ProtocolError::ArrayLine));
        let long = [b"*1\r\n$".as_slice(), &[b'1'; 70_000]].concat();
        assert_eq!(once(&long), Err(ProtocolError::BulkLine));
        assert_eq!(once(&[b'a'; 70_000]), Err(ProtocolError::InlineLength));
    }

    #[test]
    fn nothing_is_skipped() {
        for input in [&b"*0\r\n"[..], b"*-1\r\n", b"\r\n", b"  \n"] {
            assert_eq!(once(input).expect("fine").0, Scan::Nothing { len: input.len() });
        }
    }

    /// Redis skips two bytes where it expects CR LF without checking them. Such a request must not count as regular.
    #[test]
    fn odd_line_ends_are_not_regular() {
        for (input, regular) in [
            (&b"*1\r\n$4\r\nPING\r\n"[..], true),
            (b"*1\rx$4\r\nPING\r\n", false),
            (b"*1\r\n$4\rxPING\r\n", false),
            (b"*1\r\n$4\r\nPINGxx", false),
        ] {
            let (found, args) = once(input).expect("Redis takes it");
            assert_eq!(found, Scan::Request { len: input.len(), regular });
            assert_eq!(args, [b"PING"]);
        }
    }

    #[test]
    fn a_request_of_many_arguments_does_not_keep_its_memory() {
        let mut whole = Vec::new();
        build::request(&mut whole, vec![&b"x"[..]; 100_000].into_iter());
        let mut scanner = Scanner::default();
        assert_eq!(scanner.scan(&whole, &LIMITS).expect("valid"), Scan::Request { len: whole.len(), regular: true });
        assert_eq!(scanner.args.len(), 100_000);
        scanner.forget();
        assert!(scanner.args.capacity() <= KEPT_ARGUMENTS, "{}", scanner.args.capacity());
    }

    proptest! {
        #[test]
        fn agrees_with_redis_protocol(words in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..40), 1..12), behind in any::<Vec<u8>>(),
        ) {
            let mut buffer = Vec::new();
            build::request(&mut buffer, words.iter().map(Vec::as_slice));
            let whole = buffer.len();
            buffer.extend(&behind);
            let (found, args) = once(&buffer).expect("valid");
            prop_assert_eq!(found, Scan::Request { len: whole, regular: true });
            prop_assert_eq!(&args, &words);

            let (frame, used) = decode_bytes(&Bytes::from(buffer)).expect("valid").expect("whole");
            prop_assert_eq!(used, whole);
            let BytesFrame::Array(items) = frame else { panic!("an array") };
            for (item, word) in items.iter().zip(&words) {
                prop_assert!(matches!(item, BytesFrame::BulkString(bytes) if bytes == word));
            }
        }

        /// However the bytes arrive, the result is that of a single scan, and `need` is never too large.
        #[test]
        fn resumes_anywhere(words in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..20), 1..8),
        ) {
            let mut whole = Vec::new();
            build::request(&mut whole, words.iter().map(Vec::as_slice));
            let mut scanner = Scanner::default();
            for end in 0..whole.len() {
                match scanner.scan(&whole[..end], &LIMITS).expect("valid so far") {
                    Scan::More { need } => prop_assert!(need > end && need <= whole.len()),
                    other => panic!("complete too early: {other:?}"),
                }
            }
            let found = scanner.scan(&whole, &LIMITS).expect("valid");
            prop_assert_eq!(found, Scan::Request { len: whole.len(), regular: true });
            prop_assert_eq!(scanner.args.iter().map(|range| whole[range.clone()].to_vec()).collect::<Vec<_>>(), words);
        }

        /// Nothing that the scanner remembers of one request changes the scan of the next.
        #[test]
        fn each_request_is_scanned_as_if_it_were_the_first(requests in proptest::collection::vec(
            proptest::sample::select(vec![
                &b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..], b"*2\r\n$3\r\nGET\r\n$2\r\nkk\r\n", b"*2\r\n$3\r\nget\r\n$1\r\nk\r\n",
                b"*3\r\n$3\r\nGET\r\n$1\r\nk\r\n$1\r\nk\r\n", b"*1\r\n$4\r\nPING\r\n", b"*2\rx$3\r\nGET\r\n$1\r\nk\r\n",
                b"*2\r\n$3\r\nGETxx$1\r\nk\r\n", b"*2\r\n$3\r\nGET\r\n$x\r\nk\r\n", b"*1\r\n$0\r\n\r\n", b"*0\r\n", b"PING\r\n",
            ]), 0..12), limits in proptest::sample::select(vec![(2, 512 << 20), (1 << 20, 2), (1 << 20, 512 << 20)]),
        ) {
            let mut scanner = Scanner::default();
            for request in requests {
                let limits = ScanLimits { arguments: limits.0, bulk_length: limits.1, ..LIMITS };
                let (mut first, buffer) = (Scanner::default(), [request, b"*1\r\n$4\r\nQUIT\r\n"].concat());
                scanner.forget();
                for end in [request.len() / 2, buffer.len()] {
                    prop_assert_eq!(scanner.scan(&buffer[..end], &LIMITS), first.scan(&buffer[..end], &LIMITS));
                    prop_assert_eq!(&scanner.args, &first.args);
                }
                let (mut other, mut first) = (Scanner { last: scanner.last, ..Scanner::default() }, Scanner::default());
                prop_assert_eq!(other.scan(&buffer, &limits), first.scan(&buffer, &limits));
                scanner = other;
            }
        }

        #[test]
        fn never_panics(bytes in proptest::collection::vec(
            proptest::sample::select(b"*$:+-\r\n0123456789aG \"'\\x".to_vec()), 0..64),
        ) {
            if let Ok((Scan::Request { len, .. } | Scan::Inline { len, .. } | Scan::Nothing { len }, _)) = once(&bytes) {
                prop_assert!(len > 0 && len <= bytes.len());
            }
        }
    }
}
