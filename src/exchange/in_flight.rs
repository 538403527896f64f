//! The in-flight mask of a client: a bit for each key of what has not been answered. A key whose bit is set is not served from L1, so
//! that a reader never overtakes what it asked before.

use crate::near_cache::KeyId;

/// The bit of a key.
#[inline]
pub(crate) fn bit(id: KeyId) -> u64 {
    1 << (id.bits() >> 58)
}
