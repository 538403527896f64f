//! Commands that look into strings (APPEND, GETRANGE, SETBIT, …) or copy them (SORT … GET … STORE) while values may be sealed:
//! they are run by a script that first sees, atomically, that none of their strings is an envelope, and refuses if one is.

use crate::envelope::MARK;
use crate::resp::build;

use super::opening::sort_options;

/// KEYS: those to look at first, then the others. ARGV: the mark, how many to look at, the command.
const SCRIPT: &[u8] = b"for i = 1, tonumber(ARGV[2]) do \
if redis.pcall('GETRANGE', KEYS[i], 0, #ARGV[1] - 1) == ARGV[1] then \
return redis.error_reply('ERR shortstop: the value at this key is stored compressed, and this command looks into the stored \
bytes; GET and SET it, or give its keys a rule with compress: false and SET it again') \
end end \
return redis.pcall(unpack(ARGV, 3))";

/// KEYS: SORT's. ARGV: the mark, how many words the look has, the look, the command. A look that fails leaves it to the command to
/// say why.
const SORT_SCRIPT: &[u8] = b"local words = tonumber(ARGV[2]) \
local found = redis.pcall(unpack(ARGV, 3, words + 2)) \
for i = 1, found.err and 0 or #found do \
if found[i] and string.sub(found[i], 1, #ARGV[1]) == ARGV[1] then \
return redis.error_reply('ERR shortstop: a value that SORT GET finds is stored compressed, and STORE would keep it so; use SORT GET \
and store its reply') \
end end \
return redis.pcall(unpack(ARGV, words + 3))";

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
    Some(built(&words))
}

/// The request to send in the place of a `SORT … STORE` whose `GET`s name strings. `None`: too many arguments.
pub(super) fn sort_request(args: &[&[u8]], keys: &[u32]) -> Option<Vec<u8>> {
    if args.len() > MOST_ARGUMENTS {
        return None;
    }
    let look = sort_look(args);
    let (count, looks) = (keys.len().to_string(), look.len().to_string());
    let head = [&b"EVAL"[..], SORT_SCRIPT, count.as_bytes()];
    let keys = keys.iter().map(|at| args[*at as usize]);
    let arguments = [&MARK[..], looks.as_bytes()];
    let words: Vec<&[u8]> =
        head.into_iter().chain(keys).chain(arguments).chain(look).chain(args.iter().copied()).collect();
    Some(built(&words))
}

/// Whether a SORT does.
pub(super) fn stores(args: &[&[u8]]) -> bool {
    sort_options(args).any(|option| option.stores())
}

/// The same SORT without `STORE`, and with those `GET`s alone that name strings: an element may look as it likes.
fn sort_look<'a>(args: &[&'a [u8]]) -> Vec<&'a [u8]> {
    let options = sort_options(args).filter(|option| !option.stores() && !option.gets_no_string());
    args[..2].iter().chain(options.flat_map(|option| option.words)).copied().collect()
}

fn built(words: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::new();
    build::request(&mut out, words.iter().copied());
    out
}

#[cfg(test)]
mod tests {
    use super::sort_look;

    #[test]
    fn a_look_stores_nothing_and_gets_strings_only() {
        for (line, expected) in [
            ("SORT l GET w* STORE d", "SORT l GET w*"),
            ("sort l store d get # Get w* GET h*->f limit 0 2 DESC", "sort l Get w* limit 0 2 DESC"),
            (
                "SORT l BY STORE LIMIT GET STORE GET v* STORE d ALPHA STORE e",
                "SORT l BY STORE LIMIT GET STORE GET v* ALPHA",
            ),
            ("SORT l WHAT GET w* STORE", "SORT l WHAT GET w* STORE"),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            assert_eq!(String::from_utf8_lossy(&sort_look(&args).join(&b' ')), expected);
        }
    }
}
