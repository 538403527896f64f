//! Which parts of a reply are values, which may be compressed. Nothing else of a reply is opened, whatever it looks like.

/// Bits of the lower half of an integer that a script reads in two ([`ReplyShape::Halves`]).
pub(crate) const LOW_BITS: u64 = 32;

/// What of a reply is a value, which may be compressed. Nothing else is opened, whatever it looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyShape {
    Nothing,
    /// It is a value, or each of its elements is.
    Values,
    /// Its elements are rows of so many columns (SORT … GET): which of these are values.
    Columns(Box<[bool]>),
    /// No value; but a script made an array of what is a map (LCS … IDX in RESP3).
    Map,
    /// No value; but a script answered with integers in two halves (BITFIELD).
    Halves,
    /// Names of channels. Shortstop's own are left out (PUBSUB CHANNELS).
    Channels,
}
