//! A call of a command, as a script's text shows it.

/// A call of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scripts) struct Call {
    /// The command's name and its arguments, as many as are written out.
    pub arguments: Box<[Argument]>,
    /// The last one may stand for none or several (`unpack(ARGV)`, `...`).
    pub open: bool,
}

/// What is known of an argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::scripts) enum Argument {
    /// This text.
    Text(Box<[u8]>),
    /// A key that the caller has declared: `KEYS[…]`.
    Key,
    /// All of them: `unpack(KEYS)`, as the last argument.
    Keys,
    /// Nothing.
    Any,
}
