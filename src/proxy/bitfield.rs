//! BITFIELD and BITFIELD_RO with integers of more than 53 bits. BITFIELD runs in a script that first checks that the value is not
//! compressed. Lua's numbers are exact only up to 2⁵³, so the script reads a wider field in two halves. `replies` puts the halves
//! together. Redis's own BITFIELD writes the field, one operation at a time.
//!
//! Must not guess: a call that Shortstop does not understand goes to Redis as a whole, and its reply is refused if it may be
//! rounded.

use crate::command::StringOp;
use crate::exchange::reply_shape::LOW_BITS;
use crate::resp::parse_int;

/// Integers up to this many bits are exact in a script.
const EXACT_BITS: i64 = 53;

/// ARGV, from the third argument on: the command's name; the number of arguments of the first call; those arguments; then one
/// letter with its arguments for each operation. The first call only reads, so that Redis refuses an invalid offset before anything
/// is written. The letters: `g` reads the two halves. `s` has the two halves, the number of arguments of the operation, and these
/// arguments. `i` has the operation first and then the halves. `n` has the operation alone.
pub(super) const SCRIPT: &str = "local at = 5 \
local function call(words) \
at = at + words \
return redis.pcall(ARGV[3], KEYS[1], unpack(ARGV, at - words, at - 1)) \
end \
local function operation() at = at + 1 return call(tonumber(ARGV[at - 1])) end \
local checked = call(tonumber(ARGV[4])) \
if checked.err then return checked end \
local out = {} \
while at <= #ARGV do \
local kind = ARGV[at] \
at = at + 1 \
local halves, done \
if kind == 'g' or kind == 's' then halves = call(6) end \
if kind ~= 'g' then done = operation() end \
if kind == 'i' then halves = call(6) end \
if halves and halves.err then return halves end \
if done and done.err then return done end \
if done and not done[1] then out[#out + 1] = false \
elseif halves then out[#out + 1] = string.format('%.0f %.0f', halves[1], halves[2]) \
else out[#out + 1] = done[1] end \
end \
return out";

/// ARGV: the error to return for a reply that was rounded; the command from the fourth argument on.
pub(super) const UNSURE_SCRIPT: &str = "local reply = redis.pcall(unpack(ARGV, 4)) \
for i = 1, reply.err and 0 or #reply do \
if type(reply[i]) == 'number' and math.abs(reply[i]) >= 9007199254740992 then \
return redis.error_reply(ARGV[3]) \
end end \
return reply";

/// Whether a call has integers that a script would round.
pub(super) fn is_wide(op: StringOp, args: &[&[u8]]) -> bool {
    let is_wide = |arg: &&[u8]| match arg {
        [b'i' | b'u' | b'I' | b'U', bits @ ..] => parse_int(bits).is_some_and(|bits| bits > EXACT_BITS),
        _ => false,
    };
    matches!(op, StringOp::BitField | StringOp::BitFieldRo) && args.iter().skip(2).any(is_wide)
}

/// The arguments with which [`SCRIPT`] does what a call asks for. `None` if the call is not understood.
pub(super) fn words(op: StringOp, args: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    let operations = operations(args)?;
    if op == StringOp::BitFieldRo && operations.iter().any(|operation| operation.kind != OperationKind::Get) {
        return None;
    }
    let mut check = Vec::new();
    let mut steps = Vec::new();
    for operation in &operations {
        let halves = operation.field.halves();
        check.extend([b"GET".to_vec(), operation.words[1].to_vec(), operation.words[2].to_vec()]);
        check.extend(halves.iter().flatten().cloned());
        let mut itself: Vec<Vec<u8>> =
            operation.overflow.iter().flat_map(|word| [b"OVERFLOW".to_vec(), word.to_vec()]).collect();
        itself.extend(operation.words.iter().map(|word| word.to_vec()));
        itself.insert(0, itself.len().to_string().into_bytes());
        let (letter, parts) = match (halves, operation.kind) {
            (None, _) => (b'n', itself),
            (Some(halves), OperationKind::Get) => (b'g', halves),
            (Some(halves), OperationKind::Set) => (b's', [halves, itself].concat()),
            (Some(halves), OperationKind::IncrBy) => (b'i', [itself, halves].concat()),
        };
        steps.push(vec![letter]);
        steps.extend(parts);
    }
    let mut words = vec![args[0].to_vec(), check.len().to_string().into_bytes()];
    words.append(&mut check);
    words.append(&mut steps);
    Some(words)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OperationKind {
    Get,
    Set,
    IncrBy,
}

/// One of the operations of a call.
struct Operation<'a> {
    kind: OperationKind,
    /// `GET type offset`, `SET type offset value`, `INCRBY type offset increment`.
    words: &'a [&'a [u8]],
    /// The last OVERFLOW before the operation.
    overflow: Option<&'a [u8]>,
    field: Field,
}

/// Position, size and sign of an integer.
struct Field {
    sign: u8,
    bits: u64,
    /// In bits.
    offset: u64,
}

impl Field {
    /// Parses `type offset` as Redis does.
    fn of(kind: &[u8], offset: &[u8]) -> Option<Field> {
        let (sign, bits) = kind.split_first()?;
        let bits = u64::try_from(parse_int(bits)?).ok()?;
        let most = match sign {
            b'i' => 64,
            b'u' => 63,
            _ => return None,
        };
        if !(1..=most).contains(&bits) {
            return None;
        }
        let (number, unit) = match offset {
            [b'#', number @ ..] => (number, bits),
            number => (number, 1),
        };
        let offset = u64::try_from(parse_int(number)?).ok()?.checked_mul(unit).filter(|offset| *offset < 1 << 62)?;
        Some(Field { sign: *sign, bits, offset })
    }

    /// The arguments that read the two halves of a wide field, the higher half first.
    fn halves(&self) -> Option<Vec<Vec<u8>>> {
        if self.bits <= EXACT_BITS as u64 {
            return None;
        }
        let high = self.bits - LOW_BITS;
        let get = |kind: String, offset: u64| [b"GET".to_vec(), kind.into_bytes(), offset.to_string().into_bytes()];
        let high_half = get(format!("{}{high}", char::from(self.sign)), self.offset);
        Some([high_half, get(format!("u{LOW_BITS}"), self.offset + high)].concat())
    }
}

/// The operations of `BITFIELD key …`. `None` if a part of the call is not understood.
fn operations<'a>(args: &'a [&'a [u8]]) -> Option<Vec<Operation<'a>>> {
    let mut rest = args.get(2..)?;
    let mut overflow = None;
    let mut found = Vec::new();
    while let Some(word) = rest.first() {
        let is = |name: &[u8]| word.eq_ignore_ascii_case(name);
        if is(b"overflow") {
            let how = *rest.get(1)?;
            if ![&b"wrap"[..], b"sat", b"fail"].iter().any(|known| how.eq_ignore_ascii_case(known)) {
                return None;
            }
            overflow = Some(how);
            rest = &rest[2..];
            continue;
        }
        let (kind, length) = match () {
            () if is(b"get") => (OperationKind::Get, 3),
            () if is(b"set") => (OperationKind::Set, 4),
            () if is(b"incrby") => (OperationKind::IncrBy, 4),
            () => return None,
        };
        let (words, others) = rest.split_at_checked(length)?;
        if kind != OperationKind::Get {
            parse_int(words[3])?;
        }
        let overflow = overflow.filter(|_| kind != OperationKind::Get);
        found.push(Operation { kind, words, overflow, field: Field::of(words[1], words[2])? });
        rest = others;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::{StringOp, is_wide, operations, words};

    fn args(line: &str) -> Vec<&[u8]> {
        line.split(' ').map(str::as_bytes).collect()
    }

    #[test]
    fn wide_are_integers_of_more_than_53_bits() {
        for (line, wide) in [
            ("BITFIELD k GET u53 0", false),
            ("BITFIELD k GET u54 0", true),
            ("BITFIELD k GET u8 0 SET i64 #1 -1", true),
            ("BITFIELD u64 GET u8 0", false),
            ("BITFIELD k GET u8 64", false),
        ] {
            assert_eq!(is_wide(StringOp::BitField, &args(line)), wide, "{line}");
        }
    }

    #[test]
    fn a_call_becomes_steps() {
        let steps = |op, line| {
            let words = words(op, &args(line))?;
            Some(words.iter().map(|word| String::from_utf8_lossy(word)).collect::<Vec<_>>().join(" "))
        };
        for (line, expected) in [
            ("BITFIELD k GET u60 5", "BITFIELD 9 GET u60 5 GET u28 5 GET u32 33 g GET u28 5 GET u32 33"),
            (
                "bitfield k overflow SAT set i64 #2 -7 incrby u8 3 1",
                "bitfield 12 GET i64 #2 GET i32 128 GET u32 160 GET u8 3 \
                 s GET i32 128 GET u32 160 6 OVERFLOW SAT set i64 #2 -7 n 6 OVERFLOW SAT incrby u8 3 1",
            ),
            (
                "BITFIELD k INCRBY u63 1 2",
                "BITFIELD 9 GET u63 1 GET u31 1 GET u32 32 i 4 INCRBY u63 1 2 GET u31 1 GET u32 32",
            ),
        ] {
            assert_eq!(steps(StringOp::BitField, line).as_deref(), Some(expected));
        }
        assert_eq!(steps(StringOp::BitFieldRo, "BITFIELD_RO k SET u60 0 1"), None);
        assert!(steps(StringOp::BitFieldRo, "BITFIELD_RO k GET u60 0").is_some());
    }

    #[test]
    fn invalid_calls_are_not_understood() {
        for line in [
            "BITFIELD k GET u64 0",
            "BITFIELD k GET i65 0",
            "BITFIELD k GET U60 0",
            "BITFIELD k GET u60 -1",
            "BITFIELD k GET u60 #",
            "BITFIELD k GET u60 #9223372036854775807",
            "BITFIELD k GET u60",
            "BITFIELD k SET u60 0 x",
            "BITFIELD k SET u60 0",
            "BITFIELD k OVERFLOW NEVER GET u60 0",
            "BITFIELD k GET u60 0 OVERFLOW",
            "BITFIELD k BOGUS u60 0",
        ] {
            assert!(operations(&args(line)).is_none(), "{line}");
        }
    }
}
