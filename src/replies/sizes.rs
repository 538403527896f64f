//! The sizes of values in replies.

use crate::resp::{Bulk, bulk_of};

/// Size of the value in a reply, or of the whole reply if it is no single value. 0: there is none.
pub(crate) fn value_size(reply: &[u8]) -> usize {
    match bulk_of(reply) {
        Bulk::Value(value) => value.len(),
        Bulk::Null => 0,
        _ if matches!(reply.first(), Some(b'-' | b'!')) => 0,
        _ => reply.len(),
    }
}
