//! Integers as Redis parses them: decimal, no plus sign, no leading zeros, 64 bits (its `string2ll`).

/// The number in `text`. `None` if Redis would not accept it.
#[inline]
pub fn parse_int(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        // 19 digits stay below 10^19 < 2^64.
        value = value * 10 + u64::from(digit - b'0');
    }
    if negative { 0i64.checked_sub_unsigned(value) } else { i64::try_from(value).ok() }
}

/// Parses a header in its usual form: `kind`, up to seven digits, CR LF. Returns its value, and where the header ends. `None` only
/// means that the slower parser must decide.
#[inline]
pub(super) fn plain_header(buffer: &[u8], at: usize, kind: u8) -> Option<(usize, usize)> {
    let header = &buffer.get(at..)?;
    let header = &header[..header.len().min(10)];
    let (first, mut rest) = match header {
        [begin, digit @ b'1'..=b'9', rest @ ..] if *begin == kind => (digit, rest),
        [begin, b'0', b'\r', b'\n', ..] if *begin == kind => return Some((0, at + 4)),
        _ => return None,
    };
    let mut value = usize::from(first - b'0');
    while let [digit @ b'0'..=b'9', more @ ..] = rest {
        value = value * 10 + usize::from(digit - b'0');
        rest = more;
    }
    let digits = header.len() - rest.len() - 1;
    rest.starts_with(b"\r\n").then_some((value, at + 1 + digits + 2))
}

#[cfg(test)]
mod tests {
    use super::parse_int;

    #[test]
    fn integers_that_redis_accepts() {
        for (text, value) in [
            ("0", Some(0)),
            ("7", Some(7)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-9223372036854775809", None),
            ("99999999999999999999", None),
            ("", None),
            ("-", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            (" 1", None),
            ("1 ", None),
            ("1a", None),
        ] {
            assert_eq!(parse_int(text.as_bytes()), value, "{text:?}");
        }
    }
}
