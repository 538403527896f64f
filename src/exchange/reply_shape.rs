//! Which parts of a reply are values and may be compressed. No other part is decoded, whatever it looks like.

use crate::strings::Look;

/// Bits of the lower half of an integer that a script reads in two halves ([`ReplyShape::Halves`]).
pub(crate) const LOW_BITS: u64 = 32;

/// Which parts of a reply are values and may be compressed. No other part is decoded, whatever it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyShape {
    Nothing,
    /// The reply is a value, or each of its elements is one.
    Values,
    /// The elements are rows with this many columns (SORT … GET). The flags say which columns are values.
    Columns(Box<[bool]>),
    /// No values. A script returned a map as an array (LCS … IDX in RESP3).
    Map,
    /// No values. A script returned integers in two halves (BITFIELD).
    Halves,
    /// The whole value, from which the command's own reply is made.
    Look(Box<Look>),
    /// Channel names. Shortstop's own are left out (PUBSUB CHANNELS).
    Channels,
}
