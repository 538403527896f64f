//! A call of a command in the text of a script.

/// A call of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scripts) struct Call {
    /// The command's name and its arguments, as far as they are known.
    pub arguments: Box<[Argument]>,
    /// The last argument may expand to none or several (`unpack(ARGV)`, `...`).
    pub open: bool,
}

/// What is known of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scripts) enum Argument {
    /// This literal text.
    Text(Box<[u8]>),
    /// A key that the caller has declared: `KEYS[…]`.
    Key,
    /// All declared keys: `unpack(KEYS)` as the last argument.
    Keys,
    /// Unknown.
    Any,
}
