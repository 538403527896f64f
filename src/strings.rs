//! Answers the commands that read a part of a string (STRLEN, GETRANGE, GETBIT, …) from the whole plain value, as Redis does.
//!
//! Shortstop sends GET in the place of such a command when the stored value may be compressed. Pure: must not know whether it was.
//! Must not guess: a call that Redis might refuse is no [`Look`], unless Redis has accepted it.

use crate::command::StringOp;
use crate::resp::{build, parse_int};

/// Redis accepts bit offsets up to `proto-max-bulk-len`, which is at least 1 MB.
const ALWAYS_VALID_BITS: i64 = 8 << 20;

/// What the positions of a range count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Byte,
    /// Bits.
    Bit,
}

/// What a command wants to know of a string. Positions count as in Redis: from the end if they are negative.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// STRLEN.
    Len,
    /// GETRANGE and SUBSTR: the first and the last byte.
    Range(i64, i64),
    /// GETBIT: the bit's offset.
    Bit(u64),
    /// BITCOUNT: the first and the last position, if it has a range.
    Count(Option<(i64, i64, Unit)>),
    /// BITPOS: the bit to look for, the first position, and the last one if it is given.
    Position(bool, i64, Option<i64>, Unit),
    /// BITFIELD_RO.
    Fields(Vec<Field>),
}

/// An integer in a string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    signed: bool,
    bits: u64,
    /// The offset of its first bit.
    at: u64,
}

impl Look {
    /// What a call asks, if every server would accept it. `args` is the whole call.
    pub fn of(op: StringOp, args: &[&[u8]]) -> Option<Look> {
        let look = Look::accepted(op, args)?;
        let is_near = |at: u64| at < ALWAYS_VALID_BITS as u64;
        let sure = match &look {
            Look::Bit(at) => is_near(*at),
            Look::Fields(fields) => fields.iter().all(|field| is_near(field.at)),
            // Units are unknown before Redis 7.0.
            Look::Count(_) => args.len() < 5,
            Look::Position(..) => args.len() < 6,
            Look::Len | Look::Range(..) => true,
        };
        sure.then_some(look)
    }

    /// What a call asks that Redis has accepted. `args` is the whole call.
    pub fn accepted(op: StringOp, args: &[&[u8]]) -> Option<Look> {
        match (op, args) {
            (StringOp::StrLen, [_, _]) => Some(Look::Len),
            (StringOp::GetRange, [_, _, first, last]) => Some(Look::Range(parse_int(first)?, parse_int(last)?)),
            (StringOp::GetBit, [_, _, at]) => Some(Look::Bit(offset(at)?)),
            (StringOp::BitCount, [_, _]) => Some(Look::Count(None)),
            (StringOp::BitCount, [_, _, first, last, unit @ ..]) => {
                Some(Look::Count(Some((parse_int(first)?, parse_int(last)?, unit_of(unit)?))))
            }
            (StringOp::BitPos, [_, _, bit, range @ ..]) => {
                let bit = [&b"0"[..], b"1"].iter().position(|known| known == bit)? == 1;
                match range {
                    [] => Some(Look::Position(bit, 0, None, Unit::Byte)),
                    [first] => Some(Look::Position(bit, parse_int(first)?, None, Unit::Byte)),
                    [first, last, unit @ ..] => {
                        Some(Look::Position(bit, parse_int(first)?, Some(parse_int(last)?), unit_of(unit)?))
                    }
                }
            }
            (StringOp::BitFieldRo, [_, _, fields @ ..]) => {
                fields.chunks(3).map(field).collect::<Option<_>>().map(Look::Fields)
            }
            _ => None,
        }
    }

    /// Redis's reply. `None` stands for a key that does not exist.
    pub fn answer(&self, value: Option<&[u8]>) -> Vec<u8> {
        let string = value.unwrap_or_default();
        let mut out = Vec::new();
        match self {
            Look::Len => build::integer(&mut out, string.len() as i64),
            Look::Range(first, last) => build::bulk(&mut out, between(string, *first, *last)),
            Look::Bit(at) => build::integer(&mut out, i64::from(bit(string, *at))),
            Look::Count(range) => build::integer(&mut out, count(string, *range)),
            Look::Position(bit, ..) if value.is_none() => build::integer(&mut out, if *bit { -1 } else { 0 }),
            Look::Position(bit, first, last, unit) => {
                build::integer(&mut out, position(string, *bit, (*first, *last, *unit)));
            }
            Look::Fields(fields) => {
                build::header(&mut out, b'*', fields.len());
                fields.iter().for_each(|field| build::integer(&mut out, field.of(string)));
            }
        }
        out
    }
}

/// A bit's offset.
fn offset(text: &[u8]) -> Option<u64> {
    parse_int(text)?.try_into().ok()
}

/// The unit of a range: bytes if none is named.
fn unit_of(words: &[&[u8]]) -> Option<Unit> {
    match words {
        [] => Some(Unit::Byte),
        [word] if word.eq_ignore_ascii_case(b"byte") => Some(Unit::Byte),
        [word] if word.eq_ignore_ascii_case(b"bit") => Some(Unit::Bit),
        _ => None,
    }
}

/// `GET type offset`.
fn field(words: &[&[u8]]) -> Option<Field> {
    let [get, [kind @ (b'i' | b'u'), bits @ ..], at] = words else { return None };
    let signed = *kind == b'i';
    let bits = parse_int(bits).filter(|bits| (1..=if signed { 64 } else { 63 }).contains(bits))? as u64;
    let at = match at.strip_prefix(b"#") {
        Some(number) => offset(number)?.checked_mul(bits)?,
        None => offset(at)?,
    };
    get.eq_ignore_ascii_case(b"get").then_some(Field { signed, bits, at })
}

/// The bytes from `first` to `last`.
fn between(string: &[u8], first: i64, last: i64) -> &[u8] {
    bounds(string.len(), first, last)
        .filter(|_| in_order(first, last))
        .map_or(b"", |(first, last)| &string[first..=last])
}

/// Two positions from the end in the wrong order are an empty range, even if both are before the beginning. Not for BITPOS.
fn in_order(first: i64, last: i64) -> bool {
    !(first < 0 && last < 0 && first > last)
}

/// The first and the last of `len` positions in a range. `None`: there are none.
fn bounds(len: usize, first: i64, last: i64) -> Option<(usize, usize)> {
    let len = len as i64;
    let place = |at: i64| if at < 0 { at.saturating_add(len).max(0) } else { at };
    let (first, last) = (place(first), place(last).min(len - 1));
    (first <= last).then_some((first as usize, last as usize))
}

/// A bit. Bits behind the end are 0.
fn bit(string: &[u8], at: u64) -> bool {
    string.get((at / 8) as usize).is_some_and(|byte| byte >> (7 - at % 8) & 1 == 1)
}

/// The number of bits in a range that are 1.
fn count(string: &[u8], range: Option<(i64, i64, Unit)>) -> i64 {
    let in_bytes = |bytes: &[u8]| bytes.iter().map(|byte| i64::from(byte.count_ones())).sum();
    match range {
        None => in_bytes(string),
        Some((first, last, Unit::Byte)) => in_bytes(between(string, first, last)),
        Some((first, last, Unit::Bit)) => {
            let range = bounds(string.len() * 8, first, last).filter(|_| in_order(first, last));
            let Some((first, last)) = range else { return 0 };
            let (begin, end) = (first / 8, last / 8);
            let outside = (string[begin] & !(0xff_u8 >> (first % 8))).count_ones()
                + (string[end] & (0x7f_u8 >> (last % 8))).count_ones();
            in_bytes(&string[begin..=end]) - i64::from(outside)
        }
    }
}

/// The offset of the first bit in a range that is `bit`, or -1. Behind the end there are zeros, unless the end of the range is given.
fn position(string: &[u8], bit: bool, (first, last, unit): (i64, Option<i64>, Unit)) -> i64 {
    let len = if unit == Unit::Bit { string.len() * 8 } else { string.len() };
    let Some((from, to)) = bounds(len, first, last.unwrap_or(i64::MAX)) else { return -1 };
    let (from, to) = if unit == Unit::Bit { (from, to) } else { (from * 8, to * 8 + 7) };
    let without = if bit { 0 } else { 0xff };
    // Bits before the range never count.
    let found = string[from / 8..=to / 8].iter().enumerate().find_map(|(at, byte)| {
        let before = if at == 0 { 0xff >> (from % 8) } else { 0xff };
        let differs = (byte ^ without) & before;
        (differs != 0).then(|| (from / 8 + at) * 8 + differs.leading_zeros() as usize)
    });
    match found.filter(|at| *at <= to) {
        Some(at) => at as i64,
        None if bit || last.is_some() => -1,
        None => to as i64 + 1,
    }
}

impl Field {
    fn of(&self, string: &[u8]) -> i64 {
        let value = (self.at..self.at + self.bits).fold(0_u64, |value, at| value << 1 | u64::from(bit(string, at)));
        let unused = 64 - self.bits;
        if self.signed { (value << unused) as i64 >> unused } else { value as i64 }
    }
}

#[cfg(test)]
mod tests {
    use super::{Look, StringOp};

    fn look(op: StringOp, line: &str) -> Option<Look> {
        Look::of(op, &line.split(' ').map(str::as_bytes).collect::<Vec<_>>())
    }

    #[test]
    fn a_call_that_redis_may_refuse_is_left_to_redis() {
        for (op, line) in [
            (StringOp::StrLen, "STRLEN k x"),
            (StringOp::GetRange, "GETRANGE k 0 +1"),
            (StringOp::GetRange, "GETRANGE k 0"),
            (StringOp::GetBit, "GETBIT k -1"),
            (StringOp::GetBit, "GETBIT k 8388608"),
            (StringOp::BitFieldRo, "BITFIELD_RO k GET u8 8388608"),
            (StringOp::BitCount, "BITCOUNT k 0"),
            (StringOp::BitCount, "BITCOUNT k 0 1 BIT"),
            (StringOp::BitPos, "BITPOS k 2"),
            (StringOp::BitPos, "BITPOS k 1 0 1 BYTE"),
            (StringOp::BitFieldRo, "BITFIELD_RO k SET u8 0 1"),
            (StringOp::BitFieldRo, "BITFIELD_RO k GET u64 0"),
            (StringOp::BitFieldRo, "BITFIELD_RO k GET i65 0"),
            (StringOp::BitFieldRo, "BITFIELD_RO k GET u8 #1048576"),
            (StringOp::BitFieldRo, "BITFIELD_RO k GET u8"),
            (StringOp::Append, "APPEND k x"),
        ] {
            assert_eq!(look(op, line), None, "{line}");
        }
    }

    #[test]
    fn edges_are_answered_as_by_redis() {
        let ask = |op, line: &str, value: Option<&[u8]>| {
            let answer = look(op, line).unwrap_or_else(|| panic!("{line}")).answer(value);
            String::from_utf8(answer).expect("text")
        };
        let value = Some(&b"abc"[..]);
        for (line, expected) in [
            ("GETRANGE k 0 -1", "$3\r\nabc\r\n"),
            ("GETRANGE k -2 9223372036854775807", "$2\r\nbc\r\n"),
            ("GETRANGE k 0 -100", "$1\r\na\r\n"),
            ("GETRANGE k -100 -100", "$1\r\na\r\n"),
            ("GETRANGE k -1 -2", "$0\r\n\r\n"),
            ("GETRANGE k -9223372036854775808 0", "$1\r\na\r\n"),
            ("GETRANGE k 3 5", "$0\r\n\r\n"),
        ] {
            assert_eq!(ask(StringOp::GetRange, line, value), expected, "{line}");
        }
        assert_eq!(ask(StringOp::GetRange, "GETRANGE k 0 -1", Some(b"")), "$0\r\n\r\n");
        for (line, value, expected) in [
            ("BITPOS k 0", Some(&b"\xff\xff"[..]), 16),
            ("BITPOS k 0 0 -1", Some(b"\xff\xff"), -1),
            ("BITPOS k 1 -1 -2", Some(b"\xff\xff"), -1),
            ("BITPOS k 1 -3 -4", Some(b"\xff\xff"), 0),
            ("BITPOS k 0 1", Some(b"\xff\xff"), 16),
            ("BITPOS k 1", Some(b"\0\x10"), 11),
            ("BITPOS k 1", Some(b"\0\0"), -1),
            ("BITPOS k 0", Some(b""), -1),
            ("BITPOS k 0 5", Some(b"\0"), -1),
            ("BITPOS k 0", None, 0),
            ("BITPOS k 1", None, -1),
        ] {
            assert_eq!(ask(StringOp::BitPos, line, value), format!(":{expected}\r\n"), "{line}");
        }
        let accepted = |op, line: &str, value: &[u8]| {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let answer = Look::accepted(op, &args).unwrap_or_else(|| panic!("{line}")).answer(Some(value));
            String::from_utf8(answer).expect("text")
        };
        for (line, expected) in [
            ("BITCOUNT k 3 10 BIT", 4),
            ("BITCOUNT k 4 4 bit", 0),
            ("BITCOUNT k 0 -1 BIT", 12),
            ("BITCOUNT k 0 0 BYTE", 4),
            ("BITCOUNT k -1 -1 BIT", 1),
        ] {
            assert_eq!(accepted(StringOp::BitCount, line, b"\xf0\xff"), format!(":{expected}\r\n"), "{line}");
        }
        let fields = "BITFIELD_RO k get i8 0 GET u8 0 GET i64 0 GET u63 1 GET u4 #1 GET u8 20";
        let expected = "*6\r\n:-1\r\n:255\r\n:-72057594037927936\r\n:9151314442816847872\r\n:15\r\n:0\r\n";
        assert_eq!(ask(StringOp::BitFieldRo, fields, Some(b"\xff\0\0")), expected);
    }
}
