//! Values on their way to Redis: which arguments are values, and how they are compressed.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{self, CompressOptions};
use crate::command::Verb;
use crate::errors::{self, OwnError};
use crate::proxy::request::{Replacements, Request};
use crate::resp::{Args, parse_int};
use crate::rules::CompressRule;
use crate::worker_state::policy::Policy;

/// The result of offloaded compression. `None` if it panicked.
pub(super) type Outcome = Option<(Replacements, Compressed)>;

/// An argument to compress: its position, and how.
type Candidate = (usize, Option<CompressOptions>);

/// The values of a request that are worth compressing.
pub(super) struct Candidates {
    places: SmallVec<[Candidate; 1]>,
    /// Total size of the values.
    pub(super) bytes: usize,
    /// Why the values must not be stored.
    pub(super) refused: Option<OwnError>,
}

/// A request whose values are being compressed on another thread.
pub(super) struct Offloaded {
    pub(super) raw: Bytes,
    pub(super) ranges: Args,
}

impl Offloaded {
    pub(super) fn request(&self) -> Request<'_> {
        Request { raw: &self.raw, ranges: &self.ranges, owned: Some(&self.raw) }
    }
}

/// What was compressed, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compressed {
    pub(super) values: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Whether a SET compares the stored string with an argument or with a digest (`IFEQ` and its variants, Valkey 8.1 and Redis 8.4).
/// If the stored string is compressed, the comparison would give the wrong result.
#[inline]
pub(super) fn compares(args: &[&[u8]]) -> bool {
    const WORDS: [&[u8]; 4] = [b"ifeq", b"ifne", b"ifdeq", b"ifdne"];
    // A condition is at least two arguments: its name and its operand.
    args.len() > 4 && args[3..].iter().any(|arg| WORDS.iter().any(|word| arg.eq_ignore_ascii_case(word)))
}

/// The positions of keys and values in a command that writes values. `count` is the number of pairs, for commands that state it.
fn pairs(verb: Verb, argc: usize, count: usize) -> impl Iterator<Item = (usize, usize)> {
    let (key, value, last) = match verb {
        Verb::Set | Verb::SetNx | Verb::GetSet => (1, 2, 3),
        Verb::SetEx | Verb::PSetEx => (1, 3, 4),
        Verb::MSet | Verb::MSetNx => (1, 2, argc),
        Verb::MSetEx => (2, 3, count.saturating_mul(2).saturating_add(2)),
        _ => (1, 2, 0),
    };
    let (distance, last) = (value - key, last.min(argc));
    let mut next = value;
    // Not `step_by`, which divides, and most calls have one pair.
    std::iter::from_fn(move || {
        let value = next;
        next += 2;
        (value < last).then(|| (value - distance, value))
    })
}

/// Selects the values of a command that are to be compressed.
pub(super) fn candidates(verb: Verb, request: &Request<'_>, policy: &Policy) -> Candidates {
    let mut found = Candidates { places: SmallVec::new(), bytes: 0, refused: None };
    // Redis refuses an invalid count.
    let count = || parse_int(request.arg(1)).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let count = if verb == Verb::MSetEx { count() } else { 0 };
    for (key, value) in pairs(verb, request.argc(), count) {
        let bytes = request.arg(value);
        let may_be = policy.compresses_from.is_some_and(|least| bytes.len() >= least);
        let rule = if may_be { policy.rules.of(request.arg(key)).compress } else { None };
        // A value that Shortstop could not decompress again is not compressed.
        let sizes = |rule: &CompressRule| rule.min_size..=policy.limits.max_inflated;
        let how = rule.filter(|rule| sizes(rule).contains(&bytes.len())).map(|rule| CompressOptions {
            level: rule.level,
            min_size: rule.min_size,
            min_saving: rule.min_saving,
        });
        // A client's value that looks like an envelope is always compressed, whatever the rule says.
        let looks_compressed = codec::is_compressed(bytes);
        if looks_compressed && bytes.len() > policy.limits.max_inflated {
            found.refused = Some(errors::too_long_with_mark(bytes.len(), policy.limits.max_inflated));
        }
        if how.is_some() || looks_compressed {
            found.places.push((value, how));
            found.bytes += bytes.len();
        }
    }
    found
}

/// Compresses the candidates. `args` are the arguments of the request that contains the candidates.
#[inline]
pub(super) fn compress(raw: &[u8], args: &Args, candidates: &Candidates) -> (Replacements, Compressed) {
    let mut replacements = Replacements::new();
    let mut compressed = Compressed::default();
    for (at, how) in &candidates.places {
        let value = &raw[args[*at].clone()];
        if let Some(envelope) = codec::compress(value, how.as_ref()) {
            compressed.values += 1;
            compressed.bytes_in += value.len() as u64;
            compressed.bytes_out += envelope.len() as u64;
            replacements.push((*at, envelope));
        }
    }
    (replacements, compressed)
}

/// Whether compressing the values is all that a command needs on its way to Redis.
pub(super) fn writes_values(verb: Verb, args: &[&[u8]]) -> bool {
    match verb {
        Verb::SetEx | Verb::PSetEx | Verb::SetNx | Verb::MSet | Verb::MSetNx | Verb::MSetEx | Verb::GetSet => true,
        Verb::Set => !compares(args),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::pairs;
    use crate::command::Verb;

    #[test]
    fn positions_of_values() {
        let all = |verb, argc| pairs(verb, argc, 2).collect::<Vec<_>>();
        assert_eq!(all(Verb::Set, 7), [(1, 2)]);
        assert_eq!(all(Verb::SetEx, 4), [(1, 3)]);
        assert_eq!(all(Verb::MSet, 7), [(1, 2), (3, 4), (5, 6)]);
        assert_eq!(all(Verb::MSetEx, 8), [(2, 3), (4, 5)]);
        assert_eq!(all(Verb::MSetEx, 5), [(2, 3)]);
        assert_eq!(all(Verb::Get, 2), []);
    }

    #[test]
    fn set_conditions_that_compare_the_stored_string() {
        let compares = |line: &str| super::compares(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        for line in ["SET k v IFEQ w", "SET k v GET ifne w", "SET k v EX 10 IfDeq 0123456789abcdef"] {
            assert!(compares(line), "{line}");
        }
        for line in ["SET k v", "SET k v EX 10 NX", "SET k IFEQ NX GET", "SET IFEQ IFNE IFEQ"] {
            assert!(!compares(line), "{line}");
        }
    }
}
