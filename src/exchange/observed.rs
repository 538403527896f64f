//! A read that is in the sample and only observed: what L1 would do with its reply.

use std::time::Duration;

use crate::metrics::rules::RulePlace;
use crate::reads::Absent;

/// What L1 would do with a reply.
pub struct Observed {
    /// The rule of the key.
    pub(crate) place: RulePlace,
    /// For how long it would keep the reply. `None`: the key was not requested often enough.
    pub(crate) life: Option<Duration>,
    /// The same if the key does not exist.
    pub(crate) negative_life: Duration,
    /// The largest value that it would keep.
    pub(crate) max_value: usize,
    /// The reply of a key that does not exist.
    pub(crate) absent: Absent,
    /// Bytes that an entry would keep of the question.
    pub(crate) question: usize,
}
