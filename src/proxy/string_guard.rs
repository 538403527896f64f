//! Commands that read or change parts of strings (APPEND, GETRANGE, SETBIT, …), or copy or compare strings (SORT … GET … STORE,
//! SORT … BY … ALPHA), while values may be compressed. A script runs such a command. In the same atomic step it first checks that
//! none of the strings is an envelope, and refuses if one is.

use smallvec::SmallVec;

use crate::codec::MARK;
use crate::command::StringOp;
use crate::errors::{
    COMPARES_COMPRESSED, LOOKS_INTO_COMPRESSED, OwnError, ROUNDED_BITFIELD, STORES_COMPRESSED, WRITES_MARK,
};
use crate::proxy::bitfield;
use crate::proxy::reply_shape::{SortOption, sort_options};
use crate::resp::{build, parse_int};

/// The beginning of each script: a function that tells whether a string is an envelope, by the rule of `codec::is_compressed`.
/// ARGV[1] is gzip's mark; zstd's is in the text.
macro_rules! with_envelope_check {
    ($script:literal) => {
        concat!(
            "local function begins_like(value, mark) \
            if type(value) ~= 'string' or #value < #mark then return false end \
            local flipped = 0 \
            for i = 1, #mark do \
            local bits = bit.bxor(string.byte(value, i), string.byte(mark, i)) \
            while bits > 0 do bits = bit.band(bits, bits - 1) flipped = flipped + 1 end \
            if flipped > 3 then return false end \
            end \
            return true \
            end \
            local function sealed(value) \
            return begins_like(value, ARGV[1]) or begins_like(value, 'S*M\\024\\000\\000\\000\\000(\\181/\\253') \
            end ",
            $script
        )
    };
}

const _: () = assert!(crate::codec::MARK_DAMAGE == 3, "the scripts contain the same number");

/// KEYS: the keys to check, then the others. ARGV: the mark, the number of keys to check, the error to return, the command.
const SCRIPT: &str = with_envelope_check!(
    "for i = 1, tonumber(ARGV[2]) do \
    if sealed(redis.pcall('GETRANGE', KEYS[i], 0, #ARGV[1] - 1)) then return redis.error_reply(ARGV[3]) end \
    end \
    return redis.pcall(unpack(ARGV, 4))"
);

/// For a command that writes bytes into the first of KEYS. ARGV: the mark; the error for a stored envelope; the error for a value
/// that would become an envelope; the offset of the bytes (if it is no number, the end of the value); the first of the bytes; the
/// command.
const WRITING_SCRIPT: &str = with_envelope_check!(
    "local old = redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1) \
    if type(old) == 'string' then \
    if sealed(old) then return redis.error_reply(ARGV[2]) end \
    local at = tonumber(ARGV[4]) or #old \
    local new = string.sub(old, 1, at) \
    new = new .. string.rep(string.char(0), at - #new) .. ARGV[5] \
    if sealed(new .. string.sub(old, #new + 1)) then return redis.error_reply(ARGV[3]) end \
    end \
    return redis.pcall(unpack(ARGV, 6))"
);

/// For BITFIELD. ARGV: the mark, the error for a stored envelope, and the arguments of the script that follows.
const BITFIELD_CHECK: &str = with_envelope_check!(
    "if sealed(redis.pcall('GETRANGE', KEYS[1], 0, #ARGV[1] - 1)) then return redis.error_reply(ARGV[2]) end "
);

/// KEYS: those of SORT. ARGV: the mark; the number of checks; for each check its error, the number of its arguments, and the
/// arguments; then the command. If a check fails, the command itself reports why.
const SORT_SCRIPT: &str = with_envelope_check!(
    "local at = 3 \
    for _ = 1, tonumber(ARGV[2]) do \
    local words = tonumber(ARGV[at + 1]) \
    local found = redis.pcall(unpack(ARGV, at + 2, at + 1 + words)) \
    for i = 1, found.err and 0 or #found do \
    if sealed(found[i]) then return redis.error_reply(ARGV[at]) end \
    end \
    at = at + 2 + words \
    end \
    return redis.pcall(unpack(ARGV, at))"
);

/// Lua's stack takes no more arguments than this.
const MOST_SCRIPT_ARGUMENTS: usize = 7000;

/// The request to send in place of a command on strings. `keys` are the positions of its keys. `None` if there are too many
/// arguments.
pub(super) fn request(op: StringOp, args: &[&[u8]], keys: &[u32]) -> Option<Vec<u8>> {
    if bitfield::is_wide(op, args) {
        return wide_bitfield(op, args);
    }
    if args.len() > MOST_SCRIPT_ARGUMENTS {
        return None;
    }
    if let Some((place, bytes)) = written(op, args) {
        let head = [
            &b"EVAL"[..],
            WRITING_SCRIPT.as_bytes(),
            b"1",
            args[1],
            &MARK,
            LOOKS_INTO_COMPRESSED.text().as_bytes(),
            WRITES_MARK.text().as_bytes(),
            place.as_bytes(),
            bytes,
        ];
        return Some(built(&[&head, args].concat()));
    }
    // BITOP only writes to its first key.
    let unread = usize::from(op == StringOp::BitOp).min(keys.len());
    let (written, read) = keys.split_at(unread);
    let (count, looked_at) = (keys.len().to_string(), read.len().to_string());
    let head = [&b"EVAL"[..], SCRIPT.as_bytes(), count.as_bytes()];
    let keys = read.iter().chain(written).map(|at| args[*at as usize]);
    let check = [&MARK[..], looked_at.as_bytes(), LOOKS_INTO_COMPRESSED.text().as_bytes()];
    let words: Vec<&[u8]> = head.into_iter().chain(keys).chain(check).chain(args.iter().copied()).collect();
    Some(built(&words))
}

/// The offset and the first of the bytes that a command writes into a string, if they could turn the string into an envelope.
fn written<'a>(op: StringOp, args: &[&'a [u8]]) -> Option<(String, &'a [u8])> {
    let beginning = |bytes: &'a [u8]| &bytes[..bytes.len().min(MARK.len())];
    match (op, args) {
        (StringOp::Append, [_, _, bytes]) => Some(("end".to_owned(), beginning(bytes))),
        // Without bytes SETRANGE does nothing. Redis refuses an invalid offset.
        (StringOp::SetRange, [_, _, place, bytes]) if !bytes.is_empty() => {
            let place = parse_int(place).filter(|place| *place >= 0)?;
            Some((place.min(MARK.len() as i64).to_string(), beginning(bytes)))
        }
        _ => None,
    }
}

/// The request to send in the place of a BITFIELD with integers that a script would round.
fn wide_bitfield(op: StringOp, args: &[&[u8]]) -> Option<Vec<u8>> {
    let sure = bitfield::words(op, args);
    let (script, rounded) = match sure {
        Some(_) => (bitfield::SCRIPT, None),
        None => (bitfield::UNSURE_SCRIPT, Some(ROUNDED_BITFIELD.text().as_bytes())),
    };
    let words = sure.unwrap_or_else(|| args.iter().map(|arg| arg.to_vec()).collect());
    if words.len() > MOST_SCRIPT_ARGUMENTS {
        return None;
    }
    let script = [BITFIELD_CHECK, script].concat();
    let head = [&b"EVAL"[..], script.as_bytes(), b"1", args[1], &MARK, LOOKS_INTO_COMPRESSED.text().as_bytes()];
    let words: Vec<&[u8]> = head.into_iter().chain(rounded).chain(words.iter().map(Vec::as_slice)).collect();
    Some(built(&words))
}

/// A SORT that reads strings of other keys, and the error to return if one of them is an envelope.
pub(super) struct Check<'a> {
    words: Vec<&'a [u8]>,
    refusal: &'static OwnError,
}

/// The checks before a SORT or SORT_RO: on the strings that it would store, and on those that it would compare as text. Mostly
/// there are none.
pub(super) fn sort_checks<'a>(args: &[&'a [u8]]) -> SmallVec<[Check<'a>; 2]> {
    let mut checks = SmallVec::new();
    let options = || sort_options(args);
    let check = |options: Vec<&'a [u8]>, refusal| Check { words: [&args[..2], &options].concat(), refusal };
    // Elements of the list itself, and fields of hashes, are never compressed, so they may look like envelopes.
    if options().any(|option| option.stores()) && options().any(|option| option.gets_a_string()) {
        let kept = options().filter(|option| !option.stores() && (!option.gets() || option.gets_a_string()));
        checks.push(check(kept.flat_map(|option| option.words).copied().collect(), &STORES_COMPRESSED));
    }
    // A value that Redis parses as a number is never compressed.
    if options().any(|option| option.is_alpha()) && options().any(|option| option.is_by_a_string()) {
        let weights = options().filter(SortOption::is_by_a_string).flat_map(|option| [&b"GET"[..], option.words[1]]);
        checks.push(check([&b"BY"[..], b"nosort"].into_iter().chain(weights).collect(), &COMPARES_COMPRESSED));
    }
    checks
}

/// The request to send in place of a SORT that needs checks. `None` if there are too many arguments.
pub(super) fn sort_request(args: &[&[u8]], keys: &[u32], checks: &[Check<'_>]) -> Option<Vec<u8>> {
    if args.len() > MOST_SCRIPT_ARGUMENTS {
        return None;
    }
    let numbers: SmallVec<[String; 2]> = checks.iter().map(|check| check.words.len().to_string()).collect();
    let (key_count, look_count) = (keys.len().to_string(), checks.len().to_string());
    let mut words = vec![&b"EVAL"[..], SORT_SCRIPT.as_bytes(), key_count.as_bytes()];
    words.extend(keys.iter().map(|at| args[*at as usize]));
    words.extend([&MARK[..], look_count.as_bytes()]);
    for (check, number) in checks.iter().zip(&numbers) {
        words.extend([check.refusal.text().as_bytes(), number.as_bytes()]);
        words.extend(&check.words);
    }
    words.extend(args);
    Some(built(&words))
}

fn built(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    build::request(&mut out, words.iter().copied());
    out
}

#[cfg(test)]
mod tests {
    use super::{COMPARES_COMPRESSED, OwnError, STORES_COMPRESSED, sort_checks};

    /// A command line, and the expected checks with their errors.
    type Case = (&'static str, &'static [(&'static str, &'static OwnError)]);

    const STORES: &OwnError = &STORES_COMPRESSED;
    const COMPARES: &OwnError = &COMPARES_COMPRESSED;

    #[test]
    fn sort_is_checked_where_it_copies_or_compares_strings() {
        let cases: [Case; 9] = [
            ("SORT l", &[]),
            ("SORT l ALPHA BY h*->f GET w* GET #", &[]),
            ("SORT l BY w* GET h*->f STORE d", &[]),
            ("SORT l BY STORE GET STORE GET w* LIMIT STORE d STORE", &[]),
            ("SORT l GET w* STORE d", &[("SORT l GET w*", STORES)]),
            ("sort l store d get # Get w* GET h*->f limit 0 2 DESC", &[("sort l Get w* limit 0 2 DESC", STORES)]),
            ("SORT l WHAT GET w* STORE d", &[("SORT l WHAT GET w*", STORES)]),
            ("SORT_RO l BY w* LIMIT 0 1 alpha GET #", &[("SORT_RO l BY nosort GET w*", COMPARES)]),
            (
                "SORT l BY v* BY w* GET x* ALPHA STORE d",
                &[("SORT l BY v* BY w* GET x* ALPHA", STORES), ("SORT l BY nosort GET v* GET w*", COMPARES)],
            ),
        ];
        for (line, expected) in cases {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let checks = sort_checks(&args);
            let lines: Vec<String> =
                checks.iter().map(|check| String::from_utf8_lossy(&check.words.join(&b' ')).into_owned()).collect();
            let got: Vec<(&str, &OwnError)> =
                lines.iter().map(String::as_str).zip(checks.iter().map(|check| check.refusal)).collect();
            assert_eq!(got, expected, "{line}");
        }
    }
}
