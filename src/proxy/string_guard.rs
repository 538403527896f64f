//! Commands that change a part of a string (APPEND, SETBIT, …), read a part of a large one, or copy or compare strings (SORT … GET …
//! STORE, SORT … BY … ALPHA), while values may be compressed. A script runs such a command. In the same atomic step it first checks
//! that none of the strings is an envelope. If one is, the script does nothing and says so; `replies` then turns the string to plain
//! and sends the script again.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{self, LONGEST_MARK};
use crate::command::StringOp;
use crate::errors::ROUNDED_BITFIELD;
use crate::exchange::script_request::{Command, ScriptRequest};
use crate::proxy::bitfield;
use crate::proxy::reply_shape::{SortOption, sort_options};
use crate::resp::build;
use crate::scripts::{COMPRESSED, GuardScript, LOOKS_COMPRESSED, UNSEEN};

/// A script that guards a command. KEYS: the keys to check, then the others. ARGV: the number of keys to check; the number of the key
/// that the command may turn into an envelope, or 0 if it only reads; what `run` needs.
///
/// A command that only reads runs first, so that Redis's own error comes first.
fn guarding(run: &str) -> GuardScript {
    let (sealed, seal, last) = (codec::lua_is_compressed(), codec::lua_compress(), LONGEST_MARK - 1);
    let (compressed, unseen, looks_compressed) = (&*COMPRESSED, &*UNSEEN, &*LOOKS_COMPRESSED);
    GuardScript::new(format!(
        "{sealed} {seal} \
        local function run() {run} end \
        local function check() \
        for i = 1, tonumber(ARGV[1]) do \
        local head = redis.pcall('GETRANGE', KEYS[i], 0, {last}) \
        if sealed(head) then return redis.error_reply('{compressed}') end \
        if type(head) == 'table' and not string.find(head.err, 'WRONGTYPE', 1, true) then \
        return redis.error_reply('{unseen}') \
        end \
        end \
        end \
        if ARGV[2] == '0' then \
        local reply = run() \
        if type(reply) == 'table' and reply.err then return reply end \
        return check() or reply \
        end \
        local no = check() \
        if no then return no end \
        local reply = run() \
        if type(reply) == 'table' and reply.err then return reply end \
        if seal(KEYS[tonumber(ARGV[2])]) then return redis.error_reply('{looks_compressed}') end \
        return reply"
    ))
}

static SCRIPT: LazyLock<Arc<GuardScript>> = LazyLock::new(|| guarding("return redis.pcall(unpack(ARGV, 3))").into());
static BITFIELD: LazyLock<Arc<GuardScript>> = LazyLock::new(|| guarding(bitfield::SCRIPT).into());
static UNSURE_BITFIELD: LazyLock<Arc<GuardScript>> = LazyLock::new(|| guarding(bitfield::UNSURE_SCRIPT).into());

/// KEYS: those of SORT. ARGV: the number of checks; for each check the number of its arguments, and the arguments; then the command.
/// If a check fails, the command itself reports why.
static SORT: LazyLock<Arc<GuardScript>> = LazyLock::new(|| {
    let (sealed, compressed) = (codec::lua_is_compressed(), &*COMPRESSED);
    let text = format!(
        "{sealed} \
        local at = 2 \
        for _ = 1, tonumber(ARGV[1]) do \
        local words = tonumber(ARGV[at]) \
        local found = redis.pcall(unpack(ARGV, at + 1, at + words)) \
        for i = 1, found.err and 0 or #found do \
        if sealed(found[i]) then return redis.error_reply('{compressed}') end \
        end \
        at = at + 1 + words \
        end \
        return redis.pcall(unpack(ARGV, at))"
    );
    GuardScript::new(text).into()
});

const READ_ONLY: Access = Access::Reads { ro: true };

/// Lua's stack takes no more arguments than this.
const MOST_SCRIPT_ARGUMENTS: usize = 7000;

/// What a command may do in its script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// It only reads. `ro`: the server has scripts for that (EVALSHA_RO).
    Reads {
        ro: bool,
    },
    Writes,
}

/// The request to send in place of a command on strings. `keys` are the positions of its keys. `None` if there are too many arguments.
pub(super) fn request(op: StringOp, args: &[&[u8]], keys: &[u32], access: Access) -> Option<ScriptRequest> {
    if args.len() > MOST_SCRIPT_ARGUMENTS {
        return None;
    }
    // BITOP only writes to its first key.
    let unread = usize::from(op == StringOp::BitOp).min(keys.len());
    let (others, looked_at) = keys.split_at(unread);
    // Where the key that is written stands among KEYS.
    let written = if access == Access::Writes { looked_at.len() * unread + 1 } else { 0 };
    let [count, checks, written] = [keys.len(), looked_at.len(), written].map(|number| number.to_string());
    let keys = looked_at.iter().chain(others).map(|at| args[*at as usize]);
    let mut words: Vec<&[u8]> = vec![count.as_bytes()];
    words.extend(keys);
    words.extend([checks.as_bytes(), written.as_bytes()]);
    if !bitfield::is_wide(op, args) {
        words.extend(args);
        return Some(ScriptRequest::new(&SCRIPT, access == READ_ONLY, &words, Command::Last(args.len())));
    }
    let Some(steps) = bitfield::words(op, args) else {
        words.push(ROUNDED_BITFIELD.text().as_bytes());
        words.extend(args);
        return Some(ScriptRequest::new(&UNSURE_BITFIELD, access == READ_ONLY, &words, Command::Last(args.len())));
    };
    words.extend(steps.iter().map(Vec::as_slice));
    (steps.len() <= MOST_SCRIPT_ARGUMENTS)
        .then(|| ScriptRequest::new(&BITFIELD, access == READ_ONLY, &words, Command::Other(request_of(args))))
}

fn request_of(args: &[&[u8]]) -> Bytes {
    let mut out = Vec::new();
    build::request(&mut out, args.iter().copied());
    out.into()
}

/// A SORT that reads strings of other keys: those that must not be envelopes.
pub(super) struct Check<'a> {
    words: Vec<&'a [u8]>,
}

/// The checks before a SORT or SORT_RO: on the strings that it would store, and on those that it would compare as text. Mostly
/// there are none.
pub(super) fn sort_checks<'a>(args: &[&'a [u8]]) -> SmallVec<[Check<'a>; 2]> {
    let mut checks = SmallVec::new();
    let options = || sort_options(args);
    let check = |options: Vec<&'a [u8]>| Check { words: [&args[..2], &options].concat() };
    // Elements of the list itself, and fields of hashes, are never compressed, so they may look like envelopes.
    if options().any(|option| option.stores()) && options().any(|option| option.gets_a_string()) {
        let kept = options().filter(|option| !option.stores() && (!option.gets() || option.gets_a_string()));
        checks.push(check(kept.flat_map(|option| option.words).copied().collect()));
    }
    // A value that Redis parses as a number is never compressed.
    if options().any(|option| option.is_alpha()) && options().any(|option| option.is_by_a_string()) {
        let weights = options().filter(SortOption::is_by_a_string).flat_map(|option| [&b"GET"[..], option.words[1]]);
        checks.push(check([&b"BY"[..], b"nosort"].into_iter().chain(weights).collect()));
    }
    checks
}

/// The request to send in place of a SORT that needs checks. `None` if there are too many arguments.
pub(super) fn sort_request(
    args: &[&[u8]],
    keys: &[u32],
    checks: &[Check<'_>],
    access: Access,
) -> Option<ScriptRequest> {
    if args.len() > MOST_SCRIPT_ARGUMENTS {
        return None;
    }
    let numbers: SmallVec<[String; 2]> = checks.iter().map(|check| check.words.len().to_string()).collect();
    let (key_count, look_count) = (keys.len().to_string(), checks.len().to_string());
    let mut words = vec![key_count.as_bytes()];
    words.extend(keys.iter().map(|at| args[*at as usize]));
    words.push(look_count.as_bytes());
    for (check, number) in checks.iter().zip(&numbers) {
        words.push(number.as_bytes());
        words.extend(&check.words);
    }
    words.extend(args);
    Some(ScriptRequest::new(&SORT, access == READ_ONLY, &words, Command::Last(args.len())))
}

#[cfg(test)]
mod tests {
    use super::sort_checks;

    #[test]
    fn sort_is_checked_where_it_copies_or_compares_strings() {
        let cases: [(&str, &[&str]); 9] = [
            ("SORT l", &[]),
            ("SORT l ALPHA BY h*->f GET w* GET #", &[]),
            ("SORT l BY w* GET h*->f STORE d", &[]),
            ("SORT l BY STORE GET STORE GET w* LIMIT STORE d STORE", &[]),
            ("SORT l GET w* STORE d", &["SORT l GET w*"]),
            ("sort l store d get # Get w* GET h*->f limit 0 2 DESC", &["sort l Get w* limit 0 2 DESC"]),
            ("SORT l WHAT GET w* STORE d", &["SORT l WHAT GET w*"]),
            ("SORT_RO l BY w* LIMIT 0 1 alpha GET #", &["SORT_RO l BY nosort GET w*"]),
            (
                "SORT l BY v* BY w* GET x* ALPHA STORE d",
                &["SORT l BY v* BY w* GET x* ALPHA", "SORT l BY nosort GET v* GET w*"],
            ),
        ];
        for (line, expected) in cases {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let checks = sort_checks(&args);
            let got: Vec<String> =
                checks.iter().map(|check| String::from_utf8_lossy(&check.words.join(&b' ')).into_owned()).collect();
            assert_eq!(got, expected, "{line}");
        }
    }
}
