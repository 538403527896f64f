//! What a script may write: the verdict that the other files of this module share.

use std::fmt;

/// What a script may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// No key.
    Nothing,
    /// Only the keys that it declares.
    Declared,
    /// Any key. Contains the reason, for the log.
    Anything(&'static str),
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reach::Nothing => "it writes nothing",
            Reach::Declared => "it writes the keys that it declares",
            Reach::Anything(why) => why,
        })
    }
}
