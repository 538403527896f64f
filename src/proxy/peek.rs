//! Commands that look into a string (APPEND, GETRANGE, SETBIT, …) while values may be sealed: they are run by a script that
//! first sees, atomically, that none of their strings is an envelope, and refuses if one is.

use crate::envelope::MARK;
use crate::resp::build;

/// KEYS: those to look at first, then the others. ARGV: the mark, how many to look at, the command.
const SCRIPT: &[u8] = b"for i = 1, tonumber(ARGV[2]) do \
if redis.pcall('GETRANGE', KEYS[i], 0, #ARGV[1] - 1) == ARGV[1] then \
return redis.error_reply('ERR shortstop: the value at this key is stored compressed, and this command looks into the stored \
bytes; GET and SET it, or give its keys a rule with compress: false and SET it again') \
end end \
return redis.pcall(unpack(ARGV, 3))";

/// Lua puts no more than this on its stack.
const MOST_ARGUMENTS: usize = 7000;

/// The request to send in the place of `args`; `keys` are the places of its keys. `None`: too many arguments.
pub(super) fn request(args: &[&[u8]], keys: &[u32]) -> Option<Vec<u8>> {
    if args.len() > MOST_ARGUMENTS {
        return None;
    }
    // BITOP's first key is only written to.
    let unread = usize::from(args[0].eq_ignore_ascii_case(b"bitop")).min(keys.len());
    let (written, read) = keys.split_at(unread);
    let (count, looked_at) = (keys.len().to_string(), read.len().to_string());
    let head = [&b"EVAL"[..], SCRIPT, count.as_bytes()];
    let keys = read.iter().chain(written).map(|at| args[*at as usize]);
    let words: Vec<&[u8]> =
        head.into_iter().chain(keys).chain([&MARK[..], looked_at.as_bytes()]).chain(args.iter().copied()).collect();
    let mut out = Vec::new();
    build::request(&mut out, words.into_iter());
    Some(out)
}
