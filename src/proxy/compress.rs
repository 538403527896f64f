//! Values on their way to Redis: which arguments they are, and how they are compressed.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{self, CompressOptions};
use crate::command::Verb;
use crate::errors::{self, OwnError};
use crate::proxy::request::{Replacements, Request};
use crate::resp::{Args, parse_int};
use crate::rules::CompressRule;
use crate::worker_state::policy::Policy;

/// What came of compressing elsewhere; none: it panicked.
pub(super) type Outcome = Option<(Replacements, Compressed)>;

/// A value that is to be compressed: its place, and how.
type Candidate = (usize, Option<CompressOptions>);

/// The values of a request that are worth a try.
pub(super) struct Candidates {
    places: SmallVec<[Candidate; 1]>,
    /// Bytes of all of them.
    pub(super) bytes: usize,
    /// Why they must not be stored.
    pub(super) refused: Option<OwnError>,
}

/// A request that waits for its values to be compressed elsewhere.
pub(super) struct Offloaded {
    pub(super) raw: Bytes,
    pub(super) ranges: Args,
}

impl Offloaded {
    pub(super) fn request(&self) -> Request<'_> {
        Request { raw: &self.raw, ranges: &self.ranges, owned: Some(&self.raw) }
    }
}

/// What compressing did, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Compressed {
    pub(super) values: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Whether a SET compares the stored string with a word of its own, or with a digest of one: `IFEQ` of Valkey 8.1 and Redis 8.4
/// and its kin. With what is stored compressed that would be wrong.
#[inline]
pub(super) fn compares(args: &[&[u8]]) -> bool {
    const WORDS: [&[u8]; 4] = [b"ifeq", b"ifne", b"ifdeq", b"ifdne"];
    // No condition is shorter than its word and what it compares with.
    args.len() > 4 && args[3..].iter().any(|arg| WORDS.iter().any(|word| arg.eq_ignore_ascii_case(word)))
}

/// Where keys and values are in a command that writes values; `count`: how many there are, where it says so.
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

/// Looks at the values of a command that writes values.
pub(super) fn candidates(verb: Verb, request: &Request<'_>, policy: &Policy) -> Candidates {
    let mut found = Candidates { places: SmallVec::new(), bytes: 0, refused: None };
    // A count that is none Redis refuses.
    let count = || parse_int(request.arg(1)).and_then(|count| usize::try_from(count).ok()).unwrap_or(0);
    let count = if verb == Verb::MSetEx { count() } else { 0 };
    for (key, value) in pairs(verb, request.argc(), count) {
        let bytes = request.arg(value);
        let may_be = policy.compresses_from.is_some_and(|least| bytes.len() >= least);
        let rule = if may_be { policy.rules.of(request.arg(key)).compress } else { None };
        // What could not be opened again is not compressed.
        let sizes = |rule: &CompressRule| rule.min_size..=policy.limits.max_inflated;
        let how = rule.filter(|rule| sizes(rule).contains(&bytes.len())).map(|rule| CompressOptions {
            level: rule.level,
            min_size: rule.min_size,
            min_saving: rule.min_saving,
        });
        // A client's value that looks like an envelope is compressed whatever the rule says.
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

/// Compresses; `args` are those of the request that the candidates were found in.
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

/// Whether the command's values are compressed on their way, and that is all there is to see to.
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
    fn where_values_are() {
        let all = |verb, argc| pairs(verb, argc, 2).collect::<Vec<_>>();
        assert_eq!(all(Verb::Set, 7), [(1, 2)]);
        assert_eq!(all(Verb::SetEx, 4), [(1, 3)]);
        assert_eq!(all(Verb::MSet, 7), [(1, 2), (3, 4), (5, 6)]);
        assert_eq!(all(Verb::MSetEx, 8), [(2, 3), (4, 5)]);
        assert_eq!(all(Verb::MSetEx, 5), [(2, 3)]);
        assert_eq!(all(Verb::Get, 2), []);
    }

    #[test]
    fn what_compares() {
        let compares = |line: &str| super::compares(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        for line in ["SET k v IFEQ w", "SET k v GET ifne w", "SET k v EX 10 IfDeq 0123456789abcdef"] {
            assert!(compares(line), "{line}");
        }
        for line in ["SET k v", "SET k v EX 10 NX", "SET k IFEQ NX GET", "SET IFEQ IFNE IFEQ"] {
            assert!(!compares(line), "{line}");
        }
    }
}
