//! Values on their way to Redis: which arguments are values, and how they are compressed.

use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::codec::{self, CompressOptions};
use crate::command::Verb;
use crate::errors::{self, OwnError};
use crate::exchange::write_guard::WriteGuard;
use crate::metrics::outcome::Skipped;
use crate::proxy::request::{Replacements, Request};
use crate::resp::Args;
use crate::rules::CompressRule;

/// The result of offloaded compression. `None` if it panicked.
pub(super) type Outcome = Option<Compressed>;

/// The values of a request after compression.
#[derive(Default)]
pub(super) struct Compressed {
    /// Those that are compressed.
    pub(super) replacements: Replacements,
    /// Those that a rule compresses.
    pub(super) tried: SmallVec<[Tried; 1]>,
}

/// A value that a rule compresses.
pub(super) struct Tried {
    /// Its position.
    pub(super) at: usize,
    /// How long it took.
    pub(super) took: Duration,
    /// Why it stays as it is. `None`: it does not.
    pub(super) skipped: Option<Skipped>,
}

/// An argument to compress: its position, and how.
type Candidate = (usize, Option<CompressOptions>);

/// The values of a request that are worth compressing.
#[derive(Default)]
pub(super) struct Candidates {
    places: SmallVec<[Candidate; 1]>,
    /// Total size of the values.
    pub(super) bytes: usize,
    /// Maximum memory of a compressor for any of the values.
    pub(super) memory: usize,
    /// Why the values must not be stored.
    pub(super) refused: Option<OwnError>,
}

impl Candidates {
    /// Looks at one more value. `rule` says how the key's values are compressed, `None` not to compress them. `most`: the largest size
    /// that Shortstop can decompress again.
    pub(super) fn look(&mut self, place: usize, value: &[u8], rule: Option<&CompressRule>, most: usize) {
        let how = rule.filter(|rule| (rule.min_size..=most).contains(&value.len())).map(|rule| CompressOptions {
            codec: rule.codec,
            level: rule.level,
            min_size: rule.min_size,
            min_saving: rule.min_saving,
        });
        // A client's value that looks like an envelope is always compressed, whatever the rule says.
        let looks_compressed = codec::is_compressed(value);
        if looks_compressed && value.len() > most {
            self.refused = Some(errors::too_long_with_mark(value.len(), most));
        }
        if how.is_some() || looks_compressed {
            self.memory = self.memory.max(how.map_or(0, |how| how.memory(value.len())));
            self.places.push((place, how));
            self.bytes += value.len();
        }
    }
}

/// A request whose values are being compressed on another thread.
pub(super) struct Offloaded {
    pub(super) raw: Bytes,
    pub(super) ranges: Args,
    /// What it may change.
    pub(super) guard: WriteGuard,
}

impl Offloaded {
    pub(super) fn request(&self) -> Request<'_> {
        Request { raw: &self.raw, ranges: &self.ranges, owned: Some(&self.raw) }
    }
}

/// Whether a SET compares the stored string with an argument or with a digest (`IFEQ` and its variants, Valkey 8.1 and Redis 8.4).
/// If the stored string is compressed, the comparison would give the wrong result.
#[inline]
pub(super) fn compares(args: &[&[u8]]) -> bool {
    const WORDS: [&[u8]; 4] = [b"ifeq", b"ifne", b"ifdeq", b"ifdne"];
    // A condition is at least two arguments: its name and its operand.
    args.len() > 4 && args[3..].iter().any(|arg| WORDS.iter().any(|word| arg.eq_ignore_ascii_case(word)))
}

/// The position of a key's value in a command that writes values.
#[inline]
pub(super) fn value_at(verb: Verb, key_at: usize) -> usize {
    // SETEX key seconds value; all others: key value.
    key_at + if matches!(verb, Verb::SetEx | Verb::PSetEx) { 2 } else { 1 }
}

/// Compresses the candidates. `args` are the arguments of the request that contains the candidates.
#[inline]
pub(super) fn compress(raw: &[u8], args: &Args, candidates: &Candidates) -> Compressed {
    let mut compressed = Compressed::default();
    for (at, how) in &candidates.places {
        let value = &raw[args[*at].clone()];
        let began = how.map(|_| Instant::now());
        let envelope = codec::compress(value, how.as_ref());
        if let Some(began) = began {
            let why = || if codec::stays_plain(value) { Skipped::Number } else { Skipped::NoSaving };
            let skipped = envelope.is_none().then(why);
            compressed.tried.push(Tried { at: *at, took: began.elapsed(), skipped });
        }
        compressed.replacements.extend(envelope.map(|envelope| (*at, envelope)));
    }
    compressed
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
    use super::{value_at, writes_values};
    use crate::command::{Keys, Table};

    #[test]
    fn positions_of_values() {
        let table = Table::builtin();
        for (line, expected) in [
            ("SET k v EX 10 NX", &["v"][..]),
            ("SETNX k v", &["v"]),
            ("GETSET k v", &["v"]),
            ("SETEX k 10 v", &["v"]),
            ("PSETEX k 10 v", &["v"]),
            ("MSET k v l w m x", &["v", "w", "x"]),
            ("MSETNX k v l w", &["v", "w"]),
        ] {
            let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
            let row = table.resolve(&args);
            let mut keys = smallvec::SmallVec::new();
            assert!(writes_values(row.verb, &args) && row.keys(&args, &mut keys) == Keys::Known, "{line}");
            let values: Vec<&[u8]> = keys.iter().map(|at| args[value_at(row.verb, *at as usize)]).collect();
            assert_eq!(values, expected.iter().map(|value| value.as_bytes()).collect::<Vec<_>>(), "{line}");
        }
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
