//! Values on their way to Redis: which arguments they are, and how they are sealed.

use bytes::Bytes;
use smallvec::SmallVec;

use crate::command::Verb;
use crate::envelope::{self, SealHow};
use crate::resp::Args;
use crate::rules::CompressRule;

use super::context::Policy;
use super::request::{Replacements, Request};

/// A value that is to be sealed: its place, and how.
type Place = (usize, Option<SealHow>);

/// The values of a request that are worth a try.
pub(super) struct Candidates {
    places: SmallVec<[Place; 1]>,
    /// Bytes of all of them.
    pub(super) bytes: usize,
}

/// A request that waits for its values to be sealed elsewhere.
pub(super) struct Parked {
    pub(super) raw: Bytes,
    pub(super) ranges: Args,
}

/// What sealing did, for the counters.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sealed {
    pub(super) values: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Where keys and values are in a command that writes values.
fn pairs(verb: Verb, argc: usize) -> impl Iterator<Item = (usize, usize)> {
    let (key, value, last) = match verb {
        Verb::Set | Verb::SetNx | Verb::GetSet => (1, 2, 3),
        Verb::SetEx | Verb::PSetEx => (1, 3, 4),
        Verb::MSet | Verb::MSetNx => (1, 2, argc),
        _ => (1, 2, 0),
    };
    let distance = value - key;
    (value..last.min(argc)).step_by(2).map(move |value| (value - distance, value))
}

/// Looks at the values of a command that writes values.
pub(super) fn candidates(verb: Verb, request: &Request<'_>, policy: &Policy) -> Candidates {
    let mut found = Candidates { places: SmallVec::new(), bytes: 0 };
    for (key, value) in pairs(verb, request.argc()) {
        let bytes = request.arg(value);
        let rule = policy.rules.of(request.arg(key)).compress;
        // What could not be opened again is not sealed.
        let sizes = |rule: &CompressRule| rule.min_size..=policy.limits.max_inflated;
        let how = rule.filter(|rule| sizes(rule).contains(&bytes.len())).map(|rule| SealHow {
            level: rule.level,
            min_size: rule.min_size,
            min_saving: rule.min_saving,
        });
        // A client's value that looks like an envelope is sealed whatever the rule says.
        if how.is_some() || envelope::is_sealed(bytes) {
            found.places.push((value, how));
            found.bytes += bytes.len();
        }
    }
    found
}

/// Seals; `args` are those of the request that the candidates were found in.
pub(super) fn seal(raw: &[u8], args: &Args, candidates: &Candidates) -> (Replacements, Sealed) {
    let mut replacements = Replacements::new();
    let mut sealed = Sealed::default();
    for (at, how) in &candidates.places {
        let value = &raw[args[*at].clone()];
        if let Some(envelope) = envelope::seal(value, how.as_ref()) {
            sealed.values += 1;
            sealed.bytes_in += value.len() as u64;
            sealed.bytes_out += envelope.len() as u64;
            replacements.push((*at, envelope));
        }
    }
    (replacements, sealed)
}

#[cfg(test)]
mod tests {
    use super::pairs;
    use crate::command::Verb;

    #[test]
    fn where_values_are() {
        let all = |verb, argc| pairs(verb, argc).collect::<Vec<_>>();
        assert_eq!(all(Verb::Set, 7), [(1, 2)]);
        assert_eq!(all(Verb::SetEx, 4), [(1, 3)]);
        assert_eq!(all(Verb::MSet, 7), [(1, 2), (3, 4), (5, 6)]);
        assert_eq!(all(Verb::Get, 2), []);
    }
}
